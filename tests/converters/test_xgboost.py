# The annotations that pyright infers for scikit-learn and XGBoost come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import skops.io
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRanker, XGBRegressor, XGBRFClassifier, XGBRFRegressor

from edgekit_contracts.errors import ConversionRefused, NotAModel, ParityBroken
from edgekit_converters.certificate import certify
from edgekit_converters.graph import GraphBuilder
from edgekit_converters.load import load_model
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.xgboost_objectives import transformed
from edgekit_converters.registry import find
from edgekit_converters.target import target_for
from edgekit_converters.xgboost import XgboostConverter
from tests.converters.boosters import CONVERTER, NAMES, adversarial, answer, assert_answers, data
from tests.converters.frames import TARGET, assert_same, features, run, target, textbook

RUNTIMES = pytest.mark.parametrize("runtime", ["1.20", "1.24.1"])
SMALL: dict[str, Any] = {"n_estimators": 25, "max_depth": 4, "n_jobs": 1}


def splits(model: Any) -> list[tuple[str, float]]:
    """(feature, threshold) of every inner node."""
    gradient = json.loads(model.get_booster().save_raw("json"))["learner"]["gradient_booster"]
    found = gradient.get("gbtree", gradient)["model"].get("trees", [])
    return [
        (NAMES[feature], threshold)
        for tree in found
        for feature, threshold, left in zip(
            tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
        )
        if left != -1
    ]


EXACT: list[tuple[str, Any]] = [
    ("value", XGBRegressor(**SMALL)),
    ("value", XGBRegressor(n_estimators=100, max_depth=2, n_jobs=1, base_score=1000.0)),
    ("value", XGBRegressor(**SMALL, tree_method="exact", gamma=20.0)),
    ("value", XGBRegressor(**SMALL, tree_method="approx", max_leaves=5, grow_policy="lossguide")),
    ("value", XGBRegressor(n_estimators=1, max_depth=1, gamma=1e9, n_jobs=1)),
    ("value", XGBRegressor(**SMALL, booster="dart", rate_drop=0.3, skip_drop=0.3)),
    ("value", XGBRegressor(**SMALL, booster="gblinear", verbosity=0)),
    ("value", XGBRFRegressor(n_estimators=9, max_depth=5, n_jobs=1)),
    ("values", XGBRegressor(**SMALL)),
    ("values", XGBRegressor(**SMALL, num_parallel_tree=3, subsample=0.7)),
    ("values", XGBRegressor(**SMALL, multi_strategy="multi_output_tree")),
    ("value", XGBRegressor(**SMALL, objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9])),
    ("value", XGBRegressor(**SMALL, objective="reg:absoluteerror")),
    ("value", XGBRegressor(**SMALL, objective="reg:pseudohubererror")),
    ("positive", XGBRegressor(**SMALL, objective="reg:squaredlogerror")),
    ("two", XGBRegressor(**SMALL, objective="binary:logitraw")),
    ("two", XGBClassifier(**SMALL, objective="binary:hinge")),
]
THROUGH_EXP: list[tuple[str, Any]] = [
    ("two", XGBClassifier(**SMALL)),
    ("two", XGBClassifier(**SMALL, booster="dart", rate_drop=0.4, one_drop=True, base_score=0.3)),
    ("three", XGBClassifier(**SMALL)),
    ("three", XGBClassifier(**SMALL, objective="multi:softmax")),
    ("three", XGBClassifier(**SMALL, multi_strategy="multi_output_tree")),
    ("three", XGBClassifier(**SMALL, booster="gblinear", verbosity=0)),
    ("three", XGBRFClassifier(n_estimators=9, max_depth=5, n_jobs=1)),
    ("share", XGBRegressor(**SMALL, objective="reg:logistic")),
    *(
        ("positive", XGBRegressor(**SMALL, objective=objective))
        for objective in ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox")
    ),
]


def named(case: tuple[str, Any]) -> str:
    kind, model = case
    return f"{kind}-{model.objective}-{model.booster}-{model.multi_strategy}"


@RUNTIMES
@pytest.mark.parametrize("case", EXACT, ids=named)
def test_sums_of_leaves_are_those_of_xgboost_bit_for_bit(case: tuple[str, Any], runtime: str) -> None:
    kind, model = case
    X = data()
    model.fit(X, answer(kind))
    assert_answers(model, X, adversarial(splits(model), X), runtime)


