"""TargetEncoder: texts and numbers, known, unknown and missing."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same, features, target
from tests.converters.transforms import assert_transforms, transformed


def rows() -> pd.DataFrame:
    X = features()[["size", "visits", "lab", "smoker", "radius"]].astype({"visits": float})
    X["radius"] = X["radius"].round()
    return X


def strange() -> pd.DataFrame:
    X = rows()
    X.loc[:30, "lab"], X.loc[20:60, "visits"] = "never seen", 7.5
    X.loc[50:90, "visits"], X.loc[60:100, "size"] = np.nan, np.nan
    return pd.concat([X, rows()], ignore_index=True)


@pytest.mark.parametrize("kind", ["value", "int", "text", "three"])
@pytest.mark.parametrize("smooth", ["auto", 3.0])
def test_means_of_the_target_are_looked_up(kind: str, smooth: Any) -> None:
    X = rows()
    step = TargetEncoder(smooth=smooth).fit(X, target(kind))
    walk = assert_transforms(step, X, strange(), rtol=0)
    assert set(walk.encodings) == {"size", "lab"}
    # NaN among the numbers of training, and more numbers than are compared one by one.
    gaps = X.assign(visits=X["visits"].mask(X["visits"] == 3), area=features()["area"])
    step = TargetEncoder(smooth=smooth).fit(gaps, target(kind))
    assert_transforms(step, gaps, strange().assign(area=np.resize(features()["area"], 480) + [0.0, 1e-9] * 240), rtol=0)


@pytest.mark.parametrize("kind", ["value", "int", "three"])
def test_a_pipeline_over_means_answers_in_float64(kind: str) -> None:
    choose = ColumnTransformer([("means", TargetEncoder(), ["size", "lab", "visits"])])
    last = Ridge() if kind == "value" else LogisticRegression()
    conversion = assert_same(make_pipeline(choose, last).fit(features(), target(kind)), features(), exact=True)
    assert {one.name for one in conversion.features if one.nullable} == {"size", "lab", "visits"}
    assert not any(one.closed for one in conversion.features)


def test_none_is_a_category_of_its_own() -> None:
    X = features().astype({"size": object})
    X["size"] = X["size"].where(X["size"].notna(), None)
    choose = ColumnTransformer([("means", TargetEncoder(), ["size"])])
    assert_same(make_pipeline(choose, Ridge()).fit(X, target("value")), X, exact=True)


def test_none_and_nan_as_two_categories_are_refused() -> None:
    X = features()[["lab"]].astype(object)
    X.loc[:5, "lab"] = np.nan
    X["lab"] = X["lab"].where(X.index != 3, None)
    step = TargetEncoder().fit(X, target("value"))
    with pytest.raises(ConversionRefused, match="both None and NaN"):
        transformed(step, X, X)
