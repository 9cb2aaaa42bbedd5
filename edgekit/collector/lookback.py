"""What a device said since some time: days and hours from the roll-ups, and windows for the rest, added up.

The sums are exactly those of all its windows, whatever is rolled up already. Where retention has removed windows of
the hour that the look-back begins in, it begins with that hour; where it has removed hours, with the day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgekit.collector import rolled, rollup_rows
from edgekit.collector.archive import Archive
from edgekit.collector.rollup import DAY, DAY_MS, HOUR, HOUR_MS, LAST, Rows, add_up, joined, rows_of
from edgekit_contracts.counts import WindowCounts, decode_counts, encode_varints
from edgekit_contracts.reference import Bins, Distance
from edgekit_contracts.topics import partition

_FOREVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """What a device's windows on one model, version, bins and distance add up to; a shadow's apart."""

    device: str
    model: str
    version: str
    bins_id: bytes
    shadow: bool
    row: Rows
    """One row."""

    @property
    def epoch(self) -> int:
        """Of the last window."""
        return self.last("epoch")

    @property
    def order(self) -> tuple[int, ...]:
        """Orders the last windows of several in time."""
        return tuple(self.row.last[0, :3].tolist())

    def __getitem__(self, name: str) -> int:
        """One of `rollup.SUMS`."""
        return int(self.row.column(name)[0])

    def last(self, name: str) -> int:
        """One of `rollup.LAST`: what the last window said."""
        return int(self.row.last[0, LAST.index(name)])


def look_back(store: Archive, device: str, since_ms: int) -> list[Total]:
    """Adds up what a device said.

    Args:
        store: Where the collector stores.
        device: Its name.
        since_ms: Windows that begin before this are left out, as far as the store still tells them apart.

    Raises:
        StorageFault: The store cannot be read.
    """
    p = partition(device)
    while True:
        with store.database.reading() as db:
            mark = rolled.mark(db, p)
        parts = _parts(store, device, since_ms, mark)
        with store.database.reading() as db:
            # Else a pass has just moved windows into the roll-ups, and a window might be seen twice or not at all.
            if parts is not None and rolled.mark(db, p) == mark:
                break
    kinds: dict[tuple[bytes, bytes], list[Rows]] = {}
    for part in parts:
        if part.keys:
            kinds.setdefault((part.keys[0].bins_id, part.keys[0].distance), []).append(part)
    return [
        Total(key.device, key.model, key.version, key.bins_id, key.shadow, whole.take([at]))
        for alike in kinds.values()
        for whole in [add_up(joined(alike), lambda key: key._replace(hours=0, start_ms=0))]
        for at, key in enumerate(whole.keys)
    ]


def counts_of(totals: Sequence[Total], bins: Bins) -> WindowCounts:
    """The counts of several together, by name.

    Args:
        totals: At least one; all on `bins`, by whatever distances.
        bins: What they are counted on.

    Raises:
        FormatError: They do not add up; such windows are in no store that nobody has changed.
    """
    width = totals[0].row.counts.shape[1] - totals[0].row.measured
    numbers = np.sum([one.row.counts[0, :width] for one in totals], axis=0)
    # Through the contract's reader, which knows the order and checks the sums.
    return decode_counts(encode_varints(numbers.tolist()), bins, sum(one["rows"] for one in totals))


def distances_of(totals: Iterable[Total], distance: Distance | None) -> list[int] | None:
    """The rows of several in each of this distance's bins; None where none was measured by it."""
    name = b"" if distance is None else distance.name + bytes([distance.size])
    found = [one.row.counts[0, -one.row.measured :] for one in totals if name and one.row.keys[0].distance == name]
    total: list[int] | None = np.sum(found, axis=0).tolist() if found else None
    return total


def _parts(store: Archive, device: str, since_ms: int, mark: int) -> list[Rows] | None:
    """What is to be added: windows, hours, days; None where hours went while they were read."""
    hour_ms, day_ms = (-(-since_ms // length) * length for length in (HOUR_MS, DAY_MS))
    first_hour_ms, first_day_ms = (since_ms // length * length for length in (HOUR_MS, DAY_MS))
    with store.database.reading() as db:
        known = {
            (hours, start): int(windows)
            for hours, start, windows in db.rows(
                "SELECT hours, start_ms, SUM(windows) FROM rollup WHERE dev = ? AND hours IN (1, 24)"
                " AND start_ms >= ? AND start_ms < ? GROUP BY hours, start_ms",
                (device, first_day_ms, day_ms),
            )
        }
        if sum(windows for (hours, _), windows in known.items() if hours == HOUR) < known.get((DAY, first_day_ms), 0):
            since_ms = hour_ms = day_ms = first_hour_ms = first_day_ms
        windows = rolled.read_windows(db, device, first_hour_ms, hour_ms, mark)
        if sum(number <= mark for number, _ in windows) < known.get((HOUR, first_hour_ms), 0):
            since_ms = hour_ms = first_hour_ms
        rest = [one for number, one in windows if one.at_ms >= since_ms and (one.at_ms < hour_ms or number > mark)]
        hours = rollup_rows.read(db, device, HOUR, (hour_ms, day_ms))
        days = rollup_rows.read(db, device, DAY, (day_ms, _FOREVER))
    wanted = sum(windows for (length, start), windows in known.items() if length == HOUR and hour_ms <= start < day_ms)
    if sum(int(one.column("windows").sum()) for one in hours) != wanted:
        return None
    return [*(one.without_moments() for one in rows_of(rest, store.bins)), *hours, *days]
