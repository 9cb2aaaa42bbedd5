"""Outputs as the tests of skl2onnx and onnxmltools expect them: names, element types, ZipMap, class labels.

Source: the outputs that skl2onnx/_parse.py declares for each kind of model.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any, Final

import numpy as np
import onnx
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline

from benchmarks.adapter.paths import decisions
from benchmarks.adapter.shaped import PROBABILITIES, Shape, rename, shape
from edgekit_converters.extended import WithNeighbours
from edgekit_converters.graph import Dtype, GraphBuilder, Table, Value
from edgekit_converters.nodes import serialize
from edgekit_converters.operators import Predicted, scores
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.walk import Walk, last_step

GIVEN: Final = frozenset(
    {
        "decision_leaf",
        "decision_path",
        "nan",
        "nocl",
        "output_class_labels",
        "raw_scores",
        "return_std",
        "score_samples",
        "separators",
        "zipmap",
    }
)
"""Options that change the answer, and that are answered here."""
REFUSED: Final = frozenset({"return_cov"})
"""Options that ask for something that edgekit does not give: what hangs on the other rows of the call."""
ONE_SIDE: Final = frozenset({"LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "StackingClassifier"})
"""Of these two classes' decision is one column; of others it stands beside its negative."""
NEGATIVE_LAST: Final = frozenset({"NuSVC", "SVC"})
WITHOUT_ZIPMAP: Final = frozenset({"LinearSVC", "NuSVC", "RidgeClassifier", "RidgeClassifierCV", "SVC"})
"""Of these nothing is zipped where they have no probabilities."""

Outputs = list[tuple[str, Value]]


class NotGiven(NotImplementedError):
    """Something that the test asks for and edgekit does not give."""


def answer(
    walk: Walk, model: Any, table: Table, options: Mapping[str, Any], number: Dtype
) -> tuple[Outputs, Shape | None]:
    """Walks over the model, and gives its outputs under skl2onnx's names.

    Args:
        walk: Of the graph that grows.
        model: Fitted.
        table: Its columns.
        options: skl2onnx's, of the last step.
        number: The element type of numbers: that of the inputs.

    Raises:
        EdgekitError: A step has no faithful conversion.
        NotGiven: An option asks for something else than the model's answers.
    """
    asked = sorted(name for name in REFUSED if options.get(name))
    if asked:
        raise NotGiven(f"option {', '.join(asked)}")
    last = last_step(model)
    if type(last).__name__ == "NearestNeighbors":
        return _neighbours(walk, model, table, number), None
    if isinstance(last, SelectorMixin) or not hasattr(model, "predict"):  # RFE predicts too
        value = _columns(walk, _tokenized(model, options), table, number)
        return [("variable", _absent(walk.graph, value, number) if options.get("nan") else value)], None
    if is_classifier(last):
        if options.get("nocl"):
            model = _without_classes(model)
        outputs, wanted = _classifier(walk, model, _predicted(walk, model, table), options, number)
        return outputs + decisions(walk, model, table, options), wanted
    found = _predicted(walk, model, table)
    if is_clusterer(last):
        outputs = [("label", _label(walk.graph, found.label))]
        if hasattr(model, "transform"):
            outputs.append(("scores", _columns(walk, model, table, number)))
        return outputs, None
    if is_outlier_detector(last):
        return _outliers(walk, last, found, options, number), None
    if is_regressor(last) or found.label is None:
        name = "GPmean" if type(last).__name__ == "GaussianProcessRegressor" else "variable"
        outputs = [(name, walk.graph.cast(_present(found.value), number))]
        if options.get("return_std"):
            if found.deviation is None:
                raise NotGiven("option return_std of a regressor without a standard deviation")
            outputs.append(("GPcovstd" if name == "GPmean" else "std", walk.graph.cast(found.deviation(), number)))
        return outputs + decisions(walk, model, table, options), None
    outputs = [
        ("label", _label(walk.graph, found.label)),
        (PROBABILITIES, walk.graph.cast(_present(found.probabilities), number)),
    ]
    if options.get("score_samples"):  # of a mixture
        outputs.append(("score_samples", walk.graph.cast(_present(found.decision), number)))
    return outputs, None


