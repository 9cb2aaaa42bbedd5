"""Columns of float32: scikit-learn's scalers and imputers compute in float32, and so does the graph, bit for bit."""

# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from benchmarks.pipelines.judge import judge
from tests.converters.frames import NUMBERS, converted, features, target
from tests.converters.transforms import transformed


def single() -> pd.DataFrame:
    return features()[NUMBERS].astype(np.float32)


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        MinMaxScaler((-3, 7), clip=True),
        MaxAbsScaler(),
        RobustScaler(),
        Binarizer(threshold=14.3),
        SimpleImputer(add_indicator=True),
        make_pipeline(SimpleImputer(strategy="median"), MinMaxScaler(), StandardScaler()),
    ],
    ids=lambda step: type(step).__name__,
)
@pytest.mark.parametrize("trained", [np.float32, np.float64])
def test_float32_is_computed_as_scikit_learn_does(step: Any, trained: type) -> None:
    X = single() if step.__class__ is not Binarizer else single().fillna(1)
    step.fit(X.astype(trained))
    found, _ = transformed(step, X, X)
    theirs = step.transform(X)
    assert theirs.dtype == np.float32
    np.testing.assert_array_equal(found.astype(np.float32), theirs)


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), make_pipeline(SimpleImputer(), RobustScaler())])
def test_trees_behind_a_scaler_of_float32_decide_alike_at_their_thresholds(scaler: Any) -> None:
    model = make_pipeline(scaler, ExtraTreesClassifier(15, random_state=0)).fit(single(), target())
    judged = judge(model, single())
    assert judged.outcome == "right", judged.why
    assert judged.mined > 1000


def test_who_computes_in_float64_pays_nothing_for_float32_columns() -> None:
    X = single().fillna(1)
    wide = converted(LogisticRegression(max_iter=5000).fit(X, target()), X.astype(float))
    narrow = converted(LogisticRegression(max_iter=5000).fit(X, target()), X)
    nodes = [[node.op_type for node in onnx.load_from_string(one.onnx).graph.node] for one in (wide, narrow)]
    assert nodes[0] == nodes[1]
