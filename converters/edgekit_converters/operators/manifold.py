"""Embeddings of new rows: Isomap by the shortest ways through its graph, LocallyLinearEmbedding by its neighbours.

Source: `Isomap.transform` of sklearn/manifold/_isomap.py; `LocallyLinearEmbedding.transform` and `barycenter_weights`
of _locally_linear.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import GraphBuilder, Table, Value, columns
from edgekit_converters.operators import Transform, Unfaithful, kernels, nearest_rows, neighbours, on_matrix
from edgekit_converters.operators.expression import Expr

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

WAYS_MAX: Final = 250_000
"""Distances between training rows that are looked at for each row asked, where the neighbours are those in a radius."""


def isomap(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """Isomap: the shortest way to each training row, over a neighbour, squared, halved, centred and projected.

    scikit-learn's brute force takes distances from a matrix product, and finds 1e-7 between equal rows.

    Raises:
        Unfaithful: Neighbours as `nearest_rows.stored`, or in a radius among many rows.
    """
    walk.rounded |= step.nbrs_._fit_method == "brute"
    graph, x, ways = walk.graph, Expr(walk.graph, walk.matrix(table)), np.asarray(step.dist_matrix_, dtype=np.float64)
    order = nearest_rows.order(step.nbrs_)
    count = len(ways)
    if step.n_neighbors is not None:
        distance, place = nearest_rows.nearest(x, step.nbrs_)
    elif count * count > WAYS_MAX:
        raise Unfaithful(f"it compares all {count} training rows within a radius with each other", "use n_neighbors")
    else:
        distance, inside = neighbours.within(x, step.nbrs_)
        distance = inside.where(distance, np.inf)
        place = None
    known = ways[order]
    over = distance.reshape(-1, distance.width, 1) + (known if place is None else place.look_up(known))
    axes = graph.constant(np.array([1], dtype=np.int64), "axes")
    nearest = over.apply("ReduceMin", axes, width=count, keepdims=0)
    return columns(kernels.kernel_pca(graph, step.kernel_pca_, (nearest.square() * -0.5).value))


def locally_linear(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """LocallyLinearEmbedding: the neighbours' embeddings, weighted as the neighbours themselves would give the row.

    The weights w solve (C C' + reg trace(C C') I) w = 1, C the neighbours less the row, and are divided by their sum.

    Raises:
        Unfaithful: As `nearest_rows.stored`.
    """
    x, finder = Expr(graph, value), step.nbrs_
    rows, order = nearest_rows.stored(finder), nearest_rows.order(finder)
    count = int(step.n_neighbors)
    _, place = nearest_rows.nearest(x, finder, count)
    away = place.look_up(rows) - x.reshape(-1, 1, x.width)
    # onnxruntime 1.20 makes of Transpose and MatMul one node that it has no kernel for.
    products = away.reshape(-1, count, 1, x.width) * away.reshape(-1, 1, count, x.width)
    gram = products.sum().reshape(-1, count, count)
    unit = np.eye(count)[None]
    trace = (gram * unit).sum().sum(axis=1)
    weights = _solved(gram + (trace > 0.0).where(trace * float(step.reg), float(step.reg)) * unit, count)
    weights = weights / weights.sum()
    embedded = place.look_up(np.asarray(step.embedding_, dtype=np.float64)[order])
    return (embedded * weights.reshape(-1, count, 1)).sum(axis=1, keep=False).value


def _solved(matrix: Expr, count: int) -> Expr:
    """[rows, count]: the solution w of matrix w = 1, [rows, count, count] and positive definite, by elimination.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, chapters 10 and 14 (Gauss-Jordan): stable there
    without pivoting.
    """
    right = matrix.constant(np.ones((1, count, 1)))
    for index in range(count):
        row, column = _taken(matrix, index, 1), _taken(matrix, index, 2)
        others = (np.arange(count) != index).astype(np.float64).reshape(1, -1, 1)
        factor = column * others / _taken(row, index, 2)
        matrix, right = matrix - factor * row, right - factor * _taken(right, index, 1)
    diagonal = (matrix * np.eye(count)[None]).sum()
    return (right / diagonal).reshape(-1, count)


def _taken(tensor: Expr, index: int, axis: int) -> Expr:
    """One entry along an axis of a tensor [rows, a, b], which stays with size 1."""
    place = tensor.graph.constant(np.array([index], dtype=np.int64), "place")
    return tensor.apply("Gather", place, axis=axis, width=1 if axis == 2 else tensor.width)


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "Isomap": isomap,
    "LocallyLinearEmbedding": on_matrix(locally_linear),
}
