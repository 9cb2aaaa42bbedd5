"""Transformers that solve something for each row: factorizations, topics, sparse codes, embeddings, graphs."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import (
    NMF,
    DictionaryLearning,
    LatentDirichletAllocation,
    MiniBatchDictionaryLearning,
    MiniBatchNMF,
    SparseCoder,
)
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import Isomap, LocallyLinearEmbedding
from sklearn.neighbors import KNeighborsTransformer, RadiusNeighborsClassifier, RadiusNeighborsTransformer
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same
from tests.converters.transforms import around, assert_transforms, far, transformed

# Fits and pursuits on little data stop early; scikit-learn says so.
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*Orthogonal matching pursuit ended prematurely"
)


def digits(rows: int = 120, columns: int = 20) -> pd.DataFrame:
    """Counts from 0 to 16, of the pixels that vary most."""
    data: Any = load_digits()
    best = np.sort(np.argsort(data.data.var(axis=0))[-columns:])
    return pd.DataFrame(data.data[:rows, best], columns=[f"p{index}" for index in range(columns)])


def labels() -> Any:
    data: Any = load_digits()
    return data.target[:120] % 3


def scaled() -> pd.DataFrame:
    X = digits()
    return pd.DataFrame(StandardScaler().fit_transform(X), columns=X.columns)


NMFS = [
    {},
    {"alpha_W": 0.01, "l1_ratio": 0.3},
    {"alpha_W": 0.02, "l1_ratio": 0.0, "max_iter": 7},
    {"n_components": 1},
]


@pytest.mark.parametrize("options", NMFS, ids=str)
def test_weights_by_coordinate_descent_take_the_same_turns(options: dict[str, Any]) -> None:
    X = digits()
    step = NMF(**({"n_components": 5, "random_state": 0, "tol": 0, "max_iter": 50} | options)).fit(X)
    assert_transforms(step, X, pd.concat([X, X * 0, X * 7], ignore_index=True), atol=1e-11)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (NMF(3, max_iter=5), "each depends on the others"),
        (NMF(3, max_iter=5, tol=0, shuffle=True), "in random order"),
        (NMF(3, max_iter=5, tol=0, solver="mu"), "the mean of all rows"),
        (MiniBatchNMF(3, max_iter=5), "the mean of all rows"),
    ],
    ids=lambda one: "".join(str(one).split())[:40],
)
def test_weights_that_depend_on_other_rows_are_refused(step: Any, why: str) -> None:
    X = digits()
    with pytest.raises(ConversionRefused, match=why):
        transformed(step.fit(X), X, X)


@pytest.mark.parametrize("options", [{}, {"doc_topic_prior": 0.9, "mean_change_tol": 1e-6}, {"max_doc_update_iter": 3}])
def test_topics_are_the_same(options: dict[str, Any]) -> None:
    X = digits()
    step = LatentDirichletAllocation(4, max_iter=3, random_state=0, **options).fit(X)
    assert_transforms(step, X, pd.concat([X, X * 0, X * 0.01], ignore_index=True), rtol=1e-9)


def atoms(count: int = 12) -> Any:
    found = np.random.default_rng(0).normal(size=(count, 20))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("wanted", [None, 1, 5, 12])
@pytest.mark.parametrize("split", [False, True])
def test_matching_pursuit_takes_the_same_atoms(split: bool, wanted: int | None) -> None:
    X = scaled()
    step = SparseCoder(atoms(), transform_n_nonzero_coefs=wanted, split_sign=split).fit(X)
    exactly = pd.DataFrame(atoms()[:5] * 3 + atoms()[5:10], columns=X.columns)
    assert_transforms(step, X, pd.concat([X, X * 0, exactly], ignore_index=True), rtol=1e-9, atol=1e-11)


def test_matching_pursuit_stops_at_atoms_that_depend_on_each_other() -> None:
    X = scaled()
    dictionary = np.concatenate([atoms(6), [atoms(6)[0] + atoms(6)[1]], [atoms(6)[2]]])
    dictionary[6] /= np.linalg.norm(dictionary[6])
    step = SparseCoder(dictionary, transform_n_nonzero_coefs=8).fit(X)
    # Rounding decides which of an atom's copies is dropped.
    assert_transforms(step, X, pd.DataFrame(atoms(6)[[0, 1, 3, 4, 5]], columns=X.columns), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.01, 100.0])
@pytest.mark.parametrize("algorithm", ["threshold", "lasso_cd"])
def test_thresholds_and_the_lasso_are_the_same(algorithm: str, alpha: float | None, positive: bool) -> None:
    X = scaled()
    options = {"transform_algorithm": algorithm, "transform_alpha": alpha, "positive_code": positive}
    step = SparseCoder(atoms(), **options).fit(X)
    assert_transforms(step, X, pd.concat([X, X * 0, X * 9], ignore_index=True), rtol=1e-9, atol=1e-10)
    step = SparseCoder(atoms(), transform_max_iter=3, **options).fit(X)
    assert_transforms(step, X, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"transform_algorithm": "lars"},
        {"transform_algorithm": "lars", "transform_n_nonzero_coefs": 7},
        {"transform_alpha": 0.05},
        {"transform_alpha": 0.05, "positive_code": True},
        {"transform_max_iter": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [12, 30])
def test_paths_of_least_angles_take_the_same_steps(count: int, options: dict[str, Any]) -> None:
    X = scaled()
    step = SparseCoder(atoms(count), **({"transform_algorithm": "lasso_lars"} | options)).fit(X)
    assert_transforms(step, X, pd.concat([X, X * 0, X * 9], ignore_index=True), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", [DictionaryLearning, MiniBatchDictionaryLearning])
def test_learnt_dictionaries_code_the_same(kind: Any) -> None:
    X = scaled()
    step = kind(8, max_iter=3, transform_n_nonzero_coefs=3, random_state=0).fit(X)
    assert_transforms(step, X, rtol=1e-9, atol=1e-11)
    step.set_params(transform_algorithm="lasso_cd", transform_alpha=0.3)
    assert_transforms(step, X, rtol=1e-9, atol=1e-10)
    step.set_params(transform_n_nonzero_coefs=33, transform_algorithm="omp")
    with pytest.raises(ConversionRefused, match="a code of 33 atoms by matching pursuit is too long"):
        transformed(step, X, X)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neighbors_algorithm": "kd_tree", "n_components": 3},
        {"metric": "manhattan"},
        {"n_neighbors": None, "radius": 6.0},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*connected components", "ignore::scipy.sparse.SparseEfficiencyWarning")
def test_shortest_ways_are_the_same(options: dict[str, Any]) -> None:
    X = scaled()
    step = Isomap(**options).fit(X)
    assert_transforms(step, X, X * 0.9, rtol=1e-9, atol=1e-9)
    # Brute force takes distances from a matrix product, which finds 1e-7 between equal rows.
    assert_transforms(step, X, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"n_neighbors": 12, "n_components": 3, "reg": 1e-2}, {"method": "ltsa"}], ids=str
)
def test_neighbours_weights_are_the_same(options: dict[str, Any]) -> None:
    X = scaled()
    step = LocallyLinearEmbedding(**({"random_state": 0, "eigen_solver": "dense"} | options)).fit(X)
    assert_transforms(step, X, far(X), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree", "brute"])
@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_graphs_of_neighbours_are_the_same(mode: Any, algorithm: Any) -> None:
    X = scaled()
    # Brute force takes distances from a matrix product, which finds 1e-7 between equal rows.
    atol = 1e-6 if (algorithm, mode) == ("brute", "distance") else 0
    rows = far(X).iloc[len(X) :] if algorithm == "brute" else far(X)
    for step in (
        KNeighborsTransformer(mode=mode, n_neighbors=4, algorithm=algorithm),
        RadiusNeighborsTransformer(mode=mode, radius=5.0, algorithm=algorithm),
        RadiusNeighborsTransformer(mode=mode, radius=12.0, algorithm=algorithm, metric="manhattan"),
    ):
        assert_transforms(step.fit(X), X, rows, rtol=1e-12, atol=atol)


def test_rows_exactly_at_the_radius_are_within_it_or_not_alike() -> None:
    X = pd.DataFrame(np.random.default_rng(0).integers(0, 12, (150, 4)) / 10, columns=list("abcd"))
    for radius in (0.1, 0.3, 0.5, 0.7):
        step = RadiusNeighborsTransformer(radius=radius, algorithm="kd_tree").fit(X)
        assert_transforms(step, X, around(X.to_numpy() + radius, X), rtol=1e-12)
    model = RadiusNeighborsClassifier(0.5, outlier_label="most_frequent").fit(X, np.arange(150) % 3)
    assert_same(model, X, exact=True)


@pytest.mark.parametrize(
    "step",
    [
        BernoulliRBM(6, n_iter=3, random_state=0),
        LatentDirichletAllocation(4, max_iter=2, random_state=0),
        Isomap(),
        LocallyLinearEmbedding(random_state=0),
        NMF(4, tol=0, max_iter=20, random_state=0),
        MiniBatchDictionaryLearning(6, max_iter=2, random_state=0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_they_answer_in_a_pipeline(step: Any) -> None:
    X = digits() / 16
    model = make_pipeline(step, StandardScaler(), LogisticRegression()).fit(X, labels())
    assert_same(model, X, exact=not isinstance(step, Isomap))