def finish(graph: GraphBuilder, outputs: Outputs, wanted: Shape | None, names: Sequence[str] | None) -> Any:
    """The checked model with its outputs; a test's own `names` for them come last.

    Raises:
        RuntimeError: These are too few, too many, or no names of their own.
    """
    for name, value in outputs:
        graph.output(name, value)
    model = graph.build()
    if wanted is not None:
        shape(model, wanted)
    if names is not None:
        own, taken = [info.name for info in model.graph.output], {info.name for info in model.graph.input}
        if len(names) != len(own) or len(taken.union(names)) < len(taken) + len(names):
            raise RuntimeError(f"the outputs {own} cannot have the names {list(names)}")
        rename(model, dict(zip(own, names, strict=True)))
    return onnx.load_from_string(serialize(model))


def _predicted(walk: Walk, model: Any, table: Table) -> Predicted:
    return walk.predict(model, table, (type(model).__name__.lower(),))


def _classifier(
    walk: Walk, model: Any, found: Predicted, options: Mapping[str, Any], number: Dtype
) -> tuple[Outputs, Shape | None]:
    kind = type(last_step(model)).__name__
    classes = getattr(model, "classes_", None)
    if found.label is None and found.value is not None:  # LightGBM's raw scores, of an objective of the user's own
        both = _both_sides(walk.graph, found.value, kind)
        best = scores.best(walk.graph, both, np.asarray(classes))
        return [("label", _label(walk.graph, best)), (PROBABILITIES, walk.graph.cast(both, number))], None
    label, shares = _label(walk.graph, found.label), found.probabilities
    if options.get("raw_scores") and found.decision is None:
        raise NotGiven("option raw_scores of a classifier whose conversion gives no decision function")
    if found.decision is not None and (shares is None or options.get("raw_scores")):
        one_side = kind in ONE_SIDE and not options.get("raw_scores")
        shares = found.decision if one_side else _both_sides(walk.graph, found.decision, kind)
    outputs: Outputs = [("label", label)]
    if shares is None:
        return outputs, None
    if isinstance(classes, list) and kind != "MultiOutputClassifier":
        shares = _stacked(walk.graph, shares, classes)
    outputs.append((PROBABILITIES, walk.graph.cast(shares, number)))
    if label.width:
        return outputs, _several(model, classes, options)
    known = np.asarray(classes)
    if options.get("output_class_labels"):
        texts = known.dtype.kind in "OU"
        name = walk.graph.constant(known.astype(object if texts else np.int64), "class_labels")
        outputs.append(("class_labels", Value(name, "text" if texts else "int64", 0)))
    zipmap = options.get("zipmap", True)
    if zipmap is False or (kind in WITHOUT_ZIPMAP and found.probabilities is None):
        return outputs, None
    return outputs, Shape("columns" if zipmap == "columns" else "dictionaries", known.tolist())


def _several(model: Any, classes: Any, options: Mapping[str, Any]) -> Shape | None:
    """Of several labels: matrices in a sequence, dictionaries of the labels, or the matrix as it is."""
    named = bool(options.get("output_class_labels"))
    if type(last_step(model)).__name__ == "MultiOutputClassifier":
        if named and not isinstance(getattr(model, "classes_", []), list):
            raise NotGiven("class labels of a model whose classes_ are no list, as scikit-learn makes it")
        return Shape("sequence", [one.classes_.tolist() for one in last_step(model).estimators_], named)
    if named:
        raise NotGiven("option output_class_labels of several labels of one estimator")
    if isinstance(classes, list):
        unlike = len({len(one) for one in classes}) > 1  # these are no tensor
        return Shape("sequence", [one.tolist() for one in classes]) if unlike else None
    zipped = options.get("zipmap", True) is not False
    return Shape("dictionaries", list(range(len(classes)))) if zipped else None


