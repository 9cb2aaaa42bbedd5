"""Whole runs of unsigned LEB128 numbers at once: what `counts.encode_varints` and `decode_varints` do one by one.

A window's counts are such a run. The device writes one a window, and reads those that it merges; the centre reads
many windows in one call.

Source: DWARF 5, section 7.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_contracts.counts import encode_varints

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Arrays, which NumPy need not make of a number each time.
_ONE_BYTE: Final = np.array(0x7F)
"""The largest number of one byte."""
_DIGIT: Final = np.array(7, np.uint8)
"""Bits in a byte."""
_OCTET: Final = np.dtype(np.uint8)
_FEW: Final = 48
"""Numbers of more than one byte up to which it is quicker to put each into its place."""
_SELDOM: Final = 16
"""Where one byte in more than so many has another after it, a mask picks numbers out quicker than their places do."""


def encode_varint_block(values: NDArray[Any]) -> bytes:
    """Writes numbers as unsigned LEB128.

    Args:
        values: Shape (count,), integers of 0 to 2^63 - 1.
    """
    places = np.greater(values, _ONE_BYTE).nonzero()[0]
    if len(places) > _FEW:
        digits, written = varint_digits(values)
        return digits.take(np.flatnonzero(written)).tobytes()
    lowest = values.astype(_OCTET).tobytes()
    if not len(places):
        return lowest
    octets = bytearray(lowest)
    for at in reversed(places.tolist()):  # what stands before keeps its place
        rest = values.item(at) >> 7
        octets[at] |= 0x80
        if rest <= 0x7F:
            octets.insert(at + 1, rest)
        else:
            octets[at + 1 : at + 1] = encode_varints((rest,))
    return bytes(octets)


def varint_digits(values: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The octets of numbers, shape (*values.shape, octets of the longest), and which of them are written, likewise."""
    most = int(values.max(initial=0))
    last = max(1, -(-most.bit_length() // 7)) - 1
    digits = np.empty((*values.shape, last + 1), np.uint8)
    written = np.ones(digits.shape, bool)
    digits[..., 0] = narrow = values.astype(np.min_scalar_type(most))
    for place in range(last):
        narrow = narrow >> _DIGIT
        more, digit = narrow.astype(bool), digits[..., place]
        digit |= more.view(np.uint8) << _DIGIT
        digits[..., place + 1] = narrow
        written[..., place + 1] = more
    return digits, written


def decode_varint_block(data: bytes) -> NDArray[np.int64]:
    """Reads a run of whole unsigned LEB128 numbers of at most 63 bits; shape (count,)."""
    return decode_varint_narrow(data).astype(np.int64, copy=False)


def decode_varint_narrow(data: bytes) -> NDArray[Any]:
    """The same, of a type that the numbers fit into: many windows are read in less memory, and so in less time."""
    octets = np.frombuffer(data, np.uint8)
    if data.isascii():
        return octets
    more = octets > 0x7F
    if not (more[-1] or (more[1:] & more[:-1]).any()):
        # The usual case: none of more than two bytes.
        values = (octets & 0x7F).astype(np.uint16)
        values[:-1] |= (octets[1:] * more[:-1]).astype(np.uint16) << 7
        starts = np.ones(len(octets), dtype=bool)
        np.logical_not(more[:-1], out=starts[1:])
        # Where long and short ones alternate, a mask makes the processor guess wrongly for every second.
        few = np.count_nonzero(more) * _SELDOM < len(octets)
        return values[starts] if few else values.take(np.flatnonzero(starts))
    ends = np.flatnonzero(~more)
    if len(ends) == 0:
        return np.empty(0, np.int64)
    lengths = ends.copy()
    lengths[0] += 1
    lengths[1:] -= ends[:-1]
    longest, digits = int(lengths.max()), octets & 0x7F
    numbers: NDArray[Any] = digits[ends].astype(np.uint32 if longest <= 4 else np.int64)
    for back in range(1, longest):
        inside = lengths > back
        numbers <<= inside.astype(numbers.dtype) * 7
        numbers |= digits[ends - back] * inside
    return numbers
