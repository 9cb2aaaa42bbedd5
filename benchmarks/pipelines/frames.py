# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

"""Pipelines over DataFrames: impute, scale and encode by column, then a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, SelectPercentile, VarianceThreshold, chi2, f_regression
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case


def numeric(*steps: Any) -> Any:
    """Fill gaps with the median, scale, then the steps."""
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), *steps)


def texts(**settings: Any) -> Any:
    """Fill gaps with the most frequent text and encode; unknown texts are zeros."""
    return make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(**{"handle_unknown": "ignore", **settings})
    )


def titanic(**settings: Any) -> Any:
    """The textbook's preprocessing of the passengers."""
    return ColumnTransformer(
        [("num", numeric(), ["age", "fare", "sibsp", "parch"]), ("cat", texts(), ["sex", "embarked", "pclass"])],
        **settings,
    )


def adult(**settings: Any) -> Any:
    """By type, as the documentation does it."""
    return make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include=np.number)),
        (
            make_pipeline(SimpleImputer(missing_values=None, strategy="constant", fill_value="?"), OneHotEncoder()),
            make_column_selector(dtype_include=object),
        ),
        **settings,
    )


def houses(*steps: Any) -> Any:
    """Numbers imputed and scaled, quality in its order, the rest encoded, pool left as it is."""
    quality = OrdinalEncoder(categories=[["Po", "Fa", "TA", "Gd", "Ex"]])
    return make_column_transformer(
        (numeric(*steps), ["area", "year", "frontage", "rooms"]),
        (quality, ["quality"]),
        (texts(), ["place", "garage"]),
        remainder="passthrough",
    )


def cases() -> Iterator[Case]:
    """The pipelines."""
    yield from _titanic()
    yield from _adult()
    yield from _churn()
    yield from _housing()
    yield from _counts()
    yield from _sensors()


def _titanic() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"titanic: {name}", tables.titanic, make_pipeline(*steps))

    yield case("impute and scale, impute and one-hot, logistic regression", titanic(), LogisticRegression())
    yield case("the same, random forest", titanic(), RandomForestClassifier(30, random_state=0))
    yield case("the same, gradient boosting", titanic(), GradientBoostingClassifier(n_estimators=30, random_state=0))
    yield case("the same, SVC with probabilities", titanic(), SVC(probability=True, random_state=0))
    yield case("the same, nearest neighbours", titanic(), KNeighborsClassifier(7))
    yield case("the same, linear SVC", titanic(), LinearSVC(C=0.1))
    yield case("the same, small network", titanic(), MLPClassifier((8,), max_iter=60, random_state=0))
    yield case("the same, dense output, Gaussian naive Bayes", titanic(sparse_threshold=0), GaussianNB())
    yield case("the same, weights of transformers", titanic(transformer_weights={"num": 0.5}), RidgeClassifier())
    yield case(
        "remainder passed through",
        ColumnTransformer([("cat", texts(), ["sex", "embarked", "deck"])], remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=20),
    )
    yield case(
        "remainder imputed, short names of columns",
        ColumnTransformer(
            [("cat", texts(sparse_output=False), ["sex", "deck"]), ("drop", "drop", ["embarked"])],
            remainder=SimpleImputer(),
            verbose_feature_names_out=False,
        ).set_output(transform="pandas"),
        LogisticRegression(max_iter=500),
    )
    yield case(
        "gaps of texts filled with a constant and an indicator of missing ages",
        make_column_transformer(
            (SimpleImputer(add_indicator=True), ["age", "fare"]),
            (
                make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), OneHotEncoder()),
                ["deck", "embarked", "sex"],
            ),
        ),
        ExtraTreesClassifier(30, random_state=0),
    )
    yield case(
        "ordinal codes with unknown and missing, decision tree that knows NaN",
        make_column_transformer(
            (
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=np.nan),
                ["sex", "embarked", "deck"],
            ),
            ("passthrough", ["age", "fare", "pclass"]),
        ),
        DecisionTreeClassifier(max_depth=5, random_state=0),
    )
    yield case(
        "family size by a traced function, then trees",
        make_column_transformer(
            (FunctionTransformer(lambda X: np.asarray(X).sum(axis=1, keepdims=True) + 1), ["sibsp", "parch"]),
            (make_pipeline(SimpleImputer(), KBinsDiscretizer(4, encode="ordinal")), ["age"]),
            (FunctionTransformer(np.log1p), ["fare"]),
            (OneHotEncoder(drop="if_binary"), ["sex"]),
        ),
        RandomForestClassifier(20, max_depth=6, random_state=0),
    )
    yield case(
        "ages by splines, fares by quantiles",
        make_column_transformer(
            (make_pipeline(SimpleImputer(), SplineTransformer(n_knots=4)), ["age"]),
            (QuantileTransformer(n_quantiles=50, output_distribution="normal"), ["fare"]),
            (OneHotEncoder(), ["sex", "pclass"]),
        ),
        LogisticRegression(max_iter=300),
    )
    yield case(
        "best of the encoded columns by chi2, multinomial Bayes",
        make_column_transformer((texts(), ["sex", "embarked", "deck", "pclass"]), (MinMaxScaler(), ["fare"])),
        SelectKBest(chi2, k=6),
        MultinomialNB(),
    )
    yield case(
        "missing indicator beside filled columns (FeatureUnion in a ColumnTransformer)",
        make_column_transformer(
            (make_union(SimpleImputer(strategy="median"), _missing()), ["age", "fare"]), (texts(), ["sex"])
        ),
        LogisticRegression(max_iter=500),
    )
    yield case(
        "neighbours fill the ages",
        make_column_transformer(
            (make_pipeline(StandardScaler(), KNNImputer(n_neighbors=4)), ["age", "fare", "sibsp"]),
            (texts(drop="first", handle_unknown="error"), ["sex", "embarked"]),
        ),
        LogisticRegression(),
    )
    yield case(
        "voting bags of trees over the encoded table", titanic(), BaggingClassifier(n_estimators=5, random_state=0)
    )
    yield case("boosted stumps over the encoded table", titanic(), AdaBoostClassifier(n_estimators=20, random_state=0))


