"""Reference data: from a file or memory to the DataFrame of a model's features."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import DataMismatch, FormatError, MissingFile
from edgekit_converters import canonical_csv
from edgekit_converters.nulls import is_null
from edgekit_runtime.encoding import FLOAT32_MAX

DOCUMENTS: Final = "text"
"""The name of a column of texts that has none."""

NAME_MAX: Final = 256
"""Characters of a column's name, as the manifest bounds them."""

_PARQUET: Final = b"PAR1"


def read_table(path: Path) -> pd.DataFrame:
    """Reads a CSV (UTF-8, with a header) or Parquet file; which one, its first bytes say.

    Raises:
        MissingFile: It does not exist or cannot be opened.
        FormatError: It is neither, or has no rows.
    """
    try:
        with path.open("rb") as file:
            parquet = file.read(len(_PARQUET)) == _PARQUET
    except OSError as error:
        raise MissingFile("data file", str(path), (error.strerror or str(error)).lower()) from error
    try:
        table = pd.read_parquet(path) if parquet else pd.read_csv(path)
    except UnicodeDecodeError as error:
        fault = "neither Parquet nor CSV in UTF-8 (a spreadsheet saves it as 'CSV UTF-8')"
        raise FormatError(f"data file {path}", "$", fault) from error
    except (ValueError, OSError, pd.errors.ParserError) as error:  # pyarrow's errors derive from ValueError and OSError
        fault = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(f"data file {path}", "$", f"neither CSV nor Parquet: {fault}") from error
    return as_frame(_not_empty(table, f"data file {path}"))


def as_frame(data: pd.DataFrame | NDArray[Any] | Sequence[Any]) -> pd.DataFrame:
    """A DataFrame whose columns have names: those it has, or x0, x1 ... for a matrix.

    A sequence of texts, as a model of documents takes it, is one column: of the name that it has, or `text`. Of a
    sequence of dictionaries the keys are columns, with a missing value where a dictionary lacks a key.

    Raises:
        DataMismatch: Not a table, or two columns share a name, or a dictionary holds a missing value.
    """
    if isinstance(data, pd.Series):
        frame = data.to_frame(data.name if isinstance(data.name, str) else DOCUMENTS)
    elif isinstance(data, list | tuple) and data and all(isinstance(one, Mapping) for one in data):
        frame = _of_dictionaries(data)
    elif isinstance(data, list | tuple) and all(isinstance(one, str) or is_null(one) for one in data):
        frame = pd.DataFrame({DOCUMENTS: pd.Series(data, dtype=object)})
    elif isinstance(data, pd.DataFrame):
        frame = data
        if not all(isinstance(name, str) for name in frame.columns.tolist()):
            frame = frame.set_axis(_numbered(frame.shape[1]), axis=1)
    else:
        dense: Any = getattr(data, "toarray", None)  # a scipy sparse matrix
        matrix = np.asarray(data if dense is None else dense())
        if matrix.ndim == 1 and matrix.dtype.kind in "OU":
            return as_frame(matrix.tolist())
        if matrix.ndim != 2:
            raise DataMismatch(f"the data has {matrix.ndim} dimensions", "give a table: rows and columns")
        frame = pd.DataFrame(matrix, columns=_numbered(matrix.shape[1]))
        if matrix.dtype == object:
            frame = frame.infer_objects()
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataMismatch(f"two columns have the name '{twice}'", "rename or drop one of them")
    return frame


