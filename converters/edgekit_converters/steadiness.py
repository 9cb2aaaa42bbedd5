"""Does the original answer a row alike, alone and among others, in float32 and in float64? Where not, nothing can.

A matrix product is summed in another order for one row than for many. Where what follows magnifies that rounding, as an
inverse of a nearly singular kernel matrix does, the original's answers are defined to no more than the difference. So
they are where columns of float32 make the original compute in that, and it magnifies the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd

from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_converters.registry import Answers

ROWS: Final = 16
"""Asked together, and each alone."""
WIDENED: Final = 1000
"""Asked in float32, and in float64."""


def spread(original: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame) -> float:
    """The largest difference, relative to max(1, |answer|), between rows answered together and alone.

    Args:
        original: Its answers to a frame.
        frame: Of which the first `ROWS` rows are asked.
    """
    rows = frame.head(ROWS)
    alone = [original(rows.iloc[[index]]) for index in range(len(rows))]
    return _gap(original(rows), alone)


def rounding(original: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame) -> float:
    """The largest difference, relative to max(1, |answer|), between float32 columns and the same numbers in float64.

    Args:
        original: Its answers to a frame.
        frame: Of which the first `WIDENED` rows are asked.
    """
    rows = frame.head(WIDENED)
    wide = widened(rows)
    return _gap(original(rows), [original(wide)]) if wide is not rows else 0.0


def widened(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its columns of float32 as float64; itself where there are none."""
    narrow = [name for name, dtype in frame.dtypes.items() if dtype == np.float32]
    return frame.astype(dict.fromkeys(narrow, np.float64)) if narrow else frame


def explained(
    error: ParityBroken, original: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame, tolerance: float
) -> ParityBroken:
    """The error, and how far the original differs from itself where that is more than the tolerance."""
    try:
        rounds, own = rounding(original, frame), spread(original, frame)
    except EdgekitError:
        return error
    if rounds > tolerance:
        return ParityBroken(
            f"{error.detail}; the columns are float32, in which the original itself rounds by up to {rounds:.3g}",
            "build with float64 columns (`data.astype('float64')`)",
        )
    if own > tolerance:
        return ParityBroken(
            f"{error.detail}; the original itself answers a row alone and among others differently, by up to {own:.3g}"
            ": it magnifies rounding",
            "train it on float64, scaled, with fewer components",
        )
    return error


def _gap(whole: Answers, parts: list[Answers]) -> float:
    """The largest difference of the answers to the same rows, relative to max(1, |answer|)."""
    largest = 0.0
    for answer, others in (
        (whole.probabilities, [one.probabilities for one in parts]),
        (whole.values, [one.values for one in parts]),
    ):
        if answer is not None:
            gap = np.abs(answer - np.concatenate([one for one in others if one is not None]))
            largest = max(largest, float(np.nanmax(gap / np.maximum(1.0, np.abs(answer)), initial=0.0)))
    return largest
