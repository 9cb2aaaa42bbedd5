from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgekit_converters.graph import Dtype, GraphBuilder
from edgekit_converters.nodes import serialize
from edgekit_converters.operators import composed
from edgekit_converters.operators.expression import Expr
from tests.converters.frames import TARGET


def computed(formula: Callable[[Expr], Expr], x: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """What the formula gives for x, and its operators."""
    graph = GraphBuilder(TARGET)
    dtype: Dtype = "int64" if x.dtype == np.int64 else "float64"
    graph.output("y", formula(Expr(graph, graph.input("x", dtype, x.shape[1]))).value)
    model = graph.build()
    session = ort.InferenceSession(serialize(model), providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {"x": x})[0]
    return found, [node.op_type for node in model.graph.node if node.op_type != "Identity"]


@pytest.mark.parametrize(("method", "of_numpy"), [(Expr.maximum, np.maximum), (Expr.minimum, np.minimum)])
def test_the_larger_and_the_smaller_are_nan_where_either_is(method: Any, of_numpy: Any) -> None:
    x = np.array([[np.nan, 1.0], [1.0, np.nan], [np.nan, np.nan], [1.0, 2.0], [2.0, 1.0], [np.inf, -np.inf]])
    found, nodes = computed(lambda e: method(e.at(0), e.at(1)), x)
    np.testing.assert_array_equal(found[:, 0], of_numpy(x[:, 0], x[:, 1]))
    assert not {"Max", "Min"} & set(nodes)


def test_a_bound_is_one_node() -> None:
    found, nodes = computed(lambda e: e.at_least(0.0).at_most(1.0), np.array([[-1.0], [0.5], [2.0]]))
    assert nodes == ["Max", "Min"]
    assert found.ravel().tolist() == [0.0, 0.5, 1.0]


def test_whole_numbers_stay_whole_on_either_side() -> None:
    big = 2**53 + 1
    found, nodes = computed(lambda e: 1 + e * 1 - np.array([1]), np.array([[big]], dtype=np.int64))
    assert found.dtype == np.int64
    assert found[0, 0] == big
    assert "Cast" not in nodes


def test_an_array_on_the_left_leaves_the_operation_to_the_formula() -> None:
    x = np.array([[1.0, 2.0, 3.0]])
    row = np.array([3.0, 2.0, 1.0])
    assert computed(lambda e: row - e, x)[0].tolist() == (row - x).tolist()
    assert computed(lambda e: row / e, x)[0].tolist() == (row / x).tolist()


def test_a_table_of_rows_gives_as_many_columns() -> None:
    table = np.arange(6.0).reshape(3, 2)
    found = computed(lambda e: e.flat().look_up(table), np.array([[2], [0]], dtype=np.int64))[0]
    assert found.tolist() == [[4.0, 5.0], [0.0, 1.0]]


@pytest.mark.parametrize(("function", "of_numpy"), [(composed.log1p, np.log1p), (composed.expm1, np.expm1)])
def test_nothing_overflows_before_numpy_does(function: Callable[[Expr], Expr], of_numpy: Any) -> None:
    x = np.array([[-1e-300, 1e-10, 1.0, 703.3, 709.7, 2.6e305, 1e308, np.inf]])
    found, _ = computed(function, x)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, of_numpy(x), rtol=1e-14)
