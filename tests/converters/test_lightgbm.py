# The annotations that pyright infers for scikit-learn and LightGBM come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
from lightgbm import LGBMClassifier, LGBMRanker, LGBMRegressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingRegressor, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgekit_contracts.errors import ConversionRefused, DataMismatch, NotAModel, ParityBroken
from edgekit_converters.certificate import certify
from edgekit_converters.lightgbm import LightgbmConverter
from edgekit_converters.load import load_model
from edgekit_converters.registry import find
from edgekit_converters.target import target_for
from tests.converters.boosters import CONVERTER, NAMES, adversarial, answer, assert_answers, data
from tests.converters.frames import TARGET, assert_same, features, target, textbook

RUNTIMES = pytest.mark.parametrize("runtime", ["1.20", "1.24.1"])
SMALL: dict[str, Any] = {"n_estimators": 25, "num_leaves": 12, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}
RF: dict[str, Any] = {**SMALL, "boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}


def splits(model: Any) -> list[tuple[str, float]]:
    """(feature, threshold) of every node, as LightGBM shows them."""
    nodes = model.booster_.trees_to_dataframe()
    nodes = nodes[nodes["decision_type"] == "<="]
    return list(zip(nodes["split_feature"].tolist(), nodes["threshold"].astype(float).tolist(), strict=True))


EXACT: list[tuple[str, Any]] = [
    ("value", LGBMRegressor(**SMALL)),
    ("value", LGBMRegressor(**{**SMALL, "n_estimators": 100, "num_leaves": 4})),
    ("value", LGBMRegressor(**{**SMALL, "min_child_samples": 300})),
    ("value", LGBMRegressor(**RF)),
    ("value", LGBMRegressor(**SMALL, boosting_type="dart")),
    ("value", LGBMRegressor(**SMALL, data_sample_strategy="goss")),
    ("value", LGBMRegressor(**SMALL, linear_tree=True)),
    ("value", LGBMRegressor(**SMALL, zero_as_missing=True)),
    ("value", LGBMRegressor(**SMALL, use_missing=False)),
    ("value", LGBMRegressor(**SMALL, reg_sqrt=True)),
    *(
        ("positive", LGBMRegressor(**SMALL, objective=objective))
        for objective in ("regression_l1", "huber", "fair", "quantile", "mape")
    ),
]
THROUGH_EXP: list[tuple[str, Any]] = [
    ("two", LGBMClassifier(**SMALL)),
    ("two", LGBMClassifier(**SMALL, objective="binary", sigmoid=0.7)),
    ("two", LGBMClassifier(**SMALL, objective="cross_entropy")),
    ("three", LGBMClassifier(**SMALL)),
    ("three", LGBMClassifier(**SMALL, objective="multiclassova", sigmoid=1.3)),
    ("three", LGBMClassifier(**RF)),
    ("three", LGBMClassifier(**SMALL, linear_tree=True)),
    ("share", LGBMRegressor(**SMALL, objective="cross_entropy")),
    ("share", LGBMRegressor(**SMALL, objective="cross_entropy_lambda")),
    *(("positive", LGBMRegressor(**SMALL, objective=objective)) for objective in ("poisson", "gamma", "tweedie")),
]


def named(case: tuple[str, Any]) -> str:
    kind, model = case
    parameters = {name: value for name, value in model.get_params().items() if name not in SMALL}
    return f"{kind}-{'-'.join(str(value) for value in parameters.values() if isinstance(value, str))}"


@RUNTIMES
@pytest.mark.parametrize("case", EXACT, ids=named)
def test_sums_of_leaves_are_those_of_lightgbm_bit_for_bit(case: tuple[str, Any], runtime: str) -> None:
    kind, model = case
    X = data()
    model.fit(X, answer(kind))
    assert_answers(model, X, adversarial(splits(model), X), runtime)


@RUNTIMES
@pytest.mark.parametrize("case", THROUGH_EXP, ids=named)
def test_labels_are_equal_and_numbers_within_ulps_of_float64(case: tuple[str, Any], runtime: str) -> None:
    kind, model = case
    X = data()
    model.fit(X, answer(kind))
    conversion = assert_answers(model, X, adversarial(splits(model), X), runtime, ulps=6)
    assert {output.dtype for output in conversion.outputs} <= {"float64", "int64"}


@RUNTIMES
@pytest.mark.parametrize("missing", [{}, {"zero_as_missing": True}])
def test_zeros_go_where_lightgbm_sends_them(runtime: str, missing: dict[str, Any]) -> None:
    X = data().fillna(0.0)
    X.loc[::3, "a"] = 0.0
    model = LGBMRegressor(**SMALL, **missing).fit(X, answer("value") + (X["a"] == 0) * 3)
    assert_answers(model, X, adversarial(splits(model), X), runtime)


@RUNTIMES
def test_pandas_categories_are_looked_up_and_split_as_lightgbm_does(runtime: str) -> None:
    random = np.random.default_rng(4)
    X = data()[["a", "b"]]
    X["text"] = pd.Categorical(random.choice(["red", "grün", "blue", "grey", "pink"], len(X)))
    X["number"] = pd.Categorical(random.integers(0, 40, len(X)) * 3)
    X["size"] = pd.Categorical(random.choice(["s", "m", "l"], len(X)), categories=["s", "m", "l"], ordered=True)
    X.loc[::7, "text"], X.loc[::9, "number"] = np.nan, np.nan
    y = answer("value") + X["text"].cat.codes.to_numpy() % 2 * 3 + X["number"].cat.codes.to_numpy() % 4
    model = LGBMRegressor(**SMALL, min_data_per_group=3, cat_smooth=1.0).fit(X, y + X["size"].cat.codes)
    odd = X.assign(
        text=pd.Categorical(np.resize(["red", "new", "grün"], len(X))),
        number=pd.Categorical(np.resize([3, 999, 0, -1], len(X))),
        size=X["size"].sample(frac=1, random_state=0).to_numpy(),
    )
    rows = pd.concat([X, odd], ignore_index=True).astype(dict.fromkeys(("text", "number", "size"), "category"))
    conversion = assert_answers(model, X, rows, runtime)
    found = {feature.name: feature for feature in conversion.features}
    assert not found["text"].closed
    assert found["text"].categories == ("blue", "grey", "grün", "pink", "red")


@RUNTIMES
def test_codes_that_no_set_can_hold_go_the_way_of_lightgbm(runtime: str) -> None:
    X = data().fillna(0.5)
    X["c"] = np.random.default_rng(4).integers(0, 30, len(X)).astype(float)
    model = LGBMRegressor(**SMALL, min_data_per_group=3, cat_smooth=1.0)
    model.fit(X, answer("value") + X["c"] % 3, categorical_feature=["c"])
    odd = [-1.0, -0.5, -1.5, 0.5, 3.0, 2.9999, 29.5, 30.0, 1e6, 2e9, np.nan, -0.0, 1e-36]
    rows = X.iloc[: len(odd) * 20].assign(c=np.resize(odd, len(odd) * 20))
    assert_answers(model, X, rows, runtime)


def test_iterations_after_the_best_one_do_not_count() -> None:
    X, y = data(), answer("value")
    model = LGBMRegressor(**{**SMALL, "n_estimators": 80}, learning_rate=0.9)
    model.fit(
        X[:200], y[:200], eval_X=(X[200:],), eval_y=(y[200:],), callbacks=[lightgbm.early_stopping(3, verbose=False)]
    )
    assert model.best_iteration_ < 80
    assert_answers(model, X, X, "1.24.1")


def test_a_forest_stopped_early_averages_the_rounds_that_count() -> None:
    X, y = data(), answer("value")
    model = LGBMRegressor(**{**RF, "n_estimators": 80})
    model.fit(
        X[:200], y[:200], eval_X=(X[200:],), eval_y=(y[200:],), callbacks=[lightgbm.early_stopping(3, verbose=False)]
    )
    assert_answers(model, X, X, "1.24.1")


@pytest.mark.parametrize(
    "model",
    [
        textbook(LGBMClassifier(**SMALL)),
        textbook(CalibratedClassifierCV(LGBMClassifier(**SMALL), cv=2)),
        textbook(GridSearchCV(LGBMClassifier(**SMALL), {"num_leaves": [3, 7]}, cv=2)),
        VotingClassifier(
            [("x", textbook(LGBMClassifier(**SMALL))), ("l", textbook(LogisticRegression()))], voting="soft"
        ),
    ],
    ids=["pipeline", "calibrated", "search", "vote"],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_it_converts_inside_of_pipelines_and_wrappers_over_a_frame(model: Any) -> None:
    model.fit(features(), target("text"))
    assert_same(model, features())


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_it_converts_as_a_part_of_a_stack() -> None:
    X = data().fillna(0.0)
    model = StackingRegressor([("x", LGBMRegressor(**SMALL)), ("r", Ridge())], Ridge(), cv=2).fit(X, answer("value"))
    assert_same(model, X)


def _squared(y: Any, scores: Any) -> tuple[Any, Any]:
    """Gradient and Hessian of a user's own objective."""
    return scores - y.reshape(len(y), *[1] * (scores.ndim - 1)), np.ones_like(scores)


@pytest.mark.filterwarnings("ignore:Cannot compute class probabilities")
@pytest.mark.parametrize("kind", ["two", "three", "value"])
def test_an_objective_of_the_users_own_answers_raw_scores(kind: str) -> None:
    X = data()
    model = (LGBMRegressor if kind == "value" else LGBMClassifier)(**SMALL, objective=_squared).fit(X, answer(kind))
    conversion = assert_same(model, X)
    assert conversion.task == "regression"
    assert conversion.classes == ()


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (LGBMRegressor(**SMALL, pred_early_stop=True), "pred_early_stop changes what it answers"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(model: Any, why: str) -> None:
    X = data()
    model.fit(X, answer("two"))
    with pytest.raises(ConversionRefused, match=why):
        CONVERTER.convert(model, X, TARGET)


def test_columns_that_lost_their_categories_are_refused() -> None:
    X = data()[NAMES[:2]].assign(c=pd.Categorical(np.arange(400) % 5))
    model = LGBMRegressor(**SMALL).fit(X, answer("value"))
    with pytest.raises(DataMismatch, match="categorical_feature do not match"):
        CONVERTER.convert(model, X.astype({"c": int}), TARGET)


@RUNTIMES
@pytest.mark.parametrize("case", EXACT + THROUGH_EXP, ids=named)
def test_every_node_of_the_file_is_proved_from_the_text_model(case: tuple[str, Any], runtime: str) -> None:
    kind, model = case
    X = data()
    model.fit(X, answer(kind))
    certificate = certify(CONVERTER.convert(model, X, target_for(runtime)).onnx, model)
    if model.get_params().get("linear_tree"):
        assert certificate is None
        return
    assert certificate is not None
    assert certificate.trees == model.booster_.num_trees()
    assert certificate.exact


def test_splits_by_category_are_proved() -> None:
    X = data()[["a", "b"]].assign(c=pd.Categorical(np.arange(400) * 7 % 31))
    y = answer("value") + X["c"].cat.codes % 3 * 5
    model = LGBMRegressor(**SMALL, min_data_per_group=3).fit(X, y)
    file = CONVERTER.convert(model, X, TARGET).onnx
    assert certify(file, model) is not None
    with pytest.raises(ParityBroken):
        certify(file, LGBMRegressor(**SMALL, min_data_per_group=3).fit(X, y + (X["c"].cat.codes == 1)))


def test_one_changed_threshold_breaks_the_proof() -> None:
    X = data()
    model = LGBMRegressor(**SMALL).fit(X, answer("value"))
    file = CONVERTER.convert(model, X, TARGET).onnx
    text = model.booster_.model_to_string()
    first = text.partition("threshold=")[2].partition(" ")[0]
    other = lightgbm.Booster(model_str=text.replace(first, repr(float(np.nextafter(float(first), 9.0))), 1))
    with pytest.raises(ParityBroken, match="tree 0: node 0 decides otherwise"):
        certify(file, other)


def boosters() -> list[tuple[str, lightgbm.Booster]]:
    X = data()
    found = []
    for kind, parameters in (
        ("two", {"objective": "binary"}),
        ("three", {"objective": "multiclass", "num_class": 3}),
        ("share", {"objective": "cross_entropy"}),
        ("value", {"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}),
    ):
        rows = lightgbm.Dataset(X, answer(kind))
        found.append((kind, lightgbm.train({"verbose": -1, "num_threads": 1, **parameters}, rows, 8)))
    return found


@RUNTIMES
def test_a_booster_converts_and_is_found(runtime: str) -> None:
    X = data()
    for kind, booster in boosters():
        converter = find(booster)
        assert isinstance(converter, LightgbmConverter)
        conversion = assert_answers(booster, X, X, runtime, ulps=6, converter=converter)
        assert conversion.classes == {"two": (0, 1), "three": (0, 1, 2)}.get(kind, ())
        assert certify(conversion.onnx, booster) is not None


def test_a_model_file_is_read_and_a_torn_or_strange_one_refused(tmp_path: Path) -> None:
    _, booster = boosters()[0]
    path = tmp_path / "model.txt"
    booster.save_model(path)
    X = data()
    assert_answers(load_model(path), X, X, "1.24.1", ulps=6, converter=LightgbmConverter())
    whole = path.read_bytes()
    for length in (60, len(whole) // 3):
        path.write_bytes(whole[:length])
        with pytest.raises(NotAModel, match="breaks off"):
            load_model(path)
    for torn, why in ((b"\nnum_leaves=", "cannot read"), (b"\nTree=1\n", "breaks off")):
        path.write_bytes(whole.replace(torn, b"\n", 1))
        with pytest.raises(NotAModel, match=why):
            load_model(path)
    path.write_bytes(whole.replace(b"version=v4", b"version=v9"))
    with pytest.raises(NotAModel, match="version v9"):
        load_model(path)


def test_a_ranker_answers_its_scores_alone_and_at_the_end_of_a_pipeline() -> None:
    X, groups = data().fillna(0.0), [20] * 20
    model = LGBMRanker(**SMALL).fit(X, answer("two"), group=groups)
    assert_answers(model, X, adversarial(splits(model), X), "1.24.1")
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), LGBMRanker(**SMALL))
    pipeline.fit(X, answer("two"), lgbmranker__group=groups)
    assert_answers(pipeline, X, X, "1.24.1")


def test_a_skops_file_needs_no_trust(tmp_path: Path) -> None:
    X = data()
    model = LGBMClassifier(**SMALL).fit(X, answer("two"))
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))
