"""Small trained models and their data, as a user would have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import skops.io
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def table(rows: int = 200) -> pd.DataFrame:
    """Two numbers and a text, some missing, a class `grade` and a number `price`."""
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "width": random.normal(10, 2, rows),
            "height": random.gamma(3, 2, rows),
            "material": random.choice(["steel", "brass", "zinc"], rows),
        }
    )
    frame["price"] = 3 * frame["width"] + frame["height"] + random.normal(0, 0.5, rows)
    frame["grade"] = np.where(frame["width"] * frame["height"] > 60, "A", "B")
    frame.loc[::9, "height"] = np.nan
    frame.loc[::11, "material"] = None
    return frame


def pipeline(last: BaseEstimator) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return make_pipeline(make_column_transformer((numbers, ["width", "height"]), (texts, ["material"])), last)


@dataclass(frozen=True)
class Project:
    """A user's directory: a model in a file, its data in a file."""

    directory: Path
    model: Path
    data: Path


def project(directory: Path, *, regression: bool = False) -> Project:
    """Trains, and saves with skops and to CSV."""
    frame, features = table(), ["width", "height", "material"]
    model = pipeline(Ridge() if regression else LogisticRegression())
    frame.to_csv(directory / "data.csv", index=False)
    # Fitted on what is in the file: CSV rounds nothing, but a missing text is read back as NaN.
    frame = pd.read_csv(directory / "data.csv")
    model.fit(frame[features], frame["price" if regression else "grade"])
    skops.io.dump(model, directory / "model.skops")
    return Project(directory, directory / "model.skops", directory / "data.csv")
