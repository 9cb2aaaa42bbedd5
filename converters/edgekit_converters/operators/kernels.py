"""Transformers made of kernels and of distances to constant rows.

Distances are computed as scikit-learn does it, from the norms and the product of the matrices: what is next to 0 has
the rounding of squares in both.

Source: `pairwise_kernels` and `_euclidean_distances` of sklearn/metrics/pairwise.py, `_chi2_kernel_fast` of
_pairwise_fast.pyx; sklearn/kernel_approximation.py; `KernelPCA.transform` of sklearn/decomposition/_kernel_pca.py;
`transform` of sklearn/cluster/_kmeans.py and _birch.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, Unfaithful, kernel_functions, magnifying, on_matrix, scaling
from edgekit_converters.operators.composed import cos
from edgekit_converters.operators.expression import Expr, concat

Rows = NDArray[np.float64]

METRICS: Final = frozenset(
    ["additive_chi2", "chi2", "cosine", "laplacian", "linear", "poly", "polynomial", "rbf", "sigmoid"]
)
"""The kernels of `sklearn.metrics.pairwise.pairwise_kernels` that compare rows."""


def pairwise(
    graph: GraphBuilder,
    x: Value,
    Y: Any,
    metric: Any,
    gamma: float | None = None,
    degree: float = 3.0,
    coef0: float = 1.0,
) -> Value:
    """[rows, rows of Y]: `pairwise_kernels(x, Y, metric, ...)`.

    Args:
        graph: Where the nodes go.
        x: [rows, columns].
        Y: Constants [n, columns].
        metric: One of `METRICS`, or `precomputed`: then x is the kernel.
        gamma: None for scikit-learn's default: 1 / columns, or 1 of chi2.
        degree: Of a polynomial.
        coef0: Of a polynomial or sigmoid.

    Raises:
        Unfaithful: A function of one's own, or another metric.
    """
    if callable(metric) or (metric not in METRICS and metric != "precomputed"):
        name = getattr(metric, "__name__", str(metric))
        raise Unfaithful(f"the kernel '{name}' has no conversion", f"use one of: {', '.join(sorted(METRICS))}")
    if metric == "precomputed":
        return x
    given, rows = Expr(graph, x), np.asarray(Y, dtype=np.float64)
    if metric == "chi2":
        return (_additive_chi2(given, rows) * (1.0 if gamma is None else float(gamma))).exp().value
    if metric == "additive_chi2":
        return _additive_chi2(given, rows).value
    if metric == "cosine":
        norms = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
        rows = rows / np.where(norms < 10 * np.finfo(np.float64).eps, 1.0, norms)
        return (scaling.unit_norm(given, "l2") @ rows.T).value
    return kernel_functions.pairwise(metric, given, rows, gamma=gamma, coef0=float(coef0), degree=float(degree)).value


def euclidean(x: Expr, Y: Rows) -> Expr:
    """[rows, rows of Y]: `euclidean_distances`: sqrt(x.x - 2 x.y + y.y), at least 0."""
    squares: Rows = (Y * Y).sum(axis=1)
    return (x @ Y.T * -2.0 + (x * x).sum() + squares).maximum(0.0).sqrt()


def _additive_chi2(x: Expr, Y: Rows) -> Expr:
    """[rows, rows of Y]: - the sum of (x - y) ** 2 / (x + y), where that is not 0 / 0."""
    graph = x.graph
    one_by_one = graph.constant(np.array([1], dtype=np.int64), "axes")
    wide = graph.node("Unsqueeze", [x.value, one_by_one])[0]
    known = graph.constant(Y[None, :, :], "rows")
    difference, total = graph.node("Sub", [wide, known])[0], graph.node("Add", [wide, known])[0]
    zero, one = graph.constant(np.array([0.0])), graph.constant(np.array([1.0]))
    nothing = graph.node("Equal", [total, zero])[0]
    safe = graph.node("Where", [nothing, one, total])[0]
    terms = graph.node("Div", [graph.node("Mul", [difference, difference])[0], safe])[0]
    kept = graph.node("Where", [nothing, zero, terms])[0]
    axes = graph.constant(np.array([2], dtype=np.int64), "axes")
    return -Expr(graph, Value(graph.node("ReduceSum", [kept, axes], keepdims=0)[0], "float64", len(Y)))


def nystroem(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """Nystroem: the kernel to the chosen rows, times normalization.T.

    Raises:
        Unfaithful: As `pairwise`.
    """
    options = dict(step.kernel_params or {})
    options |= {name: getattr(step, name) for name in ("gamma", "degree", "coef0") if getattr(step, name) is not None}
    found = pairwise(graph, x, step.components_, step.kernel, **read_by(step.kernel, options))
    return (Expr(graph, found) @ np.asarray(step.normalization_, dtype=np.float64).T).value


def kernel_pca(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """KernelPCA: the centred kernel to the training rows, times eigenvectors / sqrt(eigenvalues).

    Raises:
        Unfaithful: As `pairwise`.
    """
    options = {"gamma": step.gamma_, "degree": step.degree, "coef0": step.coef0}
    found = pairwise(graph, x, step.X_fit_, step.kernel, **read_by(step.kernel, options))
    values, vectors = np.asarray(step.eigenvalues_), np.asarray(step.eigenvectors_)
    alphas = np.zeros_like(vectors)
    kept = np.flatnonzero(values)
    alphas[:, kept] = vectors[:, kept] / np.sqrt(values[kept])
    return (Expr(graph, scaling.kernel_centerer(graph, step._centerer, found)) @ alphas).value


def read_by(metric: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a kernel has."""
    from sklearn.metrics.pairwise import KERNEL_PARAMS

    known = KERNEL_PARAMS.get(metric, ()) if isinstance(metric, str) else ()
    return {name: value for name, value in options.items() if name in known}


