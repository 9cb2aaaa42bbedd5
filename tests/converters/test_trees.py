# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from edgekit_contracts.errors import ConversionRefused
from edgekit_converters.certificate import certify
from edgekit_converters.operators.tree_nodes import down, last
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for
from tests.converters.frames import features, run, target

CONVERTER = SklearnConverter()
RUNTIMES = pytest.mark.parametrize("runtime", ["1.20", "1.24.1"])
NAMES = list("abcd")


def data(*, missing: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 4))
    X[:, 3] = X[:, 3].round(1)
    if missing:
        X[random.random(X.shape) < 0.1] = np.nan
    return pd.DataFrame(X, columns=NAMES)


def answer(kind: str) -> NDArray[Any]:
    X, random = data().to_numpy(), np.random.default_rng(1)
    value = X[:, 0] * 2 + X[:, 1] + random.normal(size=len(X)) * 0.7
    three = (value > -1).astype(int) + (value > 1)
    kinds: dict[str, NDArray[Any]] = {
        "two": (value > 0).astype(int),
        "three": np.array(["low", "mid", "top"], dtype=object)[three],
        "value": value,
        "positive": np.exp(value / 3),
        "values": np.stack([value, three, -value], axis=1),
    }
    return kinds[kind]


def splits(model: Any) -> list[tuple[int, float]]:
    """(feature, threshold) of every inner node."""
    if hasattr(model, "_predictors"):
        nodes = np.concatenate([one.nodes for stage in model._predictors for one in stage])
        nodes = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)]
        return list(zip(nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist(), strict=True))
    trees = [one.tree_ for one in np.ravel(getattr(model, "estimators_", [model]))]
    return [
        (int(feature), float(threshold))
        for tree in trees
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True)
        if feature >= 0
    ]


def adversarial(model: Any, X: pd.DataFrame, *, missing: bool, rows: int = 1500) -> pd.DataFrame:
    """Training rows, and rows whose columns are at thresholds, one step beside them, or halfway between float32s."""
    random = np.random.default_rng(2)
    known = [one for one in splits(model) if np.isfinite(one[1])]
    found = X.to_numpy()[random.integers(0, len(X), rows)]
    for row in range(rows if known else 0):
        for number in random.integers(0, len(known), 4):
            feature, at = known[number]
            short = np.float32(at)
            sides = [np.nextafter(short, np.float32(side)) for side in (-np.inf, np.inf)]
            values = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), *map(float, sides)]
            values += [(float(short) + float(side)) / 2 for side in sides]
            found[row, feature] = values[random.integers(0, len(values))]
    if missing:
        found[random.random(found.shape) < 0.1] = np.nan
    return pd.concat([X, pd.DataFrame(found, columns=X.columns)], ignore_index=True)


def assert_equal_bits(
    model: Any, X: pd.DataFrame, rows: pd.DataFrame, runtime: str, ulps: float = 0
) -> onnx.ModelProto:
    """Labels are equal on every row; numbers bit for bit, or within so many ulps of the largest in the row."""
    conversion = CONVERTER.convert(model, X, target_for(runtime))
    assert conversion.ml_opset == target_for(runtime).ml_opset
    for part in (rows, rows[:1], rows[-7:]):
        ours, theirs = run(conversion, model, part), CONVERTER.answers(model, part)
        if theirs.labels is not None:
            assert ours["label"].tolist() == theirs.labels.tolist()
        for given_, expected in ((ours.get("probabilities"), theirs.probabilities), (ours.get("value"), theirs.values)):
            if expected is None:
                continue
            assert given_ is not None
            if ulps == 0:
                np.testing.assert_array_equal(given_, expected)
            else:
                scale = np.spacing(np.abs(expected).max(axis=1, keepdims=True))
                assert (np.abs(given_ - expected) <= ulps * scale).all()
    return onnx.load_model_from_string(conversion.onnx)


