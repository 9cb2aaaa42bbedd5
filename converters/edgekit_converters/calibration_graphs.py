"""The graphs that `calibrate` times, each of which consists of one kind of work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

WIDTH: Final = 16
"""Features of the small graphs."""
CHAINED: Final = 32
"""Nodes of `chain`."""
PRODUCT_ROWS: Final = 64
PRODUCT_FLOPS: Final = 2 * PRODUCT_ROWS * 256 * 256
STREAMED: Final = 1 << 20
"""Elements: 4 MiB, more than a core's own caches hold."""
STREAM_NODES: Final = 4
TREES: Final = 100
DEPTH: Final = 8
FOREST_STEPS: Final = TREES * (DEPTH + 1)
"""Comparisons on the way down, and one leaf weight, of each tree."""


def identity() -> bytes:
    """A graph of one node that does nothing: what remains is the call."""
    return _model([make_node("Identity", ["x"], ["y"])], [1, WIDTH])


def chain() -> bytes:
    """Small nodes of the kinds that converted models have, one after the other; none can be joined with the next."""
    square = np.eye(WIDTH, dtype=np.float32)
    turned = np.arange(WIDTH, dtype=np.int64)[::-1].copy()
    kinds: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Softmax", [], {"axis": 1}),
        ("MatMul", ["square"], {}),
        ("Gather", ["turned"], {"axis": 1}),
        ("Sigmoid", [], {}),
        ("Normalizer", [], {"domain": "ai.onnx.ml", "norm": "L1"}),
        ("Add", ["row"], {}),
        ("Scaler", [], {"domain": "ai.onnx.ml", "offset": [0.1] * WIDTH, "scale": [1.0] * WIDTH}),
        ("Where", ["row"], {}),
    ]
    nodes: list[NodeProto] = []
    at = "x"
    for index in range(CHAINED):
        kind, constants, attributes = kinds[index % len(kinds)]
        to = "y" if index == CHAINED - 1 else f"t{index}"
        inputs = ["mask", at, *constants] if kind == "Where" else [at, *constants]
        nodes.append(make_node(kind, inputs, [to], **attributes))
        at = to
    row = np.full((1, WIDTH), 0.5, dtype=np.float32)
    mask = np.arange(WIDTH)[None, :] % 2 == 0
    return _model(nodes, [1, WIDTH], {"square": square, "turned": turned, "row": row, "mask": mask})


def product() -> bytes:
    """One matrix product whose matrix stays in the cache."""
    matrix = np.ones((256, 256), dtype=np.float32)
    return _model([make_node("MatMul", ["x", "w"], ["y"])], [PRODUCT_ROWS, 256], {"w": matrix})


def stream() -> bytes:
    """Element-wise nodes over more than the caches hold."""
    names = ["x", *(f"t{index}" for index in range(STREAM_NODES - 1)), "y"]
    kinds = ("Abs", "Sigmoid")
    nodes = [make_node(kinds[index % 2], [at], [to]) for index, (at, to) in enumerate(pairwise(names))]
    return _model(nodes, [1, STREAMED])


def forest() -> bytes:
    """Complete trees with random features and thresholds, one weight at each leaf."""
    rng = np.random.default_rng(0)
    inner, size = 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1
    numbers = np.arange(size)
    is_inner = numbers < inner
    modes = ["BRANCH_LEQ" if branch else "LEAF" for branch in is_inner]
    leaves = numbers[~is_inner]
    node = make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=np.repeat(np.arange(TREES), size).tolist(),
        nodes_nodeids=np.tile(numbers, TREES).tolist(),
        nodes_featureids=rng.integers(0, WIDTH, TREES * size).tolist(),
        nodes_values=rng.random(TREES * size).tolist(),
        nodes_modes=modes * TREES,
        nodes_truenodeids=np.tile(np.where(is_inner, 2 * numbers + 1, 0), TREES).tolist(),
        nodes_falsenodeids=np.tile(np.where(is_inner, 2 * numbers + 2, 0), TREES).tolist(),
        target_treeids=np.repeat(np.arange(TREES), len(leaves)).tolist(),
        target_nodeids=np.tile(leaves, TREES).tolist(),
        target_ids=[0] * (TREES * len(leaves)),
        target_weights=rng.random(TREES * len(leaves)).tolist(),
    )
    return _model([node], [1, WIDTH])


def _model(nodes: Sequence[NodeProto], shape: list[int], constants: dict[str, npt.NDArray[Any]] | None = None) -> bytes:
    graph = make_graph(
        list(nodes),
        "calibration",
        [make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    # Old opsets: every onnxruntime that the project supports reads them.
    opsets = [make_opsetid("", 17), make_opsetid("ai.onnx.ml", 3)]
    model: onnx.ModelProto = make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())
