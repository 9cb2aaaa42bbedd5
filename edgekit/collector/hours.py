"""Windows added up by hour as they are read: what `rollup` makes of them, without a row for each in between.

A pass does this for every window, so it is quick: windows of one hour are brought together before anything is made of
them, their counts stay as narrow as they were read, and each hour is one sum over rows that lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit.collector.rollup import (
    HOUR,
    HOUR_MS,
    LONGEST_MS,
    SUMS,
    Integers,
    Key,
    Rows,
    latest,
    merge_moments,
    moments_of,
    unseen_of,
    width_of,
)
from edgekit_contracts.errors import FormatError
from edgekit_contracts.reference import LATENCY_BINS, Bins
from edgekit_runtime.varints import decode_varint_narrow

if TYPE_CHECKING:
    from edgekit.collector.blocks import StoredWindow

BLOCK: Final = 128
"""Windows whose counts are read at once: their arrays stay within the processor's cache."""


def hours_of(windows: Sequence[StoredWindow], distance: bytes, bins: Bins | None) -> Rows:
    """Adds windows up by hour.

    Args:
        windows: At least one, of one kind, in the order of their arrival.
        distance: As of `Key`.
        bins: What they are counted on.

    Raises:
        FormatError: The counts are not those of their bins; such windows are in no store that nobody has changed.
    """
    assert bins is not None, "windows without bins are in quarantine"
    hours: dict[tuple[str, int, str, str, bool], list[StoredWindow]] = {}
    for one in windows:
        shadow = one.n > 0 and not one.window.software.calls
        hours.setdefault((one.device, one.at_ms // HOUR_MS, one.model, one.version, shadow), []).append(one)
    ordered = [one for some in hours.values() for one in some]
    lengths = list(map(len, hours.values()))
    starts = np.array([0, *accumulate(lengths[:-1])])
    place = np.repeat(np.arange(len(lengths)), lengths)
    counts, unseen = added([one.window.counts for one in ordered], lengths, width_of(bins), unseen_of(bins))
    sums, last, rss_kb = _scalars(ordered, place, starts)
    for column, name in enumerate(("output_nulls", "abstained", "resent"), counts.shape[1] - LATENCY_BINS - 3):
        sums[:, SUMS.index(name)] = counts[:, column]
    if distance:
        measured, _ = added([one.window.distances[4:] for one in ordered], lengths, distance[4], unseen_of(bins)[:0])
        counts = np.hstack([counts, measured])
    return Rows(
        tuple(
            Key(HOUR, hour * HOUR_MS, device, model, version, windows[0].bins_id, distance, shadow)
            for device, hour, model, version, shadow in hours
        ),
        sums,
        last,
        rss_kb,
        counts,
        merge_moments(moments_of(ordered, unseen), place, starts),
    )


def added(
    runs: Sequence[bytes], lengths: Sequence[int], width: int, columns: NDArray[np.intp]
) -> tuple[Integers, NDArray[Any]]:
    """Sums of runs of varints that lie side by side.

    Args:
        runs: Each of as many numbers.
        lengths: How many runs each sum is of.
        width: Numbers of a run.
        columns: What is asked of each run; any shape.

    Returns:
        The sums, [lengths, width], and the columns, [runs, *columns].
    """
    sums = np.zeros((len(lengths), width), np.int64)
    asked = np.empty((len(runs), *columns.shape), np.int64)
    group, left = 0, lengths[0]
    for start in range(0, len(runs), BLOCK):
        some = runs[start : start + BLOCK]
        values = decode_varint_narrow(b"".join(some))
        if len(values) != width * len(some):
            raise FormatError("window", "$.counts", "these are not the counts of its bins")
        # A block of numbers of 16 bits adds up within 32, in half the time.
        wide, values = np.uint32 if values.itemsize <= 2 else np.int64, values.reshape(len(some), width)
        asked[start : start + BLOCK] = values[:, columns]
        at = 0
        while at < len(some):
            if not left:
                group += 1
                left = lengths[group]
            end = min(at + left, len(some))
            sums[group] += values[at] if end == at + 1 else np.add.reduce(values[at:end], axis=0, dtype=wide)
            left -= end - at
            at = end
    return sums, asked


def _scalars(
    windows: Sequence[StoredWindow], place: NDArray[np.intp], starts: NDArray[np.intp]
) -> tuple[Integers, Integers, Integers]:
    """As of `Rows`: sums, without those that are in the counts; what was said last; the largest memory."""
    rows = np.array(
        [
            (
                one.n,
                (said := one.window.software).calls,
                said.rejected,
                said.failed,
                said.cpu_ms,
                one.dt_ms,
                one.at_ms,
                one.sequence,
                one.epoch,
                said.rss_kb,
                said.uptime_s,
                said.outbox_records,
            )
            for one in windows
        ],
        np.int64,
    )
    np.minimum(rows[:, 4:6], LONGEST_MS, out=rows[:, 4:6])
    added = np.add.reduceat(rows[:, :6], starts)
    sums = np.zeros((len(starts), len(SUMS)), np.int64)
    sums[:, SUMS.index("windows")] = np.diff(starts, append=len(windows))
    for column, name in enumerate(("rows", "calls", "rejected", "failed", "cpu_ms", "dt_ms")):
        sums[:, SUMS.index(name)] = added[:, column]
    return sums, latest(rows[:, 6:], place), np.maximum.reduceat(rows[:, 9], starts)
