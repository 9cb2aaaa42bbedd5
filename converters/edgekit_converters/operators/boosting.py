"""GradientBoosting: init + learning_rate * leaf, stage by stage, through the loss's link.

The raw scores and the labels, which are made of them, are scikit-learn's bit for bit. Probabilities go through `Exp`,
whose last bits are the mathematics library's own: measured at most 3 ulps apart, 5 for a softmax.

Source: `predict_stages` of sklearn/ensemble/_gradient_boosting.pyx; `predict` and `_raw_predict_init` of
sklearn/ensemble/_gb.py; `predict_proba` of sklearn/_loss/loss.py; `expit` of scipy.special.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, Unfaithful, from_matrix, scores
from edgekit_converters.operators.tree_ensemble import constant, plain, sums
from edgekit_converters.operators.tree_nodes import Tree


def boosted(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """GradientBoostingClassifier and -Regressor.

    Raises:
        Unfaithful: `init` is an estimator of its own.
    """
    trees = stages(step)
    raw = sums(graph, trees, step.estimators_.shape[1], x, "float32")
    if not hasattr(step, "classes_"):
        return Predicted(value=raw)
    scale = 2.0 if step.loss == "exponential" else 1.0
    return classified(graph, raw, step.classes_, at_zero=True, scale=scale)


def stages(step: Any) -> list[Tree]:
    """The trees with what their leaves add; the first ones are the start of each score.

    Raises:
        Unfaithful: `init` is an estimator of its own.
    """
    if step.init_ != "zero" and type(step.init_).__name__ not in {"DummyClassifier", "DummyRegressor"}:
        raise Unfaithful(f"init={type(step.init_).__name__} has no conversion yet", "train with init=None")
    start = np.asarray(step._raw_predict_init(np.zeros((1, step.n_features_in_), dtype=np.float32)), dtype=np.float64)
    return [
        *map(constant, start.ravel().tolist()),
        *(
            plain(one.tree_, one.tree_.value[:, 0, :1] * step.learning_rate)
            for stage in step.estimators_
            for one in stage
        ),
    ]


def classified(
    graph: GraphBuilder, raw: Value, classes: NDArray[Any], *, at_zero: bool, scale: float = 1.0
) -> Predicted:
    """Label and probabilities of raw scores.

    Args:
        graph: The graph.
        raw: [rows, 1] for two classes, else [rows, classes].
        classes: The classes.
        at_zero: With two classes, whether a score of 0 means the second one.
        scale: The probability of the second of two classes is expit(scale * score).
    """
    if raw.width > 1:
        return Predicted(label=scores.best(graph, raw, classes), probabilities=scores.softmax(graph, raw), decision=raw)
    score = graph.value("Mul", [raw, graph.constant(np.array([scale]), "scale")], raw) if scale != 1.0 else raw
    return Predicted(
        label=scores.positive(graph, raw, classes, at_zero=at_zero),
        probabilities=scores.two_sided(graph, scores.sigmoid(graph, score)),
        decision=raw,
    )


PREDICTORS: Final[Mapping[str, Predict]] = dict.fromkeys(
    ("GradientBoostingClassifier", "GradientBoostingRegressor"), from_matrix(boosted)
)
