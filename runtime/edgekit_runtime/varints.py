"""Whole runs of unsigned LEB128 numbers at once: what `telemetry.encode_varints` and `decode_varints` do one by one.

A window's counts are such a run. The device writes one a window, and reads those that it merges; the centre reads
many windows in one call.

Source: DWARF 5, section 7.6.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.telemetry import encode_varints

_TWO_BYTES: Final = 1 << 14
"""From here on a number takes three."""
_FEW: Final = 48
"""Numbers of two bytes up to which it is quicker to put each into its place."""


def encode_varint_block(values: NDArray[Any]) -> bytes:
    """Writes numbers as unsigned LEB128.

    Args:
        values: Shape (count,), integers of 0 to 2^63 - 1.
    """
    places = (values > 0x7F).nonzero()[0]
    if len(places) > _FEW:
        return _encode_many(values, places)
    octets = bytearray(values.astype(np.uint8))
    for shift, at in enumerate(places.tolist()):
        value = values.item(at)
        if value >= _TWO_BYTES:
            return encode_varints(values.tolist())
        octets[at + shift] |= 0x80
        octets.insert(at + shift + 1, value >> 7)
    return bytes(octets)


def _encode_many(values: NDArray[Any], places: NDArray[np.intp]) -> bytes:
    """The same, where the numbers at many places take more than one byte."""
    if values.max() >= _TWO_BYTES:
        return encode_varints(values.tolist())
    pairs = np.empty((len(values), 2), np.uint8)
    pairs[:, 0] = values
    pairs[places, 0] |= 0x80
    pairs[:, 1] = values >> 7
    written = np.zeros(pairs.shape, dtype=bool)
    written[:, 0] = True
    written[places, 1] = True
    return pairs[written].tobytes()


def decode_varint_block(data: bytes) -> NDArray[np.int64]:
    """Reads a run of whole unsigned LEB128 numbers of at most 63 bits; shape (count,)."""
    octets = np.frombuffer(data, np.uint8)
    if data.isascii():
        return octets.astype(np.int64)
    more = octets > 0x7F
    if not (more[-1] or (more[1:] & more[:-1]).any()):
        # The usual case: none of more than two bytes.
        values = (octets & 0x7F).astype(np.uint16)
        values[:-1] |= (octets[1:] * more[:-1]).astype(np.uint16) << 7
        starts = np.ones(len(octets), dtype=bool)
        np.logical_not(more[:-1], out=starts[1:])
        return values[starts].astype(np.int64)
    ends = np.flatnonzero(~more)
    if len(ends) == 0:
        return np.empty(0, np.int64)
    begins = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(ends[-1] + 1) - np.repeat(begins, ends - begins + 1)
    digits = (octets[: ends[-1] + 1].astype(np.int64) & 0x7F) << (7 * place)
    return np.add.reduceat(digits, begins)
