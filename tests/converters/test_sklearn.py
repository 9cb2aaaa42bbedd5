# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from edgekit_contracts.errors import ConversionRefused, DataMismatch, NotAModel
from edgekit_contracts.manifest import MISSING_TEXT
from edgekit_converters.registry import Converter, find
from tests.converters.frames import CONVERTER, NUMBERS, assert_same, converted, features, run, target, textbook

# MLP stops before it has converged; the probabilities of SVC are on their way out.
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:The `probability`", "ignore:.*probability.*:FutureWarning"
)

EXACT_CLASSIFIERS = [
    LogisticRegression(max_iter=300),
    LinearSVC(),
    LinearDiscriminantAnalysis(),
    SGDClassifier(loss="log_loss", random_state=0),
    KNeighborsClassifier(),
    MLPClassifier((8,), max_iter=10, random_state=0),
    GaussianNB(),
    VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
    SVC(probability=True, random_state=0),
    SVC(),
]
MIXED_CLASSIFIERS = [
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(12, random_state=0),
    ExtraTreesClassifier(8, random_state=0),
    GradientBoostingClassifier(n_estimators=8, random_state=0),
    HistGradientBoostingClassifier(max_iter=8, random_state=0),
]
EXACT_REGRESSORS = [LinearRegression(), Ridge(), PoissonRegressor(), KNeighborsRegressor(), SVR()]
MIXED_REGRESSORS = [
    RandomForestRegressor(6, random_state=0),
    GradientBoostingRegressor(n_estimators=8, random_state=0),
    HistGradientBoostingRegressor(max_iter=8, random_state=0),
    HistGradientBoostingRegressor(max_iter=8, loss="gamma", random_state=0),
]