def _stacked(graph: GraphBuilder, shares: Value, classes: list[Any]) -> Value:
    """[labels, rows, classes] of the probabilities of all labels side by side, where all have equally many classes."""
    widths = {len(one) for one in classes}
    if len(widths) > 1:
        return shares
    rows = Expr(graph, shares).reshape(-1, len(classes), widths.pop())
    return rows.apply("Transpose", perm=[1, 0, 2]).value


def _outliers(walk: Walk, step: Any, found: Predicted, options: Mapping[str, Any], number: Dtype) -> Outputs:
    decision = Expr(walk.graph, _present(found.decision))
    outputs: Outputs = [
        ("label", _label(walk.graph, found.label)),
        ("scores", walk.graph.cast(decision.value, number)),
    ]
    if options.get("score_samples"):  # decision_function = score_samples - offset_
        outputs.append(("score_samples", walk.graph.cast((decision + float(step.offset_)).value, number)))
    return outputs


def _neighbours(walk: Walk, model: Any, table: Table, number: Dtype) -> Outputs:
    """The numbers of the nearest rows of training, and their distances."""
    found = walk.graph.matrix(walk.transform(WithNeighbours(model), table, ("nearestneighbors",)))
    half = found.width // 2
    distance, index = walk.graph.gather(found, range(half)), walk.graph.gather(found, range(half, found.width))
    return [("index", walk.graph.cast(index, "int64")), ("distance", walk.graph.cast(distance, number))]


def _columns(walk: Walk, model: Any, table: Table, number: Dtype) -> Value:
    """What a transformer gives; texts, whole numbers and truth values keep their type."""
    found = walk.transform(model, table, (type(model).__name__.lower(),))
    if not found:
        raise NotGiven("a transformer without columns")
    kinds = {column.dtype for column in found}
    if len(kinds) == 1 and kinds <= {"text", "int64", "bool"}:
        return walk.graph.matrix(found)
    walk.matrix(found)  # refuses texts
    return walk.graph.matrix(found, number)


def _tokenized(model: Any, options: Mapping[str, Any]) -> Any:
    """The vectorizer with the tokenizer that the option `separators` stands for, where that is one plain text."""
    separators: list[str] = options.get("separators") or []
    if len(separators) != 1 or re.escape(separators[0]) != separators[0]:
        return model
    found = copy.copy(model)
    found.tokenizer = methodcaller("split", separators[0])
    return found


def _absent(graph: GraphBuilder, value: Value, number: Dtype) -> Value:
    """NaN in the place of each 0: a term that is not in the text (option `nan`)."""
    x = Expr(graph, graph.cast(value, "float64"))
    return x.equals(0.0).where(np.nan, x).cast(number).value


def _without_classes(model: Any) -> Any:
    """The same model whose labels are places among its classes (option `nocl`)."""
    if hasattr(model, "steps"):
        return Pipeline([*model.steps[:-1], (model.steps[-1][0], _without_classes(model.steps[-1][1]))])
    found = copy.copy(model)
    found.classes_ = np.arange(len(model.classes_))
    return found


def _both_sides(graph: GraphBuilder, decision: Value, kind: str) -> Value:
    """The score of two classes with its negative beside it."""
    if decision.width > 1:
        return decision
    score = Expr(graph, decision).reshape(-1, 1)
    return concat([score, -score] if kind in NEGATIVE_LAST else [-score, score]).value


def _label(graph: GraphBuilder, label: Value | None) -> Value:
    """Labels as skl2onnx has them: texts, or int64 for truth values and whole float64."""
    label = _present(label)
    return label if label.dtype in {"text", "int64"} else graph.cast(label, "int64")


def _present(value: Value | None) -> Value:
    if value is None:
        raise NotGiven("an answer that the test asks for")
    return value
