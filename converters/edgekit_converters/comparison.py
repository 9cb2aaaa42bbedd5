"""How two models' answers to the same rows differ: labels as labels, numbers against a tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import ParityBroken
from edgekit_converters.registry import Answers
from edgekit_runtime.engine import Column


@dataclass(frozen=True, slots=True)
class Differences:
    """How two models' answers to the same rows differ; arrays are [rows]."""

    difference: NDArray[np.float64]
    """The largest of a probability absolute, of a value relative to max(1, |value|)."""
    ulps: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    """Another label."""
    undecided: NDArray[np.bool_]
    """The original's best two classes are within the tolerance."""


def compare(
    columns: Mapping[str, Column], theirs: Answers, ours: Answers, *, tolerance: float, exact: bool
) -> Differences:
    """Compares answers to the same rows, and refuses what differs.

    Args:
        columns: The rows, to name the first that differs.
        theirs: The original's answers.
        ours: The converted model's.
        tolerance: Of probabilities absolute, of values relative to max(1, |value|).
        exact: Ties must be equal too.

    Raises:
        ParityBroken: An answer differs; the sentence names the first such row.
    """
    found = measured(theirs, ours, tolerance=tolerance, exact=exact)
    refuse(columns, found, tolerance)
    return found


def measured(theirs: Answers, ours: Answers, *, tolerance: float, exact: bool) -> Differences:
    """How the answers differ; arguments as `compare`.

    Raises:
        ParityBroken: They have not the same shape.
    """
    first = next(one for one in (theirs.labels, theirs.probabilities, theirs.values) if one is not None)
    rows = len(first)
    difference, ulps, undecided = np.zeros(rows), np.zeros(rows), np.zeros(rows, dtype=bool)
    for expected, given, scale in (
        (theirs.probabilities, ours.probabilities, False),
        (theirs.values, ours.values, True),
    ):
        if expected is None:
            continue
        if given is None or given.shape != expected.shape:
            raise ParityBroken(f"it gives {None if given is None else given.shape}, the original {expected.shape}")
        difference = np.maximum(difference, _gap(given, expected, scale))
        ulps = np.maximum(ulps, _ulps(given, expected))
    if not exact:
        undecided = _undecided(theirs, tolerance)
    wrong = np.zeros(rows, dtype=bool)
    if theirs.labels is not None:
        assert ours.labels is not None
        differs = np.array(theirs.labels.tolist()) != np.array(ours.labels.tolist())
        wrong = differs.reshape(rows, -1).any(axis=1)
    return Differences(difference, ulps, wrong, undecided)


def refuse(columns: Mapping[str, Column], found: Differences, tolerance: float) -> None:
    """Refuses other labels where the original is decided, and numbers that differ by more than the tolerance.

    Raises:
        ParityBroken: An answer differs; the sentence names the first such row.
    """
    wrong, difference = found.wrong & ~found.undecided, found.difference
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


def _undecided(theirs: Answers, tolerance: float) -> NDArray[np.bool_]:
    """[rows]: the two best classes, or the decision and 0, are within the tolerance; never for several targets."""
    first = next(one for one in (theirs.labels, theirs.probabilities, theirs.values) if one is not None)
    found = theirs.probabilities if theirs.probabilities is not None else theirs.values
    if theirs.labels is None or theirs.labels.ndim > 1 or found is None:
        return np.zeros(len(first), dtype=bool)
    if found.shape[1] == 1:
        return np.asarray((np.abs(found[:, 0]) <= tolerance) & (theirs.probabilities is None))
    best = np.sort(found, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] <= tolerance)


def _gap(given: NDArray[Any], expected: NDArray[Any], scale: bool) -> NDArray[np.float64]:
    """[rows]: the largest absolute difference, over max(1, |expected|) where `scale`; infinite for one NaN of two."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(given - expected) / (np.maximum(1.0, np.abs(expected)) if scale else 1.0)
    gap = np.where((given == expected) | (np.isnan(given) & np.isnan(expected)), 0.0, gap)
    return np.asarray(np.where(np.isnan(gap), np.inf, gap).max(axis=1))


def _ulps(given: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """[rows]: the largest difference in units in the last place of the larger number, in float64."""
    ours, theirs = given.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = np.abs(ours - theirs) / np.spacing(np.maximum(np.abs(ours), np.abs(theirs)))
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return np.asarray(np.where(same, 0.0, np.where(np.isnan(found), np.inf, found)).max(axis=1))
