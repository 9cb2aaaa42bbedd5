from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier

from edgekit import profiles
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import FormatError
from edgekit_contracts.profile import DeviceProfile, Figure, Rates, Runtime
from edgekit_converters.cost import ITERATION_NODES
from edgekit_converters.fit import Cost, cost, latency_us, predict

PI = profiles.load("raspberry-pi-4")
ML = "ai.onnx.ml"


def model(
    nodes: list[NodeProto],
    shape: list[int | str],
    constants: dict[str, Any] | None = None,
    ml_opset: int = 3,
    opset: int = 17,
) -> bytes:
    graph = make_graph(
        nodes,
        "test",
        [make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [make_opsetid("", opset), make_opsetid(ML, ml_opset), make_opsetid("com.microsoft", 1)]
    return bytes(make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def ones(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ones(shape, dtype=np.float32)


# --- cost -------------------------------------------------------------------------------------------------------------


def test_a_dense_layer_is_one_node_with_its_bias_and_activation() -> None:
    nodes = [
        make_node("MatMul", ["x", "w"], ["a"]),
        make_node("Add", ["a", "b"], ["c"]),
        make_node("Relu", ["c"], ["y"]),
    ]
    counted = cost(model(nodes, ["rows", 4], {"w": ones(4, 3), "b": ones(3)}))
    assert (counted.nodes, counted.madds, counted.elements) == (1, 12, 0)
    assert (counted.weight_bytes, counted.parameter_bytes) == (48, 60)


def test_a_node_that_others_read_too_is_not_joined() -> None:
    nodes = [
        make_node("MatMul", ["x", "w"], ["a"]),
        make_node("Add", ["a", "b"], ["c"]),
        make_node("Mul", ["a", "c"], ["y"]),
    ]
    assert cost(model(nodes, ["rows", 4], {"w": ones(4, 3), "b": ones(3)})).nodes == 3


def test_gemm_counts_its_matrix_whichever_way_it_lies() -> None:
    for shape, transposed in (((4, 3), 0), ((3, 4), 1)):
        node = make_node("Gemm", ["x", "w"], ["y"], transB=transposed)
        assert cost(model([node], [1, 4], {"w": ones(*shape)})).madds == 12


def test_a_convolution_is_a_kernel_for_each_output_element() -> None:
    nodes = [make_node("Conv", ["x", "w"], ["a"]), make_node("Relu", ["a"], ["y"])]
    counted = cost(model(nodes, ["rows", 1, 8, 8], {"w": ones(2, 1, 3, 3)}))
    # Two maps of 6 x 6, a kernel of 3 x 3.
    assert (counted.nodes, counted.madds) == (1, 2 * 6 * 6 * 9)


def test_what_is_folded_or_removed_at_load_is_not_counted() -> None:
    nodes = [
        make_node("Mul", ["w", "w"], ["folded"]),
        make_node("Identity", ["x"], ["same"]),
        make_node("Sub", ["same", "folded"], ["y"]),
    ]
    counted = cost(model(nodes, ["rows", 5], {"w": ones(5)}))
    assert (counted.nodes, counted.elements) == (1, 5)


def test_a_symbolic_batch_counts_as_one_row() -> None:
    nodes = [make_node("Sigmoid", ["x"], ["y"])]
    assert cost(model(nodes, ["rows", 30])) == cost(model(nodes, [1, 30]))


def test_a_product_in_float64_counts_twice() -> None:
    nodes = [make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), make_node("MatMul", ["d", "w"], ["y"])]
    counted = cost(model(nodes, [1, 4], {"w": ones(4, 3).astype(np.float64)}))
    assert (counted.madds, counted.weight_bytes) == (2 * 12, 96)


def test_distances_to_every_stored_row_are_counted() -> None:
    node = make_node("CDist", ["x", "w"], ["y"], domain="com.microsoft", metric="sqeuclidean")
    assert cost(model([node], [1, 6], {"w": ones(10, 6)})).madds == 60


@pytest.mark.parametrize(("kernel", "madds", "elements"), [("LINEAR", 20, 5 + 5), ("RBF", 0, 5 + 5 + 20)])
def test_support_vectors_are_counted(kernel: str, madds: int, elements: int) -> None:
    node = make_node(
        "SVMRegressor", ["x"], ["y"], domain=ML, kernel_type=kernel, n_supports=5,
        support_vectors=[1.0] * 20, coefficients=[1.0] * 5, rho=[0.0], kernel_params=[1.0, 0.0, 0.0],
    )  # fmt: skip
    counted = cost(model([node], [1, 4]))
    assert (counted.support_vectors, counted.madds, counted.elements) == (5, madds, elements)
    assert counted.weight_bytes == 80


def test_a_linear_model_counts_its_coefficients() -> None:
    node = make_node("LinearRegressor", ["x"], ["y"], domain=ML, coefficients=[1.0] * 30, intercepts=[0.0])
    assert cost(model([node], [1, 30])).madds == 30


def tree(**changed: Any) -> NodeProto:
    """A root, a leaf on its left, and on its right an inner node with two leaves: leaves at depths 1, 2, 2."""
    values: dict[str, Any] = {
        "nodes_treeids": [7] * 5,
        "nodes_nodeids": [0, 1, 2, 3, 4],
        "nodes_featureids": [0] * 5,
        "nodes_values": [0.5] * 5,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 3, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0],
        "target_treeids": [7] * 3,
        "target_nodeids": [1, 3, 4],
        "target_ids": [0] * 3,
        "target_weights": [1.0] * 3,
        "n_targets": 1,
    } | changed
    return make_node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **values)


@pytest.mark.parametrize("ml_opset", [1, 3])
def test_a_tree_costs_its_mean_depth_and_the_weight_at_its_leaf(ml_opset: int) -> None:
    counted = cost(model([tree()], [1, 2], ml_opset=ml_opset))
    # Mean depth 5/3, one weight a leaf: 2.67 steps.
    assert (counted.tree_comparisons, counted.tree_nodes, counted.leaf_weights, counted.nodes) == (3, 5, 3, 1)


def test_the_newer_tree_operator_costs_the_same() -> None:
    node = make_node(
        "TreeEnsemble", ["x"], ["y"], domain=ML, tree_roots=[0], n_targets=1, nodes_featureids=[0, 0],
        nodes_modes=make_tensor("modes", TensorProto.UINT8, [2], [0, 0]),
        nodes_splits=make_tensor("splits", TensorProto.FLOAT, [2], [0.5, 0.5]),
        nodes_truenodeids=[0, 1], nodes_trueleafs=[1, 1], nodes_falsenodeids=[1, 2], nodes_falseleafs=[0, 1],
        leaf_targetids=[0, 0, 0], leaf_weights=make_tensor("weights", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
    )  # fmt: skip
    assert cost(model([node], [1, 2], ml_opset=5)) == cost(model([tree()], [1, 2]))


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_truenodeids": [9, 0, 3, 0, 0]},
        {"nodes_truenodeids": [1, 0, 2, 0, 0]},
        {"nodes_nodeids": [0, 1, 2]},
        {"nodes_modes": ["BRANCH_LEQ"] * 5},
    ],
    ids=["no such child", "its own child", "fewer numbers than nodes", "no leaf"],
)
def test_attributes_that_form_no_tree_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="not a tree ensemble"):
        cost(model([tree(**changed)], [1, 2]))


