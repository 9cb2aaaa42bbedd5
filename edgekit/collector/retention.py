"""How long the store keeps what it holds, and the removal of what is older: in small transactions, with pauses.

Never removed: cursors, so that a record that comes again is known though its row is gone, and what was lost stays
counted; the statuses of devices; references; totals of what was refused. A window is not removed before it is in the
roll-ups. Windows go by whole days (UTC); PostgreSQL drops a day's partition.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from edgekit.collector import rollup_rows
from edgekit.collector.database import Database, Table, Transaction
from edgekit.collector.keep import DAY_MS, HOUR_MS, Keep
from edgekit.collector.rollup import DAY, HOUR
from edgekit.collector.schema import DEAD, EVENT, GAP, PART, QUARANTINE, REFUSAL, WINDOW

log = logging.getLogger(__name__)

ROWS: Final = 1000
"""Removed in one transaction; whoever ingests waits meanwhile."""
PAUSE_MIN_S: Final = 0.005
JUMP_MS: Final = HOUR_MS
HOLD_S: Final = 86_400.0
NO_REFERENCE: Final = "no reference"
"""A total of what was refused: windows that waited for their reference too long."""


class SteadyClock:
    """Milliseconds since 1970; None for a day after the clock has jumped: a wrong clock must not remove anything.

    Args:
        wall_s: Seconds since 1970.
        monotonic_s: Of the machine.
    """

    def __init__(self, wall_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic):
        self._wall_s, self._monotonic_s = wall_s, monotonic_s
        self._offset_s = wall_s() - monotonic_s()
        self._held_s = float("-inf")

    def now_ms(self) -> int | None:
        """The time."""
        wall_s, monotonic_s = self._wall_s(), self._monotonic_s()
        if abs(wall_s - monotonic_s - self._offset_s) * 1000 > JUMP_MS:
            log.warning("the clock has jumped to %s: nothing is removed for a day", datetime.fromtimestamp(wall_s, UTC))
            self._offset_s, self._held_s = wall_s - monotonic_s, monotonic_s + HOLD_S
        return None if monotonic_s < self._held_s else round(wall_s * 1000)


def remove(database: Database, keep: Keep, now_ms: int, pause: Callable[[float], bool]) -> Counter[str]:
    """Removes what is older than it is to be kept.

    Args:
        database: Where the tables are; a connection that nobody else waits for.
        keep: How long.
        now_ms: Milliseconds since 1970.
        pause: Waits for so many seconds; whether to end.

    Returns:
        Rows by kind; of a day that was dropped whole about so many.

    Raises:
        StorageFault: The rest will be removed another time.
    """
    removed = Counter[str]()
    for what, step in _steps(database, keep, now_ms):
        while True:
            begun = time.monotonic()
            with database.writing() as db:
                rows = step(db)
            removed[what] += rows
            if pause(max(PAUSE_MIN_S, time.monotonic() - begun)):
                return +removed
            if not rows:
                break
    return +removed


def _steps(database: Database, keep: Keep, now_ms: int) -> Iterator[tuple[str, Callable[[Transaction], int]]]:
    """Each removes some rows, and returns how many: again and again, until none are left."""
    if keep.windows is not None:
        with database.reading() as db:
            marks = {int(p): int(number) for p, number in db.rows("SELECT p, id FROM rollup_mark")}
            days = sorted(day for day in db.days(WINDOW) if day < (now_ms - keep.windows) // DAY_MS)
        for day in days:
            yield "windows", partial(_remove_day, day=day, marks=marks)
    for what, hours, kept in (("hours", HOUR, keep.hours), ("days", DAY, keep.days)):
        if kept is not None:
            yield what, partial(rollup_rows.remove, hours=hours, before_ms=now_ms - kept, limit=ROWS)
    for what, table, kept in (
        ("events", EVENT, keep.events),
        ("gaps", GAP, keep.gaps),
        ("refused", DEAD, keep.refused),
        ("reference parts", PART, keep.quarantine),
        ("quarantined windows", QUARANTINE, keep.quarantine),
    ):
        if kept is not None:
            yield what, partial(_remove_oldest, table=table, before_ms=now_ms - kept)


def _remove_day(db: Transaction, day: int, marks: Mapping[int, int]) -> int:
    return db.remove_day(WINDOW, day, marks, ROWS)


def _remove_oldest(db: Transaction, table: Table, before_ms: int) -> int:
    key = ", ".join(table.key)
    rows = db.run(
        f"DELETE FROM {table.name} WHERE ({key}) IN"
        f" (SELECT {key} FROM {table.name} WHERE received_ms < ? ORDER BY received_ms LIMIT ?)",
        (before_ms, ROWS),
    )
    if table is QUARANTINE and rows:
        # They were acknowledged: that they are not among the windows must be known.
        before = sum(count for _, count in db.pick(REFUSAL, [(NO_REFERENCE,)]))
        db.put(REFUSAL, [(NO_REFERENCE, before + rows)])
    return rows
