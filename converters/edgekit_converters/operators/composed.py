"""Functions of expressions that ONNX lacks in float64, or that are many nodes: log1p, expm1, cos, counting limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators.expression import Expr

COMPARED_MAX: Final = 32
"""Limits that each cell is compared with at once; more take memory, and are bisected."""

LARGE: Final = 2.0**60
"""From here on 1 is lost beside it: the plain function is exact, and the product in Kahan's formula may overflow."""


def cos(x: Expr) -> Expr:
    """1 - 2 sin(x / 2) ** 2: Sin has had a float64 kernel for longer than Cos. Within 2e-16, absolute."""
    half = (x * 0.5).apply("Sin")
    return 1.0 - half * half * 2.0


def log1p(x: Expr) -> Expr:
    """Log(1 + x) without losing small x: log(u) * x / (u - 1) with u = 1 + x, and x where u is 1.

    Source: Hewlett-Packard, HP-15C Advanced Functions Handbook, 1982, appendix; W. Kahan. Within 2 ulp.
    """
    u = x + 1.0
    near, large = u.equals(1.0), u >= LARGE
    return near.where(x, large.where(u.log(), u.log() * x / near.where(1.0, u - 1.0)))


def expm1(x: Expr) -> Expr:
    """Exp(x) - 1 without losing small x: (u - 1) * x / log(u) with u = exp(x), and x where u is 1.

    Source: W. Kahan, in N. Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1. Within 4 ulp.
    """
    u = x.exp()
    less = u - 1.0
    near, edge = u.equals(1.0), less.equals(-1.0) | (u >= LARGE)
    return near.where(x, edge.where(less, less * x / near.where(1.0, u.log())))


def count_reached(x: Expr, limits: Sequence[NDArray[np.float64]]) -> Expr:
    """[rows, width]: how many of its column's limits each cell has reached (x >= limit).

    The same as `numpy.searchsorted(limits, x, side="right")` of sorted limits: by comparing with all of them, or by
    bisection where they are many. NaN has reached none.
    """
    deepest = max(1, *(len(one) for one in limits))
    if deepest > COMPARED_MAX:
        deepest = (1 << deepest.bit_length()) - 1
    padded = np.full((x.width, deepest), np.inf)
    for row, one in zip(padded, limits, strict=True):
        row[: len(one)] = one
    if deepest > COMPARED_MAX:
        return _bisected(x, padded)
    spread = x.at(*np.repeat(np.arange(x.width), deepest).tolist())
    reached = (spread >= padded.ravel()).cast("float64")
    graph = x.graph
    shape = graph.constant(np.array([-1, x.width, deepest], dtype=np.int64), "shape")
    axes = graph.constant(np.array([2], dtype=np.int64), "axes")
    block = graph.node("Reshape", [reached.value, shape])[0]
    return Expr(graph, graph.value("ReduceSum", [block, axes], x.value, keepdims=0))


def _bisected(x: Expr, limits: NDArray[np.float64]) -> Expr:
    """`count_reached` of 2 ** n - 1 sorted limits for each column, in n steps."""
    flat = limits.ravel()
    starts = np.arange(x.width) * float(limits.shape[1])
    count, step = x.constant(np.zeros(x.width)), (limits.shape[1] + 1) // 2
    while step:
        reached = x >= (count + (starts + float(step - 1))).look_up(flat)
        count = count + reached.where(float(step), 0.0)
        step //= 2
    return count
