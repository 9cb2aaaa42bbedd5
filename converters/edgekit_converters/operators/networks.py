"""Multi-layer perceptrons and the hidden units of a Boltzmann machine, in float64.

Source: `_forward_pass_fast`, `MLPClassifier._predict`, `predict_proba` of
sklearn/neural_network/_multilayer_perceptron.py; sklearn/neural_network/_base.py (`ACTIVATIONS`);
`BernoulliRBM._mean_hiddens` of _rbm.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, Transform, Unfaithful, from_matrix, on_matrix, scores
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.scores import label_count

ACTIVATIONS: Final[Mapping[str, Callable[[Expr], Expr]]] = {
    "identity": lambda x: x,
    "logistic": Expr.sigmoid,
    "tanh": Expr.tanh,
    "relu": lambda x: x.at_least(0.0),
    "softmax": Expr.softmax,
    "exp": Expr.exp,
}


def _forward(graph: GraphBuilder, step: Any, x: Value) -> Expr:
    """[rows, outputs]: x W + b through each layer's activation."""
    found = Expr(graph, x)
    names = [step.activation] * (len(step.coefs_) - 1) + [step.out_activation_]
    for weights, bias, name in zip(step.coefs_, step.intercepts_, names, strict=True):
        if name not in ACTIVATIONS:
            raise Unfaithful(f"the activation '{name}' has no conversion", f"use one of {', '.join(ACTIVATIONS)}")
        found = ACTIVATIONS[name](found @ np.asarray(weights, dtype=np.float64) + np.asarray(bias, dtype=np.float64))
    return found


def _classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """Two classes: the second above 0.5; more: the class of the largest output, the first of equals.

    Of several labels each is there above 0.5.
    """
    shares = _forward(graph, step, x)
    if label_count(step):
        return Predicted(label=scores.present(graph, shares.value, 0.5), probabilities=shares.value)
    if shares.width > 1:
        return Predicted(label=scores.best(graph, shares.value, step.classes_), probabilities=shares.value)
    above = (shares > 0.5).cast("int64").flat()
    return Predicted(
        label=scores.label(graph, above.value, step.classes_), probabilities=concat([1.0 - shares, shares]).value
    )


def _regressor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    return Predicted(value=_forward(graph, step, x).value)


def boltzmann_machine(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """BernoulliRBM: each hidden unit's probability, 1 / (1 + exp(-(x W' + b)))."""
    weights, bias = np.asarray(step.components_, dtype=np.float64), np.asarray(step.intercept_hidden_, dtype=np.float64)
    return (Expr(graph, x) @ weights.T + bias).sigmoid().value


TRANSFORMERS: Final[Mapping[str, Transform]] = {"BernoulliRBM": on_matrix(boltzmann_machine)}
PREDICTORS: Final[Mapping[str, Predict]] = {
    "MLPClassifier": from_matrix(_classifier),
    "MLPRegressor": from_matrix(_regressor),
}