def _missing() -> Any:
    from sklearn.impute import MissingIndicator

    return MissingIndicator(features="all")


def _adult() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"adult: {name}", tables.adult, make_pipeline(*steps))

    yield case("selectors by type, None as missing, logistic regression", adult(), LogisticRegression(max_iter=500))
    yield case("selectors by type, linear discriminant", adult(sparse_threshold=0), LinearDiscriminantAnalysis())
    yield case(
        "truth values passed through", adult(remainder="passthrough"), RandomForestClassifier(20, random_state=0)
    )
    yield case("stochastic gradient", adult(), SGDClassifier(loss="log_loss", random_state=0))
    yield case(
        "rare categories grouped",
        make_column_transformer(
            (OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist"), ["country", "occupation"]),
            (PowerTransformer(), ["gain", "age"]),
        ),
        LogisticRegression(max_iter=500),
    )
    yield case(
        "at most three categories, None is one of them",
        make_column_transformer(
            (OneHotEncoder(max_categories=3, handle_unknown="infrequent_if_exist"), ["workclass", "country"]),
            remainder="drop",
        ),
        BernoulliNB(),
    )
    yield case(
        "ordinal codes, histogram boosting with categorical columns",
        make_column_transformer(
            (
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
                ["workclass", "occupation", "country"],
            ),
            remainder="passthrough",
        ),
        HistGradientBoostingClassifier(categorical_features=[0, 1, 2], max_iter=20),
    )
    yield case(
        "interactions of the numbers",
        make_column_transformer(
            (
                make_pipeline(PolynomialFeatures(2, interaction_only=True, include_bias=False), StandardScaler()),
                make_column_selector("age|hours|education"),
            ),
            (OneHotEncoder(handle_unknown="ignore"), ["married"]),
        ),
        LogisticRegression(C=0.5, max_iter=300),
    )
    yield case(
        "numbers only",
        make_column_transformer((RobustScaler(), make_column_selector(dtype_include=np.number))),
        SVC(),
    )
    yield case(
        "binarized gains, hours in bins",
        make_column_transformer(
            (Binarizer(threshold=0), ["gain"]), (KBinsDiscretizer(5, strategy="uniform"), ["hours", "age"])
        ),
        BernoulliNB(),
    )


def _churn() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"churn: {name}", tables.churn, make_pipeline(*steps))

    encoded = make_column_transformer(
        (numeric(), ["tenure", "monthly", "total"]),
        (OneHotEncoder(drop="first"), ["contract", "payment"]),
        remainder="passthrough",
    )
    yield case("scaled, one-hot without the first, rest passed on", encoded, LogisticRegression())
    yield case("the same, balanced classes", encoded, LogisticRegression(class_weight="balanced", C=0.1))
    yield case("the same, forest of few leaves", encoded, RandomForestClassifier(25, max_leaf_nodes=12, random_state=0))
    yield case("the same, SVC of polynomials", encoded, SVC(kernel="poly", degree=2, probability=False))
    yield case(
        "pandas frames between all steps",
        make_column_transformer(
            (SimpleImputer(), ["tenure", "monthly", "total"]),
            (OneHotEncoder(sparse_output=False), ["contract"]),
            ("passthrough", ["senior", "paperless"]),
        ).set_output(transform="pandas"),
        StandardScaler().set_output(transform="pandas"),
        VarianceThreshold(0.01).set_output(transform="pandas"),
        GradientBoostingClassifier(n_estimators=20, random_state=0),
    )
    yield case(
        "columns by position",
        make_column_transformer((StandardScaler(), [0, 1]), (OneHotEncoder(), [2, -1]), ("passthrough", slice(4, 6))),
        LogisticRegression(max_iter=500),
    )
    yield case(
        "one column by a mask, one by a callable",
        make_column_transformer(
            (MinMaxScaler(), [True, True, False, False, False, False, False]),
            (OneHotEncoder(), lambda X: [name for name in X.columns if str(X[name].iloc[0]).islower()]),
        ),
        KNeighborsClassifier(5, weights="distance"),
    )
    yield Case(
        "churn: a pipeline in a pipeline in a ColumnTransformer",
        tables.churn,
        Pipeline(
            [
                (
                    "prepare",
                    Pipeline(
                        [
                            (
                                "columns",
                                ColumnTransformer([("n", numeric(PolynomialFeatures(2)), ["monthly", "tenure"])]),
                            ),
                            ("scale", "passthrough"),
                        ]
                    ),
                ),
                ("select", SelectPercentile(percentile=60)),
                ("model", LogisticRegression(max_iter=300)),
            ]
        ),
    )


