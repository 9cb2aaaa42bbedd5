"""From scores to labels and probabilities, in float64.

Source: `predict` and `predict_proba` of scikit-learn's classifiers; scipy.special.expit and softmax.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Dtype, GraphBuilder, Value
from edgekit_converters.operators import Unfaithful


def class_values(classes: NDArray[Any]) -> tuple[NDArray[Any], Dtype]:
    """The classes as the graph holds them: int64 (for bool too), float64 or text.

    Raises:
        Unfaithful: Classes of another type.
    """
    classes = np.asarray(classes)
    if classes.dtype.kind in "iub":
        return classes.astype(np.int64), "int64"
    if classes.dtype.kind == "f":
        return classes.astype(np.float64), "float64"
    values = classes.astype(object)
    if all(isinstance(one, bool | np.bool_) for one in values):
        return values.astype(np.int64), "int64"
    if all(isinstance(one, str) for one in values):
        return values, "text"
    raise Unfaithful("its classes are neither all texts nor all numbers", "train with classes of one type")


def known_classes(step: Any) -> Any:
    """A classifier's classes: its `classes_`, or those of the one classifier that it holds; None where it says none."""
    if hasattr(step, "classes_"):
        return step.classes_
    inner = {id(one): one for one in vars(step).values() if hasattr(one, "classes_") and hasattr(one, "predict")}
    return next(iter(inner.values())).classes_ if len(inner) == 1 else None


def label_count(step: Any) -> int:
    """How many labels, each there or not, a fitted classifier answers a row; 0 where it answers one of its classes.

    Those are a OneVsRest-, MLP-, Ridge- or CatBoostClassifier that was trained on an indicator matrix, and XGBoost's
    classifiers with several outputs of two classes: `XGBClassifier.predict` decides on each output, whatever they are.
    """
    if hasattr(step, "get_booster"):
        if getattr(step, "n_classes_", 0) != 2 or step.objective == "multi:softmax":
            return 0
        learner = json.loads(step.get_booster().save_config())["learner"]["learner_model_param"]
        outputs = max(int(learner["num_target"]), int(learner["num_class"]))
        return outputs if outputs > 1 else 0
    if hasattr(step, "_is_multilabel_objective"):
        several = bool(step._is_multilabel_objective(step.get_all_params().get("loss_function")))
    else:
        binarizer = getattr(step, "label_binarizer_", getattr(step, "_label_binarizer", None))
        several = str(getattr(binarizer, "y_type_", "")).startswith("multilabel")
    return len(step.classes_) if several else 0


def label(graph: GraphBuilder, places: Value, classes: NDArray[Any]) -> Value:
    """[rows]: the class at each place [rows]."""
    values, dtype = class_values(classes)
    if _are_places(values, dtype):
        return places
    return graph.value("Gather", [graph.constant(values, "classes"), places], Value("", dtype, 0), axis=0)


def _are_places(values: NDArray[Any], dtype: Dtype) -> bool:
    """Whether the classes are 0, 1, 2, ..."""
    return dtype == "int64" and np.array_equal(values, np.arange(len(values)))


def best(graph: GraphBuilder, scores: Value, classes: NDArray[Any], *, last: bool = False) -> Value:
    """[rows]: the class of the largest score; the first one of equals, as numpy.argmax, or the last one."""
    place = graph.value("ArgMax", [scores], Value("", "int64", 0), axis=1, keepdims=0, select_last_index=int(last))
    return label(graph, place, classes)


def best_of_each(graph: GraphBuilder, scores: Sequence[Value], classes: Any) -> Value:
    """The class of the largest score: [rows] of one target, [rows, targets] where `classes` is a list of theirs."""
    if not isinstance(classes, list):
        return best(graph, scores[0], classes)
    return side_by_side(graph, [best(graph, one, known) for one, known in zip(scores, classes, strict=True)])


