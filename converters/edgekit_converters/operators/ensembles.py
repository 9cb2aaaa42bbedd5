"""Voting, stacking and bagging over any estimators, which may be pipelines over the raw columns.

Source: `predict` and `predict_proba` of sklearn/ensemble/_voting.py, _stacking.py (`_concatenate_predictions`) and
_bagging.py (`_parallel_predict_proba`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, columns
from edgekit_converters.operators import Predict, Predicted, Unfaithful, scores
from edgekit_converters.operators.expression import Expr, concat, total
from edgekit_converters.operators.wrappers import ONE_LABEL, answered, predicted_each, response

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def votes(place: Expr, classes: int) -> Expr:
    """[rows, classes]: 1 at the predicted place, else 0."""
    return place.reshape(-1, 1).equals(np.arange(classes, dtype=np.float64)).cast("float64")


def _average(parts: list[Expr], weights: list[float] | None) -> Expr:
    """As numpy.average: the sum of part * weight over the sum of the weights."""
    if weights is None:
        return total(parts) / float(len(parts))
    weighted = [part * float(weight) for part, weight in zip(parts, weights, strict=True)]
    return total(weighted) / float(np.sum(np.asarray(weights, dtype=np.float64)))


def _voting_classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The class with the largest mean probability (soft), or with the most votes (hard); the first of equals."""
    if np.ndim(step.classes_) != 1:
        raise Unfaithful(*ONE_LABEL)
    weights = step._weights_not_none
    if step.voting == "soft":
        parts = predicted_each(walk, step.estimators_, table, path, ("predict_proba",))
        shares = _average(parts, weights)
        return Predicted(
            label=scores.best(walk.graph, shares.value, step.classes_),
            probabilities=shares.value,
        )
    # The estimators were trained on places among the classes, so what they predict are places.
    places = predicted_each(walk, step.estimators_, table, path, ("predict",))
    counted = [votes(place, len(step.classes_)) for place in places]
    if weights is not None:
        counted = [one * float(weight) for one, weight in zip(counted, weights, strict=True)]
    return Predicted(label=scores.best(walk.graph, total(counted).value, step.classes_))


def _voting_regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The weighted mean."""
    parts = predicted_each(walk, step.estimators_, table, path, ("predict",))
    return Predicted(value=_average(parts, step._weights_not_none).value)


def _stacked(walk: Walk, step: Any, table: Table, path: Path) -> Table:
    """What the final estimator sees; of two classes' probabilities the second only."""
    binary = getattr(step, "classes_", None) is not None and len(step.classes_) == 2
    parts = []
    for index, (one, method) in enumerate(zip(step.estimators_, step.stack_method_, strict=True)):
        answer = response(walk, one, table, (*path, str(index)), (method,))[0]
        parts.append(answer.at(1) if binary and method == "predict_proba" else answer)
    seen = columns(concat(parts).value)
    return (*seen, *table) if step.passthrough else seen


def _stacking_classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The final estimator was trained on places among the classes."""
    if np.ndim(step.classes_) != 1 or isinstance(step._label_encoder, list):
        raise Unfaithful(*ONE_LABEL)
    found = walk.predict(step.final_estimator_, _stacked(walk, step, table, path), (*path, "final_estimator"))
    if found.label is None:
        raise Unfaithful("its final estimator is no classifier", "use a classifier as the final estimator")
    place = Expr(walk.graph, found.label).cast("int64")
    return Predicted(
        label=scores.label(walk.graph, place.value, step.classes_),
        probabilities=found.probabilities,
        decision=found.decision,
    )


def _stacking_regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    return walk.predict(step.final_estimator_, _stacked(walk, step, table, path), (*path, "final_estimator"))


def _bagging_classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The mean of the probabilities, of estimators without any the share of their votes; the mean of the decisions."""
    if isinstance(step.classes_, list):
        raise Unfaithful(*ONE_LABEL)
    count = len(step.classes_)
    parts, decisions = [], []
    for index, (one, chosen) in enumerate(zip(step.estimators_, step.estimators_features_, strict=True)):
        seen = tuple(table[int(place)] for place in chosen)
        found = walk.predict(one, seen, (*path, str(index)))
        method = "predict_proba" if hasattr(one, "predict_proba") else "predict"
        answer = answered(walk, found, method, type(one).__name__)
        if found.decision is not None:
            decisions.append(Expr(walk.graph, found.decision))
        if method == "predict":
            parts.append(votes(answer, count))
        elif len(one.classes_) == count:
            parts.append(answer)
        else:  # a class was not in this estimator's sample
            spread = np.zeros((len(one.classes_), count))
            spread[np.arange(len(one.classes_)), np.asarray(one.classes_, dtype=np.int64)] = 1.0
            parts.append(answer @ spread)
    shares = total(parts) / float(len(parts))
    decided = len(decisions) == len(parts) and len({one.width for one in decisions}) == 1
    return Predicted(
        label=scores.best(walk.graph, shares.value, step.classes_),
        probabilities=shares.value,
        decision=(total(decisions) / float(len(parts))).value if decided else None,
    )


def _bagging_regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The mean."""
    parts = [
        response(walk, one, tuple(table[int(place)] for place in chosen), (*path, str(index)), ("predict",))[0]
        for index, (one, chosen) in enumerate(zip(step.estimators_, step.estimators_features_, strict=True))
    ]
    return Predicted(value=(total(parts) / float(len(parts))).value)


PREDICTORS: Final[Mapping[str, Predict]] = {
    "VotingClassifier": _voting_classifier,
    "VotingRegressor": _voting_regressor,
    "StackingClassifier": _stacking_classifier,
    "StackingRegressor": _stacking_regressor,
    "BaggingClassifier": _bagging_classifier,
    "BaggingRegressor": _bagging_regressor,
}
