# The annotations that pyright infers for CatBoost and scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from catboost import CatBoost, CatBoostClassifier, CatBoostRanker, CatBoostRegressor
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from edgekit_contracts.errors import ConversionRefused, DataMismatch, FormatError, NotAModel, ParityBroken
from edgekit_converters import registry
from edgekit_converters.certificate import certify
from edgekit_converters.draft import draft_manifest
from edgekit_converters.load import load_model
from edgekit_converters.mining import mined, thresholds
from edgekit_converters.operators import catboost_dump
from edgekit_converters.registry import Conversion
from edgekit_converters.target import target_for
from edgekit_converters.verify import verify
from edgekit_runtime.engine import Engine
from tests.converters.frames import run
from tests.converters.test_certificate import CHANGES, NEW, OLD, Change, mutated

RUNTIMES = pytest.mark.parametrize("runtime", ["1.20", "1.24.1"])
QUIET: dict[str, Any] = {"verbose": False, "allow_writing_files": False, "thread_count": 1}
SMALL: dict[str, Any] = QUIET | {"iterations": 25, "depth": 4}
CATEGORICAL = ["town", "code", "kind", "known"]
MIXED: dict[str, Any] = SMALL | {"cat_features": CATEGORICAL}
NAMES = list("abcd")


def numbers(*, missing: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 4))
    X[:, 3] = X[:, 3].round(1)
    if missing:
        X[random.random(X.shape) < 0.1] = np.nan
    return pd.DataFrame(X, columns=NAMES)


