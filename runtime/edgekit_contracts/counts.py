"""What a window counts: as values, and as the run of varints that travels in its record.

All of it is counts on the bins of the bundle's reference: merging is addition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError
from edgekit_contracts.reference import LATENCY_BINS, Bins

_CONTINUED: Final = bytes(range(0x80, 0x100))
_LONG_VARINT: Final = re.compile(rb"[\x80-\xff]+[\x00-\x7f]")


class FeatureWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One feature's counts in a window."""

    bins: tuple[int, ...]
    null: int
    invalid: int
    out_of_range: int


class WindowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a window by name."""

    features: tuple[FeatureWindow, ...]
    classes: tuple[int, ...]
    scores: tuple[int, ...]
    output_nulls: int
    abstained: int
    resent: int
    latency: tuple[int, ...]


def encode_counts(counts: WindowCounts) -> bytes:
    """The run of varints that `Window` describes."""
    flat: list[int] = []
    for feature in counts.features:
        flat += [*feature.bins, feature.null, feature.invalid, feature.out_of_range]
    flat += [*counts.classes, *counts.scores, counts.output_nulls, counts.abstained, counts.resent, *counts.latency]
    return encode_varints(flat)


def decode_counts(data: bytes, bins: Bins, n: int) -> WindowCounts:
    """Reads and checks the run of varints of a window with `n` rows.

    Beside the sums that `Window` names: neither out of range nor abstained passes `n`, nor re-sent the calls.

    Raises:
        FormatError: Its length does not fit the bins, a sum is not `n`, or a part is more than its whole.
    """
    sizes = [feature.size for feature in bins.features]
    classes, scores = len(bins.classes), bins.score_size
    flat = decode_varints(data, sum(sizes) + 3 * len(sizes) + classes + scores + 3 + LATENCY_BINS)
    at = 0

    def take(count: int) -> tuple[int, ...]:
        nonlocal at
        at += count
        return tuple(flat[at - count : at])

    features = []
    for size in sizes:
        values, (null, invalid, out_of_range) = take(size), take(3)
        features.append(FeatureWindow(bins=values, null=null, invalid=invalid, out_of_range=out_of_range))
    class_counts, score_counts, (nulls, abstained, resent) = take(classes), take(scores), take(3)
    latency = take(LATENCY_BINS)

    for index, feature in enumerate(features):
        if sum(feature.bins) + feature.null + feature.invalid != n:
            raise FormatError("window", f"$.counts.features[{index}]", f"counts do not add up to {n} rows")
        if feature.out_of_range > n:
            raise FormatError("window", f"$.counts.features[{index}]", f"more out of range than {n} rows")
    if classes and sum(class_counts) + nulls != n:
        raise FormatError("window", "$.counts.classes", f"counts do not add up to {n} rows")
    if sum(score_counts) + nulls != n:
        raise FormatError("window", "$.counts.scores", f"counts do not add up to {n} rows")
    if abstained > n:
        raise FormatError("window", "$.counts.abstained", f"more than {n} rows")
    if resent > sum(latency):
        raise FormatError("window", "$.counts.resent", f"more than {sum(latency)} calls")
    return WindowCounts(
        features=tuple(features),
        classes=class_counts,
        scores=score_counts,
        output_nulls=nulls,
        abstained=abstained,
        resent=resent,
        latency=latency,
    )


def encode_distances(name: bytes, counts: Iterable[int]) -> bytes:
    """`Window.distances`."""
    return name + encode_varints(counts)


def decode_distances(data: bytes, n: int) -> tuple[bytes, list[int]] | None:
    """Reads and checks `Window.distances` of a window with `n` rows: the distance's name and the counts, or None.

    Raises:
        FormatError: Not the counts of `n` rows in 2 to 64 bins.
    """
    if not data:
        return None
    varints = data[4:]
    counts = decode_varints(varints, len(varints.translate(None, _CONTINUED)))
    if not 2 <= len(counts) <= limits.DISTANCE_MAX_BINS or sum(counts) != n:
        raise FormatError(
            "window", "$.distances", f"not the counts of {n} rows in 2 to {limits.DISTANCE_MAX_BINS} bins"
        )
    return data[:4], counts


def encode_varints(values: Iterable[int]) -> bytes:
    """Unsigned LEB128. Source: DWARF 5, section 7.6."""
    out = bytearray()
    for value in values:
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def decode_varints(data: bytes, count: int) -> list[int]:
    """Reads exactly `count` unsigned LEB128 numbers of at most 63 bits.

    Raises:
        FormatError: Cut short, too long, or a number too large.
    """
    values: list[int] = []
    at = 0
    # Most counts are below 128, one byte each: C takes them in runs, and only the long ones are put together here.
    for match in _LONG_VARINT.finditer(data):
        digits = match[0]
        if len(digits) > 9:
            raise FormatError("window", "$.counts", "a count of more than 63 bits")
        values += data[at : match.start()]
        values.append(sum((byte & 0x7F) << 7 * place for place, byte in enumerate(digits)))
        at = match.end()
    values += data[at:]
    if data[-1:] > b"\x7f" or len(values) != count:
        raise FormatError("window", "$.counts", f"{len(values)} whole counts where the bins ask for {count}")
    return values
