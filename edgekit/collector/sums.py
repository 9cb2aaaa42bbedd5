"""Do a window's counts and moments add up? Asked of whole arrays at once; the contract's own reader says what does not.

The collector asks it of every window, so it is quick: one read of the varints, one sum for each part of the layout that
`telemetry.Window` describes.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.collector.moments import contradiction
from edgekit_contracts.errors import FormatError
from edgekit_contracts.limits import RECORD_MAX_ROWS
from edgekit_contracts.reference import LATENCY_BINS, Bins
from edgekit_contracts.telemetry import decode_counts
from edgekit_runtime.varints import decode_varint_block

KEPT: Final = 4096
"""Layouts that are remembered."""

_TOO_LONG: Final = re.compile(rb"[\x80-\xff]{9}")
"""A number of more than 63 bits."""


class Sums:
    """The parts of a window's counts on some bins.

    Args:
        bins: What is counted on.
    """

    def __init__(self, bins: Bins) -> None:
        self._bins, self._features = bins, len(bins.features)
        parts = [size for feature in bins.features for size in (feature.size + 2, 1)]
        self._classes = bool(bins.classes)
        parts += [len(bins.classes)] if self._classes else []
        parts += [bins.score_size, 1, 1, 1, LATENCY_BINS]
        self._length = sum(parts)
        self._starts = np.array([0, *accumulate(parts[:-1])])
        ends = zip(self._starts[1 : 2 * self._features : 2], bins.features, strict=True)
        self._nulls = np.array([end - 2 for end, feature in ends if feature.categories is None], dtype=np.intp)
        """Where the nulls of each numeric feature stand; its invalid values follow."""

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
        values = self._values(data)
        if values is None or (calls := self._calls(values, n)) is None:
            return sum(decode_counts(data, self._bins, n).latency)
        if moments and (fault := contradiction(moments, n - values[self._nulls] - values[self._nulls + 1])):
            raise FormatError("window", "$.moments", fault)
        return calls

    def _values(self, data: bytes) -> NDArray[np.int64] | None:
        """The counts; None where something is not plainly right."""
        if not data or data[-1] > 0x7F or _TOO_LONG.search(data):
            return None
        values = decode_varint_block(data)
        # Larger ones could add up to a right sum beyond 64 bits.
        return values if len(values) == self._length and values.max() <= RECORD_MAX_ROWS else None

    def _calls(self, values: NDArray[np.int64], n: int) -> int | None:
        """The calls; None where a sum is not right."""
        sums = np.add.reduceat(values, self._starts)
        features = sums[: 2 * self._features]
        *answers, nulls, abstained, resent, calls = sums[2 * self._features :].tolist()
        right = (
            bool((features[::2] == n).all() and (features[1::2] <= n).all())
            and all(one + nulls == n for one in answers)
            and abstained <= n
            and resent <= calls
        )
        return calls if right else None


_sums: dict[bytes, Sums] = {}


def sums_of(bins_id: bytes, bins: Bins) -> Sums:
    """The parts of the bins that `bins_id` names."""
    found = _sums.get(bins_id)
    if found is None:
        if len(_sums) >= KEPT:
            _sums.clear()
        found = _sums[bins_id] = Sums(bins)
    return found