EXACT: list[tuple[str, Any]] = [
    ("two", DecisionTreeClassifier(random_state=0)),
    ("three", DecisionTreeClassifier(max_depth=3, class_weight="balanced", random_state=0)),
    ("three", DecisionTreeClassifier(max_depth=1)),
    ("two", DecisionTreeClassifier(min_samples_leaf=200)),
    ("three", ExtraTreeClassifier(random_state=0)),
    ("three", RandomForestClassifier(1, random_state=0)),
    ("three", RandomForestClassifier(15, max_depth=4, class_weight="balanced_subsample", random_state=0)),
    ("three", RandomForestClassifier(12, bootstrap=False, max_features=1, random_state=0)),
    ("three", ExtraTreesClassifier(9, min_samples_leaf=7, random_state=0)),
    ("value", DecisionTreeRegressor(random_state=0)),
    ("values", DecisionTreeRegressor(max_depth=5, random_state=0)),
    ("value", RandomForestRegressor(100, max_depth=5, random_state=0)),
    ("values", RandomForestRegressor(12, random_state=0)),
    ("value", ExtraTreesRegressor(13, random_state=0)),
    ("value", GradientBoostingRegressor(n_estimators=100, loss="huber", random_state=0)),
    ("value", GradientBoostingRegressor(n_estimators=10, init="zero", learning_rate=0.3, random_state=0)),
    ("value", HistGradientBoostingRegressor(max_iter=90)),
    ("value", HistGradientBoostingRegressor(max_iter=10, loss="quantile", quantile=0.7)),
    ("value", AdaBoostRegressor(n_estimators=12, random_state=0)),
]
THROUGH_EXP: list[tuple[str, Any]] = [
    ("two", GradientBoostingClassifier(n_estimators=90, random_state=0)),
    ("two", GradientBoostingClassifier(n_estimators=20, loss="exponential", random_state=0)),
    ("three", GradientBoostingClassifier(n_estimators=12, init="zero", random_state=0)),
    ("two", HistGradientBoostingClassifier(max_iter=40)),
    ("three", HistGradientBoostingClassifier(max_iter=12)),
    ("positive", HistGradientBoostingRegressor(max_iter=20, loss="poisson")),
    ("positive", HistGradientBoostingRegressor(max_iter=20, loss="gamma")),
    ("two", AdaBoostClassifier(n_estimators=12, random_state=0)),
    ("three", AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=12, random_state=0)),
]


