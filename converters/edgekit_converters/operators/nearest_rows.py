"""The k nearest of the stored rows: exact float64 distances; of equally near rows those that the original keeps.

They are found in two steps. |s|^2 - 2 x . s, one matrix product, ranks all stored rows, and its best k + `SPARE` are
taken; their distances are then computed from the differences, as scikit-learn's trees do, and ranked again. Where the
next row is as far as the last one, or rounding in the product may have left one out, `tied_neighbours` searches as
scikit-learn does. Who asks for the k rows only, in whatever order, needs the first step alone, where in every row of x
the product tells the k-th from the next by more than it may be off.

Rows are stored in the order of the tree's index.

Source: `query` of sklearn/neighbors/_binary_tree.pxi.tp; sklearn/metrics/_dist_metrics.pyx.tp.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.distances import SQUARED, cosine, metric_of, reduced, root
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.iteration import pick, where_all
from edgekit_converters.operators.search_order import Search, between, least, middle, rounding
from edgekit_converters.operators.tied_neighbours import settle

SPARE: Final = 8
"""Candidates beyond k whose exact distances are computed too."""


def nearest(x: Expr, step: Any, count: int | None = None) -> tuple[Expr, Expr]:
    """[rows, k] each: the distances to the k nearest rows, and their places (int64) among the `stored` rows.

    Args:
        x: [rows, features].
        step: Fitted.
        count: k; by default the step's own.
    """
    search = _search(step, count)
    if search.name == "cosine":
        return least(cosine(x, search.rows), search.count)
    near, place = _nearest(search, x, _estimate(search, x))
    return root(near, search.name, search.power), place


def members(x: Expr, step: Any) -> Expr:
    """[rows, k]: the places of `nearest`, in any order."""
    search = _search(step, None)
    if not _by_product(search):
        return nearest(x, step)[1]
    estimate = _estimate(search, x)
    rough, place = least(estimate, search.count + 1)
    # Twice what estimates may be off: the distances that are compared elsewhere are rounded too.
    share, longest = rounding(search)
    gap = np.zeros((search.count + 1, 1))
    gap[-2:, 0] = -0.5 / share, 0.5 / share
    axes = x.graph.constant(np.array([-1], dtype=np.int64), "axes")
    length = _moved(search, x).apply("ReduceSumSquare", axes, width=1, keepdims=1)
    sure = rough.affine(gap, np.array([-longest])) > length
    (found,) = where_all(
        sure,
        lambda inner: [between(Expr(inner, place.value), 0, search.count)],
        lambda inner: [_nearest(search, Expr(inner, x.value), Expr(inner, estimate.value))[1]],
        [("int64", search.count)],
    )
    return found


def _search(step: Any, count: int | None) -> Search:
    name, power = metric_of(step)
    count = int(step.n_neighbors) if count is None else count
    return Search(step=step, rows=stored(step), name=name, power=power, count=count)


def _by_product(search: Search) -> bool:
    """Whether a matrix product ranks the rows first."""
    return search.name in SQUARED and search.count + SPARE < len(search.rows)


def _moved(search: Search, x: Expr) -> Expr:
    whence = middle(search.rows)
    return x - whence if whence.any() else x


def _estimate(search: Search, x: Expr) -> Expr:
    """[rows, stored]: the reduced distances; of a product, but for rounding and for a number of each row's own."""
    rows = search.rows
    if not _by_product(search):
        return reduced(x.reshape(-1, 1, x.width) - rows, search.name, search.power, len(rows))
    shifted = rows - middle(rows)
    return _moved(search, x).affine(-2.0 * shifted.T, (shifted**2).sum(axis=1))


def _nearest(search: Search, x: Expr, estimate: Expr) -> tuple[Expr, Expr]:
    """[rows, k] each: the reduced distances, rising, and the places."""
    count = search.count
    if not _by_product(search):
        near, place = least(estimate, min(len(search.rows), count + 1))
    else:
        candidates = least(estimate, count + SPARE)[1]
        apart = x.reshape(-1, 1, x.width) - candidates.look_up(search.rows)
        near, place = least(reduced(apart, search.name, search.power, count + SPARE), count + SPARE)
        place = pick(candidates, place)
    return settle(search, x, estimate, near, place) if near.width > count else (near, place)


def stored(step: Any) -> NDArray[np.float64]:
    """The rows of training.

    Raises:
        Unfaithful: They are sparse or a distance matrix.
    """
    if step.effective_metric_ == "precomputed" or not isinstance(step._fit_X, np.ndarray):
        raise Unfaithful("it was not fitted on a dense matrix of features", "fit it on a dense matrix")
    return np.asarray(step._fit_X, dtype=np.float64)[order(step)]


def order(step: Any) -> NDArray[np.int64]:
    """The numbers of the rows of training, in the order in which they are stored here."""
    if step._fit_method in {"kd_tree", "ball_tree"}:
        return np.asarray(step._tree.get_arrays()[1], dtype=np.int64)
    return np.arange(len(step._fit_X))