def named(models: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("last", models, ids=lambda model: type(model).__name__)


@named(EXACT_CLASSIFIERS)
def test_the_textbook_pipeline_answers_like_the_original_in_float64(last: Any) -> None:
    assert_same(textbook(last).fit(features(), target("text")), features(), exact=True)


def test_discriminant_analysis_of_three_classes_answers_like_the_original() -> None:
    assert_same(textbook(LinearDiscriminantAnalysis()).fit(features(), target("three")), features(), exact=True)


@named(MIXED_CLASSIFIERS)
def test_the_textbook_pipeline_answers_like_the_original_with_a_float32_last_step(last: Any) -> None:
    assert_same(textbook(last).fit(features(), target("three")), features(), exact=False)


@named(EXACT_REGRESSORS)
def test_a_regression_answers_like_the_original_in_float64(last: Any) -> None:
    assert_same(textbook(last).fit(features(), target("value")), features(), exact=True)


@named(MIXED_REGRESSORS)
def test_a_regression_answers_like_the_original_with_a_float32_last_step(last: Any) -> None:
    assert_same(textbook(last).fit(features(), target("value")), features(), exact=False)


@pytest.mark.parametrize("kind", ["int", "bool", "text", "three", "float"])
@pytest.mark.parametrize("last", [LogisticRegression(), RandomForestClassifier(4), SVC()], ids=["ours", "trees", "svc"])
def test_classes_keep_their_values_and_order(kind: str, last: Any) -> None:
    model = textbook(last).fit(features(), target(kind))
    conversion = assert_same(model, features())
    assert list(conversion.classes) == model.classes_.tolist()
    assert [type(one) for one in conversion.classes] == [type(one) for one in model.classes_.tolist()]
    dtype = {"int": "int64", "bool": "bool", "float": "float64"}.get(kind, "text")
    assert conversion.outputs[0].dtype == dtype


def test_the_features_say_what_the_data_says() -> None:
    model = textbook(LogisticRegression(), ["radius", "visits", "smoker"]).fit(features(), target())
    conversion = assert_same(model, features())
    by_name = {feature.name: feature for feature in conversion.features}
    assert [feature.name for feature in conversion.features] == ["radius", "size", "lab", "visits", "smoker"]
    assert [by_name[name].dtype for name in ("radius", "visits", "smoker", "lab")] == [
        "float64",
        "int64",
        "bool",
        "text",
    ]
    assert (by_name["visits"].minimum, by_name["visits"].maximum) == (0.0, 8.0)
    assert by_name["size"].categories == ("large", "middle", "small")
    assert not by_name["size"].closed
    assert all(feature.nullable for feature in conversion.features)
    assert [(one.name, one.dtype, one.features) for one in conversion.inputs] == [
        ("numbers", "float64", ("radius", "visits", "smoker")),
        ("text", "text", ("size", "lab")),
    ]


def test_an_encoder_that_raises_for_unknown_values_closes_the_feature() -> None:
    encode = ColumnTransformer([("lab", OneHotEncoder(), ["lab"]), ("keep", "passthrough", ["area"])])
    conversion = assert_same(make_pipeline(encode, LogisticRegression()).fit(features(), target()), features())
    area, lab = conversion.features
    assert (lab.closed, lab.categories, lab.nullable) == (True, ("a", "b", "ü"), False)
    assert not area.nullable


@pytest.mark.parametrize("dtype", ["object", "category", "string", "str"])
def test_texts_of_every_pandas_type_are_one_text_feature(dtype: str) -> None:
    X = features().astype({"size": dtype, "lab": dtype})
    model = textbook(LogisticRegression())
    if dtype == "string":
        model.set_params(columntransformer__texts__simpleimputer__missing_values=pd.NA)
    conversion = assert_same(model.fit(X, target()), X)
    assert conversion.inputs[1].features == ("size", "lab")


def test_none_is_the_missing_text_where_the_model_learned_none() -> None:
    X = features().astype({"size": object})
    X["size"] = X["size"].where(X["size"].notna(), None)
    encode = ColumnTransformer([("size", OneHotEncoder(handle_unknown="ignore"), ["size"])])
    model = make_pipeline(encode, LogisticRegression()).fit(X, target())
    conversion = assert_same(model, X)
    # What pandas puts into a gap later is NaN; to the device both are null.
    gaps = X.assign(size=pd.Series([np.nan] * len(X), index=X.index, dtype=object))
    assert run(conversion, model, gaps)["label"].tolist() == model.predict(gaps.assign(size=None)).tolist()
    assert conversion.features[0].nullable


def test_native_missing_values_take_the_branch_of_training() -> None:
    X = features()[[*NUMBERS, "visits", "smoker"]]
    for last in (RandomForestClassifier(6, random_state=0), HistGradientBoostingClassifier(max_iter=6)):
        conversion = assert_same(last.fit(X, target()), X)
        assert all(feature.nullable for feature in conversion.features)


def test_trees_decide_exactly_at_their_thresholds() -> None:
    X = features()[["area", "visits"]]
    tree = DecisionTreeClassifier(random_state=0)
    model = make_pipeline(StandardScaler(), tree).fit(X, target())
    split = tree.tree_.feature >= 0
    at = np.array(tree.tree_.threshold[split])[:, None] * model[0].scale_ + model[0].mean_
    rows = pd.DataFrame(np.concatenate([at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]), columns=X.columns)
    assert_same(model, X, rows=rows)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_a_model_of_a_matrix_has_numbered_features(dtype: str) -> None:
    X = features()[NUMBERS].fillna(0).to_numpy().astype(dtype)
    conversion = assert_same(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, target()), X)
    assert [(one.name, one.dtype) for one in conversion.features] == [("x0", dtype), ("x1", dtype), ("x2", dtype)]
    assert [one.name for one in conversion.inputs] == ["numbers"]
    assert conversion.precision == ("mixed" if dtype == "float32" else "float64")


def test_a_regression_of_several_targets_has_as_many_columns() -> None:
    y = np.stack([target("value"), target("int")], axis=1)
    for last in (Ridge(), RandomForestRegressor(3)):
        model = textbook(last).fit(features(), y)
        assert_same(model, features())
        assert run(converted(model, features()), model, features())["value"].shape == (240, 2)


@pytest.mark.parametrize(
    "columns",
    [["radius", "area"], [0, 2], [-7, 2], slice(0, 3), slice("radius", "area"), [True, False, True] + [False] * 4],
    ids=["names", "indices", "negative", "slice", "names' slice", "mask"],
)
def test_columns_are_chosen_in_every_way_of_scikit_learn(columns: Any) -> None:
    choose = ColumnTransformer([("numbers", SimpleImputer(), columns), ("drop", "drop", ["smoker"])])
    assert_same(make_pipeline(choose, LogisticRegression(max_iter=1000)).fit(features(), target()), features())


def test_columns_chosen_by_type_and_the_remainder_keep_their_order() -> None:
    choose = ColumnTransformer(
        [("texts", OneHotEncoder(), make_column_selector(dtype_include="str"))],
        remainder=make_pipeline(SimpleImputer(), StandardScaler()),
    )
    assert_same(make_pipeline(choose, LogisticRegression()).fit(features(), target()), features())
    encode = ColumnTransformer([("texts", OneHotEncoder(), ["lab"]), ("no", "drop", ["size"])], remainder="passthrough")
    last = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    assert_same(make_pipeline(encode, last).fit(features(), target()), features())


