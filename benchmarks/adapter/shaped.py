"""What stands in place of the matrix of probabilities: dictionaries, columns, sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import onnx
from onnx import TensorProto, helper

from edgekit_converters.graph import ML

PROBABILITIES: Final = "probabilities"


@dataclass(frozen=True, slots=True)
class Shape:
    """How the probabilities leave the graph."""

    kind: Literal["dictionaries", "columns", "sequence"]
    """ZipMap's sequence of dictionaries; one output for each class; a sequence of one matrix for each label."""
    classes: list[Any]
    """Of a sequence: those of each label."""
    named: bool = False
    """Of a sequence: the classes follow in another one."""


def shape(model: onnx.ModelProto, wanted: Shape) -> None:
    """Replaces the output `probabilities` [rows, classes], in place."""
    graph = model.graph
    place = next(index for index, info in enumerate(graph.output) if info.name == PROBABILITIES)
    element = graph.output[place].type.tensor_type.elem_type
    rest = list(graph.output[place + 1 :])
    del graph.output[place:]
    if wanted.kind == "dictionaries":
        rename(model, {"label": "output_label"})
        _dictionaries(model, wanted.classes, element)
    elif wanted.kind == "columns":
        rename(model, {"label": "output_label"})
        for part, name in zip(_split(model, [1] * len(wanted.classes)), wanted.classes, strict=True):
            name = f"{'s' if isinstance(name, str) else 'i'}{name}"
            flat = _constant(model, "flat", [-1])
            graph.node.append(helper.make_node("Reshape", [part, flat], [name]))
            graph.output.append(helper.make_tensor_value_info(name, element, [None]))
    else:
        parts = _split(model, [len(classes) for classes in wanted.classes])
        graph.node.append(helper.make_node("SequenceConstruct", parts, ["sequence"]))
        kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(element, [None, None]))
        graph.output.append(helper.make_value_info("sequence", kind))
        rename(model, {PROBABILITIES: "matrix", "sequence": PROBABILITIES})
        if wanted.named:
            _class_labels(model, wanted.classes)
    graph.output.extend(rest)
    onnx.checker.check_model(model)


def flatten(model: onnx.ModelProto, name: str, *, any_rank: bool) -> None:
    """Makes the input `name` [rows, 1] one of [rows], or of any rank, as it was declared; in place."""
    graph, column = model.graph, f"{name}_column"
    for node in graph.node:
        node.input[:] = [column if one == name else one for one in node.input]
    shape_ = helper.make_tensor(f"{name}_shape", TensorProto.INT64, [2], [-1, 1])
    graph.initializer.append(shape_)
    graph.node.insert(0, helper.make_node("Reshape", [name, shape_.name], [column]))
    info = next(one for one in graph.input if one.name == name)
    if any_rank:
        del info.type.tensor_type.shape.dim[:]  # onnxruntime takes any rank where none is declared
    else:
        del info.type.tensor_type.shape.dim[1:]
    onnx.checker.check_model(model)


def take_dictionary(model: onnx.ModelProto, name: str, keys: list[Any]) -> None:
    """Makes the input `name` [rows, keys] a map from those keys, one row a call; a key that it lacks is 0. In place."""
    graph, table = model.graph, f"{name}_table"
    for node in graph.node:
        node.input[:] = [table if one == name else one for one in node.input]
    texts = isinstance(keys[0], str)
    node = helper.make_node("DictVectorizer", [name], [table], domain=ML)
    node.attribute.append(helper.make_attribute("string_vocabulary" if texts else "int64_vocabulary", keys))
    graph.node.insert(0, node)
    place = next(index for index, one in enumerate(graph.input) if one.name == name)
    value = helper.make_tensor_type_proto(graph.input[place].type.tensor_type.elem_type, [1])
    kind = helper.make_map_type_proto(TensorProto.STRING if texts else TensorProto.INT64, value)
    graph.input[place].CopyFrom(helper.make_value_info(name, kind))
    _import_ml(model)
    onnx.checker.check_model(model)


