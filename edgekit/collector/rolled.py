"""Windows are taken into the store's roll-ups.

A window is taken in once: windows have numbers that grow with every commit within a partition of the topic tree, and
`rollup_mark` says up to which number a partition's are in the roll-ups. Both change in one transaction, so it may be
killed at any moment and run again. A late window has a number beyond the mark like any other: it re-opens its hour and
day. What is beyond the mark is read from the windows themselves (`lookback`), so nobody waits for a pass (ADR-0022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from edgekit.collector import rollup_rows
from edgekit.collector.blocks import StoredWindow, in_time, windows_of
from edgekit.collector.database import Database, Transaction
from edgekit.collector.rollup import (
    DAY,
    EVERY_DEVICE,
    HOUR,
    SUMS,
    Key,
    Kind,
    Rows,
    add_up,
    by_kind,
    joined,
    rows_of_kind,
)
from edgekit.collector.schema import ROLLUP_MARK
from edgekit_contracts.reference import Bins
from edgekit_contracts.topics import PARTITIONS

BLOCKS: Final = 64
"""Read at once: 1,024 windows where they are full."""
SUMS_MAX: Final = 2048
"""Hours of devices that one transaction writes, about; ingest into their partition waits meanwhile."""

BinsOf = Callable[[bytes], Bins | None]


def take_in(database: Database, p: int, bins: BinsOf, *, sums_max: int = SUMS_MAX) -> int:
    """Adds windows beyond the mark of a partition to their hours and days, in one transaction.

    Whoever else does the same meanwhile, each window is taken in once.

    Args:
        database: Where the tables are.
        p: The partition of the topic tree.
        bins: The bins of a name.
        sums_max: No more windows are read once there are so many hours of devices.

    Returns:
        How many were taken in; 0 when none is left.

    Raises:
        StorageFault: None was, or none of those that are left.
    """
    while True:
        with database.writing() as db:
            # Nobody is about to commit windows of lower numbers than those that are seen.
            db.lock([p], [])
            before = mark(db, p)
            newest = db.rows('SELECT MAX(id) FROM "window" WHERE p = ? AND id > ?', (p, before))[0][0]
        if newest is None:
            return 0
        hours, taken, last = _read_hours(database, p, (before, newest), bins, sums_max)
        with database.writing() as db:
            db.lock([p], [])
            # Else another pass took them in meanwhile.
            if mark(db, p) == before:
                for level in hours:
                    _add(db, p, level)
                    _add(db, p, add_up(level, lambda key: key.of(DAY)))
                db.put(ROLLUP_MARK, [(p, last)])
                return taken


def roll_up(database: Database, bins: BinsOf, partitions: Iterable[int] = range(PARTITIONS)) -> int:
    """Takes in all windows beyond the marks of partitions, as `take_in`; returns how many."""
    total = 0
    for p in partitions:
        while taken := take_in(database, p, bins):
            total += taken
    return total


def mark(db: Transaction, p: int) -> int:
    """The number up to which a partition's windows are in the roll-ups; 0 before the first."""
    return next((int(number) for (number,) in db.rows("SELECT id FROM rollup_mark WHERE p = ?", (p,))), 0)


def read_windows(
    db: Transaction, device: str, from_ms: int, until_ms: int, beyond: int
) -> list[tuple[int, StoredWindow]]:
    """A device's windows of whole hours, and later ones whose block's number is beyond that one; with these numbers."""
    found = db.rows(
        'SELECT id, records FROM "window" WHERE dev = ? AND hour_ms >= ? AND (hour_ms < ? OR id > ?)',
        (device, from_ms, until_ms, beyond),
    )
    windows = [(number, one) for number, records in found for one in windows_of([records])]
    return sorted(windows, key=lambda pair: in_time(pair[1]))


def _read_hours(
    database: Database, p: int, between: tuple[int, int], bins: BinsOf, sums_max: int
) -> tuple[list[Rows], int, int]:
    """Windows by their numbers, added up by hour.

    Returns:
        The hours of each kind; how many windows they are; the last number.
    """
    parts: dict[Kind, list[Rows]] = {}
    keys: set[Key] = set()
    taken, (last, newest) = 0, between
    while last < newest and len(keys) < sums_max:
        with database.reading() as db:
            found = db.rows(
                'SELECT id, records FROM "window" WHERE p = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?',
                (p, last, newest, BLOCKS),
            )
        here = windows_of(records for _, records in found)
        for kind, windows in by_kind(here).items():
            rows = add_up(rows_of_kind(windows, kind[1], bins(kind[0])), lambda key: key.of(HOUR))
            alike = parts.setdefault(kind, [])
            alike.append(rows)
            keys.update(rows.keys)
            # Not with every block: each time all that are there are copied.
            if sum(map(len, alike)) > 2 * len(keys) + 1024:
                alike[:] = [_added(alike)]
        taken, last = taken + len(here), found[-1][0] if len(found) == BLOCKS else newest
    return [_added(alike) for alike in parts.values()], taken, last


def _added(parts: Sequence[Rows]) -> Rows:
    return add_up(joined(parts), lambda key: key)


def _add(db: Transaction, p: int, fresh: Rows) -> None:
    """Adds the sums of devices to what is known of them, and to those of every device."""
    known = rollup_rows.pick(db, p, fresh)
    here = set(known.keys) if known else set()
    sums = fresh.sums.copy()
    sums[:, SUMS.index("devices")] = [key not in here for key in fresh.keys]
    fresh = replace(fresh, sums=sums)
    everyone = add_up(fresh, lambda key: key.of(key.hours, EVERY_DEVICE))
    rollup_rows.put(db, p, fresh, known)
    rollup_rows.put(db, p, everyone, rollup_rows.pick(db, p, everyone))
