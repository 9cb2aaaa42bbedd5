"""Can a window's moments be those of its counts? Mean, M2, minimum and maximum bound one another.

A device works in double precision and sends single: so comparisons have the slack of that rounding, and a value beyond
single precision arrives as infinite. Not a number is what a feature without any value has, and nothing else.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_ROUNDING: Final = 2.0**-22
"""Of the largest magnitude: rounding to single precision moves a minimum and a maximum by 2**-24 of it each."""
_LEAST: Final = 2.0**-148
"""The same among subnormal numbers."""
_BEYOND: Final = 1e300
"""Stands for a number beyond single precision: larger than any, and it can still be subtracted."""

_LARGEST: Final = float(np.finfo(np.float32).max)
"""An infinite M2 was at least this."""


def contradiction(moments: bytes, values: NDArray[np.int64]) -> str | None:
    """Says what cannot be.

    Args:
        moments: `Window.moments`: little-endian float32 (mean, M2, minimum, maximum) of each numeric feature.
        values: Finite values that were counted, of each numeric feature; shape (features,). Several windows' may stand
            one after the other.

    Returns:
        The fault of the first wrong feature; None where all can be true.

    Source: of k values in an interval of length r, the squared deviations from the mean add up to at most k r**2 / 4
    (T. Popoviciu, "Sur les equations algebriques ayant toutes leurs racines reelles", 1935).
    """
    quadruples = np.frombuffer(moments, "<f4").reshape(-1, 4)
    if _plainly_right(quadruples, values):
        return None
    absent = np.isnan(quadruples)
    if (absent != (values == 0)[:, None]).any():
        at = int(np.flatnonzero((absent != (values == 0)[:, None]).any(axis=1))[0])
        fault = "not a number, of counted values" if values[at] else "a number, where no value was counted"
        return f"numeric feature {at}: {fault}"
    numbers: NDArray[Any] = np.clip(quadruples.astype(np.float64), -_BEYOND, _BEYOND)
    mean, m2, least, most = numbers.T
    m2 = np.minimum(m2, _LARGEST)
    slack = np.maximum(np.abs(least), np.abs(most)) * _ROUNDING + _LEAST
    with np.errstate(over="ignore", invalid="ignore"):
        bound = values / 4 * (most - least + slack) ** 2 * (1 + _ROUNDING) + _LEAST
        right = (least <= most) & (mean >= least - slack) & (mean <= most + slack) & (m2 >= 0) & (m2 <= bound)
    wrong = np.flatnonzero(~right & (values > 0))
    if not len(wrong):
        return None
    at = int(wrong[0])
    shown = ", ".join(f"{one:g}" for one in quadruples[at])
    return f"numeric feature {at}: mean, M2, minimum, maximum of {values[at]} values cannot be {shown}"


def _plainly_right(quadruples: NDArray[Any], values: NDArray[np.int64]) -> bool:
    """Whether all bounds hold without any slack: nearly every true window's do, and this is asked of each."""
    mean, m2, least, most = quadruples.T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        width = most - least
    bounded = (least <= mean) & (mean <= most) & (m2 >= 0) & (m2 * 4 <= values * (width * width))
    return bool((bounded & (values > 0)).all())
