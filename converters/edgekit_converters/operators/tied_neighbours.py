"""Which of equally near rows are among the nearest: scikit-learn's search, done again for the rows that need it.

The search pushes the stored rows, in its order, onto a heap of k places whose root is the farthest of them. A row gets
in only where it is nearer than the root, which then goes. So of rows that tie at the edge those stay that came early
and were not at the root when a nearer one came, which depends on all before them: it is done push by push. A row of x
whose edge is no tie needs none of it.

With several threads brute force has a heap for each, and for distances that are not whole numbers its matrix product
rounds ties apart: then it is scikit-learn's answer that varies with the machine.

Source: `heap_push` of sklearn/utils/_heap.pyx.
"""

from __future__ import annotations

import numpy as np

from edgekit_converters.graph import Value
from edgekit_converters.operators import distances
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.iteration import pick, repeat, where_all
from edgekit_converters.operators.search_order import Search, between, in_turn, least, rounding


def settle(search: Search, x: Expr, estimate: Expr, reduced: Expr, place: Expr) -> tuple[Expr, Expr]:
    """[rows, k] each: the reduced distances to the k nearest rows, rising, and their places among the stored ones.

    Args:
        search: What is searched.
        x: [rows, features].
        estimate: [rows, stored]: the reduced distances, but for rounding and for a number of each row's own.
        reduced: [rows, candidates]: those to more than k rows, rising; fewer than all where the estimates chose them.
        place: [rows, candidates]: their places; of equals any.
    """
    clear = _clear(search, reduced)
    given = (x, estimate, clear, reduced, place)
    near, found = where_all(
        clear,
        lambda inner: [between(Expr(inner, one.value), 0, search.count) for one in (reduced, place)],
        lambda inner: _searched(search, *(Expr(inner, one.value) for one in given)),
        [("float64", search.count), ("int64", search.count)],
    )
    return near, found


def _clear(search: Search, reduced: Expr) -> Expr:
    """[rows, 1 or 2]: whether the next row is farther than the last one, and any that is no candidate too.

    Both are differences of columns, above 0, from one product: a difference of two numbers is 0 where they are equal
    only. Where distances overflow it is NaN, and not above 0.
    """
    last, following, width = search.count - 1, search.count, reduced.width
    gaps = np.zeros((width, 2))
    gaps[[last, following], 0] = -1.0, 1.0
    if width == search.count + 1:
        return reduced @ gaps[:, :1] > 0.0
    # |x| is at most the edge's distance and the row's length: its square, at most twice the sum of both squares.
    share, longest = rounding(search)
    gaps[[last, width - 1], 1] = -1.0 - 2.0 * share, 1.0
    return reduced.affine(gaps, np.array([0.0, -3.0 * share * longest])) > 0.0


def _searched(search: Search, x: Expr, estimate: Expr, clear: Expr, reduced: Expr, place: Expr) -> tuple[Expr, Expr]:
    """The k first of `reduced` and `place`, once the rows that are not clear have been searched."""
    graph, flat = x.graph, (~clear).cast("int64").max().cast("bool").flat()
    reduced, place = (between(one, 0, search.count) for one in (reduced, place))
    x, estimate = (one.apply("Compress", flat, axis=0) for one in (x, estimate))
    turn, kept = in_turn(search, x, estimate)
    most = kept.cast("int64").sum().apply("ReduceMax", width=0, keepdims=0).reshape(1)
    turn, places = least(kept.where(turn, np.inf), most.value)
    found = distances.reduced(
        x.reshape(-1, 1, x.width) - places.look_up(search.rows), search.name, search.power, places.width
    )
    pushed = _pushed((turn < np.inf).where(found, np.inf), x.ones(), search.count, len(search.rows), most)
    near, order = least(pick(found, pushed), search.count)
    rows = Expr(graph, Value(graph.node("NonZero", [flat.value])[0], "int64", 0)).apply("Transpose", width=1)
    chosen = pick(places, pick(pushed, order))
    return reduced.apply("ScatterND", rows, near), place.apply("ScatterND", rows, chosen)


def _pushed(found: Expr, ones: Expr, count: int, stored: int, most: Expr) -> Expr:
    """[rows, k]: the columns that are in the heap once each was pushed, one after another.

    Args:
        found: [rows, columns], inf where a row has no more.
        ones: [rows, 1].
        count: k.
        stored: The most columns that there can be.
        most: [1]: how many there are.
    """
    # Beside the heap's places there is one beyond it, for the children that a node lacks.
    node = np.arange(count + 1)
    left, right = (np.minimum(2 * node + side, count) for side in (1, 2))
    # Column 0 is what the heap begins with, column 1 what lies beyond it.
    edge = ones * np.inf
    padded = concat([edge, -edge, found])
    root = ones.cast("int64") * 0
    first = most * 0 + 2

    def push(state: list[Expr], given: list[Expr]) -> tuple[Expr, list[Expr]]:
        (heap, number), (padded, root, end) = state, given
        value, held = padded.apply("Gather", number, axis=1, width=1), pick(padded, heap)
        lefts, rights = held.at(*left), held.at(*right)
        larger = (lefts < rights).apply("Where", heap.constant(right), heap.constant(left), dtype="int64")
        # Where the value comes to a node with a larger child, that one moves up and the value goes on.
        sinks = value < lefts.at_least(rights)
        moved = sinks.apply("Where", pick(heap, larger), number, dtype="int64")
        after = sinks.apply("Where", larger, heap.constant(node), dtype="int64")
        way = [root]
        for _ in range(count.bit_length() - 1):
            way.append(pick(after, way[-1]))
        path = concat(way)
        new = heap.apply("ScatterElements", path, pick(moved, path), axis=1)
        following = number + 1
        return following < end, [(value < held.at(0)).apply("Where", new, heap, dtype="int64"), following]

    heap, _ = repeat(stored, [root + (node == count), first], [padded, root, most + first], push)
    return (heap.at(*range(count)) - 2).at_least(0)
