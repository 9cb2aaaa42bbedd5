"""Do windows' counts and moments add up? Asked of many at once; the contract's own reader says what does not.

The collector asks it of every window, so it is quick: windows on the same bins make one array, with one read of the
varints, and one sum for each part of the layout that `telemetry.Window` describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.collector.moments import contradiction
from edgekit_contracts.counts import decode_counts
from edgekit_contracts.errors import FormatError
from edgekit_contracts.limits import DISTANCE_MAX_BINS, RECORD_MAX_ROWS
from edgekit_contracts.reference import LATENCY_BINS, Bins
from edgekit_contracts.telemetry import Window
from edgekit_runtime.varints import decode_varint_narrow

KEPT: Final = 4096
"""Layouts that are remembered."""
BLOCK: Final = 64
"""Windows that are looked at at once: their arrays stay within the processor's cache."""
_LONGEST: Final = 5
"""Bytes of the longest number that a window can hold, `RECORD_MAX_ROWS`."""


class Sums:
    """The parts of a window's counts on some bins.

    Args:
        bins: What is counted on.
    """

    def __init__(self, bins: Bins) -> None:
        self._bins, self._features = bins, len(bins.features)
        parts = [size for feature in bins.features for size in (feature.size + 2, 1)]
        parts += [len(bins.classes)] if bins.classes else []
        parts += [bins.score_size, 1, 1, 1, LATENCY_BINS]
        self._length = sum(parts)
        self._starts = np.array([0, *accumulate(parts[:-1])])
        ends = zip(self._starts[1 : 2 * self._features : 2], bins.features, strict=True)
        self._nulls = np.array([end - 2 for end, feature in ends if feature.categories is None], dtype=np.intp)
        """Where the nulls of each numeric feature stand; its invalid values follow."""
        self.moments_bytes = 16 * len(self._nulls)
        """Of `Window.moments`, where there are any."""

    def check(self, data: bytes, n: int, moments: bytes = b"") -> int:
        """Checks a window's counts and moments.

        Args:
            data: `Window.counts`.
            n: Its rows.
            moments: `Window.moments`: nothing, or a quadruple for each numeric feature.

        Returns:
            The calls in its latency bins.

        Raises:
            FormatError: As `decode_counts`; or the moments cannot be those of these counts.
        """
        values = self._values([data])
        if values is None or not (sums := self._sums(values, np.array([n])))[0][0]:
            return sum(decode_counts(data, self._bins, n).latency)
        if moments and (fault := contradiction(moments, self._counted(values, np.array([n]))[0])):
            raise FormatError("window", "$.moments", fault)
        return int(sums[1][0])

    def right(self, windows: Sequence[Window], rows: Sequence[int]) -> list[bool]:
        """Which windows are plainly right: `check` would find no fault, nor would who compares calls and distances.

        Args:
            windows: All on these bins.
            rows: Of each.
        """
        found: list[bool] = []
        for start in range(0, len(windows), BLOCK):
            found += self._block(windows[start : start + BLOCK], np.array(rows[start : start + BLOCK]))
        return found

    def _block(self, windows: Sequence[Window], rows: NDArray[np.int64]) -> list[bool]:
        values = self._values([window.counts for window in windows])
        if values is not None and _measured([window.distances for window in windows], rows):
            right, calls = self._sums(values, rows)
            right &= calls == [window.software.calls for window in windows]
            right &= [len(window.moments) in {0, self.moments_bytes} for window in windows]
            having = [place for place, window in enumerate(windows) if window.moments and right[place]]
            moments = b"".join([windows[place].moments for place in having])
            if not (moments and contradiction(moments, self._counted(values, rows)[having].reshape(-1))):
                return [bool(one) for one in right]
        # Something in the block is not right: half of it, at least, may be.
        if (half := len(windows) // 2) == 0:
            return [False]
        return self._block(windows[:half], rows[:half]) + self._block(windows[half:], rows[half:])

    def _values(self, runs: Sequence[bytes]) -> NDArray[Any] | None:
        """The counts of windows, shape (windows, counts); None where something is not plainly right."""
        found = _numbers(runs)
        if found is None or (found[1] != self._length * np.arange(1, len(runs) + 1)).any():
            return None
        return found[0].reshape(len(runs), -1)

    def _sums(self, values: NDArray[Any], rows: NDArray[np.int64]) -> tuple[NDArray[np.bool], NDArray[np.int64]]:
        """Whether all sums of each window are right, and its calls."""
        sums = np.add.reduceat(values, self._starts, axis=1, dtype=np.int64)
        features, n = sums[:, : 2 * self._features], rows[:, None]
        nulls, abstained, resent, calls = sums[:, -4:].T
        right = (features[:, ::2] == n).all(axis=1) & (features[:, 1::2] <= n).all(axis=1)
        right &= (sums[:, 2 * self._features : -4] == n - nulls[:, None]).all(axis=1)
        right &= (abstained <= rows) & (resent <= calls)
        return right, calls

    def _counted(self, values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Finite values of each window's numeric features, shape (windows, features)."""
        counted: NDArray[np.int64] = rows[:, None] - values[:, self._nulls] - values[:, self._nulls + 1]
        return counted


def _measured(distances: Sequence[bytes], rows: NDArray[np.int64]) -> bool:
    """Whether `decode_distances` would find no fault in any."""
    having = [place for place, one in enumerate(distances) if one]
    if not having:
        return True
    found = _numbers([distances[place][4:] for place in having])
    if found is None:
        return False
    values, ends = found
    starts = np.concatenate(([0], ends[:-1]))
    sizes = ends - starts
    if sizes.min() < 2 or sizes.max() > DISTANCE_MAX_BINS:
        return False
    return bool((np.add.reduceat(values, starts, dtype=np.int64) == rows[having]).all())


def _numbers(runs: Sequence[bytes]) -> tuple[NDArray[Any], NDArray[np.int64]] | None:
    """The varints of runs: all numbers, and how many there are up to the end of each; None if not plainly right."""
    data, ends = b"".join(runs), np.cumsum([len(run) for run in runs])
    octets = np.frombuffer(data, np.uint8)
    longer = np.flatnonzero(octets > 0x7F)
    # Each run ends where its last number does: so none is empty, and numbers do not go from one into the next.
    if min(map(len, runs)) == 0 or (octets[ends - 1] > 0x7F).any():
        return None
    numbers = ends - np.searchsorted(longer, ends)
    if (longer[_LONGEST - 1 :] - longer[: 1 - _LONGEST] < _LONGEST).any():
        return None
    values = decode_varint_narrow(data)
    # Larger ones could add up to a right sum beyond 64 bits.
    return (values, numbers) if values.itemsize <= 2 or values.max() <= RECORD_MAX_ROWS else None


_sums: dict[bytes, Sums] = {}


def sums_of(bins_id: bytes, bins: Bins) -> Sums:
    """The parts of the bins that `bins_id` names."""
    found = _sums.get(bins_id)
    if found is None:
        if len(_sums) >= KEPT:
            _sums.clear()
        found = _sums[bins_id] = Sums(bins)
    return found
