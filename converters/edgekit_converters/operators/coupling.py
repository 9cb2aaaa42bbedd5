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
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators.expression import Expr, concat, rows_of, total


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
    matrix = concat(rows)
    start = rows_of(pairs.value, graph, np.full(count, 1.0 / count))
    model = _loop(graph, count)
    found = graph.merge(model, {"start": start.value, "matrix": matrix.value})[0]
    return Expr(graph, Value(found.name, "float64", count))


def _loop(graph: GraphBuilder, count: int) -> onnx.ModelProto:
    """A model of one Loop: `start` [rows, classes] and `matrix` [rows, classes * classes] to `coupled`."""
    body = _body(graph, count)
    double = TensorProto.DOUBLE
    node = helper.make_node("Loop", ["most", "true", "start", "matrix"], ["coupled", "same"], body=body)
    return helper.make_model(
        helper.make_graph(
            [node],
            "coupling",
            [
                helper.make_tensor_value_info("start", double, [None, count]),
                helper.make_tensor_value_info("matrix", double, [None, count * count]),
            ],
            [helper.make_tensor_value_info("coupled", double, [None, count])],
            [
                numpy_helper.from_array(np.array(max(100, count), dtype=np.int64), "most"),
                numpy_helper.from_array(np.array(True), "true"),
            ],
        )
    )


def _body(outer: GraphBuilder, count: int) -> onnx.GraphProto:
    inner = GraphBuilder(outer.target)
    p = Expr(inner, inner.input("p", "float64", count))
    matrix = Expr(inner, inner.input("q", "float64", count * count))
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
    after = going.where(found, p)
    anyone = going.cast("int64").apply("ReduceMax", width=0, keepdims=0).cast("bool")
    for name, one in (("going", anyone), ("after", after), ("matrix", matrix)):
        inner.output(name, one.value)
    graph = inner.build().graph
    del graph.output[0].type.tensor_type.shape.dim[:]  # a Loop's condition is a scalar
    values = list(graph.input)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("iteration", TensorProto.INT64, []))
    graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    graph.input.extend(values)
    return graph
