"""Iterations over formulas, as an ONNX Loop: each row goes its own way, and stays as it is once it has arrived.

Beside them what a row picks, and a branch that all rows take together, as an If.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgekit_converters.graph import Dtype, GraphBuilder, Shape, Value
from edgekit_converters.operators.expression import Expr

Turn = Callable[[list[Expr], list[Expr]], tuple[Expr, list[Expr]]]
"""The state and the given values -> which rows go on [rows, 1], and the new state."""


def repeat(most: int, state: Sequence[Expr], given: Sequence[Expr], turn: Turn) -> list[Expr]:
    """The state after at most `most` turns, or earlier where no row goes on.

    Args:
        most: Turns.
        state: What changes, of the same shape in each turn.
        given: Other values of the graph that a turn reads.
        turn: One turn. Rows that do not go on must keep their state by themselves.
    """
    graph = state[0].graph

    def body(inner: GraphBuilder, values: Sequence[Value]) -> tuple[Value, Sequence[Value]]:
        going, after = turn([Expr(inner, one) for one in values], [Expr(inner, one.value) for one in given])
        anyone = going.cast("int64").apply("ReduceMax", width=0, keepdims=0).cast("bool")
        return anyone.value, [one.value for one in after]

    return [Expr(graph, one) for one in graph.repeat(most, [one.value for one in state], body)]


def where_all(
    holds: Expr,
    then: Callable[[GraphBuilder], Sequence[Expr]],
    otherwise: Callable[[GraphBuilder], Sequence[Expr]],
    answers: Sequence[tuple[Dtype, int]],
) -> list[Expr]:
    """An If: what `then` gives where all of `holds` [rows, columns] is true, else what `otherwise` gives.

    Args:
        holds: Truth values.
        then: Given a builder for the branch, which sees this graph's values, its answers.
        otherwise: Likewise.
        answers: Of each answer [rows, columns] the type and the columns.
    """
    graph, bodies = holds.graph, []
    for branch in (then, otherwise):
        inner = graph.inner()
        names = [one.value.name for one in branch(inner)]
        kinds: list[tuple[Dtype, Shape]] = [(dtype, [None, width]) for dtype, width in answers]
        bodies.append(inner.body(dict(zip(names, kinds, strict=True))))
    all_hold = holds.cast("int64").apply("ReduceMin", width=0, keepdims=0).cast("bool")
    found = graph.node("If", [all_hold.value], len(answers), then_branch=bodies[0], else_branch=bodies[1])
    return [Expr(graph, Value(name, dtype, width)) for name, (dtype, width) in zip(found, answers, strict=True)]


def pick(values: Expr, place: Expr) -> Expr:
    """[rows, places]: of each row's columns those at its own places [rows, places]."""
    found: Any = values.graph.value("GatherElements", [values.value, place.value], values.value, axis=1)
    return Expr(values.graph, Value(found.name, values.value.dtype, place.width))


def one_hot(place: Expr, width: int) -> Expr:
    """[rows, width]: true at each row's place [rows, 1]."""
    return place.equals(np.arange(width))
