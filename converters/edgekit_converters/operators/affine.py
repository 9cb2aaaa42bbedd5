"""Projections: what is a fitted matrix times the centred columns, in scikit-learn's order of operations.

Source: the `transform` of each class in sklearn/decomposition, cross_decomposition/_pls.py, discriminant_analysis.py,
neighbors/_nca.py, random_projection.py and cluster/_feature_agglomeration.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, Unfaithful, on_matrix
from edgekit_converters.operators.expression import Expr, concat

Array = NDArray[np.float64]


def pca(x: Expr, step: Any) -> Expr:
    """PCA and IncrementalPCA: x @ components.T - mean @ components.T, over the deviations where `whiten`."""
    weights = _floats(step.components_).T
    result = x @ weights
    if step.mean_ is not None:
        result = result - (_floats(step.mean_).reshape(1, -1) @ weights).ravel()
    if not step.whiten:
        return result
    scale = np.sqrt(_floats(step.explained_variance_))
    return result / np.maximum(scale, np.finfo(np.asarray(step.explained_variance_).dtype).eps)


def components(x: Expr, step: Any) -> Expr:
    """TruncatedSVD, NeighborhoodComponentsAnalysis, random projections: x @ components.T."""
    found = step.components_
    return x @ _floats(found.toarray() if hasattr(found, "toarray") else found).T


def factor_analysis(x: Expr, step: Any) -> Expr:
    """FactorAnalysis: the posterior mean, (x - mean) @ (W / psi).T @ inv(I + W / psi @ W.T)."""
    from scipy import linalg

    found = _floats(step.components_)
    scaled = found / _floats(step.noise_variance_)
    covariance: Array = linalg.inv(np.eye(len(found)) + scaled @ found.T)
    return (x - _floats(step.mean_)) @ scaled.T @ covariance


def fast_ica(x: Expr, step: Any) -> Expr:
    """FastICA: (x - mean) @ components.T; no mean without whitening."""
    centred = x - _floats(step.mean_) if step.whiten else x
    return centred @ _floats(step.components_).T


def sparse_pca(x: Expr, step: Any) -> Expr:
    """SparsePCA and MiniBatchSparsePCA: the ridge regression of x - mean on the components, which is linear in x."""
    from sklearn.linear_model import ridge_regression

    dictionary = _floats(step.components_)
    answers = ridge_regression(dictionary.T, np.eye(x.width), step.ridge_alpha, solver="cholesky")
    return (x - _floats(step.mean_)) @ np.asarray(answers).reshape(x.width, len(dictionary))


def partial_least_squares(x: Expr, step: Any) -> Expr:
    """PLSRegression, PLSCanonical, CCA and PLSSVD: ((x - mean) / std) @ rotations, or @ weights of PLSSVD."""
    rotations = step.x_weights_ if type(step).__name__ == "PLSSVD" else step.x_rotations_
    return ((x - _floats(step._x_mean)) / _floats(step._x_std)) @ _floats(rotations)


def discriminant_analysis(x: Expr, step: Any) -> Expr:
    """LinearDiscriminantAnalysis: (x - mean) @ scalings, as many columns as there are components."""
    centred = x - _floats(step.xbar_) if step.solver == "svd" else x
    return centred @ _floats(step.scalings_)[:, : step._max_components]


def feature_agglomeration(x: Expr, step: Any) -> Expr:
    """FeatureAgglomeration: the mean, sum, minimum or maximum of each cluster of columns.

    Raises:
        Unfaithful: It pools with another function.
    """
    labels = np.asarray(step.labels_)
    clusters = np.unique(labels)
    members = np.array([labels == one for one in clusters], dtype=np.float64)
    if step.pooling_func is np.mean:
        sizes: Array = members.sum(axis=1)
        return x @ members.T / sizes
    if step.pooling_func is np.sum:
        return x @ members.T
    extremes: Mapping[Any, Callable[[Expr, Expr], Expr]] = {
        np.max: Expr.maximum,
        np.amax: Expr.maximum,
        np.min: Expr.minimum,
        np.amin: Expr.minimum,
    }
    if step.pooling_func not in extremes:
        name = getattr(step.pooling_func, "__name__", "a function of its own")
        raise Unfaithful(f"it pools columns with {name}", "use pooling_func=numpy.mean, sum, min or max")
    parts = []
    for one in clusters:
        first, *others = np.flatnonzero(labels == one).tolist()
        part = x.at(first)
        for other in others:
            part = extremes[step.pooling_func](part, x.at(other))
        parts.append(part)
    return concat(parts)


def _floats(array: Any) -> Array:
    return np.asarray(array, dtype=np.float64)


def _on_expression(emit: Callable[[Expr, Any], Expr]) -> Transform:
    def on_value(graph: GraphBuilder, step: Any, value: Value) -> Value:
        return emit(Expr(graph, value), step).value

    return on_matrix(on_value)


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    **dict.fromkeys(("PCA", "IncrementalPCA"), _on_expression(pca)),
    **dict.fromkeys(
        ("GaussianRandomProjection", "NeighborhoodComponentsAnalysis", "SparseRandomProjection", "TruncatedSVD"),
        _on_expression(components),
    ),
    **dict.fromkeys(("CCA", "PLSCanonical", "PLSRegression", "PLSSVD"), _on_expression(partial_least_squares)),
    **dict.fromkeys(("MiniBatchSparsePCA", "SparsePCA"), _on_expression(sparse_pca)),
    "FactorAnalysis": _on_expression(factor_analysis),
    "FastICA": _on_expression(fast_ica),
    "FeatureAgglomeration": _on_expression(feature_agglomeration),
    "LinearDiscriminantAnalysis": _on_expression(discriminant_analysis),
}
