"""Outputs as the tests of skl2onnx expect them: names, element types, ZipMap, class labels.

Source: the outputs that skl2onnx/_parse.py declares for each kind of model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.pipeline import Pipeline

from edgekit_converters.graph import ML, Dtype, GraphBuilder, Table, Value, serialize
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.walk import Walk, last_step

GIVEN: Final = frozenset({"nocl", "output_class_labels", "raw_scores", "score_samples", "zipmap"})
"""Options that change the answer, and that are answered here."""
REFUSED: Final = frozenset({"decision_leaf", "decision_path", "return_cov", "return_std"})
"""Options that ask for something that edgekit does not give."""
ONE_SIDE: Final = frozenset({"RidgeClassifier", "RidgeClassifierCV", "StackingClassifier"})
"""Of these two classes' decision is one column; of others it stands beside its negative."""

Outputs = list[tuple[str, Value]]


class NotGiven(NotImplementedError):
    """Something that the test asks for and edgekit does not give."""


@dataclass(frozen=True, slots=True)
class ZipMap:
    """A sequence of dictionaries, or one output for each class, in place of the matrix of probabilities."""

    classes: list[Any]
    by_columns: bool


def answer(
    walk: Walk, model: Any, table: Table, options: Mapping[str, Any], number: Dtype
) -> tuple[Outputs, ZipMap | None]:
    """Walks over the model, and gives its outputs under skl2onnx's names.

    Args:
        walk: Of the graph that grows.
        model: Fitted.
        table: Its columns.
        options: skl2onnx's, of the last step.
        number: The element type of numbers: that of the inputs.
    """
    asked = sorted(name for name in REFUSED if options.get(name))
    if asked:
        raise NotGiven(f"option {', '.join(asked)}")
    last, path = last_step(model), (type(model).__name__.lower(),)
    if is_classifier(last):
        return _classifier(walk, model, table, options, number)
    if is_clusterer(last) and hasattr(model, "predict"):
        outputs = [("label", _label(walk.graph, walk.predict(model, table, path).label))]
        if hasattr(model, "transform"):
            outputs.append(("scores", _columns(walk, model, table, number)))
        return outputs, None
    if is_outlier_detector(last):
        return _outliers(walk, model, table, options, number), None
    if is_regressor(last) or (hasattr(model, "predict") and not hasattr(model, "transform")):
        found = walk.predict(model, table, path)
        if found.label is not None and found.probabilities is not None:  # a mixture of distributions
            if options.get("score_samples"):
                raise NotGiven("option score_samples of a mixture")
            return [
                ("label", _label(walk.graph, found.label)),
                ("probabilities", walk.graph.cast(found.probabilities, number)),
            ], None
        name = "GPmean" if type(last).__name__ == "GaussianProcessRegressor" else "variable"
        return [(name, walk.graph.cast(_present(found.value), number))], None
    return [("variable", _columns(walk, model, table, number))], None


def finish(graph: GraphBuilder, outputs: Outputs, zipmap: ZipMap | None, names: Sequence[str] | None) -> Any:
    """The checked model with its outputs; a test's own `names` for them come last."""
    for name, value in outputs:
        graph.output(name, value)
    model = graph.build()
    if zipmap is not None:
        _zip(model, zipmap)
        onnx.checker.check_model(model)
    if names is not None:
        _rename(model, dict(zip([info.name for info in model.graph.output], names, strict=False)))
    return onnx.load_from_string(serialize(model))


def _classifier(
    walk: Walk, model: Any, table: Table, options: Mapping[str, Any], number: Dtype
) -> tuple[Outputs, ZipMap | None]:
    if options.get("nocl"):
        model = _without_classes(model)
    found = walk.predict(model, table, (type(model).__name__.lower(),))
    classes = getattr(model, "classes_", None)
    label = _label(walk.graph, found.label)
    several = label.width > 0
    outputs: Outputs = [("label", label)]
    shares = found.probabilities
    if (shares is None or options.get("raw_scores")) and found.decision is not None:
        one_side = type(last_step(model)).__name__ in ONE_SIDE and not options.get("raw_scores")
        shares = found.decision if one_side else _both_sides(walk.graph, found.decision)
    elif options.get("raw_scores"):
        raise NotGiven("option raw_scores of a classifier whose conversion gives no decision function")
    if shares is None:
        return outputs, None
    outputs.append(("probabilities", walk.graph.cast(shares, number)))
    wanted = options.get("zipmap", True)
    if several:
        raise NotGiven("probabilities of several labels as a sequence")
    if options.get("output_class_labels"):
        known = np.asarray(classes)
        known = known.astype(object) if known.dtype.kind in "OU" else known.astype(np.int64)
        constant = Value(walk.graph.constant(known, "class_labels"), "text" if known.dtype == object else "int64", 0)
        outputs.append(("class_labels", constant))
    silent = type(last_step(model)).__name__ in {"SVC", "NuSVC"} and not hasattr(model, "predict_proba")
    if wanted is False or silent or type(model).__name__ == "TunedThresholdClassifierCV":
        return outputs, None
    return outputs, ZipMap(np.asarray(classes).tolist(), by_columns=wanted == "columns")


