"""FunctionTransformer: what numpy does with the rows becomes nodes, and what it cannot do is refused by its name."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same, features, target
from tests.converters.transforms import assert_transforms, numbers, transformed

OPTIONS: dict[str, float] = {}
CALLS = 0
WEIGHTS = np.array([[0.5, -1.0], [0.25, 3.0], [0.0, 1e-3]])


def _logarithm_in_place(X: Any) -> Any:
    X = X.copy()
    X[:, 1] = np.log1p(X[:, 1])
    X[:, [2, 0]] = X[:, [0, 2]] * 2
    X[X > 50] = 50
    X[:, 2] = 7.0
    X[:, 1] += 1
    part = X[:, 0]
    part *= 2
    X -= 0.5
    chosen = X[:, [1]]
    chosen[:, 0] = 0.0
    return X + chosen


def _columns_of_a_frame(frame: Any) -> Any:
    frame = frame.copy()
    frame["ratio"] = frame["area"] / (frame.radius + 1)
    frame["large"] = (frame["area"] > 400).astype(int)
    frame.loc[frame["texture"].isna(), "texture"] = -1.0
    frame.loc[:, "radius"] = frame["radius"].clip(lower=12)
    frame["gaps"] = frame.isna().sum(axis=1)
    del frame["large"]
    frame["ratio"] *= 2
    frame["whole"] = frame.pop("ratio").astype(int)
    frame.columns = [name.upper() for name in frame.columns]
    frame["twice"] = frame["AREA"] * 2
    frame = frame.rename(columns=str.lower)
    return frame.drop(columns=["area"])


def _assigned(frame: Any) -> Any:
    if isinstance(frame, pd.DataFrame):
        frame = frame.assign(both=lambda one: one.radius * one.area, most=frame[["radius", "texture"]].max(axis=1))
    return pd.concat([frame.rename(columns={"both": "product"})[["product", "most"]], frame.isna()], axis=1)


def _made_anew(frame: Any) -> Any:
    found = pd.DataFrame({"day": frame["area"] % 7, "kind": frame["radius"].between(13, 15), "one": 1.0})
    return found.apply(lambda column: column.fillna(0) * 2).mul(frame["radius"], axis=0)


def _of_the_same_rows(frame: Any) -> Any:
    found = pd.DataFrame(index=frame.index)
    for name in frame.columns:
        found[f"{name} twice"] = frame[name] * 2
    return pd.concat([found, pd.DataFrame({"one": frame["area"]}, index=frame.index)], axis=1)


def _writing(X: Any) -> Any:
    X[:, 0] = 0.0
    return X


def _adding(X: Any) -> Any:
    X += 1
    return X


def _reading_again(X: Any) -> Any:
    X = X.copy()
    first = X[:, 0]
    X[:, 0] = 0.0
    return X + first[:, None]


OF_MATRICES: list[Callable[[Any], Any]] = [
    np.log1p,
    np.sqrt,
    lambda X: np.exp2(X / 50),
    np.square,
    np.sign,
    np.rint,
    np.trunc,
    np.tanh,
    np.isnan,
    np.nan_to_num,
    special.expit,
    lambda X: np.log(X + 1e-3),
    lambda X: np.log10(np.abs(X) + 1),
    lambda X: np.log2(X * X),
    lambda X: np.expm1(-np.abs(X) / 7),
    lambda X: X**3 - 2 * X**-1 + 1 / X,
    lambda X: (X > 14.0) & ~(X <= 20.0) | (X == 13.25),
    lambda X: (X > 14.0) + (X > 20.0),
    lambda X: (X > 14.0) * 1.0 + (X > 20.0) * 1.0,
    lambda X: np.where(X > 20, X, -1.0),
    lambda X: np.where(np.isnan(X), 0, X * [1.0, 2.0, 3.0]),
    lambda X: np.clip(X, 12, 500),
    lambda X: np.maximum(X, 15.0) - np.minimum(X, X[:, [0]]),
    lambda X: np.fmax(X, X[:, [1]]),
    lambda X: X[:, [2, 0]],
    lambda X: X[:, 1:] / X[:, :1],
    lambda X: X[:, ::-1],
    lambda X: X[:, -1:] - X.mean(axis=1, keepdims=True),
    lambda X: np.hstack([X, np.log1p(X[:, [0]])]),
    lambda X: np.concatenate([X, X**2], axis=1),
    lambda X: np.column_stack([X[:, 0] / X[:, 1], X[:, 2], X]),
    lambda X: np.stack([X[:, 0], X[:, 1]], axis=1),
    lambda X: np.sum(X, axis=1, keepdims=True),
    lambda X: (X[:, 0] * X[:, 1]).reshape(-1, 1),
    lambda X: X.max(axis=1).reshape(-1, 1) if hasattr(np, "never") else np.max(X, axis=1, keepdims=True),
    lambda X: np.round(X / 3, 1),
    lambda X: np.floor(X / 10) + np.ceil(X / 10),
    lambda X: X @ WEIGHTS,
    lambda X: np.ones_like(X) * X.shape[1],
    lambda X: np.cos(X) + np.sin(X),
    lambda X: np.logical_xor(X > 14, X < 20),
    lambda X: X.astype(float).copy(),
    lambda X: (X - 15) % 7,
    lambda X: (X - 15) % [-3.5, 0.1, 2.0],
    lambda X: (X - 15) // 0.1,
    lambda X: X // -X[:, [1]],
    lambda X: np.fmod(X - 15, 4.0),
    lambda X: np.cbrt(X - 15),
    lambda X: np.sin(np.deg2rad(X)) + np.degrees(X),
    lambda X: X / np.linalg.norm(X, axis=1, keepdims=True),
    lambda X: np.hstack([np.diff(X, axis=1), X.cumsum(axis=1)]),
    lambda X: np.hstack([np.digitize(X, [12, 14, 20]), np.digitize(X, [12, 13.25], right=True)]),
    lambda X: np.isin(np.round(X), [13, 14]) + np.isin(np.round(X), [15], invert=True),
    lambda X: np.select([X < 12, X < 20], [X, -1.0], 5.0),
    lambda X: np.c_[X, X**2, X[:, 0] * X[:, 1]],
    lambda X: np.column_stack([X.std(axis=1, ddof=1), X.var(axis=1), (X > 14).any(axis=1), (X > 14).all(axis=1)]),
    lambda X: np.expand_dims(X[:, 1], 1) + np.full_like(X, 2.5),
    _logarithm_in_place,
]
OF_FRAMES: list[Callable[[Any], Any]] = [
    np.log1p,
    lambda frame: frame[["radius", "area"]] * 2,
    lambda frame: np.column_stack([frame["radius"] / frame["area"], frame["texture"]]),
    lambda frame: frame.fillna(3.0).clip(lower=13, upper=400),
    lambda frame: frame.to_numpy()[:, [0]] + frame.values[:, [1]],
    lambda frame: np.column_stack([frame.sum(axis=1), frame.mean(axis=1)]),
    lambda frame: np.where(frame > 14, frame, 0.0)[:, 1:],
    lambda frame: frame.abs().round(1),
    _columns_of_a_frame,
    _assigned,
    _made_anew,
    _of_the_same_rows,
    lambda frame: frame["radius"].where(frame["area"] > 400, 0).to_frame("radius"),
]


@pytest.mark.parametrize("function", OF_MATRICES, ids=range(len(OF_MATRICES)))
def test_what_numpy_does_with_a_matrix_is_traced(function: Callable[[Any], Any]) -> None:
    X = numbers()
    step = FunctionTransformer(function).fit(X.to_numpy())
    values = pd.concat([X, X * 1e-9, X.round() * 10], ignore_index=True)
    theirs = np.asarray(function(values.to_numpy()), dtype=np.float64)
    ours, walk = transformed(step, X, values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    assert not walk.delegated


@pytest.mark.parametrize("function", OF_FRAMES, ids=range(len(OF_FRAMES)))
def test_what_is_done_with_a_frame_is_traced(function: Callable[[Any], Any]) -> None:
    X = numbers()
    X.loc[::5, "texture"] = np.nan
    assert_transforms(FunctionTransformer(function).fit(X), X, atol=1e-13)


def test_whole_powers_have_whole_logarithms() -> None:
    X = pd.DataFrame({"x": [1000.0, 1e15, 1e-5, 8.0, 2.0**-30, 0.0, np.inf, 1.0]})
    for function in (lambda x: np.floor(np.log10(x)), lambda x: np.floor(np.log2(x))):
        with np.errstate(divide="ignore"):
            assert_transforms(FunctionTransformer(function).fit(X), X, rtol=0)


def test_options_and_validation_are_read() -> None:
    X = numbers()
    step = FunctionTransformer(lambda X, *, low: X[:, [0]] - low, validate=True, kw_args={"low": 2.5}).fit(X)
    assert_transforms(step, X, rtol=0)


def test_a_pipeline_over_functions_answers_in_float64() -> None:
    ratio = FunctionTransformer(lambda frame: np.column_stack([frame["area"] / frame["visits"].clip(1), frame["area"]]))
    steps = ColumnTransformer(
        [("log", FunctionTransformer(np.log1p), ["area", "visits"]), ("ratio", ratio, ["area", "visits"])]
    )
    assert_same(
        make_pipeline(steps, StandardScaler(), Ridge()).fit(features(), target("value")), features(), exact=True
    )
    union = make_union(StandardScaler(), FunctionTransformer(lambda X: X[:, [0]] * X[:, [1]]))
    model = make_pipeline(StandardScaler(), union, LogisticRegression())
    assert_same(model.fit(numbers(), target("three")), numbers(), exact=True)


def _guarded(X: Any) -> Any:
    try:
        return np.sort(X, axis=1)
    except Exception:
        return X


def _counting(X: Any) -> Any:
    global CALLS
    CALLS += 1
    return X * CALLS


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (lambda X: np.sort(X, axis=1), r"numpy\.sort has no ONNX mapping"),
    (_guarded, r"numpy\.sort has no ONNX mapping"),
    (np.arctan, r"numpy\.arctan has no ONNX mapping"),
    (lambda X: np.cumsum(X, axis=0), "adds up several rows"),
    (lambda X: np.digitize(X, [3.0, 2.0]), "do not ascend"),
    (_writing, "writes into its argument"),
    (_reading_again, "a part that it took before"),
    (lambda X: X - X.mean(axis=0), "adds up several rows"),
    (lambda X: np.add.reduce(X), "with axis|with reduce"),
    (lambda X: X + np.random.default_rng().normal(), "the same thing twice"),
    (lambda X: X if X[:, 0].sum() > 3 else -X, "several rows"),
    (lambda X: X if (X > 0) else -X, "decides by the values"),
    (lambda X: np.array([row * 2 for row in X]), "row by row"),
    (lambda X: X[X[:, 0] > 3], "chooses rows"),
    (lambda X: X[:, 0], "one number a row"),
    (lambda X: np.zeros((len(X), 2)), "counts the rows"),
    (lambda X: np.zeros((X.shape[0], 2)), "number of rows"),
    (lambda X: 5.0, "does not come from its argument"),
    (lambda X: X.T, r"uses '\.T'"),
    (lambda X: X.astype(np.int8), "converts to int8"),
    (_adding, "writes into its argument"),
    (lambda X: X.__array__() * 2, "asks for the values"),
    (_counting, "writes into its module"),
    (lambda X: X + np.arange(240.0)[:, None], "as many constants"),
    (lambda X: X.no_such_thing(), "no_such_thing"),
    (lambda X: OPTIONS["key"], "KeyError"),
]


@pytest.mark.parametrize(("function", "why"), REFUSED, ids=[why[:30] for _, why in REFUSED])
def test_what_has_no_mapping_is_refused_by_its_name(function: Callable[[Any], Any], why: str) -> None:
    X = numbers()
    with pytest.raises(ConversionRefused, match=why):
        transformed(FunctionTransformer(function), X, X)


def test_frames_that_pandas_aligns_by_name_are_refused() -> None:
    X = numbers()
    step = FunctionTransformer(lambda frame: frame[["radius"]] / frame[["area"]]).fit(X)
    with pytest.raises(ConversionRefused, match="aligns by their names"):
        transformed(step, X, X)


def test_a_function_may_make_an_array_of_its_argument() -> None:
    X = numbers()
    for function in (
        lambda frame: np.asarray(frame)[:, :1] * 2,
        lambda frame: np.array(frame, dtype=float).sum(axis=1, keepdims=True) + np.asarray([1.0]),
    ):
        assert_transforms(FunctionTransformer(function).fit(X), X)
