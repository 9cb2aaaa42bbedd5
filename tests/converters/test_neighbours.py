"""Rows that are equally near: the neighbours are those that scikit-learn's own search keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    NearestNeighbors,
    RadiusNeighborsClassifier,
)

from edgekit_converters.extended import WithNeighbours
from edgekit_converters.nodes import all_nodes
from tests.converters.frames import assert_same, converted, run, target
from tests.converters.transforms import numbers

SEARCHES: list[dict[str, Any]] = [
    {"algorithm": "kd_tree"},
    {"algorithm": "kd_tree", "leaf_size": 3, "p": 1},
    {"algorithm": "kd_tree", "leaf_size": 7, "p": 3},
    {"algorithm": "kd_tree", "metric": "chebyshev"},
    {"algorithm": "ball_tree", "leaf_size": 5},
    {"algorithm": "ball_tree", "p": 1},
    {"algorithm": "ball_tree", "metric": "hamming", "leaf_size": 9},
    {"algorithm": "brute"},
    {"algorithm": "brute", "p": 1},
]


def whole(rows: int, features: int = 3, seed: int = 0) -> NDArray[np.float64]:
    """Whole numbers: most rows have several that are equally near."""
    return np.random.default_rng(seed).integers(0, 6, (rows, features)).astype(float)


def ties(X: NDArray[np.float64], rows: NDArray[np.float64], k: int) -> int:
    """Of how many rows the next neighbour is as far as the k-th."""
    apart = np.sort(((rows[:, None] - X) ** 2).sum(axis=2), axis=1)
    return int((apart[:, k - 1] == apart[:, k]).sum())


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_rows_that_tie_at_the_edge_are_kept_as_the_search_keeps_them(options: dict[str, Any]) -> None:
    X = whole(150)
    rows = np.concatenate([X[::2], X[::3] + 0.5, whole(20, seed=1) - 1.0])
    # Every row has a target of its own, so the mean tells which rows it is of.
    y = np.random.default_rng(2).normal(size=len(X))
    for k in (1, 2, 5, 8):
        assert ties(X, rows, k) > len(rows) / 3
        assert_same(KNeighborsRegressor(k, **options).fit(X, y), X, rows=rows, exact=True)


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree", "brute"])
def test_one_row_has_the_neighbours_that_it_has_among_others(algorithm: Any) -> None:
    X = whole(200)
    model = KNeighborsRegressor(4, algorithm=algorithm).fit(X, np.arange(200.0))
    conversion = converted(model, X)
    found = [run(conversion, model, X[[place]])["value"].item() for place in range(20)]
    np.testing.assert_allclose(found, model.predict(X[:20]), rtol=1e-12)


@pytest.mark.parametrize("features", [[2, 3], [0, 1, 2, 3]])
def test_measured_flowers_have_the_neighbours_of_the_tree(features: list[int]) -> None:
    data: Any = load_iris()
    X, y = data.data[:, features], data.target
    assert ties(X, X, 3) > 5
    for k in (3, 5, 15):
        assert_same(KNeighborsClassifier(k).fit(X, y), X, exact=True)
        assert_same(KNeighborsRegressor(k).fit(X, np.arange(150.0)), X, exact=True)


def test_rows_beyond_the_candidates_that_rounding_alone_tells_apart_are_searched() -> None:
    # More flowers are 0.2236 away, but for the last digits, than candidates are looked at.
    X = load_iris(return_X_y=True)[0][:, 2:]
    y = np.random.default_rng(0).normal(size=len(X))
    assert_same(KNeighborsRegressor(8, algorithm="kd_tree", leaf_size=2).fit(X, y), X, exact=True)


@pytest.mark.parametrize("algorithm", ["kd_tree", "brute"])
def test_a_graph_of_neighbours_has_the_ties_of_the_original(algorithm: Any) -> None:
    X = whole(120)
    assert_same(KNeighborsTransformer(mode="connectivity", n_neighbors=4, algorithm=algorithm).fit(X), X)


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_voters_that_rounding_alone_tells_apart_are_those_of_the_tree(shift: float) -> None:
    # Lengths in tenths: many are equal, but for the last digits. Each row comes alone: one that ties has all searched.
    X = load_iris(return_X_y=True)[0] + shift
    rows = np.concatenate([X, (X + 0.1).round(1)])
    apart = np.sort(((rows[:, None] - X) ** 2).sum(axis=2), axis=1)
    near = rows[(apart[:, 4] - apart[:, 3] < 1e-9)]
    assert len(near) > 15
    model = KNeighborsClassifier(4, algorithm="kd_tree", leaf_size=2).fit(X, np.arange(150) % 70)
    session = ort.InferenceSession(converted(model, X).onnx)
    found: list[Any] = [session.run(["probabilities"], named(session, row))[0] for row in near]
    np.testing.assert_array_equal(np.concatenate(found), model.predict_proba(near))


def named(session: ort.InferenceSession, row: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """One row, under the names of the graph's inputs."""
    inputs = session.get_inputs()
    parts = np.split(row.reshape(1, -1), len(inputs), axis=1)
    return {one.name: part for one, part in zip(inputs, parts, strict=True)}


def test_far_from_zero_the_estimates_leave_no_row_out() -> None:
    X = whole(300, 4) + 1e7
    model = KNeighborsRegressor(5, algorithm="kd_tree").fit(X, np.arange(300.0))
    assert_same(model, X, rows=np.concatenate([X[:60], X[:60] + 3.0]), exact=True)


def test_all_rows_of_training_as_neighbours_are_not_searched() -> None:
    X = whole(12)
    model = KNeighborsRegressor(12).fit(X, np.arange(12.0))
    conversion = assert_same(model, X)
    assert "If" not in {node.op_type for node in all_nodes(onnx.load_from_string(conversion.onnx).graph)}


@pytest.mark.parametrize("rows", [np.full((2, 3), np.inf), np.array([[1e200, 0.0, 0.0]])])
def test_rows_infinitely_far_from_all_others_end_the_search(rows: NDArray[np.float64]) -> None:
    X = whole(90)
    model = KNeighborsClassifier(1).fit(X, X[:, 0] > 2)
    assert len(run(converted(model, X), model, rows)["label"]) == len(rows)


def test_the_numbers_of_the_nearest_rows_hold_those_that_the_tree_keeps() -> None:
    X = whole(150)
    model = WithNeighbours(NearestNeighbors(n_neighbors=3, algorithm="kd_tree").fit(X))
    found = run(converted(model, X), model, X)["value"][:, 3:]
    expected = model.estimator.kneighbors(X, return_distance=False)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


@pytest.mark.parametrize(
    ("kind", "said"), [(KNeighborsClassifier, "equally near"), (RadiusNeighborsClassifier, "on the radius")]
)
def test_ties_that_a_machine_s_rounding_decides_are_told(kind: Any, said: str) -> None:
    X, y = numbers(), target()
    for algorithm, rows, told in (("brute", X, True), ("brute", X.round(), False), ("kd_tree", X, False)):
        options: dict[str, Any] = {"algorithm": algorithm}
        if kind is RadiusNeighborsClassifier:
            options["radius"] = 1e4
        notes = converted(kind(**options).fit(rows, y), rows).notes
        assert any(said in note for note in notes) == told
