"""Calibrated probabilities: sigmoid, isotonic and temperature, over any classifier, averaged over the folds.

Source: sklearn/calibration.py, `_CalibratedClassifier.predict_proba`, `_SigmoidCalibration`, `_TemperatureScaling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table
from edgekit_converters.operators import Predict, Predicted, Unfaithful, scores
from edgekit_converters.operators.expression import Expr, concat, total
from edgekit_converters.operators.isotonic import isotonic
from edgekit_converters.operators.wrappers import response

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

EPSILON: Final = 1e-12
"""What is added to a probability before its logarithm (`_convert_to_logits`)."""
JUST_ABOVE_ONE: Final = 1.0 + 1e-5


def _calibrated(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The mean over the folds; the class of the largest mean, the first of equals."""
    folds = [_fold(walk, one, table, (*path, str(index))) for index, one in enumerate(step.calibrated_classifiers_)]
    shares = total(folds) / float(len(folds))
    return Predicted(label=scores.best(walk.graph, shares.value, step.classes_), probabilities=shares.value)


def _fold(walk: Walk, fold: Any, table: Table, path: Path) -> Expr:
    """[rows, classes] of one fold's classifier and its calibrators."""
    count = len(fold.classes)
    answer, method = response(walk, fold.estimator, table, path, ("decision_function", "predict_proba"))
    if fold.method == "temperature":
        shares = _temperature(answer, method, float(fold.calibrators[0].beta_))
    else:
        if count == 2 and answer.width == 2:
            answer = answer.at(1)
        places = np.searchsorted(fold.classes, fold.estimator.classes_)
        if count > 2 and len(places) != count:
            # A class that the fold's training part lacked keeps probability 0, as in the original.
            raise Unfaithful("a fold lacks a class", "use stratified folds, or more rows of that class")
        parts = [_one(answer.at(index), calibrator, fold.method) for index, calibrator in enumerate(fold.calibrators)]
        if count == 2:
            shares = concat([1.0 - parts[0], parts[0]])
        else:
            shares = concat([parts[index] for index in np.argsort(places)])
            whole = shares.sum()
            empty = whole.equals(0.0)
            shares = empty.where(1.0 / count, shares / empty.where(1.0, whole))
    slightly = (shares > 1.0).cast("float64") * (shares > JUST_ABOVE_ONE).where(0.0, 1.0)
    return (slightly > 0.5).where(1.0, shares)


def _one(score: Expr, calibrator: Any, method: str) -> Expr:
    """[rows, 1]: sigmoid 1 / (1 + exp(a x + b)), or the isotonic regression."""
    if method == "isotonic":
        return isotonic(score, calibrator)
    return (-(float(calibrator.a_) * score + float(calibrator.b_))).sigmoid()


def _temperature(answer: Expr, method: str, beta: float) -> Expr:
    """softmax(beta * logits): of probabilities log(p + 1e-12), of a decision d (-d, d)."""
    if method == "predict_proba":
        if answer.width == 2:
            # The original keeps the second column only, and subtracts it from 1 again.
            second = answer.at(1)
            answer = concat([1.0 - second, second])
        logits = (answer + EPSILON).log()
    elif answer.width == 1:
        logits = concat([-answer, answer])
    else:
        logits = answer
    return (logits * beta).softmax()


PREDICTORS: Final[Mapping[str, Predict]] = {"CalibratedClassifierCV": _calibrated}
