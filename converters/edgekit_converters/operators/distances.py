"""Distances between rows of the graph and stored rows, in float64, from their differences.

The differences (of hamming: whether there is one) are summed from the first feature on, as scikit-learn's trees do, and
what is compared is the sum before its root is taken (the *reduced* distance, as there).

Source: sklearn/metrics/_dist_metrics.pyx.tp; `cosine_distances` of sklearn/metrics/pairwise.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.expression import Expr

METRICS: Final = (
    "euclidean",
    "sqeuclidean",
    "manhattan",
    "cityblock",
    "l1",
    "l2",
    "chebyshev",
    "minkowski",
    "cosine",
    "hamming",
)
SQUARED: Final = frozenset(["euclidean", "sqeuclidean"])
"""Metrics whose reduced distance is the sum of squares."""


def metric_of(step: Any) -> tuple[str, float]:
    """The metric's name, and p of a Minkowski metric.

    Raises:
        Unfaithful: A metric without a conversion.
    """
    name = step.effective_metric_ if isinstance(step.effective_metric_, str) else "a function of its own"
    name = {"l2": "euclidean", "l1": "manhattan", "cityblock": "manhattan"}.get(name, name)
    params = dict(step.effective_metric_params_ or {})
    power = float(params.pop("p", 2.0))
    if name == "minkowski":
        name = {1.0: "manhattan", 2.0: "euclidean", np.inf: "chebyshev"}.get(power, name)
    if name not in METRICS or any(one is not None for one in params.values()):
        raise Unfaithful(f"the metric '{name}' has no conversion", f"use one of {', '.join(METRICS)}")
    if name == "hamming" and step._fit_method == "brute" and getattr(step, "n_neighbors", None):
        raise Unfaithful(
            "of rows that are equally near by the metric 'hamming', its brute force takes whichever numpy leaves first",
            "fit it with algorithm='ball_tree'",
        )
    return name, power


def distances(x: Expr, rows: NDArray[np.float64], name: str, power: float) -> Expr:
    """[rows, stored]: from each row of x to each stored row."""
    if name == "cosine":
        return cosine(x, rows)
    return root(reduced(x.reshape(-1, 1, x.width) - rows, name, power, len(rows)), name, power)


def reduced(difference: Expr, name: str, power: float, count: int) -> Expr:
    """The reduced distances of differences [rows, count, features], as [rows, count]."""
    if name == "chebyshev":
        axis = difference.graph.constant(np.array([2], dtype=np.int64), "axes")
        return abs(difference).apply("ReduceMax", axis, width=count, keepdims=0)
    if name == "hamming":
        terms = (~difference.equals(0.0)).cast("float64")
    elif name in SQUARED:
        terms = difference.square()
    else:
        # One exponent for each feature: onnxruntime makes x * x * x of a single 3, which pow does not.
        powers = np.full(difference.width, power)
        terms = abs(difference) if name == "manhattan" else abs(difference) ** powers
    # CumSum adds one after another; ReduceSum adds lanes of a vector.
    running = terms.apply("CumSum", terms.graph.constant(np.array(2, dtype=np.int64), "axis"))
    last = terms.graph.constant(np.array(terms.width - 1, dtype=np.int64), "last")
    summed = running.apply("Gather", last, axis=2, width=count)
    return summed / float(difference.width) if name == "hamming" else summed


def root(summed: Expr, name: str, power: float) -> Expr:
    """The distances of reduced ones."""
    if name == "euclidean":
        return summed.sqrt()
    return summed ** (1.0 / power) if name == "minkowski" else summed


def cosine(x: Expr, rows: NDArray[np.float64]) -> Expr:
    """1 - cosine, within [0, 2]; a row of zeros has cosine 0."""
    length = x.square().sum().sqrt()
    unit = x / length.equals(0.0).where(1.0, length)
    lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    units = rows / np.where(lengths == 0, 1.0, lengths)
    return (1.0 - unit @ units.T).at_least(0.0).at_most(2.0)
