"""Files of an older release. Version 1 knew records by their rows alone; what its cursors lack is read from those.

Every table is written anew, so that a file that was brought up to date is like one made today (ADR-0021).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

from edgekit.collector.cursor import RECENT_MAX, Cursor, Range, Spans, size
from edgekit_contracts.topics import partition

log = logging.getLogger(__name__)

_OLD: Final = ("device", "cursor", "window", "quarantine", "gap", "event", "part", "reference", "standing", "dead")
_RECORDS: Final = ("window", "event", "part", "quarantine")
_DAY_MS: Final = 86_400_000
_SAME: Final = ("device", "quarantine", "event", "reference", "standing", "dead")
_COPIES: Final = (
    *(f"INSERT INTO {table} SELECT * FROM old_{table} ORDER BY 1, 2" for table in _SAME),
    # In the order of their arrival, which their numbers follow.
    "INSERT INTO window (p, day, dev, epoch, seq, at_ms, t0_ms, dt_ms, clock, received_ms, bins_id, n, model, version,"
    " body, merged) SELECT partition_of(dev), received_ms / 86400000, *, 0 FROM old_window ORDER BY rowid",
    "INSERT INTO gap SELECT *, 0 FROM old_gap",
    # When a part came was not kept: the newest record of its device is as old at most.
    "INSERT INTO part SELECT o.*, COALESCE((SELECT MAX(received_ms) FROM old_window w WHERE w.dev = o.dev), 0)"
    " FROM old_part o",
    "INSERT INTO refusal SELECT reason, SUM(count) FROM old_dead GROUP BY reason",
)


def from_1(db: sqlite3.Connection, tables: Iterable[str]) -> None:
    """Brings a file of version 1 up to date, within the caller's transaction.

    Args:
        db: The file.
        tables: The statements that make today's tables.
    """
    (windows,) = db.execute("SELECT COUNT(*) FROM window").fetchone()
    log.warning("the store is of an older release and is written anew: %d windows", windows)
    db.create_function("partition_of", 1, partition, deterministic=True)
    for table in _OLD:
        db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in tables:
        db.execute(statement)
    for statement in _COPIES:
        db.execute(statement)
    for dev, epoch, high, ranges in db.execute("SELECT dev, epoch, high, ranges FROM old_cursor").fetchall():
        cursor = _cursor(db, dev, epoch, high, msgspec.msgpack.decode(ranges, type=tuple[Range, ...]))
        blobs = (msgspec.msgpack.encode(tuple(some)) for some in (cursor.missing, cursor.recent))
        missing, recent = blobs
        db.execute(
            "INSERT INTO cursor VALUES (?, ?, ?, ?, ?, ?, ?)", (dev, epoch, high, ranges, missing, cursor.lost, recent)
        )
    for table in _OLD:
        db.execute(f"DROP TABLE old_{table}")


def _cursor(db: sqlite3.Connection, dev: str, epoch: int, high: int, ranges: tuple[Range, ...]) -> Cursor:
    """What version 1 would have answered for this epoch, as a cursor of today."""
    missing, lost = Spans(), 0
    gaps = db.execute("SELECT first, last, records FROM gap WHERE dev = ? AND epoch = ?", (dev, epoch)).fetchall()
    for first, last, records in gaps:
        here = Spans()
        for table in _RECORDS:
            where = f"FROM {table} WHERE dev = ? AND epoch = ? AND seq BETWEEN ? AND ?"
            for (sequence,) in db.execute(f"SELECT seq {where}", (dev, epoch, first, last)).fetchall():
                here.add(sequence, sequence)
        gone = max(0, records - size(here))
        lost += gone
        db.execute("UPDATE gap SET lost = ? WHERE dev = ? AND epoch = ? AND last = ?", (gone, dev, epoch, last))
        for hole in here.holes(first, last) if records == last - first + 1 else ():
            missing.add(*hole)
    recent = db.execute(
        "SELECT received_ms, dt_ms FROM window WHERE dev = ? AND epoch = ? ORDER BY received_ms DESC LIMIT ?",
        (dev, epoch, RECENT_MAX),
    ).fetchall()
    waiting = db.execute("SELECT received_ms, 0 FROM quarantine WHERE dev = ? AND epoch = ?", (dev, epoch)).fetchall()
    return Cursor(high, ranges, missing, lost, sorted([*recent, *waiting], reverse=True)[:RECENT_MAX])
