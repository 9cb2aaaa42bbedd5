"""skl2onnx alone, at its best and as its first example calls it; the peer of `coverage`.

At its best: each column typed by hand (numbers as float32, or whole numbers as int64), ai.onnx.ml 3, no ZipMap,
missing texts as "" or as "nan", onnxmltools' converters registered. Of all these tries the best outcome counts.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
import pandas as pd
from sklearn.base import is_classifier

Outcome = Literal["right", "wrong", "refused"]

ABSOLUTE: Final = 1e-4
RELATIVE: Final = 1e-3
LONGEST_S: Final = 60
"""A conversion that takes longer counts as refused: some never end."""


def best(model: Any, X: Any, *, widened: bool = False) -> Outcome:
    """The best of skl2onnx's documented ways, on the data rounded to float32; `widened` as `compared`."""
    from skl2onnx import convert_sklearn

    rows = rounded(X)
    outcomes: list[Outcome] = []
    for whole in ("float32", "int64"):
        for options in ({id(model): {"zipmap": False}} if is_classifier(model) else None, None):
            try:
                with limited():
                    onx: Any = convert_sklearn(
                        model,
                        initial_types=types(rows, whole),
                        options=options,
                        target_opset={"": 18, "ai.onnx.ml": 3},
                    )
            except Exception:  # whatever a converter raises
                continue
            for missing in ("", "nan"):
                outcomes.append(compared(model, onx, rows, feeds(rows, whole, missing), widened=widened))
            break
    return "right" if "right" in outcomes else "wrong" if "wrong" in outcomes else "refused"


def plain(model: Any, X: Any, *, widened: bool = False) -> Outcome:
    """`to_onnx(model, X[:1])`; `widened` as `compared`."""
    from skl2onnx import to_onnx

    try:
        with limited():
            onx: Any = to_onnx(model, X[:1])
        session = opened(onx)
        wanted = {one.name: one.type for one in session.get_inputs()}
        if isinstance(X, pd.DataFrame):
            given = {name: X[[name]].to_numpy() for name in wanted}
        else:
            given = {next(iter(wanted)): X}
        given = {
            name: array.astype(str).astype(object) if "string" in wanted[name] else array
            for name, array in given.items()
        }
    except Exception:  # whatever a converter raises
        return "refused"
    return compared(model, onx, X, given, widened=widened)


def compared(model: Any, onx: Any, X: Any, given: dict[str, Any], *, widened: bool = False) -> Outcome:
    """Whether the file answers the rows as the model does; refused where it does not run.

    Args:
        model: Fitted.
        onx: The file.
        X: The rows, as the model takes them.
        given: The same as the file takes them.
        widened: As the model does to the same numbers in float64 is right, too.
    """
    try:
        found = opened(onx).run(None, given)
    except Exception:  # onnxruntime raises several unrelated classes
        return "refused"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = answers(model, X)
        except ValueError:  # some, such as KMeans, answer float64 alone where they were fitted on it
            expected = answers(model, X.astype(np.float64))
        if widened and alike(answers(model, X.astype(np.float64)), found) == "right":
            return "right"
    return alike(expected, found)


def alike(expected: list[Any], found: list[Any]) -> Outcome:
    """Whether all that was expected was found."""
    for one, other in zip(expected, found, strict=False):
        given_ = matrix(other)
        if one.size != np.size(given_):
            return "wrong"
        if not close(one.ravel(), np.ravel(given_)):
            return "wrong"
    return "right" if len(found) >= len(expected) else "wrong"


def answers(model: Any, X: Any) -> list[Any]:
    """What the original says: labels, values or columns, and probabilities where it has them."""
    method = "predict" if hasattr(model, "predict") else "transform"
    found = [np.asarray(dense(getattr(model, method)(X)))]
    if hasattr(model, "predict_proba"):
        found.append(np.asarray(model.predict_proba(X)))
    return found