def retype(model: onnx.ModelProto, name: str, element: int) -> None:
    """Casts the output `name` to another element type; in place."""
    info = next(one for one in model.graph.output if one.name == name)
    if info.type.tensor_type.elem_type == element:
        return
    own = f"{name}_as_computed"
    for node in model.graph.node:
        node.input[:] = [own if one == name else one for one in node.input]
        node.output[:] = [own if one == name else one for one in node.output]
    model.graph.node.append(helper.make_node("Cast", [own], [name], to=element))
    info.type.tensor_type.elem_type = element
    onnx.checker.check_model(model)


def without_argmax(model: onnx.ModelProto) -> None:
    """The place of the largest by TopK, where the first of equals comes first too; in place."""
    rename(
        model, {name: f"largest_{name[6:]}" for node in model.graph.node for name in node.output if "ArgMax" in name}
    )
    nodes = []
    for node in model.graph.node:
        if node.op_type == "ArgMax":
            found = [f"{node.output[0]}_value", f"{node.output[0]}_place"]
            nodes.append(helper.make_node("TopK", [node.input[0], _constant(model, "one", [1])], found, axis=-1))
            node = helper.make_node("Reshape", [found[1], _constant(model, "flat", [-1])], list(node.output))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Other names for values of the graph, in place."""
    _rename(model.graph, names)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(one, one) for one in node.input]
        node.output[:] = [names.get(one, one) for one in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)
    for info in graph.output:
        info.name = names.get(info.name, info.name)


def named(model: onnx.ModelProto, naming: Any) -> onnx.ModelProto:
    """The same graph, whose values but its inputs and outputs have names as `naming` wants: a prefix, or a function.

    Raises:
        TypeError: Neither.
    """
    if not isinstance(naming, str) and not callable(naming):
        raise TypeError(f"naming must be a text or a function, not {type(naming).__name__}")
    kept = {info.name for info in (*model.graph.input, *model.graph.output)}
    inner = [name for node in model.graph.node for name in node.output if name and name not in kept]
    names: dict[str, str] = {}
    for name in (*inner, *(one.name for one in model.graph.initializer)):
        names[name] = f"{naming}{name}" if isinstance(naming, str) else str(naming(name, set(names.values())))
    rename(model, names)
    for one in model.graph.initializer:
        one.name = names[one.name]
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def _dictionaries(model: onnx.ModelProto, classes: list[Any], element: int) -> None:
    graph, source = model.graph, PROBABILITIES
    if element != TensorProto.FLOAT:  # ZipMap takes float32 alone
        source = "probabilities_float"
        graph.node.append(helper.make_node("Cast", [PROBABILITIES], [source], to=TensorProto.FLOAT))
    texts = isinstance(classes[0], str)
    node = helper.make_node("ZipMap", [source], ["output_probability"], domain=ML)
    known = classes if texts else [int(one) for one in classes]
    node.attribute.append(helper.make_attribute("classlabels_strings" if texts else "classlabels_int64s", known))
    graph.node.append(node)
    kind = helper.make_map_type_proto(
        TensorProto.STRING if texts else TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    graph.output.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(kind)))
    _import_ml(model)


def _import_ml(model: onnx.ModelProto) -> None:
    if not any(one.domain == ML for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(ML, 3))


def _class_labels(model: onnx.ModelProto, classes: list[Any]) -> None:
    """A sequence of the classes of each label."""
    texts = isinstance(classes[0][0], str)
    element = TensorProto.STRING if texts else TensorProto.INT64
    names = [f"classes_{index}" for index in range(len(classes))]
    for name, known in zip(names, classes, strict=True):
        values = [one.encode() for one in known] if texts else known
        model.graph.initializer.append(helper.make_tensor(name, element, [len(known)], values))
    model.graph.node.append(helper.make_node("SequenceConstruct", names, ["class_labels"]))
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(element, [None]))
    model.graph.output.append(helper.make_value_info("class_labels", kind))


def _split(model: onnx.ModelProto, widths: list[int]) -> list[str]:
    parts = [f"part_{index}" for index in range(len(widths))]
    sizes = _constant(model, "widths", widths)
    model.graph.node.append(helper.make_node("Split", [PROBABILITIES, sizes], parts, axis=1))
    return parts


def _constant(model: onnx.ModelProto, name: str, values: list[int]) -> str:
    if all(one.name != name for one in model.graph.initializer):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
    return name
