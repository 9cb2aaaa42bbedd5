"""Has the model an answer for a missing value? Found by trying, many features at once.

A feature is nullable where the original answers rows in which it is missing, and the converted model answers the same.
Where it is missing in the data themselves, that both answer is enough: the verification says how they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import EdgekitError
from edgekit_converters.registry import Answers
from edgekit_converters.stacking import changed

ROWS: Final = 4
"""Rows that are tried for each feature."""
TOLERANCE: Final = 1e-4

Answerer = Callable[[pd.DataFrame], Answers]


def nullable(
    frame: pd.DataFrame, names: Sequence[str], original: Answerer, converted: Answerer, *, nan: bool = False
) -> dict[str, bool]:
    """For each feature, whether a missing value of it gets an answer, and the same one.

    Args:
        frame: Rows that the original answers.
        names: The features, columns of `frame`.
        original: The original's answers; any EdgekitError means none.
        converted: The converted model's.
        nan: NaN is an answer too, where both give it: a transformer may hand a missing value on.
    """
    known = frame[list(names)].notna()
    full = frame[known.all(axis=1)]
    rows = (full if len(full) else frame).head(ROWS)
    found: dict[str, bool] = {}
    gaps = frozenset(known.columns[~known.all()])
    for group in groups(rows, names):
        _try(rows, group, original, converted, found, nan, gaps)
    return {name: found[name] for name in names}


def groups(rows: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """The features whose type a missing value leaves as it is, and the others (whole numbers, truth values).

    In one frame with them, those of the second group would change the type of columns that the first has as they came.
    """
    kept: list[str] = []
    others: list[str] = []
    for name in names:
        dtype: Any = rows[name].dtype
        plain = isinstance(dtype, np.dtype) and dtype.kind in "fO"
        (kept if plain or missing_values(rows[name], 1).dtype == dtype else others).append(name)
    return [group for group in (kept, others) if group]


def missing_values(column: pd.Series[Any], count: int) -> pd.Series[Any]:
    """So many missing values of the column's own type: NaN, None or pandas.NA."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        return pd.Series(np.full(count, np.nan, dtype=column.dtype))
    return column.iloc[:0].reindex(range(count))


def one_changed(
    rows: pd.DataFrame, names: Sequence[str], made: Callable[[pd.Series[Any], int], pd.Series[Any]] = missing_values
) -> pd.DataFrame:
    """The rows once for each of the features, in order, with other values of that one: by default it is missing."""
    count = len(rows)
    frame = rows.iloc[np.tile(np.arange(count), len(names))].reset_index(drop=True)
    return changed(frame, {name: (place * count, made(rows[name], count)) for place, name in enumerate(names)})


def agree(one: Answers, other: Answers, tolerance: float = TOLERANCE) -> bool:
    """Whether two answers are the same: numbers within the tolerance, labels where there are no probabilities."""
    return bool(_agreeing(one, other, tolerance).all())


def _try(
    rows: pd.DataFrame,
    names: Sequence[str],
    original: Answerer,
    converted: Answerer,
    found: dict[str, bool],
    nan: bool,
    gaps: frozenset[str],
) -> None:
    """Tries all at once; where the original refuses, one by one, then more and more at once."""
    at, size = 0, len(names)
    while at < len(names):
        chosen = names[at : at + size]
        missing = one_changed(rows, chosen)
        try:
            same = _agreeing(original(missing), converted(missing), TOLERANCE, nan)
        except EdgekitError:
            if len(chosen) == 1:
                found[chosen[0]] = False
                at += 1
            size = 1
            continue
        parts = zip(chosen, np.split(same, len(chosen)), strict=True)
        found |= {name: bool(part.all()) or name in gaps for name, part in parts}
        at, size = at + len(chosen), 2 * size


def _agreeing(one: Answers, other: Answers, tolerance: float, nan: bool = False) -> NDArray[np.bool_]:
    """[rows]: whether the two answers to a row are the same."""
    first = next(found for found in (one.probabilities, one.values, one.labels) if found is not None)
    same = np.ones(len(first), dtype=bool)
    for ours, theirs in ((one.probabilities, other.probabilities), (one.values, other.values)):
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None or ours.shape != theirs.shape:
            return np.zeros(len(first), dtype=bool)
        with np.errstate(invalid="ignore"):
            near = np.abs(ours - theirs) <= tolerance * np.maximum(1.0, np.abs(ours))
        both = np.isnan(ours) & np.isnan(theirs) & nan
        same &= (both | (near & np.isfinite(theirs))).all(axis=1)
    if first is one.labels:
        equal = np.asarray(one.labels == other.labels, dtype=bool)
        same &= equal.reshape(len(first), -1).all(axis=1)
    return same
