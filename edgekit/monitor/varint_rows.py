"""Many runs of equally many unsigned LEB128 numbers, read and written as one table. Source: DWARF 5, section 7.6."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import FormatError
from edgekit_runtime.varints import decode_varint_narrow, varint_digits

BLOCK_WINDOWS: Final = 32
"""Read at once; the arrays of a block stay within the processor's cache, and none is asked of the system each time."""


def decode_varint_rows(runs: Sequence[bytes]) -> NDArray[np.int64]:
    """Reads runs of equally many unsigned LEB128 numbers, each as `decode_varint_block`; shape (runs, numbers), int64.

    Raises:
        FormatError: They are not of equally many.
    """
    whole = np.empty((len(runs), 0), np.int64)
    for start in range(0, len(runs), BLOCK_WINDOWS):
        block = runs[start : start + BLOCK_WINDOWS]
        values = decode_varint_narrow(b"".join(block))
        if start == 0:
            whole = np.empty((len(runs), len(values) // len(block)), np.int64)
        if len(values) != whole.shape[1] * len(block):
            raise FormatError("window", "$.counts", "the windows to merge are not on the same bins")
        whole[start : start + len(block)] = values.reshape(len(block), -1)
    return whole


def encode_varint_rows(values: NDArray[np.int64]) -> list[bytes]:
    """Unsigned LEB128 of each row of numbers that are not negative; shape (rows, numbers), int64."""
    encoded: list[bytes] = []
    for start in range(0, len(values), BLOCK_WINDOWS):
        block = values[start : start + BLOCK_WINDOWS]
        digits, written = varint_digits(block)
        data = digits.take(np.flatnonzero(written)).tobytes()
        bounds = np.cumsum(np.count_nonzero(written, axis=(1, 2))).tolist()
        encoded += [data[begin:end] for begin, end in pairwise([0, *bounds])]
    return encoded
