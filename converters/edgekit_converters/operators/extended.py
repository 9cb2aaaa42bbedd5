"""What the wrappers of `edgekit_converters.extended` add to an estimator's answer.

Source: `predict` of sklearn/gaussian_process/_gpr.py and sklearn/linear_model/_bayes.py; `kneighbors` of
sklearn/neighbors/_base.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgekit_converters.graph import Table, columns
from edgekit_converters.operators import Predict, Predicted, Transform, Unfaithful, neighbours, scores
from edgekit_converters.operators.expression import Expr, concat

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

PACKAGE: Final = "edgekit_converters"


def _with_deviation(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    found = walk.predict(step.estimator, table, (*path, "estimator"))
    if found.value is None or found.deviation is None:
        raise Unfaithful(
            "its estimator gives no standard deviation",
            "wrap a GaussianProcessRegressor, a BayesianRidge or an ARDRegression",
        )
    return Predicted(value=scores.side_by_side(walk.graph, [found.value, found.deviation()]))


def _one_label(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The label's column, and the columns of its classes' shares; of the shares of what is there [1 - p, p].

    Of a MultiOutputClassifier its classifier alone: the others cost nothing.
    """
    targets, place, inner, path = step.targets_, step.place, step.estimator, (*path, "estimator")
    while hasattr(inner, "steps"):
        for name, one in inner.steps[:-1]:
            table = walk.transform(one, table, (*path, name))
        name, inner = inner.steps[-1]
        path = (*path, name)
    alone = type(inner).__name__ == "MultiOutputClassifier"
    found = (
        walk.predict(inner.estimators_[place], table, (*path, str(place)))
        if alone
        else walk.predict(inner, table, path)
    )
    shared = hasattr(step, "predict_proba")
    if found.label is None or (found.probabilities is None and shared):
        raise Unfaithful("the conversion of its estimator lacks an answer", "wrap another classifier")
    if alone:
        return Predicted(label=found.label, probabilities=found.probabilities if shared else None)
    label = Expr(walk.graph, found.label).at(place).cast(scores.class_values(step.classes_)[1]).flat().value
    if not shared or found.probabilities is None:
        return Predicted(label=label)
    shares = Expr(walk.graph, found.probabilities)
    if shares.width == len(targets):
        there = shares.at(place)
        return Predicted(label=label, probabilities=concat([1.0 - there, there]).value)
    start = sum(map(len, targets[:place]))
    return Predicted(label=label, probabilities=shares.at(*range(start, start + len(targets[place]))).value)


def _with_neighbours(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    distance, number = neighbours.found(walk, step.estimator, table)
    return columns(scores.side_by_side(walk.graph, [distance.value, number.cast("float64").value]))


PREDICTORS: Final[Mapping[str, Predict]] = {"OneLabel": _one_label, "WithDeviation": _with_deviation}
TRANSFORMERS: Final[Mapping[str, Transform]] = {"WithNeighbours": _with_neighbours}
