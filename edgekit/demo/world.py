"""The demo's world: patients of scikit-learn's diabetes data, and devices that predict who will progress fast.

The bundled measurements are real; sex is spelled out, a weight class (WHO) is added as text, and some values are
removed, so that the model needs what real tables need: scaling, imputing, one-hot encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

TARGET: Final = "progression"
TEXT: Final = ["sex", "weight_class"]
NUMBERS: Final = ["age", "bmi", "blood_pressure", "cholesterol", "ldl", "hdl", "tch", "ltg", "glucose"]


def patients() -> pd.DataFrame:
    """442 patients: nine numbers, two texts, some of them missing, and the target, `fast` or `slow`."""
    data: Any = load_diabetes(as_frame=True, scaled=False)
    frame = data.data.set_axis(["age", "sex", *NUMBERS[1:]], axis=1)
    frame["sex"] = np.where(frame["sex"] == 1, "female", "male")
    frame["weight_class"] = pd.cut(
        frame["bmi"], [0, 18.5, 25, 30, np.inf], labels=["underweight", "normal", "overweight", "obese"], right=False
    ).astype("str")
    random = np.random.default_rng(20)
    for name, share in (("blood_pressure", 0.06), ("glucose", 0.05), ("weight_class", 0.04)):
        frame.loc[random.random(len(frame)) < share, name] = None
    frame[TARGET] = np.where(data.target > data.target.median(), "fast", "slow")
    shuffled: pd.DataFrame = frame.sample(frac=1, random_state=7, ignore_index=True)
    return shuffled


def train(frame: pd.DataFrame) -> Pipeline:
    """The usual pipeline of a mixed table."""
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        (
            make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
            TEXT,
        ),
    )
    return make_pipeline(prepare, GradientBoostingClassifier(n_estimators=60, random_state=0)).fit(
        frame[NUMBERS + TEXT], frame[TARGET]
    )


def readings(frame: pd.DataFrame, count: int, seed: int, *, drifted: bool = False) -> Iterator[dict[str, Any]]:
    """What the sensors at one site say, patient by patient.

    Drifted: a new scale reports pounds as if they were kilograms at every second visit; the glucose meter drops out.
    """
    random = np.random.default_rng(seed)
    for row in random.integers(0, len(frame), count):
        values: dict[str, Any] = {name: frame[name].iloc[int(row)] for name in NUMBERS + TEXT}
        if drifted and random.random() < 0.5:
            values["bmi"] *= 2.2
        if drifted and random.random() < 0.3:
            values["glucose"] = None
        yield {name: None if pd.isna(value) else value for name, value in values.items()}
