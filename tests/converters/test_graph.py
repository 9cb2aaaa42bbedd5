from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from edgekit_converters.graph import GraphBuilder, columns
from edgekit_converters.nodes import needed_nodes, operators, serialize
from tests.converters.frames import TARGET


def answer(model: onnx.ModelProto, feed: dict[str, Any]) -> Any:
    return ort.InferenceSession(serialize(model)).run(None, feed)[0]


def test_a_graph_computes_and_names_its_opsets_once() -> None:
    graph = GraphBuilder(TARGET)
    x = graph.input("x", "float64", 2)
    y = graph.value("Add", [x, graph.constant(np.array([1.0]))], x)
    z = graph.value("Mul", [y, graph.constant(np.array([1.0]))], y)
    graph.output("z", z)
    model = graph.build()
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert len(model.graph.initializer) == 1  # equal constants are one
    assert answer(model, {"x": np.array([[1.0, 2.0]])}).tolist() == [[2.0, 3.0]]


def test_choosing_all_columns_in_order_costs_no_node_and_reordering_one() -> None:
    graph = GraphBuilder(TARGET)
    x = graph.input("x", "float64", 3)
    table = columns(x)
    assert graph.matrix(table) is x
    swapped = graph.matrix((table[2], table[0]))
    assert graph.matrix((table[2], table[0])) == swapped
    graph.output("y", swapped)
    model = graph.build()
    assert operators(model) == ("ai.onnx:Gather",)
    assert answer(model, {"x": np.eye(3)}).tolist() == [[0, 1], [0, 0], [1, 0]]


def test_columns_of_several_values_are_joined_in_their_order() -> None:
    graph = GraphBuilder(TARGET)
    a, b = graph.input("a", "float64", 2), graph.input("b", "float64", 1)
    graph.output("y", graph.matrix((columns(a)[1], columns(b)[0], columns(a)[0])))
    feed = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0]])}
    assert answer(graph.build(), feed).tolist() == [[2, 3, 1]]


def test_what_no_output_needs_is_left_out() -> None:
    graph = GraphBuilder(TARGET)
    x = graph.input("x", "float64", 1)
    graph.value("Add", [x, graph.constant(np.array([5.0]))], x)
    graph.output("y", x)
    model = graph.build()
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert not model.graph.initializer


def test_a_branch_makes_only_what_is_read() -> None:
    graph = GraphBuilder(TARGET)
    x, yes = graph.input("x", "float64", 1), graph.constant(np.array(True))
    bodies = []
    for number in (1.0, 2.0):
        inner = graph.inner()
        unread, read = (inner.value(op, [x, inner.constant(np.array([number]))], x) for op in ("Add", "Mul"))
        bodies.append(inner.body({one.name: ("float64", [None, 1]) for one in (unread, read)}))
    chosen = graph.node("If", [yes], 2, then_branch=bodies[0], else_branch=bodies[1])
    graph.output("y", replace(x, name=chosen[1]))
    model = graph.build()
    assert operators(model) == ("ai.onnx:If", "ai.onnx:Mul")
    assert answer(model, {"x": np.array([[3.0]])}).tolist() == [[3.0]]
    graph.output("z", replace(x, name=chosen[0]))
    both = graph.build()
    whole = serialize(both)
    (found,), _ = needed_nodes(both.graph.node, {"y"})
    assert list(found.output) == ["y"]
    assert serialize(both) == whole


def test_an_output_is_a_name_and_costs_a_node_only_where_the_value_has_one_already() -> None:
    graph = GraphBuilder(TARGET)
    x = graph.input("x", "float64", 1)
    twice = graph.value("Add", [x, x], x)
    graph.output("y", twice)
    graph.output("z", twice)
    graph.output("w", graph.value("Neg", [twice], x))
    model = graph.build()
    assert [node.op_type for node in model.graph.node] == ["Add", "Neg", "Identity"]
    found: Any = ort.InferenceSession(serialize(model)).run(["y", "z", "w"], {"x": np.array([[2.0]])})
    assert [one.item() for one in found] == [4.0, 4.0, -4.0]


def test_another_model_is_stitched_in_under_names_of_ours() -> None:
    leaf = helper.make_model(
        helper.make_graph(
            [helper.make_node("Neg", ["in"], ["x"])],
            "leaf",
            [helper.make_tensor_value_info("in", TensorProto.DOUBLE, [None, 1])],
            [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 1])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    graph = GraphBuilder(TARGET)
    x = graph.input("x", "float64", 1)
    (once,) = graph.merge(leaf, {"in": x})
    (twice,) = graph.merge(leaf, {"in": once})
    assert once.name != "x"
    assert twice.width == 1
    graph.output("y", twice)
    assert answer(graph.build(), {"x": np.array([[4.0]])}).item() == 4.0


def test_the_same_calls_give_the_same_bytes() -> None:
    def build() -> bytes:
        graph = GraphBuilder(TARGET)
        x = graph.input("t", "text", 1)
        index = graph.constant(np.array([[1], [0]], dtype=np.int64))
        texts = graph.constant(np.array(["a", "ü"], dtype=object))
        graph.output("y", graph.value("Gather", [texts, index], x, axis=0))
        return serialize(graph.build())

    assert build() == build()
    assert onnx.load_from_string(build()).producer_name == "edgekit"