def test_a_converted_forest_is_counted_like_the_original() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((200, 4), dtype=np.float32)
    forest = RandomForestClassifier(5, max_depth=4, random_state=0).fit(X, X[:, 0] > X[:, 1])
    converted: Any = to_onnx(forest, X[:1], options={"zipmap": False}, target_opset={"": 17, ML: 3})
    counted = cost(converted.SerializeToString())
    assert counted.tree_nodes == sum(one.tree_.node_count for one in forest.estimators_)
    assert 5 < counted.tree_comparisons < 5 * (4 + 2)


def body(read: str) -> Any:
    rows = [
        make_tensor_value_info("state", TensorProto.FLOAT, [1, 3]),
        make_tensor_value_info(read, TensorProto.FLOAT, [3]),
    ]
    outs = [make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("next", "out")]
    nodes = [
        make_node("Identity", ["state"], ["next"]),
        make_node("Sub", ["state", read], ["gap"]),
        make_node("Abs", ["gap"], ["out"]),
    ]
    return make_graph(nodes, "body", rows, outs)


def test_a_scan_is_counted_for_each_row_that_it_goes_over() -> None:
    node = make_node("Scan", ["x", "stored"], ["end", "y"], body=body("row"), num_scan_inputs=1)
    counted = cost(model([node], [1, 3], {"stored": ones(7, 3)}))
    # The Scan itself, and in each of 7 turns two nodes and what a turn itself costs.
    assert (counted.nodes, counted.elements, counted.notes) == (1 + 7 * (2 + ITERATION_NODES), 7 * 2 * 3, ())
    assert counted.graph_nodes == 3


