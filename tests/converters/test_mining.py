# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
)
from sklearn.preprocessing import StandardScaler as Scaler
from sklearn.tree import DecisionTreeClassifier

from edgekit_contracts.manifest import Feature
from edgekit_converters import mining
from edgekit_converters.asking import columns_of
from edgekit_converters.mining import ROWS_MAX, TOGETHER_MAX, mined, reached, thresholds
from edgekit_converters.schema import dtypes
from tests.converters.frames import NUMBERS, features, target, textbook


def described(X: pd.DataFrame) -> list[Feature]:
    return [Feature(name=name, dtype=dtype, nullable=True) for name, dtype in dtypes(X).items()]


def rows(model: Any, X: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(mined(thresholds(model, list(X.columns)), X, described(X)), ignore_index=True)


@pytest.mark.parametrize("scaler", [Scaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler(), "passthrough"], ids=str)
def test_thresholds_are_found_through_scalers(scaler: Any) -> None:
    X = features()[["area", "visits"]].astype(float)
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    model = make_pipeline(SimpleImputer(), scaler, tree).fit(X, target())
    found = rows(model, X)
    inner = tree.tree_.feature == 0
    changes = np.concatenate([np.diff(tree.decision_path(model[:-1].transform(found[:400])).toarray(), axis=0)])
    assert inner.any()
    assert changes.any()
    for threshold in tree.tree_.threshold[inner]:
        reached = model[:-1].transform(found)[:, 0].astype(np.float32)
        # On both sides of the threshold, the nearest values that the tree can tell apart.
        assert reached[reached <= threshold].max() == pytest.approx(threshold, rel=1e-6)
        assert reached[reached > threshold].min() == pytest.approx(threshold, rel=1e-6)


def test_rows_lie_on_each_threshold_and_one_step_beside_it() -> None:
    X = features()[["area"]]
    model = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, target())
    found = set(rows(model, X)["area"])
    for threshold in model.tree_.threshold[model.tree_.feature == 0].tolist():
        assert {threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf)} <= found
        short = np.float32(threshold)
        assert {float(short), float(np.nextafter(short, np.float32(np.inf)))} <= found


def test_filled_in_values_categories_and_edges_are_marks() -> None:
    X = features()
    model = make_pipeline(
        ColumnTransformer(
            [
                ("fill", SimpleImputer(), ["radius"]),
                ("bins", KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), ["area"]),
                ("codes", OneHotEncoder(), ["visits"]),
            ]
        ),
        LogisticRegression(),
    ).fit(X, target())
    marks = thresholds(model, list(X.columns))
    assert marks["radius"].numbers.tolist() == [model[0].named_transformers_["fill"].statistics_[0]]
    assert len(marks["area"].numbers) == 5
    assert marks["visits"].numbers.tolist() == list(range(9))


def test_boosting_with_categories_numbers_its_columns_in_another_order() -> None:
    X = features()[["area", "visits"]].astype(float)
    model = HistGradientBoostingClassifier(max_iter=3, categorical_features=["visits"]).fit(X, target())
    marks = thresholds(model, list(X.columns))
    nodes = np.concatenate([one[0].nodes for one in model._predictors])
    split = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
    assert set(split["num_threshold"]) <= set(marks["area"].numbers)
    assert set(marks["visits"].numbers) == set(map(float, range(9)))


def test_quantiles_stand_in_where_a_step_mixes_columns() -> None:
    X = features()[NUMBERS].fillna(0.0)
    model = make_pipeline(PCA(2), RandomForestClassifier(3, random_state=0)).fit(X, target())
    assert not thresholds(model, NUMBERS)
    found = rows(model, X)
    assert X["area"].median() in set(found["area"])
    assert found["area"].max() > X["area"].max()


@pytest.mark.parametrize("wide", [3, 60, 900])
def test_the_rows_are_capped_and_spread(wide: int) -> None:
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(120, wide)), columns=[f"x{number}" for number in range(wide)])
    model = RandomForestClassifier(8, random_state=0).fit(X, random.integers(0, 2, 120))
    found = rows(model, X)
    assert 200 < len(found) <= ROWS_MAX * 1.1 + TOGETHER_MAX
    pd.testing.assert_frame_equal(found, rows(model, X))


def counted(model: Any, X: pd.DataFrame, most: int = ROWS_MAX) -> tuple[int, int]:
    found = pd.concat(mined(thresholds(model, list(X.columns)), X, described(X), most), ignore_index=True)
    return reached(thresholds(model, list(X.columns)), described(X), columns_of(found, described(X)))


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_every_threshold_of_a_usual_forest_is_reached_and_counted(kind: Any) -> None:
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(400, 30)).astype(kind), columns=[f"x{number}" for number in range(30)])
    model = RandomForestClassifier(50, random_state=0).fit(X, random.integers(0, 2, 400))
    splits = np.concatenate([tree.tree_.feature for tree in model.estimators_])
    found, total = counted(model, X)
    assert total > np.unique(splits).size
    assert found == total


def test_where_there_are_too_many_thresholds_the_count_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "TOGETHER_MAX", 60)
    X = features()[["area", "visits"]].astype(float)
    found, total = counted(RandomForestClassifier(20, random_state=0).fit(X, target()), X, 100)
    assert 0 < found < total


def test_texts_have_a_row_of_each_category_and_of_what_is_filled_in() -> None:
    X = features().astype({"lab": "category"})
    model = textbook(LogisticRegression()).fit(X, target())
    found = rows(model, X)
    assert {"small", "middle", "large"} <= set(found["size"])
    assert set(found["lab"]) == {"a", "b", "ü"}
    assert counted(model, X)[0] == counted(model, X)[1] > 8


def test_types_stay_as_they_are() -> None:
    X = features()
    model = textbook(RandomForestClassifier(4, random_state=0), [*NUMBERS, "visits"]).fit(X, target())
    found = mined(thresholds(model, list(X.columns)), X, described(X))
    assert all(part.dtypes.tolist() == X.dtypes.tolist() for part in found)


def test_a_function_that_names_no_columns_leaves_the_columns_beside_it_their_thresholds() -> None:
    X = features()[["area", "visits"]]
    columns = ColumnTransformer(
        [
            ("log", make_pipeline(FunctionTransformer(np.log1p), Scaler()), ["visits"]),
            ("as it is", "passthrough", ["area"]),
        ]
    )
    model = make_pipeline(columns, DecisionTreeClassifier(max_depth=2, random_state=0)).fit(X, target())
    tree = model[-1].tree_
    assert set(tree.threshold[tree.feature == 1]) <= set(thresholds(model, list(X.columns))["area"].numbers)
