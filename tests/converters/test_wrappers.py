"""Wrappers: what hands the question on to other estimators, compared with scikit-learn over raw tables and matrices."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import RFE, RFECV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import (
    Lasso,
    LinearRegression,
    LogisticRegression,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import NUMBERS, assert_same, converted, features, short, target, textbook

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = ["int", "bool", "text", "float", "three"]


def matrix() -> pd.DataFrame:
    frame = features()[[*NUMBERS, "visits"]].fillna(13.25).astype(float)
    return (frame - frame.mean()) / frame.std()


def logistic() -> Any:
    return textbook(LogisticRegression(C=0.5))


def svc() -> Any:
    return textbook(LinearSVC(C=0.01), ["area"])


CLASSIFIERS: list[Any] = [
    VotingClassifier([("a", logistic()), ("b", svc()), ("c", "drop"), ("d", textbook(LogisticRegression(), ["area"]))]),
    VotingClassifier([("a", logistic()), ("b", svc())], weights=[1, 1]),
    VotingClassifier(
        [("a", logistic()), ("b", textbook(LinearDiscriminantAnalysis(), ["area"]))], voting="soft", weights=[2, 0.5]
    ),
    StackingClassifier([("a", logistic()), ("b", svc()), ("c", "drop")], cv=2),
    StackingClassifier([("a", logistic()), ("b", svc())], cv=2, stack_method="predict"),
    StackingClassifier([("a", logistic()), ("b", logistic())], LinearSVC(), cv=2, stack_method="decision_function"),
    OneVsRestClassifier(logistic()),
    OneVsRestClassifier(svc()),
    textbook(OneVsOneClassifier(LogisticRegression())),
    textbook(OneVsOneClassifier(LinearSVC(C=0.01))),
    OutputCodeClassifier(logistic(), code_size=3, random_state=0),
    OutputCodeClassifier(svc(), code_size=3, random_state=0),
    CalibratedClassifierCV(svc(), cv=2),
    CalibratedClassifierCV(svc(), cv=2, ensemble=False),
    CalibratedClassifierCV(svc(), cv=3, method="isotonic"),
    CalibratedClassifierCV(logistic(), cv=2, method="temperature"),
    CalibratedClassifierCV(
        make_pipeline(logistic()[0], DecisionTreeClassifier(max_depth=3, random_state=0)), cv=2, method="temperature"
    ),
    textbook(SelfTrainingClassifier(LogisticRegression())),
    DummyClassifier(),
    DummyClassifier(strategy="most_frequent"),
    make_pipeline(logistic()[0], RFE(LogisticRegression(), n_features_to_select=2)),
    make_pipeline(logistic()[0], RFECV(RidgeClassifier(), cv=2, min_features_to_select=2)),
]


@pytest.mark.parametrize("kind", ["bool", "three"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=short)
def test_a_wrapper_over_pipelines_of_the_raw_table_answers_like_the_original(model: Any, kind: str) -> None:
    tree = "DecisionTree" in str(model)
    y = target(kind)
    if "SelfTraining" in str(model):
        y = np.where(np.arange(len(y)) % 3 == 0, -1, np.unique(y, return_inverse=True)[1])
    model.fit(features(), y)
    assert_same(model, features(), exact=None if tree else True)
    assert_same(model, features(), rows=features().head(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "model",
    [
        VotingClassifier([("a", logistic()), ("b", svc())]),
        StackingClassifier([("a", logistic()), ("b", svc())], cv=2),
        OneVsRestClassifier(logistic()),
        textbook(OneVsOneClassifier(LinearSVC(C=0.01))),
        CalibratedClassifierCV(logistic(), cv=2),
        DummyClassifier(),
    ],
    ids=short,
)
def test_a_wrapper_keeps_the_classes_and_their_type(model: Any, kind: str) -> None:
    conversion = assert_same(model.fit(features(), target(kind)), features(), exact=True)
    assert list(conversion.classes) == model.classes_.tolist()


@pytest.mark.parametrize(
    "base",
    [
        LogisticRegression(),
        LinearSVC(),
        RidgeClassifier(),
        Ridge(),
        SGDClassifier(loss="modified_huber", random_state=0),
    ],
    ids=short,
)
@pytest.mark.parametrize("kind", ["int", "three"])
def test_one_vs_rest_asks_decisions_values_or_probabilities(base: Any, kind: str) -> None:
    assert_same(OneVsRestClassifier(base).fit(matrix(), target(kind)), matrix(), exact=True)


@pytest.mark.parametrize("kind", ["int", "text", "three"])
@pytest.mark.parametrize("loss", ["modified_huber", "log_loss", "hinge"])
def test_stochastic_gradient_gives_the_probabilities_of_its_loss(loss: str, kind: str) -> None:
    model = SGDClassifier(loss=loss, random_state=0).fit(matrix(), target(kind))
    assert_same(model, matrix(), rows=matrix() * 9, exact=True)


def test_votes_that_tie_go_to_the_first_class() -> None:
    X = matrix()
    low, mid = (DummyClassifier(strategy="constant", constant=one) for one in (0, 2))
    model = VotingClassifier([("mid", mid), ("low", low), ("high", LogisticRegression())], weights=[1, 1, 1])
    assert_same(model.fit(X, np.unique(target("three"), return_inverse=True)[1]), X)
    model.set_params(weights=[1, 1, 0.5])
    assert_same(model.fit(X, np.unique(target("three"), return_inverse=True)[1]), X)


def test_codes_that_tie_go_to_the_first_class() -> None:
    X = matrix()
    model = OutputCodeClassifier(RidgeClassifier(), code_size=2, random_state=1).fit(X, target("three"))
    model.code_book_[2] = model.code_book_[0]
    assert_same(model, X)


@pytest.mark.parametrize("positive", [None, "benign", "malign"])
@pytest.mark.parametrize("method", ["auto", "decision_function", "predict_proba"])
@pytest.mark.parametrize("threshold", ["auto", 0.3])
def test_a_fixed_threshold_decides(positive: str | None, method: str, threshold: Any) -> None:
    model = FixedThresholdClassifier(logistic(), threshold=threshold, response_method=method, pos_label=positive).fit(
        features(), target("text")
    )
    conversion = assert_same(model, features(), exact=True)
    assert [output.role for output in conversion.outputs] == ["label", "probabilities"]


def test_a_threshold_decides_at_its_very_value() -> None:
    X = features()
    base = logistic().fit(X, target())
    at = float(np.sort(base.decision_function(X))[77])
    model = FixedThresholdClassifier(FrozenEstimator(base), threshold=at, response_method="decision_function")
    assert_same(model.fit(X, target()), X)


@pytest.mark.parametrize("kind", ["int", "bool"])
def test_a_tuned_threshold_decides(kind: str) -> None:
    model = TunedThresholdClassifierCV(logistic(), cv=2).fit(features(), target(kind))
    assert_same(model, features(), exact=True)
    model = TunedThresholdClassifierCV(svc(), scoring="f1", cv=2).fit(features(), target(kind))
    assert_same(model, features(), exact=True)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_a_frozen_estimator_is_calibrated(method: Any) -> None:
    for kind in ("text", "three"):
        base = FrozenEstimator(logistic().fit(features(), target(kind)))
        model = CalibratedClassifierCV(base, method=method, ensemble=False).fit(features(), target(kind))
        assert_same(model, features(), exact=True)


@pytest.mark.parametrize("bootstrap_features", [False, True])
@pytest.mark.parametrize("kind", ["text", "three"])
@pytest.mark.parametrize("base", [None, LogisticRegression(), LinearSVC()], ids=short)
def test_bagging_averages_probabilities_or_votes(base: Any, kind: str, bootstrap_features: bool) -> None:
    model = BaggingClassifier(
        base, n_estimators=4, max_samples=30, max_features=3, bootstrap_features=bootstrap_features, random_state=0
    )
    assert_same(model.fit(matrix(), target(kind)), matrix(), exact=None if base is None else True)


@pytest.mark.parametrize("kind", ["text", "three"])
def test_the_decisions_of_bagging_are_calibrated(kind: str) -> None:
    bagging = BaggingClassifier(LinearSVC(), n_estimators=3, random_state=0).fit(matrix(), target(kind))
    model = CalibratedClassifierCV(FrozenEstimator(bagging), ensemble=False).fit(matrix(), target(kind))
    assert_same(model, matrix(), exact=True)


@pytest.mark.parametrize("kind", ["int", "bool", "text", "float", "three"])
def test_reweighted_classifiers_vote(kind: str) -> None:
    model = AdaBoostClassifier(LogisticRegression(C=0.1), n_estimators=4).fit(matrix(), target(kind))
    assert_same(model, matrix(), exact=True)


def test_reweighted_regressors_give_the_weighted_median() -> None:
    model = AdaBoostRegressor(LinearRegression(), n_estimators=7, random_state=0).fit(matrix(), target("value"))
    assert_same(model, matrix(), exact=True)


def test_bagging_knows_estimators_that_lack_a_class() -> None:
    y = target("three").copy()
    y[:] = np.where(y == "low", "mid", y)
    y[:12] = "low"
    base = LinearDiscriminantAnalysis()  # takes no weights, so that it is fitted on the sample alone
    model = BaggingClassifier(base, n_estimators=6, max_samples=20, random_state=1).fit(matrix(), y)
    assert len({len(one.classes_) for one in model.estimators_}) == 2
    assert_same(model, matrix(), exact=True)


def regression(name: str) -> Any:
    return textbook(LinearRegression() if name == "plain" else Lasso(0.01), ["area", "visits"])


REGRESSORS: list[Any] = [
    VotingRegressor([("a", regression("plain")), ("b", regression("lasso")), ("c", "drop")], weights=[1, 3, 2]),
    VotingRegressor([("a", regression("plain")), ("b", regression("lasso"))]),
    StackingRegressor([("a", regression("plain")), ("b", regression("lasso"))], cv=2),
    TransformedTargetRegressor(regression("plain"), func=np.log1p, inverse_func=np.expm1),
    TransformedTargetRegressor(regression("plain"), func=np.log, inverse_func=np.exp),
    TransformedTargetRegressor(regression("plain"), func=np.sqrt, inverse_func=np.square),
    TransformedTargetRegressor(regression("plain"), func=np.square, inverse_func=np.sqrt),
    TransformedTargetRegressor(regression("plain"), func=lambda t: t / 3 + 1, inverse_func=lambda t: (t - 1) * 3),
    TransformedTargetRegressor(regression("plain")),
    TransformedTargetRegressor(transformer=StandardScaler(), regressor=regression("plain")),
    TransformedTargetRegressor(transformer=MinMaxScaler(), regressor=regression("plain")),
    TransformedTargetRegressor(transformer=MaxAbsScaler(), regressor=regression("plain")),
    TransformedTargetRegressor(transformer=RobustScaler(), regressor=regression("plain")),
    TransformedTargetRegressor(transformer=PowerTransformer(), regressor=regression("plain")),
    TransformedTargetRegressor(
        transformer=PowerTransformer("box-cox", standardize=False), regressor=regression("plain")
    ),
    TransformedTargetRegressor(transformer=QuantileTransformer(n_quantiles=30), regressor=regression("plain")),
    TransformedTargetRegressor(
        transformer=QuantileTransformer(n_quantiles=30, output_distribution="normal"), regressor=regression("plain")
    ),
    TransformedTargetRegressor(
        transformer=make_pipeline(FunctionTransformer(np.log1p, np.expm1), StandardScaler()),
        regressor=regression("plain"),
    ),
    DummyRegressor(),
    DummyRegressor(strategy="quantile", quantile=0.3),
]


@pytest.mark.parametrize("model", REGRESSORS, ids=short)
def test_a_regression_over_pipelines_of_the_raw_table_answers_like_the_original(model: Any) -> None:
    model.fit(features(), target("value"))
    assert_same(model, features(), exact=True)
    assert_same(model, features(), rows=features().head(1))


@pytest.mark.parametrize(
    "model",
    [
        MultiOutputRegressor(regression("plain")),
        MultiOutputRegressor(regression("lasso")),
        RegressorChain(Ridge(), order=[2, 0, 1]),
        RegressorChain(make_pipeline(StandardScaler(), Lasso(0.01)), cv=2),
        TransformedTargetRegressor(transformer=PowerTransformer(), regressor=Ridge()),
        BaggingRegressor(Ridge(), n_estimators=3, max_features=0.6, random_state=0),
        RANSACRegressor(LinearRegression(), random_state=0),
        DummyRegressor(strategy="median"),
    ],
    ids=short,
)
def test_several_targets_are_several_columns(model: Any) -> None:
    y = np.stack([target("value"), np.sqrt(target("value")) + target("int"), target("int") - 3.5], axis=1)
    X = features() if isinstance(model, MultiOutputRegressor) else matrix()
    assert_same(model.fit(X, y), X, exact=True)


def test_bagging_trees_averages_them() -> None:
    model = BaggingRegressor(n_estimators=4, max_features=2, random_state=0).fit(matrix(), target("value"))
    assert_same(model, matrix())


@pytest.mark.parametrize("power", [0.0, 2.0, 1e-20, 0.7, -0.4])
def test_yeo_johnson_is_turned_back_in_all_its_branches(power: float) -> None:
    model = TransformedTargetRegressor(transformer=PowerTransformer(standardize=False), regressor=Ridge())
    model.fit(matrix(), np.sin(target("value")))
    model.transformer_.lambdas_ = np.array([power])
    assert_same(model, matrix(), exact=True)


def test_passthrough_hands_the_columns_on() -> None:
    X = features()[["area", "visits", "smoker"]]
    model = StackingClassifier([("a", LogisticRegression()), ("b", LinearSVC())], passthrough=True, cv=2)
    assert_same(model.fit(X, target("three")), X, exact=True)


@pytest.mark.parametrize("bounds", ["nan", "clip", "raise"])
@pytest.mark.parametrize("increasing", [True, False, "auto"])
def test_isotonic_regression_interpolates(bounds: Any, increasing: Any) -> None:
    X = features()[["area"]].to_numpy()
    model = IsotonicRegression(out_of_bounds=bounds, increasing=increasing).fit(X[::2], target("value")[::2])
    inside = X[(X[::2].min() < X) & (X[::2].max() > X)].reshape(-1, 1)
    assert_same(model, X[::2], rows=inside, exact=True)
    if bounds == "clip":
        assert_same(model, X[::2], rows=np.concatenate([X - 500, X * 3]), exact=True)
    constant = IsotonicRegression(out_of_bounds=bounds).fit(X[:3], [1.5, 1.5, 1.5])
    assert_same(constant, X[:3], exact=True)


def test_columns_that_no_wrapped_pipeline_reads_may_hold_anything() -> None:
    X = features().assign(when=pd.Timestamp("2026-01-01"))
    model = VotingClassifier([("a", logistic()), ("b", CalibratedClassifierCV(svc(), cv=2))], voting="soft")
    conversion = assert_same(model.fit(X, target()), X)
    assert {feature.name for feature in conversion.features} == {*NUMBERS, "size", "lab"}


def test_what_cannot_be_answered_is_refused_by_its_path() -> None:
    X, y = matrix(), target()
    bins = KBinsDiscretizer(2, encode="ordinal", strategy="uniform")
    refusals = [
        (DummyClassifier(strategy="uniform"), y, "at random"),
        (DummyClassifier(strategy="stratified"), y, "at random"),
        (
            TransformedTargetRegressor(func=np.log1p, inverse_func=lambda t: t + t.mean(), check_inverse=False),
            y,
            "several rows",
        ),
        (TransformedTargetRegressor(transformer=bins, check_inverse=False), y, "KBinsDiscretizer"),
    ]
    for model, wanted, why in refusals:
        with pytest.raises(ConversionRefused, match=why):
            converted(model.fit(X, wanted), X)


def test_a_refusal_inside_a_wrapper_has_the_whole_path() -> None:
    broken = make_pipeline(FunctionTransformer(len, validate=False).set_params(func=_shifted), Ridge())
    model = TransformedTargetRegressor(broken).fit(matrix(), target("value"))
    with pytest.raises(ConversionRefused) as refusal:
        converted(model, matrix())
    assert refusal.value.step.startswith("transformedtargetregressor/regressor/functiontransformer")


def _shifted(X: Any) -> Any:
    return np.sort(X, axis=1)


def test_trees_in_a_chain_see_what_was_predicted() -> None:
    y = np.stack([target("value"), target("int").astype(float)], axis=1)
    model = RegressorChain(DecisionTreeRegressor(max_depth=3, random_state=0)).fit(matrix(), y)
    assert_same(model, matrix())