def test_what_only_the_run_decides_is_counted_once_and_noted() -> None:
    one = make_graph(
        [make_node("Abs", ["x"], ["a"])], "one", [], [make_tensor_value_info("a", TensorProto.FLOAT, None)]
    )
    flag = np.array(True)
    branch = cost(model([make_node("If", ["flag"], ["y"], then_branch=one, else_branch=one)], [1, 3], {"flag": flag}))
    assert branch.nodes == 3
    assert "every branch of If" in branch.notes[0]
    turn = make_graph(
        [make_node("Identity", ["go"], ["on"]), make_node("Abs", ["state"], ["next"])],
        "turn",
        [
            make_tensor_value_info("i", TensorProto.INT64, []),
            make_tensor_value_info("go", TensorProto.BOOL, []),
            make_tensor_value_info("state", TensorProto.FLOAT, [1, 3]),
        ],
        [make_tensor_value_info("on", TensorProto.BOOL, []), make_tensor_value_info("next", TensorProto.FLOAT, None)],
    )
    loop = cost(model([make_node("Loop", ["", "flag", "x"], ["y"], body=turn)], [1, 3], {"flag": flag}))
    assert loop.nodes == 1 + ITERATION_NODES + 1
    assert "Loop is counted for one turn" in loop.notes[0]


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="model is not valid"):
        cost(data)


def test_a_node_without_its_inputs_is_refused() -> None:
    with pytest.raises(FormatError, match="lacks what its kind needs"):
        cost(model([make_node("LSTM", ["x", "w"], ["y"], hidden_size=1)], [1, 1, 1], {"w": ones(1, 4, 1)}))


# --- prediction -------------------------------------------------------------------------------------------------------

SMALL = Cost(nodes=2, graph_nodes=2, madds=100, elements=30, parameter_bytes=400)


def with_rates(**factors: float) -> DeviceProfile:
    changed: dict[str, Figure] = {}
    for name, factor in factors.items():
        figure: Figure = getattr(PI.rates, name)
        changed[name] = msgspec.structs.replace(figure, value=figure.value * factor)
    rates: Rates = msgspec.structs.replace(PI.rates, **changed)
    return msgspec.structs.replace(PI, rates=rates)


def test_the_formula_is_the_sum_that_the_docstring_gives() -> None:
    work = Cost(nodes=3, madds=1000, elements=200, tree_comparisons=50)
    rates = PI.rates
    expected = (
        rates.call_us.value
        + 3 * rates.node_us.value
        + 2 * 1000 / rates.gflops.value / 1000
        + 200 * rates.element_ns.value / 1000
        + 50 * rates.tree_node_ns.value / 1000
    ) * rates.tail_ratio.value
    assert latency_us(work, PI)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "name",
    [field.name for field in dataclasses.fields(Cost) if field.name not in {"notes", "support_vectors"}],
)
def test_more_of_any_cost_never_predicts_less(name: str) -> None:
    last = predict(SMALL, PI, 1000)
    for count in (1_000, 100_000, 100_000_000):
        changed: dict[str, Any] = {name: count}
        more = predict(dataclasses.replace(SMALL, **changed), PI, 1000)
        assert more.latency_ms >= last.latency_ms
        assert more.memory_mb >= last.memory_mb
        last = more
    first = predict(SMALL, PI, 1000)
    assert last.latency_ms > first.latency_ms or last.memory_mb > first.memory_mb


