"""From XGBoost's margin to its answers, in float32 as XGBoost computes them.

XGBoost calls the C library's `expf`, which rounds a result computed in float64: so does the graph, with `Exp` in
float64 and a cast. The results were equal bit for bit in all but about one of 1,000, and there by one ulp of float32.

Source: `Sigmoid` and `Softmax` of src/common/math.h; `PredTransform` of src/objective/*.cc in XGBoost; scipy.special.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.expression import Expr

IDENTITY: Final = frozenset(
    [
        "binary:logitraw",
        "rank:map",
        "rank:ndcg",
        "rank:pairwise",
        "reg:absoluteerror",
        "reg:expectileerror",
        "reg:linear",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:squarederror",
        "reg:squaredlogerror",
    ]
)
SIGMOID: Final = frozenset({"binary:logistic", "reg:logistic"})
EXP: Final = frozenset({"count:poisson", "reg:gamma", "reg:tweedie", "survival:aft", "survival:cox"})
SOFTMAX: Final = frozenset({"multi:softmax", "multi:softprob"})

EXPF_MAX: Final = 88.7
"""`Sigmoid` caps its exponent here."""
EXPF_SURE: Final = 80.0
"""A margin of leaves that reach no further needs no cap."""


def transformed(margin: Expr, objective: str, bound: float = float("inf")) -> Expr:
    """What `predict` of a Booster answers for its margin [rows, outputs]; the margin's probabilities of a softmax.

    Args:
        margin: In float32.
        objective: By its name there.
        bound: What no margin is beyond, above 0 or below, but for the rounding of its sum.

    Raises:
        Unfaithful: An objective that is not known.
    """
    if objective in IDENTITY:
        return margin
    if objective in SIGMOID:
        power = -margin
        # A sum of 2^20 float32 numbers below 80 is within 80 * 2^20 * 2^-24 = 5 of the exact one.
        if bound > EXPF_SURE:
            power = power.at_most(EXPF_MAX)
        return 1.0 / (_exp(power) + 1.0)
    if objective in EXP:
        return _exp(margin)
    if objective in SOFTMAX:
        shares = _exp(margin - margin.max())
        return shares / shares.cast("float64").sum().cast("float32")
    if objective == "binary:hinge":
        return (margin > 0.0).cast("float32")
    raise Unfaithful(f"objective={objective} is not known here", "train with another objective, or report it")


def scipy_softmax(margin: Expr) -> Expr:
    """The probabilities of an XGBClassifier with multi:softmax: scipy's softmax of the float32 margin."""
    shares = _exp(margin - margin.max())
    return shares / shares.sum()


def linear(x: Expr, weights: NDArray[np.float64], start: Expr) -> Expr:
    """[rows, outputs] of gblinear: start + bias, and x * w added column by column; a missing x adds nothing."""
    total: Expr = start + weights[-1]
    for place, row in enumerate(weights[:-1]):
        column = x.at(place)
        total = total + column.is_nan().apply("Where", x.constant(np.array([0.0])), column * row, dtype="float32")
    return total


def _exp(x: Expr) -> Expr:
    return x.cast("float64").exp().cast("float32")
