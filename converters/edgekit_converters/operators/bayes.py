"""Naive Bayes and quadratic discriminant analysis: a log likelihood for each class, its softmax and its argmax.

Source: `_joint_log_likelihood` of sklearn/naive_bayes.py; `QuadraticDiscriminantAnalysis._decision_function` of
sklearn/discriminant_analysis.py (Hastie, Tibshirani, Friedman: Elements of Statistical Learning, eq. 4.12).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, from_matrix, scores
from edgekit_converters.operators.composed import log1p
from edgekit_converters.operators.expression import Expr, concat, total


def _gaussian(step: Any, x: Expr) -> Expr:
    """Log(prior) - sum(log(2 pi var)) / 2 - sum((x - theta)^2 / var) / 2."""
    theta, variance = np.asarray(step.theta_), np.asarray(step.var_)
    constant: NDArray[np.float64] = np.log(step.class_prior_) - 0.5 * np.log(2.0 * np.pi * variance).sum(axis=1)
    parts = [((x - mean).square() / var).sum() for mean, var in zip(theta, variance, strict=True)]
    found = concat(parts) * -0.5
    return found + constant


def _multinomial(step: Any, x: Expr) -> Expr:
    """X . log p + log(prior)."""
    return x @ np.asarray(step.feature_log_prob_).T + np.asarray(step.class_log_prior_)


def _complement(step: Any, x: Expr) -> Expr:
    """X . w; the prior of a single class only."""
    found = x @ np.asarray(step.feature_log_prob_).T
    return found + np.asarray(step.class_log_prior_) if len(step.classes_) == 1 else found


def _bernoulli(step: Any, x: Expr) -> Expr:
    """X . (log p - log(1 - p)) + sum(log(1 - p)) + log(prior), x cut to 0 and 1 at `binarize`."""
    if step.binarize is not None:
        x = (x > float(step.binarize)).cast("float64")
    present = np.asarray(step.feature_log_prob_)
    absent = np.log(1 - np.exp(present))
    found = x @ np.asarray(present - absent).T
    return found + np.asarray(step.class_log_prior_ + absent.sum(axis=1))


def _categorical(step: Any, x: Expr) -> Expr:
    """The sum of log p of each feature's category; NaN for one that training lacked, where scikit-learn raises."""
    parts = []
    for index, table in enumerate(step.feature_log_prob_):
        column, count = x.at(index), table.shape[1]
        place = column.at_least(0.0).at_most(float(count - 1)).cast("int64").flat()
        unknown = column >= float(count)
        parts.append(unknown.where(np.nan, place.look_up(np.ascontiguousarray(table.T))))
    return total(parts) + np.asarray(step.class_log_prior_)


def _quadratic(step: Any, x: Expr) -> Expr:
    """-(|((x - mean) R S^-1/2)|^2 + sum(log S)) / 2 + log(prior)."""
    parts: list[Expr] = []
    for mean, rotation, scaling in zip(step.means_, step.rotations_, step.scalings_, strict=True):
        parts.append(((x - np.asarray(mean)) @ np.asarray(rotation * scaling**-0.5)).square().sum())
    spread = np.array([np.sum(np.log(scaling)) for scaling in step.scalings_])
    return (concat(parts) + spread) * -0.5 + np.asarray(np.log(step.priors_))


LIKELIHOODS: Final[Mapping[str, Callable[[Any, Expr], Expr]]] = {
    "BernoulliNB": _bernoulli,
    "CategoricalNB": _categorical,
    "ComplementNB": _complement,
    "GaussianNB": _gaussian,
    "MultinomialNB": _multinomial,
    "QuadraticDiscriminantAnalysis": _quadratic,
}


def _shares(found: Expr) -> Expr:
    """exp(l - logsumexp(l)), in which the original rounds l's size away: not the more exact softmax.

    Source: `_BaseNB.predict_log_proba`; scipy.special.logsumexp: max + log(m) + log1p(sum of the others' exp(l - max)
    / m), m how many are the largest.
    """
    largest = found.max()
    best = found.equals(largest)
    count = best.cast("float64").sum()
    others = best.where(0.0, (found - largest).exp()).sum()
    return (found - (log1p(others / count) + count.log() + largest)).exp()


def _classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The class of the largest log likelihood, the first of equals; probabilities are its softmax."""
    found = LIKELIHOODS[type(step).__name__](step, Expr(graph, x))
    decision = None
    if hasattr(step, "decision_function"):
        decision = found if found.width != 2 else found.at(1) - found.at(0)
    return Predicted(
        label=scores.best(graph, found.value, step.classes_),
        probabilities=_shares(found).value,
        decision=None if decision is None else decision.value,
    )


PREDICTORS: Final[Mapping[str, Predict]] = dict.fromkeys(LIKELIHOODS, from_matrix(_classifier))