def _housing() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"housing: {name}", tables.housing, make_pipeline(*steps))

    yield case("ordinal quality, one-hot place, ridge", houses(), Ridge())
    yield case("the same, lasso over squares", houses(PolynomialFeatures(2)), Lasso(0.1, max_iter=5000))
    yield case("the same, elastic net", houses(), ElasticNet(0.1))
    yield case("the same, random forest", houses(), RandomForestRegressor(25, random_state=0))
    yield case("the same, gradient boosting", houses(), GradientBoostingRegressor(n_estimators=40, random_state=0))
    yield case("the same, histogram boosting", houses(), HistGradientBoostingRegressor(max_iter=30))
    yield case("the same, SVR", houses(), SVR(C=50))
    yield case("the same, neighbours", houses(), KNeighborsRegressor(5, weights="distance"))
    yield case("the same, Huber", houses(), HuberRegressor(max_iter=500))
    yield case("the same, best ten columns", houses(), SelectKBest(f_regression, k=10), Ridge())
    yield case("the same, a tree", houses(), DecisionTreeRegressor(max_depth=6, random_state=0))
    yield case(
        "histogram boosting with the frame's categories",
        make_column_transformer(
            (OrdinalEncoder(), ["place", "quality", "garage"]), remainder="passthrough", verbose_feature_names_out=False
        ).set_output(transform="pandas"),
        HistGradientBoostingRegressor(categorical_features=["place", "quality", "garage"], max_iter=20),
    )


