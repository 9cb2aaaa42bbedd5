"""Columns of float32: scikit-learn's scalers and imputers compute in float32, and so does the graph, bit for bit."""

# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from benchmarks.pipelines.judge import judge
from tests.converters.frames import NUMBERS, converted, features, run, target
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
        QuantileTransformer(n_quantiles=50),
        QuantileTransformer(n_quantiles=50, output_distribution="normal"),
        make_pipeline(SimpleImputer(), PolynomialFeatures(3), StandardScaler()),
        make_pipeline(
            SimpleImputer(),
            KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf"),
            MinMaxScaler((0, 0.3)),
        ),
        ColumnTransformer([("one", MaxAbsScaler(), NUMBERS)], transformer_weights={"one": 0.1}),
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


def test_boosting_behind_steps_of_float32_decides_alike_at_its_thresholds() -> None:
    for step in (PolynomialFeatures(2), QuantileTransformer(n_quantiles=30), KBinsDiscretizer(4, encode="ordinal")):
        step.set_params(**({"quantile_method": "averaged_inverted_cdf"} if "Bins" in type(step).__name__ else {}))
        model = make_pipeline(step, StandardScaler(), HistGradientBoostingClassifier(max_iter=8))
        judged = judge(model.fit(single().fillna(1), target()), single().fillna(1))
        assert judged.outcome == "right", judged.why


@pytest.mark.parametrize("named", [True, False])
def test_one_column_of_float64_makes_the_whole_matrix_float64(named: bool) -> None:
    frame = single().fillna(1).astype({"area": np.float64})
    X: Any = frame if named else frame.to_numpy()
    first = ColumnTransformer([("one", StandardScaler(), [0, 1])])
    model = make_pipeline(first, HistGradientBoostingClassifier(max_iter=8)).fit(X, target())
    # A model without names of its own may be converted with a frame, whose columns become one matrix.
    judged = judge(model, frame)
    assert judged.outcome == "right", judged.why


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize("model", [LabelPropagation(gamma=150), LabelSpreading(gamma=150)], ids=str)
def test_what_underflows_in_float32_has_no_label_there(model: Any) -> None:
    X = pd.DataFrame(MinMaxScaler().fit_transform(single().fillna(1)), columns=NUMBERS).astype(np.float32)
    model.fit(X, np.unique(target(), return_inverse=True)[1])
    rows = X + np.float32(0.7)
    theirs = model.predict_proba(rows)
    assert 0 < np.isnan(theirs).any(axis=1).sum() < len(rows)
    found = run(converted(model, X), model, rows)["probabilities"]
    known = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.isnan(found), ~known)
    # Next to the underflow one unit in the last place is much.
    assert np.median(np.abs(found[known] - theirs[known])) < 1e-6


def test_who_computes_in_float64_pays_nothing_for_float32_columns() -> None:
    X = single().fillna(1)
    wide = converted(LogisticRegression(max_iter=5000).fit(X, target()), X.astype(float))
    narrow = converted(LogisticRegression(max_iter=5000).fit(X, target()), X)
    nodes = [[node.op_type for node in onnx.load_from_string(one.onnx).graph.node] for one in (wide, narrow)]
    assert nodes[0] == nodes[1]