def test_unions_weights_and_nested_transformers_are_walked() -> None:
    first = ColumnTransformer([("a", SimpleImputer(), NUMBERS), ("b", OneHotEncoder(sparse_output=False), ["lab"])])
    first.set_output(transform="pandas")
    second = ColumnTransformer([("scaled", StandardScaler(), ["a__radius", "a__area"])], remainder="passthrough")
    union = FeatureUnion(
        [("pca", PCA(2)), ("best", SelectKBest(k=2)), ("none", "drop")], transformer_weights={"pca": 0.5}
    )
    model = make_pipeline(first, second, union, "passthrough", LogisticRegression()).fit(features(), target())
    assert_same(model, features(), exact=True)


def test_searches_and_frozen_estimators_are_looked_into() -> None:
    search = GridSearchCV(textbook(LogisticRegression()), {"logisticregression__C": [0.5, 1.0]}, cv=2)
    assert_same(search.fit(features(), target()), features())
    assert_same(FrozenEstimator(search.best_estimator_), features())
    assert CONVERTER.describe(search) == "scikit-learn Pipeline ending in LogisticRegression"


def test_a_column_that_no_step_reads_may_hold_anything() -> None:
    X = features().assign(when=pd.Timestamp("2026-01-01"), odd=["text", 1] * 120)
    conversion = assert_same(textbook(LogisticRegression()).fit(X, target()), X)
    assert {"when", "odd", "visits"}.isdisjoint(feature.name for feature in conversion.features)


def test_a_probability_calibration_at_the_end_is_converted() -> None:
    assert_same(textbook(CalibratedClassifierCV(LinearSVC(), cv=2)).fit(features(), target()), features())


@pytest.mark.parametrize(
    "last", [KNeighborsClassifier(), RandomForestClassifier(3, random_state=0), MLPClassifier((4,), max_iter=3)]
)
def test_the_same_model_and_data_give_the_same_bytes(last: Any) -> None:
    model = textbook(last).fit(features(), target())
    assert converted(model, features()) == converted(model, features())


@pytest.mark.parametrize(
    ("step", "last", "where", "next_step"),
    [
        (
            FunctionTransformer(np.sort),
            LogisticRegression(),
            "pipeline/step (FunctionTransformer)",
            "apply the function",
        ),
    ],
)
def test_a_refusal_names_the_step_and_the_way_on(step: Any, last: Any, where: str, next_step: str) -> None:
    model = make_pipeline(step, last)
    model.steps = [("step", step), ("last", last)]
    X = features()[["area", "visits"]]
    with pytest.raises(ConversionRefused) as refusal:
        converted(model.fit(X, target()), X)
    assert refusal.value.step == where
    assert next_step in refusal.value.next_step
    assert len(refusal.value.sentence) < 600


def test_a_refusal_inside_a_column_transformer_has_the_whole_path() -> None:
    encode = ColumnTransformer([("cat", make_pipeline(OrdinalEncoder(), FunctionTransformer(np.sort)), ["lab"])])
    model = make_pipeline(encode, LogisticRegression()).fit(features(), target())
    with pytest.raises(ConversionRefused) as refusal:
        converted(model, features())
    assert refusal.value.step == "pipeline/columntransformer/cat/functiontransformer (FunctionTransformer)"


def test_data_that_does_not_fit_is_refused_by_the_column() -> None:
    model = textbook(LogisticRegression()).fit(features(), target())
    with pytest.raises(DataMismatch, match="'lab'"):
        converted(model, features().drop(columns="lab"))
    with pytest.raises(DataMismatch, match=r"U\+2400"):
        converted(model, features().assign(lab=MISSING_TEXT))
    with pytest.raises(DataMismatch, match="mixes text"):
        converted(model, features().assign(lab=pd.Series(["a", 1] * 120, dtype=object)))
    bare = LogisticRegression().fit(features()[["area"]], target())
    with pytest.raises(DataMismatch, match="does not answer"):
        converted(bare, features()[["area"]].assign(area=np.nan))


def test_what_is_no_model_is_refused_with_what_is_supported() -> None:
    for thing in (object(), {"a": 1}, LogisticRegression):
        with pytest.raises(NotAModel) as refusal:
            find(thing)
        assert "scikit-learn classifier, regressor" in refusal.value.next_step
    with pytest.raises(NotAModel, match="not fitted"):
        converted(textbook(LogisticRegression()), features())


def test_the_converter_is_found_through_its_entry_point() -> None:
    found = find(LogisticRegression())
    assert isinstance(found, Converter)
    assert found.framework == "scikit-learn"
    assert found.ensures
