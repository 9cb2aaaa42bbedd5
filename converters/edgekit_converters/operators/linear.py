"""Linear models: x @ coef.T + intercept in float64, and what the class makes of it.

Source: sklearn/linear_model/_base.py (`LinearModel.predict`, `LinearClassifierMixin`), _logistic.py, _glm/glm.py,
_stochastic_gradient.py; sklearn/discriminant_analysis.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, from_matrix, scores
from edgekit_converters.operators.expression import Expr

REGRESSORS: Final = frozenset(
    [
        "ElasticNet",
        "ElasticNetCV",
        "HuberRegressor",
        "Lars",
        "LarsCV",
        "Lasso",
        "LassoCV",
        "LassoLars",
        "LassoLarsCV",
        "LassoLarsIC",
        "LinearRegression",
        "LinearSVR",
        "MultiTaskElasticNet",
        "MultiTaskElasticNetCV",
        "MultiTaskLasso",
        "MultiTaskLassoCV",
        "OrthogonalMatchingPursuit",
        "OrthogonalMatchingPursuitCV",
        "PassiveAggressiveRegressor",
        "QuantileRegressor",
        "Ridge",
        "RidgeCV",
        "SGDRegressor",
        "TheilSenRegressor",
    ]
)
LOG_LINKED: Final = frozenset({"GammaRegressor", "PoissonRegressor", "TweedieRegressor"})
CLASSIFIERS: Final = frozenset(
    [
        "LinearDiscriminantAnalysis",
        "LinearSVC",
        "LogisticRegression",
        "LogisticRegressionCV",
        "PassiveAggressiveClassifier",
        "Perceptron",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
    ]
)


def decision(graph: GraphBuilder, step: Any, x: Value, *, before: float | None = None) -> Value:
    """[rows, targets or scores]: x @ coef.T + intercept; with `before` times the first score as a column before it."""
    coef = np.atleast_2d(np.asarray(step.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(step.intercept_, dtype=np.float64), (len(coef),)).reshape(1, -1)
    if before is not None:
        coef, intercept = np.vstack([before * coef[:1], coef]), np.hstack([before * intercept[:, :1], intercept])
    weights = graph.constant(np.ascontiguousarray(coef.T), "coef")
    product = graph.value("MatMul", [x, weights], replace(x, width=len(coef)))
    return graph.value("Add", [product, graph.constant(intercept, "intercept")], product)


def regressor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The linear predictor, through the inverse of the link for generalized linear models."""
    value = decision(graph, step, x)
    if type(step).__name__ in LOG_LINKED and type(step._base_loss.link).__name__ != "IdentityLink":
        value = graph.value("Exp", [value], value)
    return Predicted(value=value)


def bayesian(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """BayesianRidge, ARDRegression: the linear predictor; its variance is x . sigma . x + 1 / alpha."""

    def deviation() -> Value:
        given, sigma = Expr(graph, x) - np.asarray(step.X_offset_), np.asarray(step.sigma_, dtype=np.float64)
        if type(step).__name__ == "ARDRegression":  # its sigma_ is of the features that it keeps
            given = given.at(*np.flatnonzero(step.lambda_ < step.threshold_lambda).tolist())
        return (((given @ sigma) * given).sum() + float(1.0 / step.alpha_)).sqrt().value

    return Predicted(value=decision(graph, step, x), deviation=deviation)


def projected(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """PLSRegression, PLSCanonical, CCA: (x - mean) @ coef.T + intercept (sklearn/cross_decomposition/_pls.py)."""
    centred = Expr(graph, x) - np.asarray(step._x_mean)
    return Predicted(value=(centred @ np.asarray(step.coef_).T + np.ravel(step.intercept_)).value)


def classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """Label by the sign (two classes) or the largest score, and probabilities where the class gives them.

    Of several labels (RidgeClassifier) each is there above 0.
    """
    probable = hasattr(step, "predict_proba") and getattr(step, "loss", "") != "modified_huber"
    if probable and len(step.classes_) == 2:
        return _two_classes(graph, step, x)
    score = decision(graph, step, x)
    if scores.label_count(step):
        return Predicted(label=scores.present(graph, score, 0.0), decision=score)
    label = (scores.positive if score.width == 1 else scores.best)(graph, score, step.classes_)
    if not hasattr(step, "predict_proba"):
        return Predicted(label=label, decision=score)
    return Predicted(label=label, probabilities=_probabilities(graph, step, score), decision=score)


def _two_classes(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """Both scores from one product: label and probabilities take half the nodes that the sign and expit would.

    expit(d) and 1 - expit(d) are softmax([0, d]). Some classes take softmax([-d, d]) instead.
    """
    both = decision(graph, step, x, before=0.0 if _one_vs_rest(step) else -1.0)
    return Predicted(
        label=scores.best(graph, both, step.classes_),
        probabilities=scores.softmax(graph, both),
        decision=graph.gather(both, [1]),
    )


def _probabilities(graph: GraphBuilder, step: Any, score: Value) -> Value:
    if getattr(step, "loss", "") == "modified_huber":
        # (clip(score, -1, 1) + 1) / 2: T. Zhang, COLT 2002, appendix B.
        share = ((Expr(graph, score).at_most(1.0).at_least(-1.0) + 1.0) / 2.0).value
        return scores.two_sided(graph, share) if score.width == 1 else scores.normalized(graph, share)
    if _one_vs_rest(step):
        return scores.normalized(graph, scores.sigmoid(graph, score))
    return scores.softmax(graph, score)


def _one_vs_rest(step: Any) -> bool:
    """As `LogisticRegression.predict_proba` decides it; linear discriminant analysis decides by the classes alone."""
    if not type(step).__name__.startswith(("LogisticRegression", "LinearDiscriminantAnalysis")):
        return True
    scheme = getattr(step, "multi_class", "deprecated")  # gone since scikit-learn 1.8
    if scheme in {"ovr", "warn"}:
        return True
    return bool((scheme in {"auto", "deprecated"} and len(step.classes_) <= 2) or step.solver == "liblinear")


PREDICTORS: Final[Mapping[str, Predict]] = {
    **dict.fromkeys(REGRESSORS | LOG_LINKED, from_matrix(regressor)),
    **dict.fromkeys(["ARDRegression", "BayesianRidge"], from_matrix(bayesian)),
    **dict.fromkeys(CLASSIFIERS, from_matrix(classifier)),
    **dict.fromkeys(["CCA", "PLSCanonical", "PLSRegression"], from_matrix(projected)),
}