@pytest.mark.parametrize("name", ["call_us", "node_us", "element_ns", "tree_node_ns", "tail_ratio"])
def test_a_slower_rate_predicts_a_longer_time(name: str) -> None:
    work = Cost(nodes=20, madds=10**6, elements=10**5, tree_comparisons=10**4)
    assert latency_us(work, with_rates(**{name: 2.0}))[0] > latency_us(work, PI)[0]
    assert latency_us(work, with_rates(gflops=2.0))[0] < latency_us(work, PI)[0]


def test_weights_beyond_the_cache_cost_their_bytes() -> None:
    cached = Cost(madds=100_000, weight_bytes=400_000)
    streamed = Cost(madds=10_000_000, weight_bytes=40_000_000)
    fast = with_rates(gflops=1000.0)
    assert latency_us(cached, fast)[0] < latency_us(cached, PI)[0]
    stream_us = (40_000_000 - 512 * 1024) / 4 * PI.rates.element_ns.value / 2 / 1000
    assert latency_us(streamed, fast)[0] == pytest.approx((PI.rates.call_us.value + stream_us) * 2.5)


def test_equal_inputs_give_equal_bytes_of_three_digits() -> None:
    data = model([make_node("Gemm", ["x", "w"], ["y"])], [1, 4], {"w": ones(4, 3)})
    budget = predict(cost(data), PI, 12_345_678)
    assert encode_json(budget) == encode_json(predict(cost(data), profiles.load("raspberry-pi-4"), 12_345_678))
    for value in (budget.latency_ms, budget.latency_ms_low, budget.latency_ms_high, budget.memory_mb, budget.bundle_mb):
        assert value == float(f"{value:.3g}")


def test_a_small_model_fits() -> None:
    budget = predict(SMALL, PI, 10_000)
    assert budget.fits
    assert budget.excess == ()
    assert budget.latency_ms_low < budget.latency_ms < budget.latency_ms_high < budget.latency_limit_ms


def test_measured_figures_give_a_narrower_range_than_estimates() -> None:
    names = PI.rates.__struct_fields__
    measured = {name: msgspec.structs.replace(getattr(PI.rates, name), kind="measured") for name in names}
    known = msgspec.structs.replace(PI, rates=msgspec.structs.replace(PI.rates, **measured))
    assert latency_us(SMALL, known)[1] == pytest.approx(1.25 ** (2**0.5))
    assert latency_us(SMALL, PI)[1] == pytest.approx(2.5 ** (2**0.5))


def test_each_limit_that_is_passed_is_a_short_sentence() -> None:
    budget = predict(Cost(nodes=1, elements=10**8, parameter_bytes=4 * 10**8), PI, 100 * 1024 * 1024)
    assert not budget.fits
    latency, memory, bundle = budget.excess
    assert (
        latency
        == f"p99 latency {budget.latency_ms:g} ms ({budget.latency_ms_low:g} to {budget.latency_ms_high:g}) > 20 ms"
    )
    assert memory == f"memory {budget.memory_mb:g} MB > 256 MB"
    assert bundle == "bundle 100 MB > 64 MB"


def test_a_board_that_cannot_run_says_why() -> None:
    why = "there is no onnxruntime wheel for 32-bit Arm"
    board = msgspec.structs.replace(PI, runtime=Runtime(supported=False, onnxruntime="none", why=why))
    budget = predict(SMALL, board, 10_000)
    assert not budget.fits
    assert budget.excess == (why,)


def test_trees_take_the_memory_that_was_measured() -> None:
    # 40,112 nodes and 201,060 leaf weights grew a process by 52.9 MiB (fit.py); the file has 3.6 MB.
    work = Cost(nodes=1, graph_nodes=1, tree_nodes=40_112, leaf_weights=201_060)
    assert predict(work, PI, 3_600_000).memory_mb == pytest.approx(70 + 52.9, rel=0.02)
