"""Does the converted model answer like the original? Asked through the very Engine that the device runs.

Compared are the data's rows and copies of them in which one value is missing, or one text unknown, wherever the model
has an answer for that. Labels are compared as labels. A row on which the original itself is undecided (its two best
classes are closer than the tolerance) may come out either way: it is counted as a tie, reported, and kept out of the
golden set. Everything else that differs refuses the build.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_contracts.manifest import Feature, Parity
from edgekit_converters.registry import Answers
from edgekit_runtime.engine import Column, Engine

MAX_ROWS: Final = 20_000
"""Rows of the data that are compared, taken evenly; the reference statistics use all."""
VARIED_ROWS: Final = 50
"""Copies with a missing or unknown value, for each feature."""
TOLERANCE: Final = {"float64": 1e-9, "float32": 1e-4, "mixed": 1e-4}
"""By the precision of the graph: probabilities absolute, values relative to max(1, |value|)."""
UNKNOWN_TEXT: Final = "edgekit: a text that no training data has"


@dataclass(frozen=True, slots=True)
class Verified:
    """The comparison's figures, and what the golden set is chosen from."""

    parity: Parity
    columns: Mapping[str, Column]
    """The rows that were compared, as the Engine takes them."""
    answers: Answers
    """The original's answers to them."""
    undecided: NDArray[np.bool_]
    """Rows that must not become golden: the original's best two classes are within the tolerance."""


def columns_of(frame: pd.DataFrame, features: tuple[Feature, ...]) -> Mapping[str, Column]:
    """The columns as the Engine takes them: float64 arrays with NaN, lists of str and None."""
    columns: dict[str, Column] = {}
    for feature in features:
        series = frame[feature.name]
        if feature.dtype == "text":
            null = series.isna().to_numpy()
            columns[feature.name] = [
                None if absent else value for value, absent in zip(series.tolist(), null, strict=True)
            ]
        else:
            columns[feature.name] = series.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    return columns


def verify(
    engine: Engine, original: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame, *, precision: str
) -> Verified:
    """Compares the engine with the original on `frame` and on varied copies of its rows.

    Args:
        engine: The converted model.
        original: The original model's answers to a frame.
        frame: The data, with the model's features as columns.
        precision: The graph's precision: a key of `TOLERANCE`.

    Raises:
        ParityBroken: An answer differs; the sentence names the first such row.
    """
    tolerance = TOLERANCE[precision]
    features = engine.manifest.features
    # Each part by itself: one missing value would change the type of the whole column in a common frame.
    parts = varied(evenly(frame, MAX_ROWS), features)
    theirs = _join([original(part) for part in parts])
    columns = _join_columns([columns_of(part, features) for part in parts])
    try:
        ours = engine.predict(columns)
    except EdgekitError as error:
        raise ParityBroken(f"it refuses a row that the original answers: {error.sentence}") from error

    rows = sum(map(len, parts))
    difference = np.zeros(rows)
    undecided = np.zeros(rows, dtype=bool)
    for expected, found, scale in (
        (theirs.probabilities, ours.probabilities, False),
        (theirs.values, ours.values, True),
    ):
        if expected is None:
            continue
        if found is None or found.shape != expected.shape:
            raise ParityBroken(f"it gives {None if found is None else found.shape}, the original {expected.shape}")
        gap = np.abs(found - expected) / (np.maximum(1.0, np.abs(expected)) if scale else 1.0)
        difference = np.maximum(difference, np.where(np.isnan(gap), np.inf, gap).max(axis=1))
    if theirs.probabilities is not None and theirs.probabilities.shape[1] > 1:
        best = np.sort(theirs.probabilities, axis=1)[:, -2:]
        undecided = best[:, 1] - best[:, 0] <= tolerance
    wrong = np.zeros(rows, dtype=bool)
    if theirs.labels is not None:
        assert ours.labels is not None
        wrong = np.array(theirs.labels.tolist()) != np.array(ours.labels.tolist())
    ties = wrong & undecided
    _refuse_differences(columns, difference, wrong & ~undecided, tolerance)
    parity = Parity(
        rows=rows,
        label_mismatches=0,
        ties=int(ties.sum()),
        max_difference=float(f"{difference.max():.3g}"),
        tolerance=tolerance,
        method="data rows, one value missing, one text unknown",
    )
    return Verified(parity, columns, theirs, undecided)


def evenly(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most `rows` rows, evenly spaced, in order."""
    if len(frame) <= rows:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).round().astype(int)]


def varied(frame: pd.DataFrame, features: tuple[Feature, ...]) -> list[pd.DataFrame]:
    """The frame, and copies of its rows with one value missing or one text unknown where the model allows it."""
    sample = evenly(frame, VARIED_ROWS)
    parts = [frame]
    for feature in features:
        dtype = sample[feature.name].dtype
        if feature.nullable:
            # reindex puts the missing value of the column's own type: NaN, None or pd.NA.
            parts.append(sample.assign(**{feature.name: sample[feature.name].iloc[:0].reindex(sample.index)}))
        if feature.dtype == "text" and not feature.closed and not isinstance(dtype, pd.CategoricalDtype):
            parts.append(sample.assign(**{feature.name: UNKNOWN_TEXT}))
    return parts


def _join(parts: list[Answers]) -> Answers:
    def joined(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Answers(
        labels=joined([part.labels for part in parts]),
        probabilities=joined([part.probabilities for part in parts]),
        values=joined([part.values for part in parts]),
    )


def _join_columns(parts: list[Mapping[str, Column]]) -> Mapping[str, Column]:
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        if isinstance(first, np.ndarray)
        else [value for part in parts for value in part[name]]
        for name, first in parts[0].items()
    }


def _refuse_differences(
    columns: Mapping[str, Column], difference: NDArray[np.float64], wrong: NDArray[np.bool_], tolerance: float
) -> None:
    off = difference > tolerance
    if not (wrong.any() or off.any()):
        return
    first = int(np.flatnonzero(wrong | off)[0])
    parts = []
    if wrong.any():
        parts.append(f"{wrong.sum()} of {len(wrong)} rows get another label")
    if off.any():
        parts.append(f"{off.sum()} rows differ by more than {tolerance:g}, at most by {difference.max():.3g}")
    values = ", ".join(f"{name}={column[first]}" for name, column in list(columns.items())[:4])
    raise ParityBroken(f"{'; '.join(parts)}; first at {values[:200]}")
