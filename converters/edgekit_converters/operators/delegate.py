"""Every step without an emitter of its own, through skl2onnx: float64 where that gives a file that loads, else float32.

What is known to come out silently wrong (measured: conversion facts, section 2) is refused here; the rest is compared
with the original on sample rows by the walk, and on the whole data by `edgekit_converters.verify`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime as ort

from edgekit_converters.graph import ML, GraphBuilder, Value
from edgekit_converters.operators import Predicted, Unfaithful, scores

WHY_MAX_CHARS: Final = 300
"""Of a foreign error message; skl2onnx prints whole models."""
NEXT_STEP: Final = "replace the step by one with a conversion, or report it as an issue"
DEPRECATED: Final = frozenset(["TreeEnsembleClassifier", "TreeEnsembleRegressor"])
"""Operators that a graph of ai.onnx.ml 5 may not hold."""
FLOAT32_ONLY: Final = frozenset(["AdaBoostClassifier", "AdaBoostRegressor", "RandomTreesEmbedding"])
"""Ensembles of trees, which read float32 themselves: the float64 files of skl2onnx do not load or err at the leaves."""

Kind = Literal["transformer", "classifier", "regressor"]


KNOWN_WRONG: Final[Mapping[str, tuple[Callable[[Any], bool], str, str]]] = {}
"""Class -> when, why, what to do."""


def transformer(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """The step's `transform`, in float64.

    Raises:
        Unfaithful: skl2onnx refuses, its file does not load, or it is known to be wrong.
    """
    model, dtype = _leaf(graph, step, x, "transformer")
    outputs = graph.merge(model, {model.graph.input[0].name: graph.cast(x, dtype)})
    if len(outputs) != 1 or outputs[0].dtype not in {"float64", "float32", "int64"}:
        raise Unfaithful("its converted outputs are not one matrix of numbers", NEXT_STEP)
    width = _width(step, x)
    return graph.cast(Value(outputs[0].name, outputs[0].dtype, width), "float64")


def classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The step's `predict` and, where it has one, `predict_proba`.

    Raises:
        Unfaithful: As `transformer`; or several labels at once.
    """
    classes = getattr(step, "classes_", None)
    if isinstance(classes, list) or getattr(step, "multilabel_", False):
        raise Unfaithful("it answers several labels at once", "train one model for each label")
    if classes is None:
        raise Unfaithful("it does not say its classes", NEXT_STEP)
    values, dtype = scores.class_values(classes)
    renumbered = step
    if np.asarray(classes).dtype.kind not in "iuOU" or isinstance(classes[0], bool | np.bool_):
        renumbered = copy.copy(step)  # skl2onnx knows labels of int64 and text only
        try:
            renumbered.classes_ = np.arange(len(values))
        except AttributeError as error:
            raise Unfaithful("its classes are neither whole numbers nor texts", "train with such classes") from error
    model, kind = _leaf(graph, renumbered, x, "classifier")
    outputs = graph.merge(model, {model.graph.input[0].name: graph.cast(x, kind)})
    flat = scores.flat_shape(graph)
    label = graph.value("Reshape", [outputs[0], flat], Value("", outputs[0].dtype, 0))
    if renumbered is not step:
        label = scores.label(graph, label, values)
    elif label.dtype != dtype:
        label = graph.cast(label, dtype)
    if len(outputs) < 2 or not hasattr(step, "predict_proba"):
        return Predicted(label=label)
    return Predicted(label=label, probabilities=Value(outputs[1].name, outputs[1].dtype, len(values)))


def regressor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The step's `predict`, [rows, targets].

    Raises:
        Unfaithful: As `transformer`.
    """
    model, dtype = _leaf(graph, step, x, "regressor")
    output = graph.merge(model, {model.graph.input[0].name: graph.cast(x, dtype)})[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        targets = np.size(step.predict(np.zeros((1, x.width))))
    shape = graph.constant(np.array([-1, targets], dtype=np.int64), "shape")
    return Predicted(value=graph.value("Reshape", [output, shape], Value("", output.dtype, targets)))


def _leaf(
    graph: GraphBuilder, step: Any, x: Value, kind: Kind
) -> tuple[onnx.ModelProto, Literal["float64", "float32"]]:
    name = type(step).__name__
    if name in KNOWN_WRONG and KNOWN_WRONG[name][0](step):
        raise Unfaithful(*KNOWN_WRONG[name][1:])
    faults = []
    dtypes: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    for dtype in dtypes[1:] if name in FLOAT32_ONLY else dtypes:
        try:
            model = _to_onnx(graph, step, x.width, dtype, kind)
            _check_loads(model)
            return model, dtype
        except Exception as error:  # skl2onnx and onnxruntime raise whatever they meet
            faults.append(error)
    raise Unfaithful(_sentence(faults[-1]), NEXT_STEP) from faults[-1]


def _to_onnx(graph: GraphBuilder, step: Any, width: int, dtype: str, kind: Kind) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    tensor = DoubleTensorType if dtype == "float64" else FloatTensorType
    opsets = {"": graph.target.opset, ML: graph.target.ml_opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert_sklearn(
            step,
            "leaf",
            [("x", tensor([None, width]))],
            target_opset=opsets,
            options={id(step): {"zipmap": False}} if kind == "classifier" else None,
        )
    if not isinstance(model, onnx.ModelProto) or len(model.functions) > 0:
        raise Unfaithful("skl2onnx gives no plain graph for it", NEXT_STEP)
    for used in model.opset_import:
        if used.domain not in opsets:
            raise Unfaithful(f"its conversion needs operators of '{used.domain}'", NEXT_STEP)
    if any(node.op_type in DEPRECATED for node in model.graph.node) and graph.target.ml_opset >= 5:
        raise Unfaithful("skl2onnx writes its trees with operators that ai.onnx.ml 5 has given up", NEXT_STEP)
    return model


def _check_loads(model: onnx.ModelProto) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _sentence(error: Exception) -> str:
    """The first sentence of a foreign error, cut to a bearable length."""
    if isinstance(error, Unfaithful):
        return error.why
    if type(error).__name__ == "MissingShapeCalculator":
        return "skl2onnx has no converter for it"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = " ".join(lines[0].split())
    return f"skl2onnx: {text if len(text) <= WHY_MAX_CHARS else text[: WHY_MAX_CHARS - 3] + '...'}"


def _width(step: Any, x: Value) -> int:
    """Columns that `transform` gives, from the step itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = step.transform(np.zeros((1, x.width)))
    return int(result.shape[1])
