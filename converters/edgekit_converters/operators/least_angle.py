"""Least angle regression of each row on a fixed dictionary, with the lasso's drops, in an ONNX Loop.

A turn adds the atom that correlates most with what is left, C of it, walks from w in the direction G_A^-1 s that keeps
the correlations of the active atoms equal, and stops where an idle atom catches up, an active weight crosses 0 (the
lasso drops its atom there) or nothing is left. At C = alpha the weights lie on the line between two such points. The
inverse of the active atoms' Gram matrix is kept, and changed by one atom at a time.

Source: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Annals of Statistics 32 (2004), sections 2 and 3.1;
`_lars_path_solver` of sklearn/linear_model/_least_angle.py; of the inverse, W. Hager, SIAM Review 31 (1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators.expression import Expr, rows_of
from edgekit_converters.operators.iteration import one_hot, repeat

TINY: Final = float(np.finfo(np.float32).tiny)
EQUAL: Final = float(np.finfo(np.float32).eps)
"""Of two correlations over the number of features."""
DEGENERATE: Final = 1e-7
"""Of an atom's length that the active ones do not explain."""
LARGEST: Final = float(np.finfo(np.float64).max)


@dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """Where to go, and how far.

    Attributes:
        gram: D D' of the dictionary [atoms, features].
        features: Of a row.
        alpha: The end: the penalty over the features.
        most: Steps.
        lasso: Atoms whose weights cross 0 are dropped.
        positive: No weight is below 0.
    """

    gram: NDArray[np.float64]
    features: int
    alpha: float
    most: int
    lasso: bool
    positive: bool


def walked(correlation: Expr, path: Path) -> Expr:
    """[rows, atoms]: the weights at the end of the path, from the rows' correlations with the atoms."""
    count = len(path.gram)
    zero = rows_of(correlation.value, correlation.graph, np.zeros(count))
    nothing, none = zero.at(0), zero * np.zeros(1)
    inverse = rows_of(correlation.value, correlation.graph, np.zeros(count * count))
    # Weights now and before, correlations, signs of the active atoms, alpha before, steps, dropped just now, going.
    state = [zero, zero, correlation, none, inverse, nothing, nothing, nothing, nothing + 1.0]
    turns = 2 * path.most + count
    return repeat(turns, state, [correlation], lambda state, given: _turn(state, given[0], path))[0]


def _turn(state: list[Expr], q: Expr, path: Path) -> tuple[Expr, list[Expr]]:
    w, w_before, cov, sign, inverse, alpha_before, steps, dropped, active_row = state
    count, gram = len(path.gram), path.gram
    going, drop = active_row > 0.5, dropped > 0.5
    active = abs(sign) > 0.5
    everything = active.cast("float64").sum() >= float(count)
    reach = active.where(-LARGEST, cov if path.positive else abs(cov))
    level = everything.where(0.0, reach.max())
    alpha = level / float(path.features)

    near = alpha <= path.alpha + EQUAL
    between = near & (abs(alpha - path.alpha) > EQUAL) & (steps > 0.0)
    span = between.where(alpha_before - alpha, 1.0)
    last = w_before + (alpha_before - path.alpha) / span * (w - w_before)
    stopped = near | (steps >= float(path.most)) | everything

    place = reach.argmax().reshape(-1, 1)
    joining = one_hot(place, count)
    row = place.flat().look_up(gram)
    explained = _times(inverse, row, count)
    length = abs(joining.where(row, 0.0).sum() - (row * explained).sum()).sqrt().maximum(float(np.finfo(float).eps))
    degenerate = ~drop & (length < DEGENERATE)
    adding = ~drop & ~degenerate
    side = joining.where(1.0, 0.0) - explained
    grown = inverse + _outer(side / adding.where(length, 1.0), count)
    inverse_now = (going & adding).where(grown, inverse)
    towards = 1.0 if path.positive else cov.apply("Sign")
    sign_now = (adding & joining).where(towards, sign)
    active_now = abs(sign_now) > 0.5
    bailing = (steps > 0.0) & (alpha_before < alpha) if path.lasso else (steps < 0.0)
    walking = going & ~stopped & ~degenerate & ~bailing

    direction = _times(inverse_now, sign_now, count)
    scale = 1.0 / walking.where((direction * sign_now).sum(), 1.0).sqrt()
    direction = direction * scale
    along = direction @ gram
    gamma = level / scale
    for one in ((level - cov) / (scale - along + TINY), (level + cov) / (scale + along + TINY))[: 2 - path.positive]:
        gamma = gamma.minimum(_least_positive(active_now.where(0.0, one)))
    crossing = active_now.where(-w / (direction + TINY), 0.0)
    first = _least_positive(crossing)
    crosses = walking & (first < gamma)
    leaving = crosses & crossing.equals(first)
    gamma = crosses.where(first, gamma) if path.lasso else gamma

    w_now = active_now.where(w + gamma * direction, 0.0)
    cov_now = cov - gamma * along
    if path.lasso:
        cov_now = leaving.where(q - w_now @ gram, cov_now)
        turned = leaving.where(0.0, sign_now)
        gone = leaving.cast("float64").argmax().reshape(-1, 1)
        column = _times(inverse_now, one_hot(gone, count).where(1.0, 0.0), count)
        pivot = one_hot(gone, count).where(column, 0.0).sum()
        shrunk = inverse_now - _outer(column, count) / crosses.where(pivot, 1.0)
        inverse_now = crosses.where(shrunk, inverse_now)
    else:
        turned = leaving.where(-sign_now, sign_now)
    forgotten = going & ~stopped & degenerate & joining
    after = [
        walking.where(w_now, (going & between).where(last, w)),
        walking.where(w, w_before),
        walking.where(cov_now, forgotten.where(0.0, cov)),
        walking.where(turned, sign),
        walking.where(inverse_now, inverse),
        walking.where(alpha, alpha_before),
        walking.where(steps + 1.0, steps),
        walking.where(crosses.cast("float64"), dropped),
    ]
    still = walking | (going & ~stopped & degenerate)
    return still, [*after, still.cast("float64")]


def _least_positive(values: Expr) -> Expr:
    return -((-(values > 0.0).where(values, LARGEST)).max())


def _times(matrix: Expr, vector: Expr, count: int) -> Expr:
    """[rows, count]: each row's symmetric matrix [rows, count * count] times its vector [rows, count]."""
    return (matrix.reshape(-1, count, count) * vector.reshape(-1, 1, count)).sum().reshape(-1, count)


def _outer(vector: Expr, count: int) -> Expr:
    """[rows, count * count]: each row's vector times itself."""
    return (vector.reshape(-1, count, 1) * vector.reshape(-1, 1, count)).reshape(-1, count * count)
