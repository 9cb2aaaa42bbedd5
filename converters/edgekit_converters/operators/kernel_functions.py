"""Kernel functions between the rows and stored ones, in float64.

Distances come from the differences where the block of them is small, for the kernel models' weights can be large and
cancel; beyond `BLOCK_MAX`, from |x|^2 - 2 x . s + |s|^2 about the middle of the stored rows.

Source: sklearn/metrics/pairwise.py; sklearn/gaussian_process/kernels.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.expression import Expr, rows_of

BLOCK_MAX: Final = 20_000
"""Stored rows times features, up to which differences are written out: 160 kB of float64 for each row asked."""

Rows = NDArray[np.float64]


def squared(x: Expr, rows: Rows, *, block_max: int = BLOCK_MAX) -> Expr:
    """[rows, stored]: squared Euclidean distances; from the differences up to `block_max` numbers stored."""
    if rows.size <= block_max:
        return (x.reshape(-1, 1, x.width) - rows).square().sum().reshape(-1, len(rows))
    middle = rows.mean(axis=0)
    if (rows == np.rint(rows)).all():  # of whole numbers every term is exact
        middle = np.rint(middle)
    shifted, centred = rows - middle, x - middle
    lengths: Rows = (shifted**2).sum(axis=1)
    product = centred @ np.asarray(-2.0 * shifted.T)
    found: Expr = centred.square().sum() + product + lengths
    return found.at_least(0.0)


def rbf(x: Expr, rows: Rows, gamma: float, *, block_max: int = BLOCK_MAX) -> Expr:
    """exp(-gamma |x - s|^2)."""
    return (squared(x, rows, block_max=block_max) * -gamma).exp()


def polynomial(x: Expr, rows: Rows, gamma: float, coef0: float, degree: float) -> Expr:
    """(gamma x . s + coef0)^degree."""
    return ((x @ rows.T) * gamma + coef0) ** float(degree)


def pairwise(name: Any, x: Expr, rows: Rows, *, gamma: float | None, coef0: float, degree: float) -> Expr:
    """A kernel of sklearn.metrics.pairwise by its name; gamma is 1 / features by default.

    Raises:
        Unfaithful: Another kernel.
    """
    gamma = float(1.0 / rows.shape[1] if gamma is None else gamma)
    if name == "linear":
        return x @ rows.T
    if name in {"poly", "polynomial"}:
        return polynomial(x, rows, gamma, coef0, degree)
    if name == "rbf":
        return rbf(x, rows, gamma)
    if name == "sigmoid":
        return ((x @ rows.T) * gamma + coef0).tanh()
    if name == "laplacian":
        size = abs(x.reshape(-1, 1, x.width) - rows).sum().reshape(-1, len(rows))
        return (size * -gamma).exp()
    shown = f"'{name}'" if isinstance(name, str) else "of its own"
    raise Unfaithful(f"a kernel {shown} has no conversion", "use linear, poly, rbf or sigmoid")


def _scaled(kernel: Any, x: Expr, rows: Rows) -> Expr:
    """Squared distances in units of the length scales."""
    scale = np.asarray(kernel.length_scale, dtype=np.float64)
    return squared(x / np.broadcast_to(scale, (rows.shape[1],)), rows / scale)


def _matern(kernel: Any, x: Expr, rows: Rows) -> Expr:
    nu, distance = float(kernel.nu), _scaled(kernel, x, rows)
    if nu == math.inf:
        return (distance * -0.5).exp()
    if nu not in {0.5, 1.5, 2.5}:
        raise Unfaithful(f"a Matern kernel of nu={nu:g} has no conversion", "use nu of 0.5, 1.5, 2.5 or inf")
    root = distance.sqrt() * math.sqrt(2.0 * nu)
    if nu == 0.5:
        return (-root).exp()
    factor = root + 1.0 if nu == 1.5 else root + 1.0 + root.square() / 3.0
    return factor * (-root).exp()


def _rational(kernel: Any, x: Expr, rows: Rows) -> Expr:
    alpha = float(kernel.alpha)
    return (squared(x, rows) / (2.0 * alpha * float(kernel.length_scale) ** 2) + 1.0) ** -alpha


def _periodic(kernel: Any, x: Expr, rows: Rows) -> Expr:
    sine = (squared(x, rows).sqrt() * (math.pi / float(kernel.periodicity))).apply("Sin")
    return ((sine / float(kernel.length_scale)).square() * -2.0).exp()


def _pairwise(kernel: Any, x: Expr, rows: Rows) -> Expr:
    """`pairwise_kernels` with the parameters that the metric has, as PairwiseKernel calls it."""
    from edgekit_converters.operators import kernels  # which is made of these functions

    given = {"gamma": kernel.gamma, **(kernel.pairwise_kernels_kwargs or {})}
    return Expr(
        x.graph, kernels.pairwise(x.graph, x.value, rows, kernel.metric, **kernels.read_by(kernel.metric, given))
    )


def _pairwise_diagonal(kernel: Any, x: Expr) -> Expr:
    """[rows, 1]: each row with itself."""
    given = {"gamma": kernel.gamma, **(kernel.pairwise_kernels_kwargs or {})}
    gamma, square = float(1.0 / x.width if given["gamma"] is None else given["gamma"]), x.square().sum()
    if kernel.metric == "linear":
        return square
    if kernel.metric in {"poly", "polynomial"}:
        return (square * gamma + float(given.get("coef0", 1.0))) ** float(given.get("degree", 3.0))
    if kernel.metric == "sigmoid":
        return (square * gamma + float(given.get("coef0", 1.0))).tanh()
    if kernel.metric == "cosine":
        return square.equals(0.0).where(0.0, 1.0)
    return x.ones() * 0.0 if kernel.metric == "additive_chi2" else x.ones()


def _constant(x: Expr, rows: Rows, value: float) -> Expr:
    return rows_of(x.value, x.graph, np.full(len(rows), value))


GAUSSIAN_PROCESS: Final[Mapping[str, Callable[[Any, Expr, Rows], Expr]]] = {
    "RBF": lambda kernel, x, rows: (_scaled(kernel, x, rows) * -0.5).exp(),
    "Matern": _matern,
    "RationalQuadratic": _rational,
    "ExpSineSquared": _periodic,
    "PairwiseKernel": _pairwise,
    "DotProduct": lambda kernel, x, rows: x @ rows.T + float(kernel.sigma_0) ** 2,
    "ConstantKernel": lambda kernel, x, rows: _constant(x, rows, float(kernel.constant_value)),
    "WhiteKernel": lambda kernel, x, rows: _constant(x, rows, 0.0),
    "Sum": lambda kernel, x, rows: process(kernel.k1, x, rows) + process(kernel.k2, x, rows),
    "Product": lambda kernel, x, rows: process(kernel.k1, x, rows) * process(kernel.k2, x, rows),
    "Exponentiation": lambda kernel, x, rows: process(kernel.kernel, x, rows) ** float(kernel.exponent),
}


def process(kernel: Any, x: Expr, rows: Rows) -> Expr:
    """A Gaussian process's kernel between the rows and the stored ones; white noise is 0 there.

    Raises:
        Unfaithful: Another kernel.
    """
    kind = type(kernel).__name__
    if kind not in GAUSSIAN_PROCESS:
        raise Unfaithful(f"the kernel {kind} has no conversion", f"use one of {', '.join(sorted(GAUSSIAN_PROCESS))}")
    return GAUSSIAN_PROCESS[kind](kernel, x, rows)


STATIONARY: Final = frozenset({"RBF", "Matern", "RationalQuadratic", "ExpSineSquared"})


def diagonal(kernel: Any, x: Expr) -> Expr:
    """[rows, 1]: the kernel of each row with itself (`diag`), white noise included.

    Raises:
        Unfaithful: Another kernel.
    """
    kind = type(kernel).__name__
    if kind in STATIONARY:
        return rows_of(x.value, x.graph, np.ones(1))
    if kind == "PairwiseKernel":
        return _pairwise_diagonal(kernel, x)
    if kind == "DotProduct":
        return x.square().sum() + float(kernel.sigma_0) ** 2
    if kind in {"ConstantKernel", "WhiteKernel"}:
        return rows_of(
            x.value, x.graph, np.array([getattr(kernel, "constant_value", getattr(kernel, "noise_level", 0))])
        )
    if kind in {"Sum", "Product"}:
        first, second = diagonal(kernel.k1, x), diagonal(kernel.k2, x)
        return first + second if kind == "Sum" else first * second
    if kind == "Exponentiation":
        return diagonal(kernel.kernel, x) ** float(kernel.exponent)
    raise Unfaithful(f"the kernel {kind} has no conversion", f"use one of {', '.join(sorted(GAUSSIAN_PROCESS))}")
