"""Two windows become one: counts are added, moments merged, and only the resolution in time is lost.

An overfull outbox does this before it gives anything up. Only windows that never left the device may be merged: of one
that may have been stored, the rows would be counted twice.

Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from edgekit_contracts import limits
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Envelope, Kind, Software, Window, encode
from edgekit_runtime.varints import decode_varint_block, encode_varint_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPAN_MAX_MS: Final = 86_400_000
"""The longest window that is made: a day."""

Places = tuple[tuple[int, int], ...]
"""For each numeric feature where its bins begin and end among a window's counts."""


Series = tuple[bytes, str, str]
"""Bins, model and version."""


class _Head(msgspec.Struct, array_like=True):
    """What a window's body begins with."""

    model: str
    model_version: str


def series_of(envelope: Envelope) -> Series | None:
    """What a window is of: only windows of one series can be merged. None where it is no window."""
    if envelope.kind is not Kind.WINDOW:
        return None
    try:
        head = msgspec.msgpack.decode(envelope.body, type=_Head)
    except msgspec.DecodeError:
        return None
    return envelope.bins_id, head.model, head.model_version


def places_of(bins: Bins) -> Places:
    """Where the finite values of each numeric feature are counted."""
    found, at = [], 0
    for feature in bins.features:
        if feature.categories is None:
            found.append((at, at + feature.size))
        at += feature.size + 3  # null, invalid and out_of_range
    return tuple(found)


def merge(first: Envelope, second: Envelope, places: Places | None) -> Envelope | None:
    """Adds a window to the next one on the same bins.

    Args:
        first: The earlier one.
        second: The later one, whose key is kept.
        places: Of their bins; None where they are not known: then windows with moments are not merged.

    Returns:
        What stands for both; None where they are of different models, bins or clocks, or one window cannot hold them.
    """
    if series_of(first) != series_of(second) or first.clock is not second.clock:
        return None
    try:
        a, b = (msgspec.msgpack.decode(one.body, type=Window) for one in (first, second))
    except msgspec.DecodeError:
        return None
    counts, more = decode_varint_block(a.counts), decode_varint_block(b.counts)
    if len(counts) != len(more):
        return None
    n, dt_ms, software = first.n + second.n, _span_ms(first, second), _both(a.software, b.software)
    if max(n, software.calls, software.rejected, software.failed) > limits.RECORD_MAX_ROWS or dt_ms > SPAN_MAX_MS:
        return None
    if first.n == 0 or second.n == 0:
        moments = a.moments if first.n else b.moments
    elif not (a.moments and b.moments):
        moments = b""
    elif places is None or not len(a.moments) == len(b.moments) == 16 * len(places):
        return None
    else:
        moments = _merge_moments((a.moments, counts), (b.moments, more), places)
    if first.n == 0 or second.n == 0:
        distances: bytes | None = a.distances if first.n else b.distances
    else:
        distances = _add_distances(a.distances, b.distances)
    if distances is None:
        return None
    body = Window(a.model, a.model_version, encode_varint_block(counts + more), moments, software, distances)
    return msgspec.structs.replace(
        second,
        t0_ms=first.t0_ms,
        dt_ms=dt_ms,
        n=n,
        body=msgspec.Raw(encode(body)),
        merged=first.merged + second.merged + 1,
    )


def _span_ms(first: Envelope, second: Envelope) -> int:
    """From the first's start to the second's end; where the clock was set back in between, the sum of the lengths."""
    return max(first.dt_ms + second.dt_ms, second.t0_ms + second.dt_ms - first.t0_ms)


def _both(first: Software, second: Software) -> Software:
    """What happened in either, and how it stood at the end."""
    return msgspec.structs.replace(
        second,
        calls=first.calls + second.calls,
        rejected=first.rejected + second.rejected,
        failed=first.failed + second.failed,
        cpu_ms=first.cpu_ms + second.cpu_ms,
    )


def _add_distances(first: bytes, second: bytes) -> bytes | None:
    """As `Window.distances`; None where they are not of one distance."""
    if not (first or second):
        return b""
    counts, more = decode_varint_block(first[4:]), decode_varint_block(second[4:])
    return (
        first[:4] + encode_varint_block(counts + more) if (first[:4], len(counts)) == (second[:4], len(more)) else None
    )


def _merge_moments(
    first: tuple[bytes, NDArray[np.int64]], second: tuple[bytes, NDArray[np.int64]], places: Sequence[tuple[int, int]]
) -> bytes:
    (mean_a, m2_a, least_a, most_a), n_a = _moments(*first, places)
    (mean_b, m2_b, least_b, most_b), n_b = _moments(*second, places)
    n, none = n_a + n_b, np.nan
    least, most = np.fmin(least_a, least_b), np.fmax(most_a, most_b)
    with np.errstate(over="ignore", invalid="ignore"):
        # The mean of no values is not a number, and has no weight.
        mean_a, mean_b = np.where(n_a, mean_a, mean_b), np.where(n_b, mean_b, mean_a)
        delta, some = mean_b - mean_a, np.maximum(n, 1)
        mean = mean_a + delta * n_b / some
        m2 = np.where(n_a, m2_a, 0.0) + np.where(n_b, m2_b, 0.0) + delta**2 * n_a * n_b / some
        # Rounding must not lead out of what such values can have (`edgekit.collector.moments`).
        mean, m2 = np.clip(mean, least, most), np.minimum(m2, n / 4 * (most - least) ** 2)
        quadruples: NDArray[Any] = np.stack([mean, m2, least, most], axis=1)
        quadruples[n == 0] = none
        return quadruples.astype("<f4").tobytes()


def _moments(
    moments: bytes, counts: NDArray[np.int64], places: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean, M2, minimum and maximum, each of [features], and how many values they are of, [features]."""
    quadruples = np.frombuffer(moments, "<f4").reshape(-1, 4).astype(np.float64).T
    # Of each pair of begin and end the first sum: behind the end are the nulls, and in the end the latencies.
    return quadruples, np.add.reduceat(counts, np.array(places).reshape(-1))[::2]
