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
from edgekit.collector.database import Database, Row, Transaction
from edgekit.collector.hours import hours_of
from edgekit.collector.rollup import (
    DAY,
    EVERY_DEVICE,
    SUMS,
    Key,
    Kind,
    Rows,
    add_up,
    by_kind,
    joined,
)
from edgekit.collector.schema import ROLLUP_MARK
from edgekit_contracts.reference import Bins
from edgekit_contracts.topics import PARTITIONS

WINDOWS: Final = 1024
"""Read at once, and no more than a block beyond."""
SUMS_MAX: Final = 1024
"""Hours of devices that one transaction writes, about, and their days; ingest into their partition waits meanwhile."""

_BETWEEN: Final = 'FROM "window" WHERE p = ? AND id > ? AND id <= ? ORDER BY id'

BinsOf = Callable[[bytes], Bins | None]


def take_in(database: Database, p: int, bins: BinsOf, *, sums_max: int = SUMS_MAX, until: int = 2**63 - 1) -> int:
    """Adds windows beyond the mark of a partition to their hours and days, in one transaction.

    Whoever else does the same meanwhile, each window is taken in once.

    Args:
        database: Where the tables are.
        p: The partition of the topic tree.
        bins: The bins of a name.
        sums_max: No more windows are read once there are so many hours of devices.
        until: None of a higher number is read.

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
            newest = db.rows('SELECT MAX(id) FROM "window" WHERE p = ? AND id > ? AND id <= ?', (p, before, until))[0][
                0
            ]
        if newest is None:
            return 0
        hours, taken, last = _read_hours(database, p, (before, newest), bins, sums_max)
        with database.reading() as db:
            levels = [level for hour in hours for level in (hour, add_up(hour, lambda key: key.of(DAY)))]
            sums = [rows for level in levels for rows in _sums(db, p, level)]
        with database.writing() as db:
            db.lock([p], [])
            # Else another pass took them in meanwhile, and the sums that were read are others now.
            if mark(db, p) == before:
                for rows in sums:
                    rollup_rows.put(db, rows)
                db.put(ROLLUP_MARK, [(p, last)])
                return taken


def roll_up(database: Database, bins: BinsOf, partitions: Iterable[int] = range(PARTITIONS)) -> int:
    """Takes in all windows that are beyond the marks of partitions now, as `take_in`; returns how many."""
    total = 0
    for p in partitions:
        until = newest(database, p)
        while taken := take_in(database, p, bins, until=until):
            total += taken
    return total


def newest(database: Database, p: int) -> int:
    """The highest number of a partition's windows; 0 where there is none."""
    with database.reading() as db:
        return db.rows('SELECT MAX(id) FROM "window" WHERE p = ?', (p,))[0][0] or 0


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
            sizes = f"SELECT id, windows {_BETWEEN} LIMIT ?"
            end = _end(db.rows(sizes, (p, last, newest, WINDOWS)), newest)
            here = windows_of(records for (records,) in db.rows(f"SELECT records {_BETWEEN}", (p, last, end)))
        for kind, windows in by_kind(here).items():
            rows = hours_of(windows, kind[1], bins(kind[0]))
            alike = parts.setdefault(kind, [])
            alike.append(rows)
            keys.update(rows.keys)
            # Not with every block: each time all that are there are copied.
            if sum(map(len, alike)) > 2 * len(keys) + WINDOWS:
                alike[:] = [_added(alike)]
        taken, last = taken + len(here), end
    return [_added(alike) for alike in parts.values()], taken, last


def _end(blocks: Sequence[Row], newest: int) -> int:
    """Up to which number blocks are read at once, by the number and the windows of each; else all."""
    total = 0
    for number, windows in blocks:
        total += windows
        if total >= WINDOWS:
            return int(number)
    return newest


def _added(parts: Sequence[Rows]) -> Rows:
    return add_up(joined(parts), lambda key: key)


def _sums(db: Transaction, p: int, fresh: Rows) -> list[rollup_rows.Written]:
    """The sums of devices with what is known of them, and those of every device."""
    known = rollup_rows.pick(db, p, fresh)
    here = set(known.keys) if known else set()
    sums = fresh.sums.copy()
    sums[:, SUMS.index("devices")] = [key not in here for key in fresh.keys]
    fresh = replace(fresh, sums=sums)
    everyone = add_up(fresh, lambda key: key.of(key.hours, EVERY_DEVICE))
    return [
        rollup_rows.written(p, fresh, known),
        rollup_rows.written(p, everyone, rollup_rows.pick(db, p, everyone)),
    ]
