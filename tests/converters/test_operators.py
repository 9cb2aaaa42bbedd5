"""Single steps, compared bit for bit or nearly, with values that training has not seen."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomTreesEmbedding
from sklearn.feature_selection import SelectFromModel, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import NUMBERS, assert_same, converted, features, target

# Unknown categories are the point of these tests; scikit-learn warns of columns that are empty.
pytestmark = pytest.mark.filterwarnings("ignore:Found unknown categories", "ignore:Skipping features without")


def fitted(step: Any, X: pd.DataFrame) -> Any:
    return make_pipeline(step, Ridge()).fit(X, target("value"))


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler(with_std=False),
        MinMaxScaler(),
        MinMaxScaler(feature_range=(-1, 2), clip=True),
        MaxAbsScaler(),
        RobustScaler(quantile_range=(10, 80)),
        Binarizer(threshold=14.0),
        VarianceThreshold(),
        SelectFromModel(Lasso(0.01)),
        Normalizer(),
    ],
    ids=str,
)
def test_numbers_are_scaled_and_chosen_in_float64(step: Any) -> None:
    X = features()[NUMBERS].fillna(1.0)
    far = pd.concat([X * 3, -X], ignore_index=True)
    assert_same(fitted(step, X), X, rows=far, exact=True)


def test_a_step_without_float64_in_its_converter_is_called_mixed() -> None:
    X = features()[["visits", "smoker"]].astype(float)
    assert_same(fitted(RandomTreesEmbedding(3, sparse_output=False, random_state=0), X), X, exact=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "median", "add_indicator": True},
        {"strategy": "most_frequent"},
        {"strategy": "constant", "fill_value": -7},
        {"missing_values": -1, "add_indicator": True},
        {"keep_empty_features": True, "add_indicator": True},
    ],
    ids=str,
)
def test_missing_numbers_are_filled(options: dict[str, Any]) -> None:
    X = features()[[*NUMBERS, "visits"]].assign(empty=np.nan)
    if "missing_values" in options:
        X = X.drop(columns="empty").fillna(-1)
    conversion = assert_same(fitted(SimpleImputer(**options), X), X, exact=True)
    assert all(feature.nullable == ("missing_values" not in options) for feature in conversion.features)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "most_frequent"},
        {"strategy": "constant"},
        {"strategy": "constant", "fill_value": "?", "add_indicator": True},
    ],
    ids=str,
)
def test_missing_texts_are_filled(options: dict[str, Any]) -> None:
    # `visits` between two texts: the imputer sees objects, and columns keep their order.
    columns = ["size", "visits", "lab"]
    fill = make_pipeline(SimpleImputer(**options), OneHotEncoder(handle_unknown="ignore"))
    conversion = assert_same(fitted(ColumnTransformer([("all", fill, columns)]), features()), features(), exact=True)
    assert conversion.features[0].name == "size"
    assert conversion.features[0].nullable


def test_a_text_that_stands_for_missing_is_filled() -> None:
    fill = make_pipeline(SimpleImputer(missing_values="a", strategy="constant", fill_value="b"), OneHotEncoder())
    assert_same(fitted(ColumnTransformer([("lab", fill, ["lab"])]), features()), features())


def test_an_imputer_of_nan_leaves_none_alone_as_the_original_does() -> None:
    X = features().astype({"size": object})
    X["size"] = X["size"].where(X["size"].notna(), None)
    fill = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    assert_same(fitted(ColumnTransformer([("size", fill, ["size"])]), X), X)


ENCODERS: list[Any] = [
    OneHotEncoder(handle_unknown="ignore"),
    OneHotEncoder(handle_unknown="ignore", drop="if_binary"),
    OneHotEncoder(handle_unknown="ignore", drop="first"),
    OneHotEncoder(handle_unknown="ignore", max_categories=2),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=60),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=60, drop="first"),
    OneHotEncoder(handle_unknown="infrequent_if_exist"),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2, min_frequency=60),
    make_pipeline(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-3),
        SimpleImputer(),
    ),
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda one: "".join(str(one).split())[:80])
def test_texts_are_encoded_known_unknown_and_missing(encoder: Any) -> None:
    rows = features()
    rows.loc[:20, "lab"] = "never seen"
    model = fitted(ColumnTransformer([("texts", encoder, ["size", "lab"])]), features())
    conversion = assert_same(model, features(), rows=rows, exact=True)
    assert not any(feature.closed for feature in conversion.features)


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda one: "".join(str(one).split())[:80])
def test_numbers_are_encoded_known_unknown_and_missing(encoder: Any) -> None:
    X = features().astype({"visits": float})
    X.loc[5:40, "visits"] = np.nan
    rows = X.copy()
    rows.loc[:20, "visits"] = 77.0
    model = fitted(ColumnTransformer([("numbers", encoder, ["visits", "smoker"])]), X)
    assert_same(model, X, rows=rows, exact=True)


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OneHotEncoder(drop="first"), OrdinalEncoder()], ids=str)
def test_an_encoder_that_raises_closes_texts_and_notes_numbers(encoder: Any) -> None:
    choose = ColumnTransformer([("codes", encoder, ["lab", "visits"])])
    conversion = assert_same(fitted(choose, features()), features(), exact=True)
    assert [feature.closed for feature in conversion.features] == [True, False]
    assert len(conversion.notes) == 1
    assert "'visits'" in conversion.notes[0]


def test_none_and_nan_as_two_categories_are_refused() -> None:
    X = features().astype({"lab": object})
    X.loc[:5, "lab"] = np.nan
    X["lab"] = X["lab"].where(X.index != 3, None)
    model = make_pipeline(ColumnTransformer([("lab", OneHotEncoder(), ["lab"])]), LogisticRegression())
    model.fit(X, target())
    with pytest.raises(ConversionRefused, match="both None and NaN"):
        converted(model, X)


def test_many_text_columns_and_categories_take_no_more_nodes() -> None:
    wide = pd.DataFrame({f"c{i}": [f"{i}-{j % (20 + i)}" for j in range(240)] for i in range(12)})
    model = fitted(OneHotEncoder(handle_unknown="ignore"), wide)
    conversion = assert_same(model, wide, exact=True)
    few = converted(fitted(OneHotEncoder(handle_unknown="ignore"), wide[["c0", "c1"]]), wide)
    assert conversion.operators == few.operators