def side_by_side(graph: GraphBuilder, parts: Sequence[Value]) -> Value:
    """[rows, all columns]: labels [rows] or matrices, one beside the other; numbers of several types as float64."""
    dtype: Dtype = parts[0].dtype if len({one.dtype for one in parts}) == 1 else "float64"
    column = graph.constant(np.array([-1, 1], dtype=np.int64), "column")
    wide = [graph.cast(one, dtype) for one in parts]
    wide = [one if one.width else graph.value("Reshape", [one, column], replace(one, width=1)) for one in wide]
    if len(wide) == 1:
        return wide[0]
    return graph.value("Concat", wide, Value("", dtype, sum(one.width for one in wide)), axis=1)


def present(graph: GraphBuilder, scores: Value, limit: float) -> Value:
    """[rows, labels]: 1 where a label's score is above the limit, else 0."""
    above = graph.value("Greater", [scores, graph.constant(np.array([limit]), "limit")], replace(scores, dtype="bool"))
    return graph.cast(above, "int64")


def positive(graph: GraphBuilder, decision: Value, classes: NDArray[Any]) -> Value:
    """[rows]: the second of two classes where the decision [rows, 1] is above 0."""
    values, dtype = class_values(classes)
    bound = graph.constant(np.array([0.0], dtype=np.dtype(decision.dtype)), "limit")
    above = graph.value("Greater", [decision, bound], Value("", "bool", 1))
    if _are_places(values, dtype):
        chosen = graph.cast(above, "int64").name
    else:
        first, second = (graph.constant(values[place : place + 1], "class") for place in (0, 1))
        chosen = graph.node("Where", [above, second, first])[0]
    return graph.value("Reshape", [chosen, flat_shape(graph)], Value("", dtype, 0))


def flat_shape(graph: GraphBuilder) -> str:
    """The shape [-1]."""
    return graph.constant(np.array([-1], dtype=np.int64), "flat")


def of_two(graph: GraphBuilder, score: Value, classes: NDArray[Any], *, at_zero: bool = False) -> tuple[Value, Value]:
    """Label [rows] and probabilities [rows, 2] of a score [rows, 1] whose sigmoid is the second class's probability.

    The label is the second class where the score is above 0 (with `at_zero` at it too): where it is more than its
    negative, which the sigmoid needs too, so that two nodes do for what takes `positive` three and two constants more.
    """
    negated = graph.value("Neg", [score], score)
    both = graph.value("Concat", [negated, score], replace(score, width=2), axis=1)
    return best(graph, both, classes, last=at_zero), two_sided(graph, _share(graph, negated))


def sigmoid(graph: GraphBuilder, x: Value) -> Value:
    """1 / (1 + exp(-x)), as scipy writes it: onnxruntime's `Sigmoid` is up to 2e5 ulps away below 0.

    exp(800) is inf in float64, and 1 / inf is 0: no overflow to guard.
    """
    return _share(graph, graph.value("Neg", [x], x))


def _share(graph: GraphBuilder, negated: Value) -> Value:
    """1 / (1 + exp(negated))."""
    one = graph.constant(np.array([1.0]), "one")
    power = graph.value("Exp", [negated], negated)
    return graph.value("Div", [one, graph.value("Add", [one, power], power)], power)


def two_sided(graph: GraphBuilder, p: Value) -> Value:
    """[1 - p, p] of [rows, 1]."""
    one = graph.constant(np.array([1.0]), "one")
    return graph.value("Concat", [graph.value("Sub", [one, p], p), p], replace(p, width=2), axis=1)


def softmax(graph: GraphBuilder, x: Value) -> Value:
    """exp(x - max) / sum over the columns."""
    return graph.value("Softmax", [x], x, axis=1)


def normalized(graph: GraphBuilder, p: Value) -> Value:
    """P / sum over the columns, and equal shares where all are 0 (one-vs-rest)."""
    axes = graph.constant(np.array([1], dtype=np.int64), "axes")
    total = graph.value("ReduceSum", [p, axes], replace(p, width=1), keepdims=1)
    zero = graph.node("Equal", [total, graph.constant(np.array([0.0]), "zero")])[0]
    one = graph.constant(np.array([1.0]), "one")
    count = graph.constant(np.array([float(p.width)]), "count")
    p = graph.value("Where", [zero, one, p], p)
    return graph.value("Div", [p, graph.value("Where", [zero, count, total], total)], p)