def named(models: list[tuple[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("kind", "model"), models, ids=[" ".join(str(one).split())[:70] for _, one in models]
    )


@RUNTIMES
@named(EXACT)
def test_decisions_and_sums_are_equal_bit_for_bit(kind: str, model: Any, runtime: str) -> None:
    X = data()
    model.fit(X, answer(kind))
    assert_equal_bits(model, X, adversarial(model, X, missing=False), runtime)


@RUNTIMES
@named(THROUGH_EXP)
def test_labels_are_equal_and_probabilities_differ_in_the_last_bits_of_exp(kind: str, model: Any, runtime: str) -> None:
    X = data()
    model.fit(X, answer(kind))
    assert_equal_bits(model, X, adversarial(model, X, missing=False), runtime, ulps=4)


@RUNTIMES
@pytest.mark.parametrize(
    ("kind", "model", "ulps"),
    [
        ("three", DecisionTreeClassifier(random_state=0), 0),
        ("three", RandomForestClassifier(12, max_depth=5, random_state=0), 0),
        ("value", RandomForestRegressor(12, max_depth=6, random_state=0), 0),
        ("value", HistGradientBoostingRegressor(max_iter=20), 0),
        ("two", HistGradientBoostingClassifier(max_iter=20), 4),
    ],
    ids=lambda one: type(one).__name__,
)
def test_missing_values_go_where_training_sent_them(kind: str, model: Any, ulps: float, runtime: str) -> None:
    X = data(missing=True)
    model.fit(X, answer(kind))
    assert_equal_bits(model, X, adversarial(model, X, missing=True), runtime, ulps)


@RUNTIMES
@pytest.mark.parametrize("depth", [1, 2, 3, None])
def test_ties_of_a_forest_go_to_the_class_that_numpy_takes(depth: int | None, runtime: str) -> None:
    X = data().round(0)
    model = RandomForestClassifier(20, max_depth=depth, random_state=0).fit(X, answer("two"))
    grid = np.stack(np.meshgrid(*[np.arange(-3.0, 4.0)] * 4), axis=-1).reshape(-1, 4)
    rows = pd.DataFrame(grid, columns=NAMES)
    shares = model.predict_proba(rows)
    if depth is None:
        assert (shares[:, 0] == shares[:, 1]).any()
    assert_equal_bits(model, X, rows, runtime)


@RUNTIMES
@pytest.mark.parametrize("kind", [GradientBoostingClassifier, HistGradientBoostingClassifier])
def test_a_score_of_zero_is_the_class_that_the_original_takes(kind: Any, runtime: str) -> None:
    X = data()
    model = kind(max_depth=1, random_state=0).fit(X, answer("two"))
    # Two trees add or take the smallest number there is, the others nothing.
    if hasattr(model, "_predictors"):
        model._baseline_prediction[:] = 0.0
        nodes = [one.nodes["value"] for stage in model._predictors for one in stage]
    else:
        model.set_params(init="zero", learning_rate=1.0)
        model.init_ = "zero"
        nodes = [one.tree_.value[:, 0, 0] for one in model.estimators_[:, 0]]
    for number, values in enumerate(nodes):
        values[:] = 5e-324 * np.sign(values) if number < 2 else 0.0
    rows = adversarial(model, X, missing=False)
    assert np.unique(np.sign(model.decision_function(rows))).tolist() == [-1.0, 0.0, 1.0]
    assert_equal_bits(model, X, rows, runtime)


@RUNTIMES
def test_trees_behind_a_scaler_read_what_the_scaler_gives_in_float64(runtime: str) -> None:
    X = data()
    model = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)).fit(X, answer("three"))
    rows = adversarial(model[-1], X, missing=False)
    rows[:] = rows.to_numpy() * model[0].scale_ + model[0].mean_
    assert_equal_bits(model, X, rows, runtime)


@RUNTIMES
@pytest.mark.parametrize("size", [3, 33, 120])
def test_categories_of_numbers_known_unknown_and_missing(size: int, runtime: str) -> None:
    random = np.random.default_rng(0)
    X = pd.DataFrame({"x": random.normal(size=1500), "code": random.integers(0, size, 1500) * 2.0})
    X.loc[random.random(1500) < 0.1, "code"] = np.nan
    y = np.where(X["code"].isna(), 0, random.normal(size=2 * size + 1)[X["code"].fillna(0).astype(int)]) + X["x"]
    model = HistGradientBoostingRegressor(max_iter=20, categorical_features=["code"]).fit(X, y)
    rows = pd.DataFrame({"x": random.normal(size=900), "code": random.integers(-3, 2 * size + 5, 900) * 1.0})
    rows.loc[::7, "code"] = np.nan
    assert_equal_bits(model, X, pd.concat([X, rows], ignore_index=True), runtime)


@RUNTIMES
@pytest.mark.parametrize("dtype", ["category", "str"])
def test_categories_of_texts_known_unknown_and_missing(dtype: str, runtime: str) -> None:
    X = features()[["size", "area", "lab", "visits"]].astype({"size": dtype, "lab": dtype})
    categorical: Any = "from_dtype" if dtype == "category" else ["size", "lab"]
    model = HistGradientBoostingClassifier(max_iter=12, categorical_features=categorical).fit(X, target("three"))
    rows = X.copy()
    if dtype == "str":
        rows.loc[:30, "lab"] = "never seen"
    rows.loc[20:60, "size"] = np.nan
    built = assert_equal_bits(model, X, rows, runtime, ulps=4)
    conversion = CONVERTER.convert(model, X, target_for(runtime))
    assert conversion.features[0].categories == ("large", "middle", "small")
    assert conversion.features[0].nullable
    assert "TreeEnsemble" in {node.op_type.removesuffix("Regressor") for node in built.graph.node}