def _outliers(walk: Walk, model: Any, table: Table, options: Mapping[str, Any], number: Dtype) -> Outputs:
    found = walk.predict(model, table, (type(model).__name__.lower(),))
    decision = Expr(walk.graph, _present(found.decision))
    outputs: Outputs = [
        ("label", _label(walk.graph, found.label)),
        ("scores", walk.graph.cast(decision.value, number)),
    ]
    if options.get("score_samples"):  # decision_function = score_samples - offset_
        outputs.append(("score_samples", walk.graph.cast((decision + float(last_step(model).offset_)).value, number)))
    return outputs


def _columns(walk: Walk, model: Any, table: Table, number: Dtype) -> Value:
    """What a transformer gives; texts, whole numbers and truth values keep their type."""
    found = walk.transform(model, table, (type(model).__name__.lower(),))
    if not found:
        raise NotGiven("a transformer without columns")
    kinds = {column.dtype for column in found}
    if len(kinds) == 1 and kinds <= {"text", "int64", "bool"}:
        return walk.graph.matrix(found)
    return walk.graph.cast(walk.matrix(found), number)


def _without_classes(model: Any) -> Any:
    """The same model whose labels are places among its classes (option `nocl`)."""
    if hasattr(model, "steps"):
        return Pipeline([*model.steps[:-1], (model.steps[-1][0], _without_classes(model.steps[-1][1]))])
    found = copy.copy(model)
    found.classes_ = np.arange(len(model.classes_))
    return found


def _both_sides(graph: GraphBuilder, decision: Value) -> Value:
    """The score of two classes with its negative before it."""
    if decision.width > 1:
        return decision
    score = Expr(graph, decision).reshape(-1, 1)
    return concat([-score, score]).value


def _label(graph: GraphBuilder, label: Value | None) -> Value:
    """Labels as skl2onnx has them: texts, or int64 for truth values and whole float64."""
    label = _present(label)
    return label if label.dtype in {"text", "int64"} else graph.cast(label, "int64")


def _present(value: Value | None) -> Value:
    if value is None:
        raise NotGiven("an answer that the test asks for")
    return value


def _zip(model: onnx.ModelProto, zipmap: ZipMap) -> None:
    """Puts ZipMap, or one output for each class, in place of `probabilities`."""
    _rename(model, {"label": "output_label"})
    graph = model.graph
    place = next(index for index, info in enumerate(graph.output) if info.name == "probabilities")
    element = graph.output[place].type.tensor_type.elem_type
    rest = list(graph.output[place + 1 :])
    del graph.output[place:]
    classes = [int(one) if not isinstance(one, str) else one for one in zipmap.classes]
    if zipmap.by_columns:
        names = [f"{'s' if isinstance(one, str) else 'i'}{one}" for one in classes]
        sizes = helper.make_tensor("class_sizes", TensorProto.INT64, [len(classes)], [1] * len(classes))
        graph.initializer.append(sizes)
        parts = [f"part_{index}" for index in range(len(classes))]
        graph.node.append(helper.make_node("Split", ["probabilities", "class_sizes"], parts, axis=1))
        shape = helper.make_tensor("one_axis", TensorProto.INT64, [1], [-1])
        graph.initializer.append(shape)
        for part, name in zip(parts, names, strict=True):
            graph.node.append(helper.make_node("Reshape", [part, "one_axis"], [name]))
            graph.output.append(helper.make_tensor_value_info(name, element, [None]))
    else:
        key = "classlabels_strings" if isinstance(classes[0], str) else "classlabels_int64s"
        source = "probabilities"
        if element != TensorProto.FLOAT:  # ZipMap takes float32 alone
            source = "probabilities_float"
            graph.node.append(helper.make_node("Cast", ["probabilities"], [source], to=TensorProto.FLOAT))
        node = helper.make_node("ZipMap", [source], ["output_probability"], domain=ML)
        node.attribute.append(helper.make_attribute(key, classes))
        graph.node.append(node)
        kind = helper.make_map_type_proto(
            TensorProto.STRING if isinstance(classes[0], str) else TensorProto.INT64,
            helper.make_tensor_type_proto(TensorProto.FLOAT, []),
        )
        graph.output.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(kind)))
        if not any(one.domain == ML for one in model.opset_import):
            model.opset_import.append(helper.make_opsetid(ML, 3))
    graph.output.extend(rest)


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    graph = model.graph
    for node in graph.node:
        node.input[:] = [names.get(one, one) for one in node.input]
        node.output[:] = [names.get(one, one) for one in node.output]
    for info in graph.output:
        info.name = names.get(info.name, info.name)
