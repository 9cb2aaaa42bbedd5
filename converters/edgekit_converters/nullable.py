"""Has the model an answer for a missing value? Found by trying, feature by feature.

A feature is nullable where the original answers rows in which it is missing, and the converted model answers the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from edgekit_contracts.errors import EdgekitError
from edgekit_converters.registry import Answers

ROWS: Final = 4
"""Rows that are tried for each feature."""
TOLERANCE: Final = 1e-4

Answerer = Callable[[pd.DataFrame], Answers]


def nullable(frame: pd.DataFrame, names: Sequence[str], original: Answerer, converted: Answerer) -> dict[str, bool]:
    """For each feature, whether a missing value of it gets an answer, and the same one.

    Args:
        frame: Rows that the original answers.
        names: The features, columns of `frame`.
        original: The original's answers; any EdgekitError means none.
        converted: The converted model's.
    """
    full = frame[frame[list(names)].notna().all(axis=1)]
    rows = (full if len(full) else frame).head(ROWS)
    found = {}
    for name in names:
        # reindex puts the missing value of the column's own type: NaN, None or pandas.NA.
        missing = rows.assign(**{name: rows[name].iloc[:0].reindex(rows.index)})
        try:
            found[name] = agree(original(missing), converted(missing))
        except EdgekitError:
            found[name] = False
    return found


def agree(one: Answers, other: Answers, tolerance: float = TOLERANCE) -> bool:
    """Whether two answers are the same: numbers within the tolerance, labels where there are no probabilities."""
    for ours, theirs in ((one.probabilities, other.probabilities), (one.values, other.values)):
        if (ours is None) != (theirs is None):
            return False
        if ours is not None and theirs is not None:
            if ours.shape != theirs.shape or not np.isfinite(theirs).all():
                return False
            if (np.abs(ours - theirs) > tolerance * np.maximum(1.0, np.abs(ours))).any():
                return False
    if one.labels is None or one.probabilities is not None:
        return True
    return other.labels is not None and bool((np.asarray(one.labels) == np.asarray(other.labels)).all())
