"""The order in which a search of nearest neighbours looks at the stored rows, and which of them may still get in.

Brute force goes by index, as it does in one thread. A tree goes to the nearer of two children first, by the least
distance to its box or ball, and so in another order for each x; within a leaf it goes by the tree's index.

What may get in is found by estimates of the distances, in favour of getting in: a row is left out only where k rows are
nearer than it that come before it.

Source: `_query_single_depthfirst` of sklearn/neighbors/_binary_tree.pxi.tp; `min_rdist` of _kd_tree.pyx.tp and
_ball_tree.pyx.tp there; `_compute_and_reduce_distances_on_chunks` of
sklearn/metrics/_pairwise_distances_reduction/_argkmin.pyx.tp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Value
from edgekit_converters.operators import distances
from edgekit_converters.operators.expression import Expr, concat

GROWTH: Final = 4
"""Each look at brute force's k nearest rows is at so many times as many as the one before."""
ROUNDING: Final = 2.0**-50
"""Of a distance from a matrix product, for each term, relative to the squared lengths of both rows; twice over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search of k neighbours.

    Attributes:
        step: Fitted, with its tree if it has one.
        rows: [stored, features] in the order of the tree's index.
        name: The metric.
        power: p of a Minkowski metric.
        count: k, below the number of stored rows.
    """

    step: Any
    rows: NDArray[np.float64]
    name: str
    power: float
    count: int


def in_turn(search: Search, x: Expr, estimate: Expr) -> tuple[Expr, Expr]:
    """[rows, stored] each, or [1, stored]: a number that rises in the order of the search, and whether it may get in.

    Args:
        search: What is searched.
        x: [rows, features].
        estimate: [rows, stored]: the reduced distances, but for rounding and for a number of each row's own.
    """
    slack = _slack(search, x)
    if search.step._fit_method in {"kd_tree", "ball_tree"}:
        return _by_tree(search, x, estimate, slack)
    return _by_index(search, estimate, slack)


def least(values: Expr, count: int | Value) -> tuple[Expr, Expr]:
    """The smallest of the columns, rising, and their places; of equals the first.

    Args:
        values: [rows, columns].
        count: How many of them; [1], where that is known only in the graph.
    """
    number = count if isinstance(count, Value) else values.graph.constant(np.array([count], dtype=np.int64), "count")
    width = 0 if isinstance(count, Value) else count
    found, place = values.graph.node("TopK", [values.value, number], 2, axis=-1, largest=0, sorted=1)
    return (
        Expr(values.graph, replace(values.value, name=found, width=width)),
        Expr(values.graph, Value(place, "int64", width)),
    )


def between(values: Expr, start: int, end: int) -> Expr:
    """[rows, end - start]: neighbouring columns."""
    bounds = (values.graph.constant(np.array([one], dtype=np.int64), "bound") for one in (start, end, 1))
    return values.apply("Slice", *bounds, width=end - start)


def middle(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """[features]: whence lengths are measured: the mean of the rows, or 0 where that is no farther off than they are.

    The shorter rows are, the less a matrix product rounds; 0 spares a node for each row, after a scaler or a PCA.
    """
    mean: NDArray[np.float64] = rows.mean(axis=0)
    near = (mean**2).sum() <= ((rows - mean) ** 2).sum(axis=1).max()
    return np.zeros_like(mean) if near else mean


def rounding(search: Search) -> tuple[float, float]:
    """What the difference of two estimates may be off, per squared length of x and of a row; the longest row's.

    Lengths are those from the middle of the stored rows.
    """
    longest = float(((search.rows - middle(search.rows)) ** 2).sum(axis=1).max())
    return ROUNDING * (search.rows.shape[1] + 10), longest


def _by_index(search: Search, estimate: Expr, slack: Expr) -> tuple[Expr, Expr]:
    """The first k, and then those that are no farther than the k nearest of the rows before, which ever more are."""
    stored, end = len(search.rows), search.count
    first = between(estimate, 0, end)
    parts = [first.equals(first)]
    while end < stored:
        edge = _edge(between(estimate, 0, end), search.count)
        parts.append(between(estimate, end, min(end * GROWTH, stored)) <= edge + slack)
        end *= GROWTH
    return estimate.constant(np.arange(stored)), concat(parts)


def _by_tree(search: Search, x: Expr, estimate: Expr, slack: Expr) -> tuple[Expr, Expr]:
    """The leaves that are searched first and hold k, and then what is no farther than the k nearest in those."""
    nodes = np.asarray(search.step._tree.get_arrays()[2])
    leaves = nodes[len(nodes) // 2 :]
    sizes = leaves["idx_end"] - leaves["idx_start"]
    leaf = estimate.graph.constant(np.repeat(np.arange(len(leaves)), sizes).astype(np.int64), "leaf")
    leaf_turn = _leaf_turn(search, x, len(leaves)).apply("Gather", leaf, axis=1, width=len(search.rows))
    early = leaf_turn < float(-(-search.count // sizes.min()))
    edge = _edge(early.where(estimate, np.inf), search.count)
    turn = leaf_turn * float(len(search.rows)) + np.arange(len(search.rows))
    return turn, early | (estimate <= edge + slack)


def _leaf_turn(search: Search, x: Expr, leaves: int) -> Expr:
    """[rows, leaves]: which leaf comes how late.

    It is the number whose digits, from the root on, say whether the way to the leaf goes to the child searched second.
    """
    depth = leaves.bit_length() - 1
    if depth == 0:
        return x.ones() - 1.0
    inner, places = np.arange(leaves - 1), np.arange(leaves)[:, None] >> np.arange(depth, 0, -1)
    bounds = _bounds(search, x)
    # The right child is searched first only where it is nearer.
    swapped = (bounds.at(*(2 * inner + 1).tolist()) > bounds.at(*(2 * inner + 2).tolist())).cast("float64")
    above = x.graph.constant(places + 2 ** np.arange(depth) - 1, "above")
    digit = 2.0 ** np.arange(depth - 1, -1, -1)
    right = (np.arange(leaves)[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    start: NDArray[np.float64] = (right * digit).sum(axis=1)
    on_way = swapped.apply("Gather", above, axis=1, width=depth)
    return (on_way * np.where(right, -digit, digit)).sum().reshape(-1, leaves) + start


def _bounds(search: Search, x: Expr) -> Expr:
    """[rows, nodes]: the least reduced distance to the box or ball of each node."""
    _, _, nodes, bounds = (np.asarray(one) for one in search.step._tree.get_arrays())
    count, each = len(nodes), x.reshape(-1, 1, x.width)
    if search.step._fit_method == "kd_tree":
        under, over = each.constant(bounds[0]) - each, each - bounds[1]
        outside = under.at_least(over).at_least(0.0)
        return distances.reduced(outside, search.name, search.power, count)
    centre = distances.distances(x, bounds[0], search.name, search.power)
    apart = (centre - nodes["radius"]).at_least(0.0)
    if search.name == "euclidean":
        return apart.square()
    return apart**search.power if search.name == "minkowski" else apart


def _slack(search: Search, x: Expr) -> Expr:
    """[rows, 1]: what the difference of two estimates may be off."""
    if search.name not in distances.SQUARED:
        return x.ones() - 1.0
    share, longest = rounding(search)
    return ((x - middle(search.rows)).square().sum() + longest) * share


def _edge(values: Expr, count: int) -> Expr:
    """[rows, 1]: the k-th smallest of the columns."""
    return least(values, count)[0].at(count - 1)
