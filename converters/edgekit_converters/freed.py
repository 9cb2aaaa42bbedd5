"""A file whose batch is fixed, made to take any number of rows: the constants of shapes that hold the batch are freed.

Exporters bake the batch of their example into the shapes of Reshape: [32, 784]. Such a number becomes 0 where shape
inference, with a name in the place of the batch, shows that the dimension there is the batch and that those before it
stay as they are: 0 copies the dimension, and so each row is reshaped as before. Elsewhere a first number that is a
multiple of the batch becomes -1, if all others are known: the same numbers in the same order, whatever their count.
Everything else stays as it is, and whoever calls this compares the answers.

Source: ONNX operator Reshape-14: "At most one dimension of the new shape can be -1. In this case, the value is inferred
from the size of the tensor and the remaining dimensions. A dimension could also be 0, in which case the actual
dimension value is unchanged".
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

Dims = list[int | str | None]

ROWS: Final = "edgekit_rows"
"""Stands for the batch in the shapes."""

ROUNDS_MAX: Final = 256
"""Shapes that are freed: each may make others known."""


def freed(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of a model that takes any number of rows, as far as its shapes go.

    Args:
        model: Complete and checked; its inputs have the first dimension `batch`.
        batch: Rows a call, 1 or more.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    for info in graph.output:
        info.type.tensor_type.ClearField("shape")
    known = {tensor.name: tensor for tensor in graph.initializer}
    for info in graph.input:
        dims = info.type.tensor_type.shape.dim
        if info.name not in known and dims and dims[0].dim_value == batch:
            dims[0].dim_param = ROWS
    known |= {
        node.output[0]: one.t
        for node in graph.node
        if node.op_type == "Constant"
        for one in node.attribute
        if one.name == "value"
    }
    asked = _depending(graph, known)
    for _ in range(ROUNDS_MAX):
        if not _freed_one(copy, batch, known, asked):
            break
    return copy


def _freed_one(model: onnx.ModelProto, batch: int, known: dict[str, onnx.TensorProto], asked: set[str]) -> bool:
    """Frees the first shape of which inference says how, or else the first that may be; whether there was one."""
    inferred = _shapes(model)
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "Reshape"
        and node.domain == ""
        and node.input[0] in asked
        and node.input[1] in known
        and not any(one.name == "allowzero" and one.i for one in node.attribute)
    ]
    shapes = [[int(size) for size in numpy_helper.to_array(known[node.input[1]])] for node in nodes]
    found = [_copied(shape, inferred.get(node.input[0]), batch) for node, shape in zip(nodes, shapes, strict=True)]
    if not any(found):
        found = [_counted(shape, batch) for shape in shapes]
    for node, shape in zip(nodes, found, strict=True):
        if shape:
            name = f"{node.output[0]}_edgekit_shape"
            known[name] = numpy_helper.from_array(np.array(shape, dtype=np.int64), name)
            model.graph.initializer.append(known[name])
            node.input[1] = name
            return True
    return False


def _copied(shape: list[int], given: Dims | None, batch: int) -> list[int]:
    """The shape with 0 for the batch; empty where it is not known to hold it."""
    for place, (size, dim) in enumerate(zip(shape, given or (), strict=False)):
        if size == batch and dim == ROWS:
            return [*shape[:place], 0, *shape[place + 1 :]]
        if size not in (0, dim):
            break
    return []


def _counted(shape: list[int], batch: int) -> list[int]:
    """The shape with -1 for a first number of batches; empty where another number is not known."""
    whole = all(size > 0 for size in shape) and len(shape) > 0 and shape[0] % batch == 0
    return [-1, *shape[1:]] if whole else []


def _depending(graph: onnx.GraphProto, known: dict[str, onnx.TensorProto]) -> set[str]:
    """The tensors that depend on an input."""
    found = {info.name for info in graph.input} - set(known)
    for node in graph.node:
        if found & set(node.input):
            found.update(node.output)
    return found


def _shapes(model: onnx.ModelProto) -> dict[str, Dims]:
    """Tensor -> its dimensions as far as inference knows them: a number, a name, or None."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        info.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in info.type.tensor_type.shape.dim
        ]
        for info in (*inferred.input, *inferred.value_info, *inferred.output)
        if info.type.tensor_type.HasField("shape")
    }
