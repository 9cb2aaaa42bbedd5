from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.collector.moments import contradiction
from edgekit.collector.sums import Sums
from edgekit_contracts.errors import FormatError
from tests.telemetry_samples import BINS, window


def moments_of(values: NDArray[np.float64]) -> bytes:
    """As a device sends them: summed in double precision, sent in single."""
    with np.errstate(over="ignore"):
        m2 = ((values - values.mean()) ** 2).sum()
        return np.array([values.mean(), m2, values.min(), values.max()]).astype("<f4").tobytes()


def fault(moments: tuple[float, float, float, float], values: int = 4) -> str | None:
    return contradiction(np.array(moments, "<f4").tobytes(), np.array([values]))


@pytest.mark.parametrize("rows", [1, 2, 3, 1_000])
@pytest.mark.parametrize("scale", [1e-310, 1e-44, 1e-20, 1.0, 1e6, 1e18, 1e25, 3e38, 1e100])
@pytest.mark.parametrize("around", [0.0, 1.0, -1e9])
def test_true_moments_of_any_scale_are_believed(rows: int, scale: float, around: float) -> None:
    random = np.random.default_rng(rows)
    for values in (random.normal(around, 1, rows) * scale, np.full(rows, (around + 0.1) * scale)):
        assert contradiction(moments_of(values), np.array([rows])) is None


def test_values_at_both_ends_of_their_range_have_the_largest_m2() -> None:
    values = np.array([-1e3, 1e3] * 500)
    assert contradiction(moments_of(values), np.array([1000])) is None
    assert fault((0.0, 1.01e9, -1e3, 1e3), 1000)


@pytest.mark.parametrize(
    "lie",
    [
        (1.0, -1e-3, 0.0, 2.0),  # M2 below nothing
        (1.0, 1.0, 2.0, 0.0),  # minimum above maximum
        (3.0, 1.0, 0.0, 2.0),  # mean above the maximum
        (-1.0, 1.0, 0.0, 2.0),  # and below the minimum
        (1.0, 4.1, 0.0, 2.0),  # M2 beyond what four values in that range can have
        (1.0, math.inf, 0.0, 2.0),
        (math.inf, 0.0, 0.0, 2.0),
        (-math.inf, 0.0, 0.0, 2.0),
        (1.0, 0.0, math.inf, -math.inf),
        (math.nan, 0.0, 0.0, 2.0),
        (1.0, math.nan, 0.0, 2.0),
        (1.0, 1.0, math.nan, 2.0),
        (1.0, 1.0, 0.0, math.nan),
        (math.nan,) * 4,
    ],
)
def test_moments_that_cannot_be_are_told(lie: tuple[float, float, float, float]) -> None:
    assert fault((1.0, 3.9, 0.0, 2.0)) is None
    assert fault(lie) is not None


def test_a_feature_without_a_value_has_no_moments_and_one_with_a_value_has() -> None:
    assert fault((math.nan, math.nan, math.nan, math.nan), 0) is None
    assert fault((0.0, 0.0, 0.0, 0.0), 0) is not None
    assert fault((math.nan, 0.0, math.nan, math.nan), 0) is not None


def test_a_window_is_refused_for_moments_that_its_counts_do_not_allow() -> None:
    body, n = window()
    good, bad = (np.array(one, "<f4").tobytes() for one in ((25, 100, 18, 33), (25, 100, 33, 18)))
    assert Sums(BINS).check(body.counts, n, good) == 1
    with pytest.raises(FormatError, match=r"\$.moments.*feature 0"):
        Sums(BINS).check(body.counts, n, bad)
