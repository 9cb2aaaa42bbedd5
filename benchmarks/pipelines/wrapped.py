# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

"""Searches, thresholds, calibration, votes, stacks, chains: models that hand the question on to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    BaggingRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, MultiTaskLasso, Ridge, RidgeCV
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case
from benchmarks.pipelines.frames import adult, houses, numeric, texts, titanic


def cases() -> Iterator[Case]:
    """The pipelines."""
    yield from _searches()
    yield from _thresholds()
    yield from _calibrated()
    yield from _votes()
    yield from _stacks()
    yield from _targets()
    yield from _several()
    yield from _labels()


def textbook(last: Any) -> Any:
    """The passengers' pipeline."""
    return Pipeline([("prepare", titanic()), ("model", last)])


def _searches() -> Iterator[Case]:
    grid = GridSearchCV(
        textbook(LogisticRegression()),
        {"model__C": [0.1, 1], "prepare__num__simpleimputer__strategy": ["mean", "median"]},
        cv=2,
    )
    yield Case("titanic: grid search over the pipeline", tables.titanic, grid)
    yield Case(
        "titanic: random search over a forest",
        tables.titanic,
        RandomizedSearchCV(
            textbook(RandomForestClassifier(15, random_state=0)),
            {"model__max_depth": [3, 5, None]},
            n_iter=2,
            cv=2,
            random_state=0,
        ),
    )
    yield Case(
        "cancer: search in the middle of a pipeline",
        tables.cancer,
        make_pipeline(StandardScaler(), GridSearchCV(SVC(), {"C": [0.5, 5], "gamma": [0.01]}, cv=2)),
    )
    yield Case(
        "wine: halving search",
        tables.wine,
        HalvingGridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()),
            {"logisticregression__C": [0.1, 1, 10]},
            cv=2,
            random_state=0,
        ),
    )
    yield Case(
        "housing: halving random search over boosting",
        tables.housing,
        HalvingRandomSearchCV(
            make_pipeline(houses(), HistGradientBoostingRegressor(max_iter=15)),
            {"histgradientboostingregressor__max_leaf_nodes": [7, 15, 31]},
            n_candidates=3,
            cv=2,
            random_state=0,
        ),
    )
    yield Case(
        "digits: the search chooses a whole step",
        tables.digits,
        GridSearchCV(
            Pipeline([("reduce", PCA(8)), ("model", LogisticRegression(max_iter=300))]),
            {"reduce": [PCA(8), SelectKBest(k=12)], "model__C": [0.01]},
            cv=2,
        ),
    )
    yield Case(
        "cancer: the search leaves a step out",
        tables.cancer,
        GridSearchCV(
            Pipeline([("scale", StandardScaler()), ("model", GaussianNB())]),
            {"scale": ["passthrough", MinMaxScaler()]},
            cv=2,
        ),
    )


def _thresholds() -> Iterator[Case]:
    yield Case(
        "titanic: a tuned threshold over the pipeline",
        tables.titanic,
        TunedThresholdClassifierCV(textbook(LogisticRegression()), scoring="balanced_accuracy", cv=2),
    )
    yield Case(
        "churn: a fixed threshold of a class given as text",
        tables.churn,
        FixedThresholdClassifier(
            make_pipeline(make_column_transformer((numeric(), ["tenure", "monthly", "total"])), LogisticRegression()),
            threshold=0.3,
            pos_label="yes",
        ),
    )
    yield Case(
        "cancer: a threshold of the decision function",
        tables.cancer,
        FixedThresholdClassifier(
            make_pipeline(StandardScaler(), SVC()), threshold=0.5, response_method="decision_function"
        ),
    )
    yield Case(
        "titanic: a tuned threshold of boosted trees",
        tables.titanic,
        TunedThresholdClassifierCV(
            textbook(GradientBoostingClassifier(n_estimators=15, random_state=0)), scoring="f1", cv=2
        ),
    )
    X, y = tables.cancer()
    frozen = FrozenEstimator(make_pipeline(StandardScaler(), LogisticRegression()).fit(X[:150], y[:150]))
    yield Case(
        "cancer: a fixed threshold of a frozen pipeline", tables.cancer, FixedThresholdClassifier(frozen, threshold=0.7)
    )
    yield Case("cancer: a frozen pipeline calibrated", tables.cancer, CalibratedClassifierCV(frozen, method="isotonic"))


