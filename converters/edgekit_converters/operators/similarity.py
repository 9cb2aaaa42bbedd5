"""Predictors that weigh stored rows by a kernel: ridge, Gaussian process regression, label propagation.

Source: `predict` of sklearn/kernel_ridge.py, sklearn/gaussian_process/_gpr.py;
`BaseLabelPropagation.predict_proba` of sklearn/semi_supervised/_label_propagation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from edgekit_contracts.limits import BUNDLE_MAX_BYTES
from edgekit_converters.graph import GraphBuilder, Table, Value, is_narrow
from edgekit_converters.operators import (
    Predict,
    Predicted,
    Unfaithful,
    from_matrix,
    kernel_functions,
    nearest_rows,
    scores,
)
from edgekit_converters.operators.expression import Expr

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def _ridge(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """KernelRidge: k(x, rows) . dual coefficients."""
    if step.kernel_params:
        raise Unfaithful("its kernel has parameters of its own", "use gamma, coef0 and degree")
    rows = _dense(step.X_fit_)
    kernel = kernel_functions.pairwise(
        step.kernel, Expr(graph, x), rows, gamma=step.gamma, coef0=float(step.coef0), degree=float(step.degree)
    )
    return Predicted(value=(kernel @ np.asarray(step.dual_coef_).reshape(len(rows), -1)).value)


def _process(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """GaussianProcessRegressor: k(x, rows) . alpha, in units of the target's deviation, plus its mean."""
    rows, given, scale = _dense(step.X_train_), Expr(graph, x), np.ravel(step._y_train_std)
    kernel = kernel_functions.process(step.kernel_, given, rows)
    mean = kernel @ np.asarray(step.alpha_).reshape(len(rows), -1)

    def deviation() -> Value:
        """k(x, x) - |L^-1 k(rows, x)|^2, at least 0; the triangular system is solved here once, for every x.

        Raises:
            Unfaithful: It makes more numbers than a bundle may have.
        """
        if 8 * len(rows) ** 2 > BUNDLE_MAX_BYTES:
            raise Unfaithful(
                f"its standard deviation takes a table of {len(rows):,} x {len(rows):,} numbers", "fit it on fewer rows"
            )
        solved = np.asarray(solve_triangular(step.L_, np.eye(len(rows)), lower=True))
        variance = kernel_functions.diagonal(step.kernel_, given) - (kernel @ solved.T).square().sum()
        return (variance.at_least(0.0) * scale**2).sqrt().value

    return Predicted(value=(scale * mean + np.ravel(step._y_train_mean)).value, deviation=deviation)


def _propagation(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    """Label distributions of the stored rows, weighted by the kernel or summed over the neighbours, normalized."""
    shares = np.asarray(step.label_distributions_, dtype=np.float64)
    given = Expr(walk.graph, walk.matrix(table))
    if step.kernel == "knn":
        found = (
            nearest_rows.nearest(given, step.nn_fit)[1]
            .look_up(shares[nearest_rows.order(step.nn_fit)])
            .sum(axis=1, keep=False)
        )
    elif step.kernel == "rbf" and is_narrow(table) and step.X_.dtype == np.float32:
        found = _narrow_rbf(given, _dense(step.X_), float(step.gamma)) @ shares
    else:
        found = (
            kernel_functions.pairwise(step.kernel, given, _dense(step.X_), gamma=step.gamma, coef0=0.0, degree=1.0)
            @ shares
        )
    found = found / found.sum()
    return Predicted(label=scores.best(walk.graph, found.value, step.classes_), probabilities=found.value)


def _narrow_rbf(x: Expr, rows: NDArray[np.float64], gamma: float) -> Expr:
    """The kernel in float32: a row far from all others is 0 to each there, and has no label (NaN)."""

    def rounded(found: Expr) -> Expr:
        return Expr(found.graph, found.graph.rounded(found.value))

    distance = rounded(kernel_functions.squared(x, rows))
    return rounded(rounded(distance * -float(np.float32(gamma))).exp())


def _dense(rows: Any) -> Any:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype == object:
        raise Unfaithful("it was not fitted on a dense matrix of numbers", "fit it on a dense matrix of numbers")
    return rows.astype(np.float64)


PREDICTORS: Final[Mapping[str, Predict]] = {
    "KernelRidge": from_matrix(_ridge),
    "GaussianProcessRegressor": from_matrix(_process),
    "LabelPropagation": _propagation,
    "LabelSpreading": _propagation,
}
