"""GradientBoosting: init + learning_rate * leaf, stage by stage, through the loss's link.

Where `init` is an estimator, it reads x in float32, and the link of what it predicts (of shares: the logit, half of it
for the exponential loss, log(p) - mean(log(p)) for several classes) is added to the sum of the leaves.

The raw scores and the labels, which are made of them, are scikit-learn's bit for bit. Probabilities go through `Exp`,
whose last bits are the mathematics library's own: measured at most 3 ulps apart, 5 for a softmax.

Source: `predict_stages` of sklearn/ensemble/_gradient_boosting.pyx; `predict` and `_init_raw_predictions` of
sklearn/ensemble/_gb.py; sklearn/_loss/link.py; `predict_proba` of sklearn/_loss/loss.py; `expit` of scipy.special.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn._loss import HalfBinomialLoss
from sklearn.ensemble._gb import _init_raw_predictions

from edgekit_converters.graph import GraphBuilder, Table, Value, columns
from edgekit_converters.operators import Predict, Predicted, scores
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.tree_ensemble import constant, plain, sums
from edgekit_converters.operators.tree_nodes import Tree
from edgekit_converters.operators.wrappers import response

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def boosted(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """GradientBoostingClassifier and -Regressor.

    Raises:
        Unfaithful: The conversion of `init` does not give what is asked of it.
    """
    graph, x = walk.graph, walk.matrix(table)
    raw = sums(graph, stages(step), step.estimators_.shape[1], x, "float32")
    if not starts_alike(step):
        raw = (_start(walk, step, x, path) + Expr(graph, raw)).value
    if not hasattr(step, "classes_"):
        return Predicted(value=raw)
    scale = 2.0 if step.loss == "exponential" else 1.0
    return classified(graph, raw, step.classes_, at_zero=True, scale=scale)


def starts_alike(step: Any) -> bool:
    """Whether the scores of all rows start from the same numbers."""
    constant = type(step.init_).__name__ in {"DummyClassifier", "DummyRegressor"}
    return step.init_ == "zero" or (constant and getattr(step.init_, "strategy", "") not in {"stratified", "uniform"})


def stages(step: Any) -> list[Tree]:
    """The trees with what their leaves add; where all rows start alike, the first ones are the start of each score."""
    start = np.zeros(0)
    if starts_alike(step):
        start = np.ravel(step._raw_predict_init(np.zeros((1, step.n_features_in_), dtype=np.float32)))
    return [
        *map(constant, start.astype(np.float64).tolist()),
        *(
            plain(one.tree_, one.tree_.value[:, 0, :1] * step.learning_rate)
            for stage in step.estimators_
            for one in stage
        ),
    ]


def _start(walk: Walk, step: Any, x: Value, path: Path) -> Expr:
    """[rows, scores]: the link of what `init` predicts for x in float32; of two classes, of the second one's share."""
    short = columns(walk.graph.cast(walk.graph.cast(x, "float32"), "float64"))
    if not hasattr(step, "classes_"):  # all losses of a regressor have the identity as their link
        return response(walk, step.init_, short, (*path, "init"), ("predict",))[0]
    shares = response(walk, step.init_, short, (*path, "init"), ("predict_proba",))[0]
    shares = shares.maximum(_epsilon()).minimum(1 - _epsilon())
    if step.loss == "exponential":
        return _logit(shares.at(1)) * 0.5
    if shares.width == 2:
        return _logit(shares.at(1))
    logs = shares.log()
    return logs - logs.mean()


def _epsilon() -> float:
    """Shares are cut to [this, 1 - this] before the link: the epsilon of float64, or of float32 in older releases."""
    probe = SimpleNamespace(predict_proba=lambda X: np.array([[1.0, 0.0]]))
    lowest = float(_init_raw_predictions(np.zeros((1, 1)), probe, HalfBinomialLoss(), True)[0, 0])
    known = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)
    return min(known, key=lambda one: abs(lowest - float(np.log(one))))


def _logit(p: Expr) -> Expr:
    return (p / (1.0 - p)).log()


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
    label, shares = scores.of_two(graph, score, classes, at_zero=at_zero)
    return Predicted(label=label, probabilities=shares, decision=raw)


PREDICTORS: Final[Mapping[str, Predict]] = dict.fromkeys(
    ("GradientBoostingClassifier", "GradientBoostingRegressor"), boosted
)