def _calibrated() -> Iterator[Case]:
    for method in ("sigmoid", "isotonic", "temperature"):
        model = CalibratedClassifierCV(textbook(RandomForestClassifier(10, random_state=0)), method=method, cv=2)
        yield Case(f"titanic: forest calibrated by {method}", tables.titanic, model)
    yield Case(
        "cancer: linear SVC calibrated",
        tables.cancer,
        make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(), cv=3)),
    )
    yield Case(
        "wine: naive Bayes calibrated by isotonic regression, three classes",
        tables.wine,
        CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
    )
    yield Case(
        "wine: SVC calibrated by temperature, three classes",
        tables.wine,
        CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC()), method="temperature", cv=2),
    )
    yield Case(
        "wine: boosting calibrated without an ensemble",
        tables.wine,
        CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=5), cv=2, ensemble=False),
    )


def _votes() -> Iterator[Case]:
    def three() -> list[tuple[str, Any]]:
        return [
            ("line", textbook(LogisticRegression())),
            ("forest", textbook(RandomForestClassifier(10, random_state=0))),
            ("near", textbook(KNeighborsClassifier(5))),
        ]

    yield Case("titanic: soft vote of three pipelines", tables.titanic, VotingClassifier(three(), voting="soft"))
    yield Case("titanic: hard vote of three pipelines", tables.titanic, VotingClassifier(three()))
    yield Case(
        "titanic: weighted soft vote in the last step",
        tables.titanic,
        textbook(
            VotingClassifier(
                [("a", LogisticRegression()), ("b", GradientBoostingClassifier(n_estimators=10, random_state=0))],
                voting="soft",
                weights=[1, 2],
            )
        ),
    )
    yield Case(
        "housing: mean of a line and a forest",
        tables.housing,
        make_pipeline(
            houses(), VotingRegressor([("line", Ridge()), ("forest", RandomForestRegressor(10, random_state=0))])
        ),
    )
    yield Case(
        "wine: hard vote of unlike models, text classes",
        lambda: (tables.wine()[0], np.array(["red", "rosé", "white"], dtype=object)[tables.wine()[1]]),
        VotingClassifier(
            [
                ("tree", DecisionTreeClassifier(random_state=0)),
                ("bayes", GaussianNB()),
                ("line", make_pipeline(StandardScaler(), LinearSVC())),
            ]
        ),
    )


def _stacks() -> Iterator[Case]:
    def two() -> list[tuple[str, Any]]:
        return [
            ("line", textbook(LogisticRegression())),
            (
                "trees",
                make_pipeline(
                    make_column_transformer((texts(), ["sex", "deck"]), remainder="drop"),
                    RandomForestClassifier(10, random_state=0),
                ),
            ),
        ]

    yield Case("titanic: stack over two ColumnTransformers", tables.titanic, StackingClassifier(two(), cv=2))
    yield Case(
        "titanic: stack with boosting at the end",
        tables.titanic,
        StackingClassifier(two(), GradientBoostingClassifier(n_estimators=10, random_state=0), cv=2),
    )
    yield Case(
        "adult: stack in the last step, columns passed on",
        tables.adult,
        make_pipeline(
            adult(),
            StackingClassifier(
                [("line", LogisticRegression(max_iter=500)), ("near", KNeighborsClassifier(5))], cv=2, passthrough=True
            ),
        ),
    )
    yield Case(
        "housing: stack of regressions",
        tables.housing,
        make_pipeline(
            houses(),
            StackingRegressor(
                [("line", RidgeCV()), ("trees", HistGradientBoostingRegressor(max_iter=15))], RidgeCV(), cv=2
            ),
        ),
    )
    yield Case(
        "wine: stack of a stack",
        tables.wine,
        StackingClassifier(
            [
                (
                    "inner",
                    StackingClassifier(
                        [("svc", make_pipeline(StandardScaler(), SVC())), ("bayes", GaussianNB())],
                        LogisticRegression(),
                        cv=2,
                    ),
                ),
                ("tree", DecisionTreeClassifier(max_depth=3, random_state=0)),
            ],
            cv=2,
        ),
    )


