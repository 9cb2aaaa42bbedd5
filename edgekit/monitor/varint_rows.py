"""Many runs of equally many unsigned LEB128 numbers, read and written as one table. Source: DWARF 5, section 7.6."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import FormatError
from edgekit_runtime.varints import decode_varint_block

BLOCK_WINDOWS: Final = 128
"""Read at once; the arrays of a block stay within the processor's cache."""


def decode_varint_rows(runs: Sequence[bytes]) -> NDArray[np.int64]:
    """Reads runs of equally many unsigned LEB128 numbers, each as `decode_varint_block`; shape (runs, numbers), int64.

    Raises:
        FormatError: They are not of equally many.
    """
    blocks = [runs[start : start + BLOCK_WINDOWS] for start in range(0, len(runs), BLOCK_WINDOWS)]
    width, whole = 0, np.empty((len(runs), 0), np.int64)
    for index, block in enumerate(blocks):
        values = decode_varint_block(b"".join(block))
        if index == 0:
            width = len(values) // len(block)
            whole = np.empty((len(runs), width), np.int64)
        if len(values) != width * len(block):
            raise FormatError("window", "$.counts", "the windows to merge are not on the same bins")
        whole[index * BLOCK_WINDOWS : index * BLOCK_WINDOWS + len(block)] = values.reshape(len(block), -1)
    return whole


def encode_varint_rows(values: NDArray[np.int64]) -> list[bytes]:
    """Unsigned LEB128 of each row of numbers that are not negative; shape (rows, numbers), int64."""
    encoded: list[bytes] = []
    for start in range(0, len(values), BLOCK_WINDOWS):
        block = values[start : start + BLOCK_WINDOWS]
        longest = max(1, -(-int(block.max(initial=0)).bit_length() // 7))
        digits = np.empty((*block.shape, longest), np.uint8)
        wanted = np.ones(digits.shape, bool)
        for place in range(longest):
            rest = block >> 7 * place
            digits[:, :, place] = (rest & 0x7F) | (rest > 0x7F) * 0x80
            if place:
                wanted[:, :, place] = rest > 0
        data = digits[wanted].tobytes()
        bounds = np.cumsum(np.count_nonzero(wanted, axis=(1, 2))).tolist()
        encoded += [data[begin:end] for begin, end in pairwise([0, *bounds])]
    return encoded
