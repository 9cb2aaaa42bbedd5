"""Real bundled data with what real data has: texts, whole numbers, truth values, missing values."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edgekit_contracts.manifest import LABELLED
from edgekit_converters.data import frame_for
from edgekit_converters.registry import Conversion
from edgekit_converters.schema import tensors_of
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for

NUMBERS = ["radius", "texture", "area"]
TEXTS = ["size", "lab"]
TARGET = target_for("1.24.1")
CONVERTER = SklearnConverter()


@cache
def cancer() -> pd.DataFrame:
    """240 rows of the breast cancer data; `size` is an honest text, `lab` a random one."""
    data: pd.DataFrame = load_breast_cancer(as_frame=True).frame.iloc[:240]
    random = np.random.default_rng(0)
    frame: pd.DataFrame = data[["mean radius", "mean texture", "mean area"]].set_axis(NUMBERS, axis=1)
    limits = [0, 400, 700, 10_000]
    frame["size"] = pd.cut(frame["area"], limits, labels=["small", "middle", "large"]).astype(str)
    frame["lab"] = random.choice(["a", "b", "ü"], len(frame))
    frame["visits"] = random.integers(0, 9, len(frame))
    frame["smoker"] = random.random(len(frame)) > 0.5
    frame["benign"] = data["target"]
    frame["symmetry"] = data["mean symmetry"] * 100
    for name in ("radius", "texture", "size"):
        frame.loc[random.random(len(frame)) < 0.1, name] = np.nan
    return frame


def features() -> pd.DataFrame:
    return cancer().drop(columns=["benign", "symmetry"])


def target(kind: str = "int") -> NDArray[Any]:
    benign = cancer()["benign"].to_numpy()
    if kind == "text":
        return np.where(benign == 1, "benign", "malign").astype(object)
    if kind == "three":
        return pd.qcut(cancer()["symmetry"], 3, labels=["low", "mid", "high"]).astype(object).to_numpy()
    if kind == "value":
        return cancer()["symmetry"].to_numpy()
    return benign.astype({"int": int, "bool": bool, "float": float}[kind])


def textbook(last: Any, numbers: Sequence[str] = NUMBERS, texts: Sequence[str] = TEXTS) -> Any:
    """Impute and scale numbers, impute and encode texts, then the last step; not fitted."""
    return make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), list(numbers)),
                (
                    "texts",
                    make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                    list(texts),
                ),
            ]
        ),
        last,
    )


def converted(model: Any, X: Any) -> Conversion:
    return CONVERTER.convert(model, X, TARGET)


def run(conversion: Conversion, model: Any, X: Any) -> dict[str, NDArray[Any]]:
    """The converted model's answers, through onnxruntime alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(conversion.onnx, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in conversion.outputs]
    found: list[Any] = list(session.run(names, tensors_of(frame_for(model, X), conversion.inputs)))
    return dict(zip(names, found, strict=True))


def assert_same(model: Any, X: Any, *, rows: Any = None, exact: bool | None = None) -> Conversion:
    """Converts with `X`, and compares the answers to `rows` (by default `X`) with scikit-learn's."""
    conversion = converted(model, X)
    rows = X if rows is None else rows
    theirs, ours = CONVERTER.answers(model, rows), run(conversion, model, rows)
    if exact is not None:
        assert (conversion.precision == "float64") == exact
    tolerance = 1e-9 if conversion.precision == "float64" else 2e-6
    assert ("value" in ours) == (theirs.values is not None)
    if theirs.values is not None:
        np.testing.assert_allclose(ours["value"], theirs.values, rtol=tolerance, atol=tolerance)
    if theirs.labels is None:
        assert conversion.task in {"regression", "transformation"}
        return conversion
    assert conversion.task in LABELLED
    labels = ours["label"].astype(bool) if conversion.outputs[0].dtype == "bool" else ours["label"]
    assert labels.tolist() == theirs.labels.tolist()
    if theirs.probabilities is None:
        assert "probabilities" not in ours
    else:
        np.testing.assert_allclose(ours["probabilities"], theirs.probabilities, atol=tolerance)
    return conversion


def short(model: Any) -> str:
    """A test's name for a model or for its settings: the same in every process."""
    return re.sub("at0x[0-9a-f]+", "", "".join(str(model).split()))[:70]