def _counts() -> Iterator[Case]:
    def bikes(name: str, *steps: Any) -> Case:
        return Case(f"bikes: {name}", tables.bikes, make_pipeline(*steps))

    def claims(name: str, *steps: Any) -> Case:
        return Case(f"claims: {name}", tables.claims, make_pipeline(*steps))

    def periodic(name: str, period: float) -> tuple[Any, list[str]]:
        angle = 2 * np.pi / period
        return make_union(FunctionTransformer(_sine(angle)), FunctionTransformer(_cosine(angle))), [name]

    hours = make_column_transformer(
        periodic("hour", 24),
        periodic("month", 12),
        (OneHotEncoder(handle_unknown="ignore"), ["weather"]),
        (MinMaxScaler(), ["temp", "humidity"]),
        remainder="passthrough",
    )
    splines = make_column_transformer(
        (SplineTransformer(n_knots=7, extrapolation="periodic", knots=np.linspace(0, 24, 7).reshape(-1, 1)), ["hour"]),
        (SplineTransformer(degree=2, n_knots=4, extrapolation="linear"), ["temp", "humidity"]),
        (OneHotEncoder(), ["weather", "weekday"]),
    )
    yield bikes("hours as sine and cosine, ridge", hours, Ridge())
    yield bikes("hours as sine and cosine, Poisson", hours, PoissonRegressor(max_iter=300))
    yield bikes("periodic splines, Poisson", splines, PoissonRegressor(alpha=0.01, max_iter=300))
    yield bikes("one-hot hours, ridge", make_column_transformer((OneHotEncoder(), ["hour", "weekday"])), Ridge())
    weather = make_column_transformer((OrdinalEncoder(), ["weather"]), remainder="passthrough")
    poisson = HistGradientBoostingRegressor(loss="poisson", categorical_features=[0], max_iter=25)
    yield bikes("histogram boosting of Poisson loss", weather, poisson)
    yield bikes("forest of Poisson criterion", weather, RandomForestRegressor(15, criterion="poisson", random_state=0))
    insured = make_column_transformer(
        (KBinsDiscretizer(6, quantile_method="averaged_inverted_cdf"), ["age", "driver"]),
        (OneHotEncoder(), ["brand", "region"]),
        ("passthrough", ["bonus"]),
        (make_pipeline(FunctionTransformer(np.log), StandardScaler()), ["density"]),
    )
    yield claims("bins, one-hot, log and scale, gamma", insured, GammaRegressor(alpha=1, max_iter=500))
    yield claims("the same, Tweedie", insured, TweedieRegressor(power=1.9, alpha=0.5, link="log", max_iter=500))
    codes = make_column_transformer((OrdinalEncoder(), ["brand", "region"]), remainder="passthrough")
    yield claims("histogram boosting of gamma loss", codes, HistGradientBoostingRegressor(loss="gamma", max_iter=20))
    quantile = HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=20)
    yield claims("histogram boosting of a quantile", codes, quantile)
    upper = GradientBoostingRegressor(loss="quantile", alpha=0.9, n_estimators=25, random_state=0)
    yield claims("gradient boosting of a quantile", codes, upper)


def _sine(angle: float) -> Any:
    return lambda X: np.sin(X * angle)


def _cosine(angle: float) -> Any:
    return lambda X: np.cos(X * angle)


def _sensors() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"sensors: {name}", tables.sensors, make_pipeline(*steps))

    yield case("float32 with gaps, trees that know NaN", RandomForestClassifier(20, random_state=0))
    yield case("float32 with gaps, one tree that knows NaN", DecisionTreeClassifier(max_depth=6, random_state=0))
    yield case("float32 with gaps, histogram boosting", HistGradientBoostingClassifier(max_iter=15))
    yield case("imputed, logistic regression", SimpleImputer(), StandardScaler(), LogisticRegression())
    yield case("imputed, forest", SimpleImputer(strategy="median"), RandomForestClassifier(20, random_state=0))
    yield case("robustly scaled, imputed by neighbours, SVC", RobustScaler(), KNNImputer(), SVC(C=2))
    yield case("scaled with gaps, extra trees", StandardScaler(), ExtraTreesClassifier(20, random_state=0))
    kept = make_column_selector("^s[0-3]")
    yield case("some columns by pattern", make_column_transformer((SimpleImputer(), kept)), KNeighborsClassifier(3))