def test_each_runtime_gets_the_operator_that_it_knows() -> None:
    X = data()
    model = RandomForestClassifier(5, random_state=0).fit(X, answer("two"))
    for runtime, operator in (("1.23.2", "TreeEnsembleRegressor"), ("1.24", "TreeEnsemble")):
        built = onnx.load_model_from_string(CONVERTER.convert(model, X, target_for(runtime)).onnx)
        assert operator in {node.op_type for node in built.graph.node}


@RUNTIMES
@pytest.mark.parametrize(
    ("kind", "model", "tolerance"),
    [
        ("value", GradientBoostingRegressor(init=DecisionTreeRegressor(max_depth=2), loss="huber"), 1e-12),
        ("value", GradientBoostingRegressor(init=LinearRegression()), 1e-5),  # fitted and asked in float32
        ("two", GradientBoostingClassifier(init=DecisionTreeClassifier(max_depth=4)), 1e-12),
        ("two", GradientBoostingClassifier(init=RandomForestClassifier(3, random_state=0), loss="exponential"), 1e-12),
        ("three", GradientBoostingClassifier(init=DecisionTreeClassifier(max_depth=4)), 1e-12),
        ("three", GradientBoostingClassifier(init=make_pipeline(StandardScaler(), LogisticRegression())), 1e-5),
    ],
)
def test_boosting_starts_from_what_another_estimator_predicts(
    kind: str, model: Any, tolerance: float, runtime: str
) -> None:
    X = data()
    model.set_params(n_estimators=8, random_state=0).fit(X, answer(kind))
    rows = adversarial(model, X, missing=False, rows=300)
    conversion = CONVERTER.convert(model, X, target_for(runtime))
    ours, theirs = run(conversion, model, rows), CONVERTER.answers(model, rows)
    if theirs.labels is not None:
        assert ours["label"].tolist() == theirs.labels.tolist()
    expected = theirs.values if kind == "value" else theirs.probabilities
    assert expected is not None
    np.testing.assert_allclose(ours["value" if kind == "value" else "probabilities"], expected, atol=tolerance)
    if isinstance(model.init, DecisionTreeClassifier | DecisionTreeRegressor):
        proof = certify(conversion.onnx, model)  # of its own trees and the one that it starts from
        assert proof is not None
        assert proof.trees == 8 * model.estimators_.shape[1] + 1


def test_boosting_that_starts_at_random_is_refused() -> None:
    model = GradientBoostingClassifier(n_estimators=2, init=DummyClassifier(strategy="uniform"))
    model.fit(data(), answer("two"))
    with pytest.raises(ConversionRefused, match=r"init .DummyClassifier.: strategy='uniform' answers at random"):
        CONVERTER.convert(model, data(), target_for("1.24"))


FLOATS = st.floats(min_value=-3e38, max_value=3e38, allow_subnormal=True)


@given(FLOATS, FLOATS)
def test_a_threshold_in_float32_decides_as_the_one_in_float64(threshold: float, x: float) -> None:
    at = np.array([threshold])
    around = [x, *(float(side) for one in (threshold, last(at)[0]) for side in (
        one, np.nextafter(one, np.inf), np.nextafter(one, -np.inf)))]  # fmt: skip
    with np.errstate(over="ignore"):
        values = np.array([value for value in around if np.isfinite(value)])
        short = values.astype(np.float32)
    np.testing.assert_array_equal(short.astype(np.float64) <= threshold, short <= down(at))
    np.testing.assert_array_equal(short.astype(np.float64) <= threshold, values <= last(at))
