"""Small ONNX models, as exporters write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def tensor(name: str, shape: Sequence[Any], element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, list(shape))


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[Any]] | None = None,
    *,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 18,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """`x` [n, 4] to `y` [n, ?], where nothing else is said."""
    made = helper.make_graph(
        list(nodes),
        "g",
        list(inputs) or [tensor("x", ["n", 4])],
        list(outputs) or [tensor("y", [None, None])],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8, functions=list(functions))


def linear(*behind: str, weights: NDArray[Any] = WEIGHTS, rows: Any = "n", opset: int = 18) -> onnx.ModelProto:
    """x @ weights, and one operator after another behind it."""
    names = ["x", *(f"step{number}" for number in range(len(behind))), "y"]
    nodes = [helper.make_node("MatMul", ["x", "W"], [names[1]])]
    nodes += [helper.make_node(kind, [names[at]], [names[at + 1]]) for at, kind in enumerate(behind, start=1)]
    return graph(nodes, {"W": weights}, inputs=[tensor("x", [rows, 4])], opset=opset)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
