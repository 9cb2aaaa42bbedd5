# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

"""Pipelines over tables of categories: pandas' own types, many values, encoders that learn from the target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge, LinearRegression, LogisticRegression, QuantileRegressor, Ridge
from sklearn.naive_bayes import CategoricalNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case
from benchmarks.pipelines.frames import texts

NUMBERS = ["income", "debt", "lines", "months"]


def cases() -> Iterator[Case]:
    """The pipelines."""
    yield from _credit()
    yield from _shops()
    yield from _many()


def _credit() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"credit: {name}", tables.credit, make_pipeline(*steps))

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = make_column_transformer((numbers, NUMBERS), (texts(), ["grade", "home"]))
    yield case("category and nullable integers, logistic regression", columns, LogisticRegression())
    yield case("category and nullable integers, forest", columns, RandomForestClassifier(25, random_state=0))
    yield case("category and nullable integers, boosting", columns, GradientBoostingClassifier(n_estimators=20))
    yield case(
        "nullable truth values filled",
        make_column_transformer(
            (SimpleImputer(strategy="most_frequent"), ["employed"]), (SimpleImputer(), ["lines", "debt"])
        ),
        LogisticRegression(max_iter=500),
    )
    yield case(
        "grades in their order",
        make_column_transformer((OrdinalEncoder(categories=[list("ABCDE")]), ["grade"]), ("passthrough", ["debt"])),
        LogisticRegression(max_iter=500),
    )
    yield case(
        "category columns by selector",
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
            (StandardScaler(), ["income", "debt"]),
        ),
        RandomForestClassifier(20, random_state=0),
    )
    yield Case(
        "credit: histogram boosting straight from the categories",
        lambda: _without(tables.credit(), ["employed", "lines"]),
        HistGradientBoostingClassifier(max_iter=20),
    )
    yield Case(
        "credit: histogram boosting of named categories, early stopping",
        lambda: _without(tables.credit(), ["employed", "lines"]),
        HistGradientBoostingClassifier(
            categorical_features=["grade", "home"], early_stopping=True, max_iter=20, random_state=0
        ),
    )
    yield case(
        "target codes of categories",
        make_column_transformer((TargetEncoder(random_state=0), ["grade", "home"]), (numbers, NUMBERS)),
        LogisticRegression(),
    )
    yield case(
        "iterative imputer of the numbers",
        make_column_transformer((IterativeImputer(max_iter=3, random_state=0), NUMBERS), (texts(), ["grade"])),
        LogisticRegression(max_iter=1000),
    )
    yield case(
        "float32 income alone, by a power",
        make_column_transformer((PowerTransformer(), ["income"]), (MaxAbsScaler(), ["debt", "months"])),
        LogisticRegression(),
    )
    yield case(
        "selected by a forest",
        columns,
        SelectFromModel(RandomForestClassifier(15, random_state=0), threshold="median"),
        LogisticRegression(),
    )


def _without(data: tables.Data, names: list[str]) -> tables.Data:
    frame, target = data
    return frame.drop(columns=names), target


def _shops() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"shops: {name}", tables.shops, make_pipeline(*steps))

    codes = make_column_transformer(
        (TargetEncoder(random_state=0, target_type="continuous"), ["postcode", "article"]), remainder="passthrough"
    )
    yield case("target codes of postcodes, ridge", codes, Ridge())
    yield case("target codes, histogram boosting", codes, HistGradientBoostingRegressor(max_iter=25))
    yield case("target codes, forest", codes, RandomForestRegressor(20, random_state=0))
    yield case("target codes scaled, neighbours", codes, StandardScaler(), KNeighborsRegressor(9))
    yield case(
        "smoothed target codes",
        make_column_transformer((TargetEncoder(smooth=20.0, cv=3, random_state=1), ["article"])),
        LinearRegression(),
    )
    yield case(
        "postcodes as rare groups",
        make_column_transformer(
            (OneHotEncoder(min_frequency=6, handle_unknown="infrequent_if_exist"), ["postcode", "article"]),
            ("passthrough", ["price", "promotion"]),
            sparse_threshold=0,
        ),
        BayesianRidge(),
    )
    yield case(
        "postcodes as text",
        make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["article", "postcode"]),
            remainder="passthrough",
        ),
        ExtraTreesRegressor(20, random_state=0),
    )
    yield case("median by linear programming", codes, StandardScaler(), QuantileRegressor(alpha=0.01))


def _many() -> Iterator[Case]:
    yield Case(
        "adult: categorical naive Bayes of ordinal codes",
        tables.adult,
        make_pipeline(
            make_column_transformer((OrdinalEncoder(), ["married", "education_num"])), CategoricalNB(min_categories=20)
        ),
    )
    yield Case(
        "adult: target codes of three text columns, forest",
        tables.adult,
        make_pipeline(
            make_column_transformer(
                (TargetEncoder(random_state=0), ["workclass", "occupation", "country"]), remainder="passthrough"
            ),
            RandomForestClassifier(20, random_state=0),
        ),
    )
    yield Case(
        "tickets: target codes of several classes",
        tables.tickets,
        make_pipeline(
            make_column_transformer((TargetEncoder(random_state=0), ["channel"]), (StandardScaler(), ["length"])),
            LogisticRegression(),
        ),
    )
    yield Case(
        "housing: one-hot with NaN as a category of its own",
        tables.housing,
        make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["garage", "place"]), ("passthrough", ["area", "rooms"])
            ),
            LinearRegression(),
        ),
    )
    yield Case(
        "housing: each column its own transformer",
        tables.housing,
        make_pipeline(
            ColumnTransformer(
                [
                    ("area", FunctionTransformer(np.log1p), ["area"]),
                    ("year", FunctionTransformer(lambda X: 2011 - X), ["year"]),
                    ("rooms", StandardScaler(), ["rooms"]),
                    ("frontage", SimpleImputer(strategy="constant", fill_value=0, add_indicator=True), ["frontage"]),
                    (
                        "place",
                        OneHotEncoder(categories=[["center", "hills", "river"]], handle_unknown="ignore"),
                        ["place"],
                    ),
                    ("pool", "passthrough", ["pool"]),
                ]
            ),
            Ridge(),
        ),
    )
    yield Case(
        "titanic: one tree of ordinal codes, missing codes stay NaN",
        tables.titanic,
        make_pipeline(
            make_column_transformer((OrdinalEncoder(), ["deck", "sex"]), ("passthrough", ["age"])),
            DecisionTreeClassifier(max_depth=4, criterion="entropy", random_state=0),
        ),
    )
    yield Case(
        "adult: a dictionary of replacements by ordinal codes, then one-hot of the codes",
        tables.adult,
        make_pipeline(
            make_column_transformer(
                (
                    make_pipeline(
                        SimpleImputer(missing_values=None, strategy="most_frequent"),
                        OrdinalEncoder(min_frequency=10, handle_unknown="use_encoded_value", unknown_value=-1),
                        OneHotEncoder(handle_unknown="ignore"),
                    ),
                    ["country", "workclass"],
                )
            ),
            LogisticRegression(),
        ),
    )