def _targets() -> Iterator[Case]:
    yield Case(
        "housing: logarithm of the price",
        tables.housing,
        TransformedTargetRegressor(make_pipeline(houses(), Ridge()), func=np.log1p, inverse_func=np.expm1),
    )
    yield Case(
        "housing: price by quantiles",
        tables.housing,
        TransformedTargetRegressor(
            make_pipeline(houses(), Ridge()),
            transformer=QuantileTransformer(n_quantiles=50, output_distribution="normal"),
        ),
    )
    yield Case(
        "claims: costs by a power, forest",
        tables.claims,
        TransformedTargetRegressor(
            make_pipeline(
                make_column_transformer((texts(), ["brand"]), ("passthrough", ["bonus", "age"])),
                RandomForestRegressor(10, random_state=0),
            ),
            transformer=PowerTransformer(),
        ),
    )
    yield Case(
        "diabetes: target scaled, network of one line",
        tables.diabetes,
        TransformedTargetRegressor(
            LinearRegression(), transformer=make_pipeline(FunctionTransformer(np.sqrt, np.square), StandardScaler())
        ),
    )


def _several() -> Iterator[Case]:
    yield Case("linnerud: ridge of three targets", tables.linnerud, make_pipeline(StandardScaler(), Ridge()))
    yield Case("linnerud: forest of three targets", tables.linnerud, RandomForestRegressor(15, random_state=0))
    yield Case(
        "linnerud: one boosting for each target",
        tables.linnerud,
        MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=10)),
    )
    yield Case("linnerud: chain of ridges", tables.linnerud, RegressorChain(Ridge(), order=[1, 0, 2]))
    yield Case("linnerud: sparse lines together", tables.linnerud, make_pipeline(StandardScaler(), MultiTaskLasso(0.5)))
    yield Case("diabetes: bag of lines", tables.diabetes, BaggingRegressor(Ridge(), n_estimators=6, random_state=0))
    yield Case(
        "labels: one line for each label",
        tables.labels,
        MultiOutputClassifier(make_pipeline(StandardScaler(), LogisticRegression())),
    )
    yield Case(
        "labels: chain of lines",
        tables.labels,
        make_pipeline(StandardScaler(), ClassifierChain(LogisticRegression(), random_state=0)),
    )
    yield Case("labels: forest of two labels", tables.labels, RandomForestClassifier(15, random_state=0))
    yield Case(
        "labels: one against rest, several labels",
        tables.labels,
        OneVsRestClassifier(make_pipeline(StandardScaler(), LogisticRegression())),
    )
    yield Case(
        "labels: neighbours of two labels", tables.labels, make_pipeline(StandardScaler(), KNeighborsClassifier(5))
    )


def _labels() -> Iterator[Case]:
    yield Case(
        "digits: one against rest", tables.digits, make_pipeline(MinMaxScaler(), OneVsRestClassifier(LinearSVC()))
    )
    yield Case("wine: one against one", tables.wine, make_pipeline(StandardScaler(), OneVsOneClassifier(SVC())))
    yield Case(
        "cancer: one against rest of two classes",
        tables.cancer,
        make_pipeline(StandardScaler(), OneVsRestClassifier(LinearSVC())),
    )
    yield Case("titanic: the most frequent answer", tables.titanic, textbook(DummyClassifier(strategy="prior")))
    yield Case("housing: the median price", tables.housing, make_pipeline(houses(), DummyRegressor(strategy="median")))

    def half() -> tables.Data:
        X, y = tables.cancer()
        return X, np.where(np.arange(len(y)) % 3 == 0, -1, y)

    yield Case(
        "cancer: labels learned by itself",
        half,
        make_pipeline(StandardScaler(), SelfTrainingClassifier(LogisticRegression())),
    )