def mixed(rows: int = 500, seed: int = 0) -> pd.DataFrame:
    """Numbers, texts, whole numbers and truth values."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": random.normal(size=rows),
            "town": random.choice(["", "a b", "ü", *"cdefgh"], rows),
            "code": random.integers(-3, 25, rows),
            "kind": random.choice(["x", "y", "z"], rows),
            "known": random.random(rows) > 0.5,
            "age": random.normal(size=rows),
        }
    )


def strange(X: pd.DataFrame) -> pd.DataFrame:
    """The rows with categories that no training has seen, one by one and together."""
    random = np.random.default_rng(9)
    rows = X.copy()
    rows.loc[random.random(len(X)) < 0.3, "town"] = "never seen"
    rows.loc[random.random(len(X)) < 0.3, "code"] = 4711
    rows.loc[random.random(len(X)) < 0.3, "kind"] = "X"
    return rows


def answer(X: pd.DataFrame, kind: str) -> NDArray[Any]:
    first, second = X.iloc[:, 0].fillna(0), X.iloc[:, -1].fillna(0)
    value = (first * 2 + second).to_numpy()
    if "town" in X:
        value = value + (X["town"] > "d") * 2 + X["code"] % 3 + (X["kind"] == "x") * X["known"]
    value = np.asarray(value + np.random.default_rng(1).normal(size=len(X)) * 0.7)
    low, high = np.quantile(value, [0.3, 0.7])
    three = (value > low).astype(int) + (value > high)
    kinds: dict[str, NDArray[Any]] = {
        "two": (value > np.median(value)).astype(int),
        "bool": value > np.median(value),
        "float": np.where(value > np.median(value), 2.5, 0.5),
        "three": np.array(["low", "mid", "top"])[three],
        "value": value,
        "share": three / 2,
        "positive": np.exp(value / 3),
        "values": np.stack([value, -value, three], axis=1),
    }
    return kinds[kind]


def borders(model: Any, folder: Path) -> list[tuple[int, float]]:
    """(feature, border) of every number that the model reads."""
    model.save_model(str(folder / "borders.json"), format="json")
    found = json.loads((folder / "borders.json").read_text())["features_info"]["float_features"]
    return [(one["flat_feature_index"], border) for one in found for border in one["borders"]]


def adversarial(model: Any, X: pd.DataFrame, folder: Path, rows: int = 1200) -> pd.DataFrame:
    """The data, and rows at the borders, one step beside, halfway between two float32, infinite and missing."""
    random = np.random.default_rng(2)
    known = borders(model, folder)
    found = X.iloc[random.integers(0, len(X), rows)].reset_index(drop=True)
    for row, numbers in enumerate(random.integers(0, len(known), (rows, 3))):
        for number in numbers:
            feature, at = known[number]
            short = np.float32(at)
            with np.errstate(over="ignore"):
                sides = [float(np.nextafter(short, np.float32(side))) for side in (-np.inf, np.inf)]
            middle = (float(short) + sides[1]) / 2
            values = [float(short), *sides, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)]
            found.iat[row, feature] = [*values, np.inf, -np.inf, np.nan][random.integers(0, 9)]
    return pd.concat([X, found], ignore_index=True)


def converted(model: Any, X: Any, runtime: str = "1.24.1") -> Conversion:
    return registry.find(model).convert(model, X, target_for(runtime))


def assert_equal(model: Any, X: Any, rows: Any, runtime: str = "1.24.1", ulps: float = 0) -> Conversion:
    """Labels are equal; numbers bit for bit, or within so many ulps of the largest in the row."""
    conversion = converted(model, X, runtime)
    assert conversion.ml_opset == target_for(runtime).ml_opset
    for part in (rows, rows[:1], rows[-20:]):
        ours, theirs = run(conversion, model, part), registry.find(model).answers(model, part)
        if theirs.labels is not None:
            labels = ours["label"].astype(bool) if conversion.outputs[0].dtype == "bool" else ours["label"]
            assert labels.tolist() == theirs.labels.tolist()
        for given, expected in ((ours.get("probabilities"), theirs.probabilities), (ours.get("value"), theirs.values)):
            assert (given is None) == (expected is None)
            if given is not None and expected is not None:
                scale = np.spacing(np.abs(expected).max(axis=1, keepdims=True))
                assert given.shape == expected.shape
                assert (np.abs(given - expected) <= ulps * scale).all()
    return conversion


REGRESSORS: list[tuple[str, Any, bool, float]] = [
    ("value", CatBoostRegressor(**SMALL), False, 0),
    ("value", CatBoostRegressor(**SMALL), True, 0),
    ("value", CatBoostRegressor(nan_mode="Max", **SMALL), True, 0),
    ("value", CatBoostRegressor(grow_policy="Depthwise", **SMALL), True, 0),
    ("value", CatBoostRegressor(grow_policy="Lossguide", nan_mode="Max", max_leaves=20, **SMALL), True, 0),
    ("value", CatBoostRegressor(**(SMALL | {"iterations": 90, "depth": 7})), False, 0),
    ("value", CatBoostRegressor(loss_function="Quantile:alpha=0.7", **SMALL), False, 0),
    ("values", CatBoostRegressor(loss_function="MultiRMSE", **SMALL), True, 0),
    ("value", CatBoostRegressor(loss_function="MultiQuantile:alpha=0.1,0.9", **SMALL), False, 0),
    ("value", CatBoostRegressor(loss_function="RMSEWithUncertainty", **SMALL), False, 4),
    ("positive", CatBoostRegressor(loss_function="Poisson", **SMALL), False, 4),
    ("positive", CatBoostRegressor(loss_function="Tweedie:variance_power=1.5", **SMALL), False, 4),
    ("positive", CatBoost({"loss_function": "Poisson", **SMALL}), False, 0),
]
CLASSIFIERS: list[tuple[str, Any]] = [
    ("two", CatBoostClassifier(**SMALL)),
    ("bool", CatBoostClassifier(**SMALL)),
    ("float", CatBoostClassifier(grow_policy="Depthwise", **SMALL)),
    ("share", CatBoostClassifier(loss_function="CrossEntropy", **SMALL)),
    ("two", CatBoost({"loss_function": "Logloss", **SMALL})),
    ("three", CatBoostClassifier(**SMALL)),
    ("three", CatBoostClassifier(loss_function="MultiClassOneVsAll", **SMALL)),
    ("three", CatBoostClassifier(class_names=["top", "mid", "low"], grow_policy="Lossguide", **SMALL)),
]


@RUNTIMES
@pytest.mark.parametrize(("kind", "model", "missing", "ulps"), REGRESSORS)
def test_scores_are_equal_bit_for_bit(
    kind: str, model: Any, missing: bool, ulps: float, runtime: str, tmp_path: Path
) -> None:
    X = numbers(missing=missing)
    model.fit(X, answer(X, kind))
    assert_equal(model, X, adversarial(model, X, tmp_path), runtime, ulps)


@RUNTIMES
@pytest.mark.parametrize(("kind", "model"), CLASSIFIERS)
def test_labels_are_equal_and_probabilities_differ_in_the_last_bits_of_exp(
    kind: str, model: Any, runtime: str, tmp_path: Path
) -> None:
    X = numbers()
    model.fit(X, answer(X, kind))
    assert_equal(model, X, adversarial(model, X, tmp_path), runtime, ulps=4)


def test_a_ranker_answers_its_score(tmp_path: Path) -> None:
    X = numbers()
    model = CatBoostRanker(loss_function="YetiRank", **SMALL).fit(X, answer(X, "two"), group_id=np.arange(300) // 10)
    assert_equal(model, X, adversarial(model, X, tmp_path))


def test_scale_bias_and_probability_threshold_are_kept(tmp_path: Path) -> None:
    X = numbers()
    model = CatBoostClassifier(**SMALL).fit(X, answer(X, "two"))
    rows = adversarial(model, X, tmp_path)
    before = model.predict(rows)
    model.set_scale_and_bias(1.7, 0.3)
    model.set_probability_threshold(0.3)
    assert (before != model.predict(rows)).any()
    assert_equal(model, X, rows, ulps=4)


def test_a_class_that_training_did_not_show_is_never_the_answer() -> None:
    X = numbers()
    model = CatBoostClassifier(class_names=["none", "top", "low", "mid"], loss_function="MultiClass", **SMALL)
    model.fit(X, answer(X, "three"))
    conversion = assert_equal(model, X, X, ulps=4)
    assert conversion.classes == ("none", "top", "low", "mid")


STATISTICS: list[tuple[str, Any]] = [
    ("two", CatBoostClassifier(**MIXED)),
    ("three", CatBoostClassifier(max_ctr_complexity=4, **MIXED)),
    ("value", CatBoostRegressor(max_ctr_complexity=3, one_hot_max_size=4, **MIXED)),
    ("value", CatBoostRegressor(one_hot_max_size=100, **MIXED)),
    ("value", CatBoostRegressor(max_ctr_complexity=2, grow_policy="Depthwise", counter_calc_method="Full", **MIXED)),
    ("three", CatBoostClassifier(simple_ctr="Buckets", combinations_ctr="Buckets", max_ctr_complexity=2, **MIXED)),
    ("value", CatBoostRegressor(simple_ctr=["Borders:TargetBorderCount=3", "Counter"], **MIXED)),
    ("value", CatBoostRegressor(simple_ctr=["BinarizedTargetMeanValue:TargetBorderCount=4", "Borders"], **MIXED)),
]


@RUNTIMES
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "model"), STATISTICS)
def test_categories_known_and_unknown_are_answered_bit_for_bit(kind: str, model: Any, runtime: str) -> None:
    X = mixed()
    model.fit(X, answer(X, kind))
    rows = pd.concat([strange(mixed(900, seed=5)), X], ignore_index=True)
    conversion = assert_equal(model, X, rows, runtime, ulps=0 if kind == "value" else 4)
    found = {one.name: one for one in conversion.features}
    assert found["town"].categories == tuple(sorted(set(X["town"])))
    assert not found["town"].closed
    assert not found["kind"].nullable
    assert found["size"].nullable


def test_texts_of_training_that_the_data_does_not_show_close_the_feature() -> None:
    X = mixed()
    model = CatBoostClassifier(**MIXED).fit(X, answer(X, "two"))
    conversion = converted(model, X[X["town"] != "c"])
    towns = next(one for one in conversion.features if one.name == "town")
    assert towns.closed
    assert towns.categories == tuple(sorted(set(X["town"]) - {"c"}))
    assert any("'town' takes the texts of the reference data only: 1 " in note for note in conversion.notes)


def test_whole_numbers_of_training_that_the_data_does_not_show_are_refused() -> None:
    X = mixed()
    model = CatBoostRegressor(**MIXED).fit(X, answer(X, "value"))
    with pytest.raises(ConversionRefused, match="lacks 1 of the categories of 'code'") as refusal:
        converted(model, X[X["code"] != 7])
    assert "training data" in refusal.value.next_step


@pytest.mark.parametrize("dtype", ["category", "str"])
def test_categories_of_pandas_types(dtype: str) -> None:
    X = mixed().astype({"town": dtype, "kind": dtype})
    model = CatBoostClassifier(**MIXED).fit(X, answer(mixed(), "two"))
    assert_equal(model, X, X, ulps=4)


def test_a_matrix_of_numbers_and_texts() -> None:
    X = mixed().to_numpy(dtype=object)
    model = CatBoostClassifier(**(SMALL | {"cat_features": [1, 2, 3, 4]})).fit(X, answer(mixed(), "two"))
    conversion = assert_equal(model, X, X, ulps=4)
    assert [one.name for one in conversion.features] == [f"x{index}" for index in range(6)]


def test_the_last_step_of_a_pipeline_over_texts_with_missing_values() -> None:
    X = mixed()
    X.loc[::7, "town"] = np.nan
    X.loc[::5, "size"] = np.nan
    prepare = ColumnTransformer(
        [
            ("size", make_pipeline(SimpleImputer(), StandardScaler()), ["size", "age"]),
            ("town", SimpleImputer(strategy="constant", fill_value="nowhere"), ["town"]),
            ("kind", "passthrough", ["kind"]),
        ]
    )
    model = make_pipeline(prepare, CatBoostClassifier(**(SMALL | {"cat_features": [2, 3]}))).fit(X, answer(X, "three"))
    rows = strange(X)
    conversion = assert_equal(model, X, rows, ulps=4)
    towns = next(one for one in conversion.features if one.name == "town")
    assert towns.nullable
    assert not towns.closed


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: make_pipeline(StandardScaler(), model),
        lambda model: CalibratedClassifierCV(model, cv=2),
        lambda model: VotingClassifier([("boosted", model), ("linear", LogisticRegression())], voting="soft"),
    ],
    ids=["pipeline", "calibrated", "voting"],
)
def test_inside_of_scikit_learn(wrap: Any) -> None:
    X = numbers()
    model = wrap(CatBoostClassifier(**SMALL)).fit(X.to_numpy(), answer(X, "two"))
    conversion = converted(model, X)
    ours, theirs = run(conversion, model, X), registry.find(model).answers(model, X)
    assert theirs.labels is not None
    assert theirs.probabilities is not None
    assert ours["label"].tolist() == theirs.labels.tolist()
    np.testing.assert_allclose(ours["probabilities"], theirs.probabilities, atol=1e-12)


def test_categories_that_a_step_computes_are_refused() -> None:
    X = mixed()[["town", "age"]]
    upper = ColumnTransformer([("upper", FunctionTransformer(_upper), ["town"]), ("age", "passthrough", ["age"])])
    model = make_pipeline(upper, CatBoostRegressor(**(SMALL | {"cat_features": [0]}))).fit(X, answer(mixed(), "value"))
    with pytest.raises(ConversionRefused) as refusal:
        converted(model, X)
    assert len(refusal.value.sentence) < 600


def _upper(texts: pd.DataFrame) -> pd.DataFrame:
    return texts.map(str.upper)


def test_text_features_are_refused_by_name() -> None:
    X = pd.DataFrame({"note": ["good day", "bad day", "a good one", "so bad"] * 20, "x": np.arange(80.0)})
    model = CatBoostClassifier(text_features=["note"], **SMALL).fit(X, [0, 1, 0, 1] * 20)
    with pytest.raises(ConversionRefused, match="text feature 'note'"):
        converted(model, X)


def test_one_statistic_over_two_divisions_of_the_target_is_refused() -> None:
    X = mixed()
    several = ["Borders:TargetBorderCount=3", "Borders:TargetBorderCount=1"]
    model = CatBoostRegressor(simple_ctr=several, **MIXED).fit(X, answer(X, "value"))
    with pytest.raises(ConversionRefused, match="counts Borders over two divisions of the target"):
        converted(model, X)


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        (CatBoostClassifier(**MIXED), "three", CatBoostClassifier),
        (CatBoostRegressor(loss_function="Poisson", **MIXED), "positive", CatBoostRegressor),
        (CatBoostRanker(loss_function="QueryRMSE", **MIXED), "value", CatBoostRanker),
        (CatBoost({"loss_function": "Logloss", **MIXED}), "two", CatBoostClassifier),
    ],
    ids=["classifier", "poisson", "ranker", "plain"],
)
@pytest.mark.parametrize("suffix", ["cbm", "json"])
def test_its_own_files_are_read(model: Any, kind: str, expected: Any, suffix: str, tmp_path: Path) -> None:
    X = mixed()
    model.fit(X, answer(X, kind), **({"group_id": np.arange(500) // 10} if expected is CatBoostRanker else {}))
    model.save_model(str(tmp_path / f"model.{suffix}"), format=suffix)
    again = load_model(tmp_path / f"model.{suffix}", trust=True)
    assert type(again) is expected
    assert_equal(again, X, strange(X), ulps=4)


@pytest.mark.parametrize(
    ("name", "content"), [("m.cbm", b""), ("m.cbm", b"CBM1 torn"), ("m.json", b'{"features_info"')]
)
def test_a_damaged_file_is_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((FormatError, NotAModel), match="cannot be read") as refusal:
        load_model(tmp_path / name)
    assert "\n" not in refusal.value.sentence


def test_a_model_that_is_not_fitted_is_refused() -> None:
    with pytest.raises(NotAModel, match="not fitted"):
        converted(CatBoostClassifier(**SMALL), numbers())


def test_data_without_a_column_is_refused() -> None:
    X = numbers()
    model = CatBoostClassifier(**SMALL).fit(X, answer(X, "two"))
    with pytest.raises(DataMismatch, match="lacks the column 'b'"):
        converted(model, X.drop(columns="b"))


def test_columns_are_found_by_their_names() -> None:
    X = numbers()
    model = CatBoostClassifier(**SMALL).fit(X, answer(X, "two"))
    assert converted(model, X[["d", "b", "a", "c"]].assign(more=1)).features == converted(model, X).features


def test_questions_that_decide_nothing_are_left_out() -> None:
    X = numbers().round(0)[["a"]]
    model = CatBoostRegressor(**SMALL).fit(X, answer(X, "value"))
    built = onnx.load_model_from_string(converted(model, X).onnx)
    node = next(one for one in built.graph.node if one.op_type == "TreeEnsemble")
    nodes = next(one for one in node.attribute if one.name == "nodes_featureids")
    # Four borders of one column have five sides, and four questions tell them apart; a full tree has 15.
    assert len(nodes.ints) <= 25 * 5


def test_several_labels_a_row_are_decided_one_by_one(tmp_path: Path) -> None:
    X = numbers()
    labels = np.stack([X["a"] > 0, X["b"] > 0, X["c"] > 1], axis=1) * 1
    model = CatBoostClassifier(loss_function="MultiLogloss", **SMALL).fit(X, labels)
    conversion = assert_equal(model, X, adversarial(model, X, tmp_path), ulps=4)
    assert conversion.targets == ((0, 1),) * 3


CERTIFIED: list[tuple[str, Any, pd.DataFrame]] = [
    ("value", CatBoostRegressor(**SMALL), numbers(missing=True)),
    ("value", CatBoostRegressor(nan_mode="Max", grow_policy="Lossguide", **SMALL), numbers(missing=True)),
    ("three", CatBoostClassifier(**SMALL), numbers()),
    ("three", CatBoostClassifier(grow_policy="Depthwise", **SMALL), numbers()),
    ("two", CatBoostClassifier(max_ctr_complexity=3, one_hot_max_size=4, **MIXED), mixed()),
]


@RUNTIMES
@pytest.mark.parametrize(("kind", "model", "X"), CERTIFIED)
def test_every_node_of_an_honest_file_is_certified(kind: str, model: Any, X: pd.DataFrame, runtime: str) -> None:
    model.fit(X, answer(X, kind))
    found = certify(converted(model, X, runtime).onnx, model)
    assert found is not None
    assert found.exact
    assert found.trees == 25
    assert "as the original's" in found.statement


@pytest.mark.parametrize("runtime", [OLD, NEW])
@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise"])
def test_every_small_change_of_the_file_is_caught(policy: str, name: str, change: Change, runtime: str) -> None:
    X = numbers(missing=True)
    model = CatBoostRegressor(grow_policy=policy, **(SMALL | {"iterations": 3})).fit(X, answer(X, "value"))
    with pytest.raises(ParityBroken, match="CatBoost, tree"):
        certify(mutated(converted(model, X, runtime).onnx, change), model)


def test_a_build_compares_rows_at_the_borders_and_needs_equal_ties() -> None:
    X = numbers(missing=True)
    model = CatBoostClassifier(**SMALL).fit(X, answer(X, "two"))
    conversion = converted(model, X)
    found = mined(thresholds(model, list(X.columns)), X, conversion.features)
    assert catboost_dump.read(model).borders()[0][-1] in set(pd.concat(found)["a"])
    engine = Engine(conversion.onnx, draft_manifest("boosted", "1.0", conversion, "1.32.0"))
    original = registry.find(model)
    proof = certify(conversion.onnx, model)
    verified = verify(
        engine,
        lambda rows: original.answers(model, rows),
        X,
        precision=conversion.precision,
        model=model,
        certificate=proof,
    )
    assert verified.parity.ties == 0
    assert verified.parity.tolerance == 1e-9
    assert verified.parity.mined_rows > 500
