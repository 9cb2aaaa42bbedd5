"""Boosted trees of other packages, alone and as the last step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OrdinalEncoder, PowerTransformer, StandardScaler

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case
from benchmarks.pipelines.frames import houses, titanic


def cases() -> Iterator[Case]:
    """The pipelines of the packages that are installed."""
    if find_spec("xgboost") is not None:
        yield from _xgboost()
    if find_spec("lightgbm") is not None:
        yield from _lightgbm()
    if find_spec("catboost") is not None:
        yield from _catboost()


def _xgboost() -> Iterator[Case]:
    from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier

    def few(kind: Any = XGBClassifier, **settings: Any) -> Any:
        return kind(**{"n_estimators": 20, "max_depth": 4, "n_jobs": 1, **settings})

    yield Case("xgboost: table of passengers", tables.titanic, make_pipeline(titanic(), few()))
    yield Case("xgboost: two classes", tables.cancer, few())
    yield Case("xgboost: three classes", tables.wine, few())
    yield Case("xgboost: missing values", tables.gaps, few())
    yield Case("xgboost: after a scaler", tables.cancer, make_pipeline(StandardScaler(), few()))
    yield Case("xgboost: after a power", tables.wine, make_pipeline(PowerTransformer(), few()))
    yield Case("xgboost: dropped trees (dart)", tables.cancer, few(booster="dart", rate_drop=0.2))
    yield Case("xgboost: linear booster", tables.cancer, make_pipeline(StandardScaler(), few(booster="gblinear")))
    yield Case("xgboost: random forest", tables.cancer, few(XGBRFClassifier))
    yield Case("xgboost: house prices", tables.housing, make_pipeline(houses(), few(XGBRegressor)))
    yield Case(
        "xgboost: Poisson",
        tables.bikes,
        make_pipeline(_codes(["weather"]), few(XGBRegressor, objective="count:poisson")),
    )
    yield Case("xgboost: three targets", tables.linnerud, few(XGBRegressor, multi_strategy="multi_output_tree"))
    yield Case("xgboost: calibrated", tables.cancer, CalibratedClassifierCV(few(), cv=2))
    yield Case("xgboost: search", tables.cancer, GridSearchCV(few(), {"max_depth": [2, 3]}, cv=2))
    yield Case(
        "xgboost: stacked with a line",
        tables.cancer,
        StackingClassifier([("trees", few()), ("line", make_pipeline(StandardScaler(), LogisticRegression()))], cv=2),
    )


def _codes(names: list[str]) -> Any:
    return make_column_transformer((OrdinalEncoder(), names), remainder="passthrough")


def _lightgbm() -> Iterator[Case]:
    from lightgbm import LGBMClassifier, LGBMRegressor

    def few(kind: Any = LGBMClassifier, **settings: Any) -> Any:
        return kind(**{"n_estimators": 20, "num_leaves": 15, "n_jobs": 1, "verbose": -1, **settings})

    yield Case("lightgbm: table of passengers", tables.titanic, make_pipeline(titanic(), few()))
    yield Case("lightgbm: two classes", tables.cancer, few())
    yield Case("lightgbm: three classes", tables.wine, few())
    yield Case("lightgbm: missing values", tables.gaps, few())
    yield Case("lightgbm: categories of the frame", _plain_credit, few())
    yield Case("lightgbm: after a scaler", tables.cancer, make_pipeline(MinMaxScaler(), few()))
    yield Case("lightgbm: random forest mode", tables.cancer, few(boosting_type="rf", subsample=0.7, subsample_freq=1))
    yield Case("lightgbm: dart", tables.cancer, few(boosting_type="dart"))
    yield Case("lightgbm: linear leaves", tables.diabetes, few(LGBMRegressor, linear_tree=True))
    yield Case(
        "lightgbm: Poisson", tables.bikes, make_pipeline(_codes(["weather"]), few(LGBMRegressor, objective="poisson"))
    )
    yield Case("lightgbm: house prices", tables.housing, make_pipeline(houses(), few(LGBMRegressor)))
    yield Case("lightgbm: calibrated", tables.cancer, CalibratedClassifierCV(few(), cv=2))
    yield Case(
        "lightgbm: soft vote with a line",
        tables.cancer,
        VotingClassifier(
            [("trees", few()), ("line", make_pipeline(StandardScaler(), LogisticRegression()))], voting="soft"
        ),
    )


def _plain_credit() -> tables.Data:
    frame, target = tables.credit()
    return frame.drop(columns=["employed", "lines"]), target.astype(int)


def _catboost() -> Iterator[Case]:
    from catboost import CatBoostClassifier, CatBoostRegressor

    def few(kind: Any = CatBoostClassifier, **settings: Any) -> Any:
        fixed = {"iterations": 20, "depth": 4, "verbose": False, "allow_writing_files": False, "thread_count": 1}
        return kind(**{**fixed, **settings})

    yield Case("catboost: two classes", tables.cancer, few())
    yield Case("catboost: three classes", tables.wine, few())
    yield Case("catboost: missing values", tables.gaps, few())
    yield Case("catboost: house prices", tables.housing, make_pipeline(houses(), few(CatBoostRegressor)))
    yield Case("catboost: table of passengers", tables.titanic, make_pipeline(titanic(), few()))
    yield Case("catboost: texts as categories", _churn, few(cat_features=["contract", "payment"]))
    yield Case(
        "catboost: logarithm of the costs",
        tables.claims,
        TransformedTargetRegressor(
            make_pipeline(
                make_column_transformer(
                    (FunctionTransformer(np.log1p), ["density"]), ("passthrough", ["bonus", "age"])
                ),
                few(CatBoostRegressor),
            ),
            func=np.log,
            inverse_func=np.exp,
        ),
    )


def _churn() -> tables.Data:
    frame, target = tables.churn()
    return frame[["tenure", "monthly", "contract", "payment"]], target