@RUNTIMES
@pytest.mark.parametrize("case", THROUGH_EXP, ids=named)
def test_labels_are_equal_and_numbers_within_ulps_of_float32(case: tuple[str, Any], runtime: str) -> None:
    kind, model = case
    X = data()
    model.fit(X, answer(kind))
    # A linear margin of numbers near 3e38 is infinite, and a softmax of those no number.
    rows = X if model.booster == "gblinear" else adversarial(splits(model), X)
    conversion = assert_answers(model, X, rows, runtime, ulps=4)
    assert {output.dtype for output in conversion.outputs} <= {"float32", "int64"}


@pytest.mark.parametrize("trained", ["whole", "with gaps"])
def test_a_large_ensemble_asks_for_the_rarer_side_and_decides_alike(trained: str) -> None:
    X = data()
    rows = X.fillna(0.0) if trained == "whole" else X
    model = XGBClassifier(n_estimators=200, max_depth=2, n_jobs=1).fit(rows, answer("two"))
    asked = adversarial(splits(model), X)
    assert asked.isna().any(axis=None)
    file = assert_answers(model, X, asked, "1.24.1", ulps=4).onnx
    beside = [node.op_type for node in onnx.load_model_from_string(file).graph.node].count("Imputer")
    assert beside == 1
    certificate = certify(file, model)
    assert certificate is not None
    assert certificate.trees == 200


def test_a_file_that_takes_missing_values_for_other_numbers_is_not_proved() -> None:
    X = data()
    model = XGBClassifier(n_estimators=200, max_depth=2, n_jobs=1).fit(X, answer("two"))
    file = onnx.load_model_from_string(CONVERTER.convert(model, X, TARGET).onnx)
    imputer = next(node for node in file.graph.node if node.op_type == "Imputer")
    next(one for one in imputer.attribute if one.name == "imputed_value_floats").floats[0] = 0.0
    with pytest.raises(ParityBroken):
        certify(file.SerializeToString(), model)
    del imputer.attribute[:]
    with pytest.raises(ParityBroken):
        certify(file.SerializeToString(), model)


def test_a_node_that_reads_a_column_beyond_all_is_not_proved() -> None:
    X = data()
    model = XGBClassifier(n_estimators=200, max_depth=2, n_jobs=1).fit(X, answer("two"))
    file = onnx.load_model_from_string(CONVERTER.convert(model, X, TARGET).onnx)
    trees = next(node for node in file.graph.node if node.op_type == "TreeEnsemble")
    next(one for one in trees.attribute if one.name == "nodes_featureids").ints[-1] = 99
    with pytest.raises(ParityBroken, match="reads another column"):
        certify(file.SerializeToString(), model)


def test_margins_that_the_exponent_is_capped_for_get_the_same_shares() -> None:
    X = data()
    model = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1, reg_lambda=0.0, learning_rate=90.0, base_score=0.5)
    model.fit(X, answer("two"))
    assert np.abs(model.predict(X, output_margin=True)).max() > 88.7
    assert_answers(model, X, X, "1.24.1", ulps=4)


@RUNTIMES
@pytest.mark.parametrize("one_hot", [100, 1])
def test_pandas_categories_are_looked_up_and_split_as_xgboost_does(runtime: str, one_hot: int) -> None:
    random = np.random.default_rng(4)
    X = data()[["a", "b"]]
    X["text"] = pd.Categorical(random.choice(["red", "green", "blue", "grey", "pink"], len(X)))
    X["number"] = pd.Categorical(random.integers(0, 40, len(X)) * 3)
    X.loc[::7, "text"], X.loc[::9, "number"] = np.nan, np.nan
    y = answer("value") + X["text"].cat.codes.to_numpy() % 2 * 3 + X["number"].cat.codes.to_numpy() % 4
    model = XGBRegressor(**SMALL, enable_categorical=True, max_cat_to_onehot=one_hot).fit(X, y)
    rows = X.assign(
        text=X["text"].sample(frac=1, random_state=0).to_numpy(),
        number=X["number"].sample(frac=1, random_state=1).to_numpy(),
    ).astype(X.dtypes.to_dict())
    conversion = assert_answers(model, X, pd.concat([X, rows], ignore_index=True), runtime)
    found = {feature.name: feature for feature in conversion.features}
    assert found["text"].closed
    assert found["text"].categories == ("blue", "green", "grey", "pink", "red")