def _of_dictionaries(data: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame([{str(key): value for key, value in one.items()} for one in data])
    given = Counter(str(key) for one in data for key in one)
    for name in frame.columns:
        if int(frame[name].notna().sum()) < given[name]:
            raise DataMismatch(
                f"a dictionary holds None or NaN under '{name}', which is not the same as a dictionary without it",
                f"leave '{name}' out of the dictionaries in which it is missing",
            )
    return frame


def split_target(table: pd.DataFrame, target: str | None) -> tuple[pd.DataFrame, NDArray[Any] | None]:
    """The table without its target column, and the target's values [rows]; None where no target is named.

    Raises:
        DataMismatch: It names no column, or values of it are missing.
    """
    if target is None:
        return table, None
    if not isinstance(target, str):
        raise DataMismatch(f"the target is a {type(target).__name__}", "put it into the data, and name its column")
    if target not in table.columns:
        raise DataMismatch(f"there is no column '{target}'", f"name one of its columns: {_names(list(table.columns))}")
    missing = int(table[target].isna().sum())
    if missing:
        raise DataMismatch(f"the target '{target}' is missing in {missing} rows", "remove those rows")
    return table.drop(columns=target), table[target].to_numpy()


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex.

    Raises:
        MissingFile: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MissingFile("data file", str(path), (error.strerror or str(error)).lower()) from error


def frame_sha256(frame: pd.DataFrame) -> str:
    """SHA-256 of the frame as canonical CSV: a header, no index, LF, UTF-8, shortest decimals that read back equal."""
    found = hashlib.sha256()
    for piece in canonical_csv.pieces(frame):
        found.update(piece)
    return found.hexdigest()


def frame_for(model: Any, X: pd.DataFrame | NDArray[Any]) -> pd.DataFrame:
    """The columns that the model was fitted on, in its order; others are dropped.

    A scikit-learn model that was fitted on a matrix has no names to check: its columns are taken in order and named x0,
    x1 ... A model that says nothing of its columns (a network) takes the data's, with their names.

    Raises:
        DataMismatch: Columns are missing, or a matrix has another number of them, or a name is empty or too long, or
            there are no rows.
    """
    frame = as_frame(X)
    if frame.empty:
        raise DataMismatch("it has no rows")
    names = feature_names(model)
    if names is None:
        count = _feature_count(model)
        if count is None:
            return _named(frame)
        if frame.shape[1] != count:
            raise DataMismatch(
                f"it has {frame.shape[1]} columns, and the model was fitted on a matrix of {count}",
                "give the model's features only, and name the target's column with --target",
            )
        return frame.set_axis(_numbered(count), axis=1)
    given = frame.columns.tolist()  # of pandas' texts, each one that is looked at by itself costs a microsecond
    if given == list(names):
        return _named(frame)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DataMismatch(
            f"it lacks {'the column' if len(missing) == 1 else 'the columns'} {_names(missing)}",
            f"give data with the columns {_names(list(names))}",
        )
    return _named(frame[list(names)])


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame; its names are such as a manifest holds."""
    odd = next((name for name in frame.columns.tolist() if not 0 < len(name) <= NAME_MAX), None)
    if odd is not None:
        fault = (
            f"a column's name has {len(odd)} characters, and {NAME_MAX} are allowed" if odd else "a column has no name"
        )
        raise DataMismatch(fault, "rename the column, and fit again")
    return frame


def check_range(frame: pd.DataFrame) -> None:
    """Checks that no number is beyond float32: a device refuses it, as nothing is proved out there.

    Raises:
        DataMismatch: One is.
    """
    numbers = frame.select_dtypes("number")
    beyond = numbers.columns[(numbers.abs() > FLOAT32_MAX).any()]
    if len(beyond):
        raise DataMismatch(
            f"column '{beyond[0]}' has a value beyond 3.4e38, which devices refuse", "remove its rows, or scale it"
        )


def feature_names(model: Any) -> tuple[str, ...] | None:
    """The names of the columns that a model was fitted on; None after a matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = getattr(model, "feature_names_in_", None)
    if names is None and hasattr(model, "steps"):
        return feature_names(model.steps[0][1])
    if names is None and _is_catboost(model):
        names = model.feature_names_  # the columns of a matrix are '0', '1' ...
        if names == [str(index) for index in range(len(names or ()))]:
            return None
    return None if names is None else tuple(str(name) for name in names)


def _feature_count(model: Any) -> int | None:
    if _is_catboost(model):  # read from a file it says n_features_in_ = 0
        return len(model.feature_names_)
    return getattr(model, "n_features_in_", None)


def _is_catboost(model: Any) -> bool:
    """Whether it is a fitted model of CatBoost, or of a class made of one."""
    ours = any(one.__module__.startswith("catboost.") for one in type(model).__mro__)
    return ours and hasattr(model, "feature_names_")


def _not_empty(table: pd.DataFrame, what: str) -> pd.DataFrame:
    if table.empty:
        raise FormatError(what, "$", "it has no rows")
    return table


def _numbered(count: int) -> list[str]:
    return [f"x{index}" for index in range(count)]


def _names(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