def close(one: Any, other: Any) -> bool:
    """Equal labels, or numbers within the tolerances."""
    if one.dtype.kind in "OUS" or one.dtype == bool:
        return [str(value) for value in one.tolist()] == [
            str(type(a)(b)) for a, b in zip(one.tolist(), other, strict=True)
        ]
    return bool(np.allclose(other.astype(np.float64), one.astype(np.float64), RELATIVE, ABSOLUTE, equal_nan=True))


def matrix(answer: Any) -> Any:
    """An answer as an array; ZipMap's dictionaries as their values."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return np.array([list(one.values()) for one in answer])
    return np.asarray(answer)


def dense(answer: Any) -> Any:
    """A sparse matrix as an array."""
    return answer.toarray() if hasattr(answer, "toarray") else answer


def rounded(X: Any) -> Any:
    """The data whose float64 numbers are float32 ones."""
    if isinstance(X, pd.DataFrame):
        floats = X.select_dtypes("float64").columns
        return X.assign(**{name: X[name].astype(np.float32).astype(np.float64) for name in floats})
    return X.astype(np.float32) if X.dtype.kind == "f" else X


def types(X: Any, whole: str) -> list[tuple[str, Any]]:
    """`initial_types` written by hand."""
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    if not isinstance(X, pd.DataFrame):
        width = X.shape[1] if X.ndim > 1 else 1
        return [("X", StringTensorType([None, width]) if X.dtype == object else FloatTensorType([None, width]))]
    kinds = {"text": StringTensorType, "whole": Int64TensorType if whole == "int64" else FloatTensorType}
    return [(name, kinds.get(kind(X[name]), FloatTensorType)([None, 1])) for name in X.columns]


def feeds(X: Any, whole: str, missing: str) -> dict[str, Any]:
    """The rows as the types say."""
    if not isinstance(X, pd.DataFrame):
        return {"X": X.reshape(len(X), -1)}
    given: dict[str, Any] = {}
    for name in X.columns:
        column, known = X[name], kind(X[name])
        if known == "text":
            given[name] = column.astype(object).where(column.notna(), missing).to_numpy(dtype=object).reshape(-1, 1)
        else:
            dtype = np.int64 if whole == "int64" and known == "whole" else np.float32
            given[name] = (
                column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan).astype(dtype).reshape(-1, 1)
            )
    return given


def kind(column: pd.Series[Any]) -> str:
    """Text, whole or float."""
    if not pd.api.types.is_numeric_dtype(column.dtype):  # truth values are numeric
        return "text"
    return "float" if pd.api.types.is_float_dtype(column.dtype) or column.isna().any() else "whole"


def opened(onx: Any) -> Any:
    """A session of one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(onx.SerializeToString(), options, providers=["CPUExecutionProvider"])


@contextmanager
def limited() -> Iterator[None]:
    """Ends what takes too long."""

    def ring(*_: Any) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def register_boosters() -> None:
    """Onnxmltools' converters, as its documentation registers them; nothing where it is not installed."""
    if find_spec("onnxmltools") is None:
        return
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    if find_spec("xgboost") is not None:
        import xgboost

        _register(
            update_registered_converter,
            xgboost.XGBClassifier,
            convert_xgboost,
            calculate_linear_classifier_output_shapes,
        )
        _register(
            update_registered_converter,
            xgboost.XGBRFClassifier,
            convert_xgboost,
            calculate_linear_classifier_output_shapes,
        )
        _register(
            update_registered_converter, xgboost.XGBRegressor, convert_xgboost, calculate_linear_regressor_output_shapes
        )
    if find_spec("lightgbm") is not None:
        import lightgbm

        _register(
            update_registered_converter,
            lightgbm.LGBMClassifier,
            convert_lightgbm,
            calculate_linear_classifier_output_shapes,
        )
        _register(
            update_registered_converter,
            lightgbm.LGBMRegressor,
            convert_lightgbm,
            calculate_linear_regressor_output_shapes,
        )


def _register(update: Any, kind: Any, converter: Any, shapes: Any) -> None:
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]} if "Classifier" in kind.__name__ else None
    update(kind, f"Booster{kind.__name__}", shapes, converter, options=options)