def rbf_sampler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """RBFSampler: sqrt(2 / n) * cos(x @ weights + offset)."""
    return _cosines(Expr(graph, x), step, (2.0 / step.n_components) ** 0.5).value


def skewed_chi2_sampler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """SkewedChi2Sampler: sqrt(2 / n) * cos(log(x + skewedness) @ weights + offset)."""
    logs = (Expr(graph, x) + float(step.skewedness)).log()
    return _cosines(logs, step, float(np.sqrt(2.0) / np.sqrt(step.n_components))).value


def _cosines(x: Expr, step: Any, factor: float) -> Expr:
    projected = x @ np.asarray(step.random_weights_) + np.asarray(step.random_offset_)
    return cos(projected) * factor


def additive_chi2_sampler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """AdditiveChi2Sampler: sqrt(2 x L / cosh(pi j L)) * cos and sin of j L log(x), in blocks of all columns."""
    given = Expr(graph, x)
    interval = step.sample_interval or {1: 0.8, 2: 0.5, 3: 0.4}[step.sample_steps]
    nothing = given.equals(0.0)
    safe = nothing.where(1.0, given)
    parts = [nothing.where(0.0, (safe * interval).sqrt())]
    log, doubled = safe.log() * interval, safe * 2.0 * interval
    for number in range(1, step.sample_steps):
        factor = (doubled / float(np.cosh(np.pi * number * interval))).sqrt()
        angle = log * float(number)
        parts += [nothing.where(0.0, factor * wave) for wave in (cos(angle), angle.apply("Sin"))]
    return concat(parts).value


def polynomial_count_sketch(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """PolynomialCountSketch: the circular convolution of `degree` count sketches, by products with Fourier matrices."""
    given = Expr(graph, x) * float(np.sqrt(step.gamma))
    if step.coef0 != 0:
        given = concat([given, given.ones() * float(np.sqrt(step.coef0))])
    count = int(step.n_components)
    angles = 2 * np.pi * (np.outer(np.arange(count), np.arange(count)) % count) / count
    real, imaginary = None, None
    for buckets, signs in zip(np.asarray(step.indexHash_), np.asarray(step.bitHash_), strict=True):
        sketch = np.zeros((given.width, count))
        sketch[np.arange(given.width), buckets] = signs
        counted = given @ sketch
        cosine, sine = counted @ np.cos(angles), counted @ -np.sin(angles)
        if real is None or imaginary is None:
            real, imaginary = cosine, sine
        else:
            real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
    assert real is not None
    assert imaginary is not None
    return (real @ (np.cos(angles) / count) - imaginary @ (np.sin(angles) / count)).value


def distances_to_centres(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """KMeans and its kin, Birch: the distance to each centre."""
    centres = step.subcluster_centers_ if type(step).__name__ == "Birch" else step.cluster_centers_
    return euclidean(Expr(graph, x), np.asarray(centres, dtype=np.float64)).value


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    **dict.fromkeys(("Birch", "BisectingKMeans", "KMeans", "MiniBatchKMeans"), on_matrix(distances_to_centres)),
    "AdditiveChi2Sampler": on_matrix(additive_chi2_sampler),
    "KernelPCA": magnifying(on_matrix(kernel_pca)),
    "Nystroem": magnifying(on_matrix(nystroem)),
    "PolynomialCountSketch": on_matrix(polynomial_count_sketch),
    "RBFSampler": on_matrix(rbf_sampler),
    "SkewedChi2Sampler": on_matrix(skewed_chi2_sampler),
}