@RUNTIMES
def test_codes_that_no_set_can_hold_go_the_way_of_xgboost(runtime: str) -> None:
    X = data().fillna(0.5)
    X["c"] = np.random.default_rng(4).integers(0, 30, len(X)).astype(float)
    y = answer("value") + X["c"].to_numpy() % 3
    types = ["q", "q", "c", "q"]
    model = XGBRegressor(**SMALL, enable_categorical=True, feature_types=types).fit(X, y)
    odd = [-1.0, -0.5, 0.5, 3.0, 2.9999, 29.5, 30.0, 1e6, 2e7, np.nan, -0.0]
    rows = X.iloc[: len(odd) * 20].assign(c=np.resize(odd, len(odd) * 20))
    assert_answers(model, X, rows, runtime)


def test_a_value_that_means_missing_is_missing() -> None:
    X = data().fillna(-999.0)
    model = XGBRegressor(**SMALL, missing=-999.0).fit(X, answer("value"))
    assert_answers(model, X, adversarial(splits(model), X), "1.24.1")


def test_rounds_after_the_best_one_do_not_count() -> None:
    X, y = data(), answer("value")
    model = XGBRegressor(n_estimators=60, learning_rate=0.9, max_depth=5, early_stopping_rounds=3, n_jobs=1)
    model.fit(X[:200], y[:200], eval_set=[(X[200:], y[200:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    assert_answers(model, X, X, "1.24.1")


@pytest.mark.parametrize("objective", ["binary:logistic", "count:poisson", "multi:softprob"])
def test_the_transform_is_the_one_of_xgboost_for_any_margin(objective: str) -> None:
    """XGBoost is asked with margins of our own and leaves of 0: tiny ones, at which labels change, and huge ones."""
    outputs = 3 if objective == "multi:softprob" else 1
    parameters = {"objective": objective, "learning_rate": 0.0, **({"num_class": 3} if outputs == 3 else {})}
    booster = xgboost.train(
        parameters, xgboost.DMatrix(np.zeros((6, 1)), np.arange(6) % (outputs + 1 - outputs // 3)), 1
    )
    random = np.random.default_rng(0)
    given = (random.normal(size=(3000, outputs)) * 10.0 ** random.integers(-9, 2, (3000, 1))).astype(np.float32)
    given[:3, 0] = 0.0, 88.0, -95.0
    rows = xgboost.DMatrix(np.zeros((3000, 1)))
    rows.set_base_margin(given)
    expected = booster.predict(rows).reshape(3000, outputs)

    graph = GraphBuilder(TARGET)
    margin = Expr(graph, graph.input("margin", "float32", outputs))
    graph.output("value", transformed(margin, objective).value)
    session = ort.InferenceSession(graph.build().SerializeToString(), providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {"margin": given})[0]
    np.testing.assert_array_max_ulp(found, expected, maxulp=2)
    if outputs == 1:
        np.testing.assert_array_equal(found > 0.5, expected > 0.5)
    else:
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize(
    "model",
    [
        textbook(XGBClassifier(**SMALL)),
        textbook(CalibratedClassifierCV(XGBClassifier(**SMALL), cv=2)),
        textbook(GridSearchCV(XGBClassifier(n_estimators=5, n_jobs=1), {"max_depth": [1, 3]}, cv=2)),
        StackingClassifier(
            [("x", textbook(XGBClassifier(**SMALL))), ("l", textbook(LogisticRegression()))], LogisticRegression(), cv=2
        ),
    ],
    ids=["pipeline", "calibrated", "search", "stacking"],
)
def test_it_converts_inside_of_pipelines_and_wrappers_over_a_frame(model: Any) -> None:
    model.fit(features(), target())
    assert_same(model, features())


def test_it_converts_as_a_part_of_a_vote() -> None:
    X = data().fillna(0.0)
    model = VotingRegressor([("x", make_pipeline(StandardScaler(), XGBRegressor(**SMALL))), ("r", Ridge())])
    model.fit(X, answer("value"))
    assert_same(model, X)


def _squared(y: Any, margins: Any) -> tuple[Any, Any]:
    """Gradient and Hessian of a user's own objective."""
    truth = y if margins.ndim == 1 else np.eye(margins.shape[1])[y.astype(int)]
    return margins - truth, np.ones_like(margins)


@pytest.mark.parametrize("kind", ["two", "three", "value"])
def test_an_objective_of_the_users_own_leaves_the_answers_as_by_default(kind: str) -> None:
    X = data()
    model = (XGBRegressor if kind == "value" else XGBClassifier)(**SMALL, objective=_squared).fit(X, answer(kind))
    assert_same(model, X)


@pytest.mark.parametrize(
    ("model", "kind", "why"),
    [
        (XGBClassifier(**SMALL, objective="binary:logitraw"), "two", "gives no probabilities"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(model: Any, kind: str, why: str) -> None:
    X = data()
    model.fit(X, answer(kind))
    with pytest.raises(ConversionRefused, match=why):
        CONVERTER.convert(model, X, TARGET)


def test_category_names_that_xgboost_itself_cuts_are_refused() -> None:
    X = data()[["a"]].assign(text=pd.Categorical(np.resize(["ä", "b", "cö"], 400)))
    model = XGBRegressor(**SMALL, enable_categorical=True).fit(X, answer("value"))
    with pytest.raises(ConversionRefused, match="not all ASCII"):
        CONVERTER.convert(model, X, TARGET)


@RUNTIMES
@pytest.mark.parametrize("case", EXACT + THROUGH_EXP, ids=named)
def test_every_node_of_the_file_is_proved_from_the_binary_model(case: tuple[str, Any], runtime: str) -> None:
    kind, model = case
    X = data()
    model.fit(X, answer(kind))
    certificate = certify(CONVERTER.convert(model, X, target_for(runtime)).onnx, model)
    if model.booster == "gblinear":
        assert certificate is None
        return
    assert certificate is not None
    assert certificate.trees == len(model.get_booster().get_dump())
    assert not certificate.exact


def test_splits_by_category_are_proved() -> None:
    X = data()[["a", "b"]].assign(c=pd.Categorical(np.arange(400) * 7 % 31))
    y = answer("value") + X["c"].cat.codes % 3 * 5
    model = XGBRegressor(**SMALL, enable_categorical=True).fit(X, y)
    file = CONVERTER.convert(model, X, TARGET).onnx
    assert certify(file, model) is not None
    other = XGBRegressor(**SMALL, enable_categorical=True).fit(X, y + (X["c"].cat.codes == 1))
    with pytest.raises(ParityBroken):
        certify(file, other)


@pytest.mark.parametrize("changed", ["split_conditions", "default_left"])
def test_one_changed_node_breaks_the_proof(changed: str) -> None:
    X = data()
    model = XGBRegressor(**SMALL).fit(X, answer("value"))
    file = CONVERTER.convert(model, X, TARGET).onnx
    dump = json.loads(model.get_booster().save_raw("json"))
    nodes = dump["learner"]["gradient_booster"]["model"]["trees"][7][changed]
    nodes[0] = 1 - nodes[0] if changed == "default_left" else float(np.nextafter(np.float32(nodes[0]), np.float32(9)))
    other = xgboost.Booster()
    other.load_model(bytearray(json.dumps(dump).encode()))
    with pytest.raises(ParityBroken, match="tree 8: node 0"):
        certify(file, other)


def boosters() -> list[tuple[str, xgboost.Booster]]:
    X = data()
    found = []
    for kind, parameters in (
        ("two", {"objective": "binary:logistic"}),
        ("three", {"objective": "multi:softprob", "num_class": 3}),
        ("three", {"objective": "multi:softmax", "num_class": 3}),
        ("positive", {"objective": "count:poisson"}),
        ("value", {"booster": "dart", "rate_drop": 0.5}),
        ("values", {"objective": "reg:squarederror"}),
    ):
        rows = xgboost.DMatrix(X, answer(kind))
        found.append((kind, xgboost.train({"max_depth": 3, "nthread": 1, **parameters}, rows, 8)))
    return found


@RUNTIMES
def test_a_booster_converts_and_is_found(runtime: str) -> None:
    X = data()
    for kind, booster in boosters():
        converter = find(booster)
        assert isinstance(converter, XgboostConverter)
        conversion = assert_answers(booster, X, X, runtime, ulps=4, converter=converter)
        assert conversion.classes == {"two": (0, 1), "three": (0, 1, 2)}.get(kind, ())
        assert certify(conversion.onnx, booster) is not None
        if kind == "value":
            continue  # dart: inplace_predict, which we follow, rounds otherwise than predict
        ours: Any = run(conversion, booster, X)
        given = ours.get("value", ours.get("probabilities"))
        expected = booster.predict(xgboost.DMatrix(X))
        if expected.ndim == given.ndim:
            np.testing.assert_array_max_ulp(given, expected, maxulp=4)


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_a_model_file_is_read_and_a_torn_one_refused(tmp_path: Path, suffix: str) -> None:
    _, booster = boosters()[0]
    path = tmp_path / f"model{suffix}"
    booster.save_model(path)
    X = data()
    assert_answers(load_model(path), X, X, "1.24.1", ulps=4, converter=XgboostConverter())
    whole = path.read_bytes()
    for length in (60, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        with pytest.raises(NotAModel, match="cannot read"):
            load_model(path)


def test_a_booster_without_trees_is_refused() -> None:
    with pytest.raises(NotAModel, match="not trained"):
        XgboostConverter().convert(xgboost.Booster(), data(), TARGET)


def test_rounds_after_the_best_one_count_in_a_booster_and_the_note_says_so() -> None:
    X, y = data(), answer("value")
    parts = [xgboost.DMatrix(X[:200], y[:200]), xgboost.DMatrix(X[200:], y[200:])]
    booster = xgboost.train(
        {"eta": 0.9}, parts[0], 60, evals=[(parts[1], "e")], early_stopping_rounds=3, verbose_eval=False
    )
    conversion = assert_answers(booster, X, X, "1.24.1", converter=XgboostConverter())
    assert any("best iteration" in note for note in conversion.notes)
    np.testing.assert_array_equal(run(conversion, booster, X)["value"][:, 0], booster.predict(xgboost.DMatrix(X)))


def test_a_ranker_answers_its_scores_alone_and_at_the_end_of_a_pipeline() -> None:
    X, groups = data().fillna(0.0), np.arange(400) // 20
    model = XGBRanker(n_estimators=8, n_jobs=1).fit(X, answer("two"), qid=groups)
    assert_answers(model, X, adversarial(splits(model), X), "1.24.1")
    pipeline = make_pipeline(StandardScaler(), XGBRanker(n_estimators=8, n_jobs=1))
    pipeline.fit(X, answer("two"), xgbranker__qid=groups)
    assert_answers(pipeline, X, X, "1.24.1")


def test_a_skops_file_needs_no_trust(tmp_path: Path) -> None:
    X = data()
    model = make_pipeline(StandardScaler(), XGBClassifier(**SMALL)).fit(X, answer("two"))
    path = tmp_path / "model.skops"
    skops.io.dump(model, path)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))


@pytest.mark.parametrize(
    "model",
    [
        XGBClassifier(**SMALL),
        XGBClassifier(**SMALL, multi_strategy="multi_output_tree"),
        XGBClassifier(**SMALL, objective="binary:hinge"),
        XGBClassifier(**SMALL, objective="reg:squarederror"),
        XGBClassifier(**SMALL, booster="dart", rate_drop=0.4, one_drop=True),
        XGBClassifier(n_estimators=5, booster="gblinear", n_jobs=1, verbosity=0),
        XGBRFClassifier(n_estimators=9, max_depth=5, n_jobs=1),
    ],
    ids=lambda one: f"{type(one).__name__}-{one.objective}-{one.booster}-{one.multi_strategy}",
)
@pytest.mark.parametrize("labels", [2, 3])
def test_each_of_several_labels_is_there_above_one_half(model: Any, labels: int) -> None:
    X = data()
    there = np.stack([answer("three") == place for place in range(labels)], axis=1).astype(int)
    model.fit(X, there)
    rows = X if model.booster == "gblinear" else adversarial(splits(model), X)
    conversion = assert_answers(model, X, rows, "1.24.1", ulps=4)
    assert (conversion.classes, conversion.targets) == ((), ((0, 1),) * labels)


def test_a_softmax_of_two_outputs_answers_two_labels_as_xgboost_s_predict_does() -> None:
    X = data()
    model = XGBClassifier(**SMALL, objective="multi:softprob", num_class=2).fit(X, answer("two"))
    assert model.predict(X).shape == (len(X), 2)
    assert assert_answers(model, X, X, "1.24.1", ulps=4).targets == ((0, 1), (0, 1))


def test_a_classifier_of_one_class_is_refused() -> None:
    model = XGBClassifier(**SMALL).fit(data(), np.zeros(len(data()), dtype=int))
    with pytest.raises(ConversionRefused, match="it learned one class"):
        CONVERTER.convert(model, data(), TARGET)
