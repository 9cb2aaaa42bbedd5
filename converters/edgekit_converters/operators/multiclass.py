"""Several classes by several two-class estimators.

Source: sklearn/multiclass.py; `_ovr_decision_function` of sklearn/utils/multiclass.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.base import is_classifier, is_regressor

from edgekit_converters.graph import Table
from edgekit_converters.operators import Predict, Predicted, Unfaithful, scores
from edgekit_converters.operators.expression import Expr, concat, rows_of
from edgekit_converters.operators.wrappers import answered, single_output

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def _binary(walk: Walk, one: Any, found: Predicted) -> Expr:
    """`_predict_binary`: the value of a regressor, else the decision, else the second class's probability."""
    kind = type(one).__name__
    if is_regressor(one):
        return answered(walk, found, "predict", kind)
    if hasattr(one, "decision_function"):
        return answered(walk, found, "decision_function", kind)
    return answered(walk, found, "predict_proba", kind).at(1)


def _threshold(one: Any) -> float:
    """`_threshold_for_binary_predict`."""
    return 0.0 if hasattr(one, "decision_function") and is_classifier(one) else 0.5


def _constant(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """`_ConstantPredictor`: the only class that training had."""
    one = float(np.ravel(step.y_)[0])
    decision = rows_of(table[0].value, walk.graph, np.array([one]))
    shares = rows_of(table[0].value, walk.graph, np.array([1.0 - one, one]))
    return Predicted(label=decision.flat().cast("int64").value, probabilities=shares.value, decision=decision.value)


def _one_vs_rest(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The class with the largest score, the first of equals; of two classes, the second above the threshold.

    Of several labels each is there above the threshold, and its probability is left as it is.
    """
    estimators = step.estimators_
    found = [walk.predict(one, table, (*path, str(index))) for index, one in enumerate(estimators)]
    score = concat([_binary(walk, one, answers) for one, answers in zip(estimators, found, strict=True)])
    if step.multilabel_:
        label = scores.present(walk.graph, score.value, _threshold(estimators[0]))
    elif len(estimators) == 1:
        above = (score > _threshold(estimators[0])).cast("int64").flat()
        label = scores.label(walk.graph, above.value, step.classes_)
    else:
        label = scores.best(walk.graph, score.value, step.classes_)
    decided = hasattr(step, "decision_function") and not is_regressor(estimators[0])
    decision = score.value if decided else None
    if not hasattr(step, "predict_proba"):
        return Predicted(label=label, decision=decision)
    shares = concat([answered(walk, one, "predict_proba", "its estimator").at(1) for one in found])
    if len(estimators) == 1:
        shares = concat([1.0 - shares, shares])
    if step.multilabel_:
        return Predicted(label=label, probabilities=shares.value, decision=decision)
    whole = shares.sum()
    # A row without any share stays so.
    shares = shares / whole.equals(0.0).where(1.0, whole)
    return Predicted(label=label, probabilities=shares.value, decision=decision)


def _one_vs_one(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The class with the most votes, equal votes told apart by the squashed sum of the confidences.

    votes + c / (3 (|c| + 1)), c the sum of the decisions for a class.
    """
    if step.pairwise_indices_ is not None:
        raise Unfaithful("its estimators take kernel matrices", "use an estimator with a kernel of its own")
    count = len(step.classes_)
    confidence: list[Expr | None] = [None] * count
    votes: list[Expr | None] = [None] * count
    for index, ((first, second), one) in enumerate(zip(combinations(range(count), 2), step.estimators_, strict=True)):
        found = walk.predict(one, table, (*path, str(index)))
        score = _binary(walk, one, found)
        won = answered(walk, found, "predict", type(one).__name__)
        for place, summand, is_won in ((first, -score, won.equals(0.0)), (second, score, won.equals(1.0))):
            vote = is_won.cast("float64")
            before, counted = confidence[place], votes[place]
            confidence[place] = summand if before is None else before + summand
            votes[place] = vote if counted is None else counted + vote
    both = concat([one for one in confidence if one is not None])
    decision = concat([one for one in votes if one is not None]) + both / ((abs(both) + 1.0) * 3.0)
    if count == 2:
        decision = decision.at(1)
        above = (decision > _threshold(step.estimators_[0])).cast("int64").flat()
        return Predicted(label=scores.label(walk.graph, above.value, step.classes_), decision=decision.value)
    return Predicted(label=scores.best(walk.graph, decision.value, step.classes_), decision=decision.value)


def _output_code(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The class whose code is nearest to the scores: argmin of |code|^2 - 2 score . code; the first of equals."""
    single_output(step)
    score = concat(
        [
            _binary(walk, one, walk.predict(one, table, (*path, str(index))))
            for index, one in enumerate(step.estimators_)
        ]
    )
    code = np.asarray(step.code_book_, dtype=np.float64)
    distance = score.square().sum() + (score @ (-2.0 * code.T)) + (code**2).sum(axis=1)
    return Predicted(label=scores.label(walk.graph, distance.argmin().value, step.classes_))


PREDICTORS: Final[Mapping[str, Predict]] = {
    "_ConstantPredictor": _constant,
    "OneVsRestClassifier": _one_vs_rest,
    "OneVsOneClassifier": _one_vs_one,
    "OutputCodeClassifier": _output_code,
}
