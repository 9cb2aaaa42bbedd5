"""Probabilities of classes from those of their pairs, by the iteration of libsvm, in an ONNX Loop.

minimize p' Q p, sum(p) = 1, with Q[t][t] = sum of r[j][t]^2 and Q[t][j] = -r[j][t] r[t][j], one class after another,
until |Q p - p' Q p| < 0.005 / classes in every class, at most max(100, classes) times. A row that has arrived stays as
it is while others go on.

Source: T.-F. Wu, C.-J. Lin, R. C. Weng, Probability estimates for multi-class classification by pairwise coupling,
JMLR 5 (2004), second approach; `multiclass_probability` of libsvm's svm.cpp.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from edgekit_converters.operators.expression import Expr, concat, rows_of, total
from edgekit_converters.operators.iteration import repeat


def coupled(pairs: Expr, count: int) -> Expr:
    """[rows, classes] of the first class's probability in each pair [rows, pairs]."""
    graph = pairs.graph
    shares: dict[tuple[int, int], Expr] = {}
    for pair, (one, other) in enumerate(combinations(range(count), 2)):
        shares[one, other] = pairs.at(pair)
        shares[other, one] = 1.0 - pairs.at(pair)
    rows = []
    for t in range(count):
        own = total([shares[j, t] * shares[j, t] for j in range(count) if j != t])
        rows += [own if j == t else -(shares[j, t] * shares[t, j]) for j in range(count)]
    start = rows_of(pairs.value, graph, np.full(count, 1.0 / count))
    return repeat(max(100, count), [start], [concat(rows)], lambda state, given: _turn(state[0], given[0], count))[0]


def _turn(p: Expr, matrix: Expr, count: int) -> tuple[Expr, list[Expr]]:
    found = p
    qp = (matrix.reshape(-1, count, count) * p.reshape(-1, 1, count)).sum().reshape(-1, count)
    pqp = (p * qp).sum()
    going = abs(qp - pqp).max() >= 0.005 / count
    for t in range(count):
        row = matrix.at(*range(t * count, (t + 1) * count))
        own, one = row.at(t), qp.at(t)
        diff = (pqp - one) / own
        whole = diff + 1.0
        pqp = (pqp + diff * (diff * own + one * 2.0)) / whole / whole
        qp = (qp + diff * row) / whole
        found = (found + diff * np.eye(count)[t]) / whole
    return going, [going.where(found, p)]
