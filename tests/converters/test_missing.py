"""MissingIndicator, KNNImputer, IterativeImputer, with gaps where training had them and elsewhere."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same, features, target
from tests.converters.transforms import assert_transforms, numbers, transformed

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:Skipping features without"
)


def with_gaps(share: float = 0.15) -> pd.DataFrame:
    """Four columns of measurements with more digits than any two distances share."""
    random = np.random.default_rng(1)
    X = numbers().assign(ratio=lambda one: one["area"] / one["texture"]) + random.random((240, 4))
    return X.mask(random.random(X.shape) < share)


@pytest.mark.parametrize("options", [{}, {"features": "all"}, {"sparse": True}, {"missing_values": -1}], ids=str)
def test_missing_numbers_are_indicated(options: dict[str, Any]) -> None:
    X = with_gaps().assign(whole=1.0)
    X = X.fillna(-1) if "missing_values" in options else X
    step = MissingIndicator(**options).fit(X)
    assert_transforms(step, X, rtol=0)
    model = make_pipeline(make_union(SimpleImputer(), step), Ridge()).fit(X.drop(columns="whole"), target("value"))
    assert_same(model, X.drop(columns="whole"), exact=True)


def test_missing_texts_are_indicated() -> None:
    choose = ColumnTransformer([("gaps", MissingIndicator(features="all"), ["size", "visits", "lab"])])
    assert_same(make_pipeline(choose, Ridge()).fit(features(), target("value")), features(), exact=True)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("options", [{}, {"n_neighbors": 1}, {"n_neighbors": 500}, {"add_indicator": True}], ids=str)
def test_neighbours_fill_gaps(options: dict[str, Any], weights: Any) -> None:
    X = with_gaps()
    step = KNNImputer(weights=weights, **options).fit(X)
    walk = assert_transforms(step, X, rtol=1e-9)
    assert "same distance" in walk.notes[0]
    more = with_gaps(0.5) * 1.01
    more.iloc[3] = np.nan
    assert_transforms(step, X, more, rtol=1e-9)


def test_of_equally_distant_neighbours_the_first_ones_are_taken() -> None:
    X = pd.DataFrame({"a": [0.0, 0.0, 0.0, 0.0, 9.0, 0.0], "b": [1.0, 5.0, 7.0, 11.0, 0.0, np.nan]})
    found, walk = transformed(KNNImputer(n_neighbors=2).fit(X), X, X)
    assert found[5].tolist() == [0.0, 3.0]
    assert "is not defined" in walk.notes[0]


@pytest.mark.parametrize("keep", [True, False])
def test_neighbours_of_an_empty_column_and_another_marker(keep: bool) -> None:
    X = with_gaps().assign(empty=np.nan)
    assert_transforms(KNNImputer(keep_empty_features=keep, add_indicator=True).fit(X), X, rtol=1e-9)
    X = X.fillna(-1)
    assert_transforms(KNNImputer(missing_values=-1, keep_empty_features=keep).fit(X), X, rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_indicator": True, "imputation_order": "random", "random_state": 0},
        {"min_value": 0.0, "max_value": 400.0, "initial_strategy": "median"},
        {"estimator": LinearRegression(), "max_iter": 3, "n_nearest_features": 2, "random_state": 0},
        {"estimator": make_pipeline(StandardScaler(), Ridge()), "max_iter": 2, "skip_complete": True},
        {"max_iter": 0},
    ],
    ids=str,
)
def test_the_sequence_of_regressions_fills_gaps(options: dict[str, Any]) -> None:
    X = with_gaps()
    step = IterativeImputer(**options).fit(X)
    assert_transforms(step, X, rtol=1e-9)
    rows = with_gaps(0.6)
    rows.iloc[0] = np.nan  # alone it keeps the initial imputation, among others it does not
    assert_transforms(step, X, rows, rtol=1e-9)


@pytest.mark.parametrize("keep", [True, False])
def test_regressions_beside_an_empty_column(keep: bool) -> None:
    # The whole numbers make it a frame of two types: scikit-learn writes into the matrix that pandas gives.
    X = with_gaps().assign(empty=np.nan, whole=features()["visits"])
    X = X[["empty", *X.columns.drop("empty")]]
    assert_transforms(IterativeImputer(keep_empty_features=keep, add_indicator=True).fit(X), X, rtol=1e-9)


def test_a_tree_imputes_too() -> None:
    X = with_gaps()
    step = IterativeImputer(DecisionTreeRegressor(max_depth=4, random_state=0), max_iter=2).fit(X)
    assert_transforms(step, X, rtol=1e-6)


@pytest.mark.parametrize(
    "step", [KNNImputer(), KNNImputer(weights="distance"), IterativeImputer(), IterativeImputer(add_indicator=True)]
)
def test_a_pipeline_over_filled_gaps_answers_in_float64(step: Any) -> None:
    X = with_gaps()
    y = np.stack([target("value"), target("int")], axis=1)
    assert_same(make_pipeline(step, StandardScaler(), Ridge()).fit(X, y), X, exact=True)
    model = make_pipeline(step, StandardScaler(), LogisticRegression()).fit(X, target("three"))
    assert all(feature.nullable for feature in assert_same(model, X, exact=True).features)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (IterativeImputer(sample_posterior=True), "at random"),
        (KNNImputer(weights=lambda distances: distances), "function of its own"),
        (KNNImputer(metric=lambda one, two, missing_values: 1.0), "function of its own"),
    ],
    ids=["posterior", "weights", "metric"],
)
def test_what_is_drawn_or_called_is_refused(step: Any, why: str) -> None:
    X = with_gaps()
    with pytest.raises(ConversionRefused, match=why):
        transformed(step.fit(X), X, X)
