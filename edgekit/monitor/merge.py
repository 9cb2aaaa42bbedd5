"""Windows of one model on the same bins, added up: exact, in any order, over time and over devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import FormatError
from edgekit_contracts.reference import Bins, Distance
from edgekit_contracts.telemetry import WindowCounts, decode_counts, encode_varints
from edgekit_runtime.varints import decode_varint_block

BLOCK_WINDOWS: Final = 128
"""Read at once; the arrays of a block stay within the processor's cache."""


def merge_counts(windows: Sequence[bytes], bins: Bins, n: int) -> WindowCounts:
    """Adds the counts of windows.

    Args:
        windows: `Window.counts` of each, all on `bins`; checked when they were ingested.
        bins: What they were counted on.
        n: Rows in all of them.

    Raises:
        ValueError: No window.
        FormatError: They are not all on the same bins, or do not add up to `n`.
    """
    if not windows:
        raise ValueError("no window to merge")
    total: NDArray[np.int64] | None = None
    for start in range(0, len(windows), BLOCK_WINDOWS):
        block = windows[start : start + BLOCK_WINDOWS]
        values = decode_varint_block(b"".join(block))
        if len(values) % len(block) or (total is not None and len(values) != len(total) * len(block)):
            raise FormatError("window", "$.counts", "the windows to merge are not on the same bins")
        summed = values.reshape(len(block), -1).sum(axis=0)
        total = summed if total is None else total + summed
    assert total is not None
    # Through the contract's reader, which knows the order and checks the sums.
    return decode_counts(encode_varints(total.tolist()), bins, n)


def merge_distances(windows: Sequence[bytes], distance: Distance | None) -> list[int] | None:
    """Adds the distances of windows.

    Args:
        windows: `Window.distances` of each.
        distance: Of the reference that they are compared with; what was measured by another is left out.

    Returns:
        Rows in each bin; None where no row was measured by it.
    """
    if distance is None:
        return None
    blocks = [decode_varint_block(window[4:]) for window in windows if window[:4] == distance.name]
    fitting = [block for block in blocks if len(block) == distance.size]
    total: list[int] | None = np.sum(fitting, axis=0).tolist() if fitting else None
    return total
