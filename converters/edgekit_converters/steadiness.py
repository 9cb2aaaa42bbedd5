"""Does the original answer a row alike, alone and among others? Where not, no conversion can be equal to it.

A matrix product is summed in another order for one row than for many. Where what follows magnifies that rounding, as an
inverse of a nearly singular kernel matrix does, the original's answers are defined to no more than the difference.
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


def spread(original: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame) -> float:
    """The largest difference, relative to max(1, |answer|), between rows answered together and alone.

    Args:
        original: Its answers to a frame.
        frame: Of which the first `ROWS` rows are asked.
    """
    rows = frame.head(ROWS)
    together = original(rows)
    alone = [original(rows.iloc[[index]]) for index in range(len(rows))]
    largest = 0.0
    for whole, parts in (
        (together.probabilities, [one.probabilities for one in alone]),
        (together.values, [one.values for one in alone]),
    ):
        if whole is not None:
            gap = np.abs(whole - np.concatenate([one for one in parts if one is not None]))
            largest = max(largest, float(np.nanmax(gap / np.maximum(1.0, np.abs(whole)), initial=0.0)))
    return largest


def explained(
    error: ParityBroken, original: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame, tolerance: float
) -> ParityBroken:
    """The error, and how far the original differs from itself where that is more than the tolerance."""
    try:
        own = spread(original, frame)
    except EdgekitError:
        return error
    if own <= tolerance:
        return error
    return ParityBroken(
        f"{error.detail}; the original itself answers a row alone and among others differently, by up to {own:.3g}: it "
        "magnifies rounding; train it on float64, scaled, with fewer components"
    )
