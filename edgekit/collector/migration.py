"""Stores of an older release. A store that was brought up to date is like one made today.

Version 1 knew records by their rows alone: every table is written anew, and what its cursors lack is read from the rows
(ADR-0021). Version 2 had a row for each window: they become blocks of one, under the numbers that they had, so that
what the roll-ups hold and what was exported stays true (ADR-0030).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from edgekit.collector.blocks import block_of
from edgekit.collector.cursor import RECENT_MAX, Cursor, Range, Spans, size
from edgekit.collector.database import Row
from edgekit.collector.keep import HOUR_MS
from edgekit_contracts.topics import partition

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

_OLD: Final = ("device", "cursor", "window", "quarantine", "gap", "event", "part", "reference", "standing", "dead")
_RECORDS: Final = ("window", "event", "part", "quarantine")
_AT_ONCE: Final = 1000
_ENVELOPE: Final = "1, dev, epoch, seq, 0, t0_ms, dt_ms, clock, bins_id, n, body"
_SAME: Final = ("device", "quarantine", "event", "reference", "standing", "dead")
_COPIES: Final = (
    *(f"INSERT INTO {table} SELECT * FROM old_{table} ORDER BY 1, 2" for table in _SAME),
    # In the order of their arrival, which their numbers follow.
    "INSERT INTO window (p, day, dev, hour_ms, windows, records)"
    " SELECT partition_of(dev), received_ms / 86400000, dev, at_ms / 3600000 * 3600000, 1,"
    f" block_of(at_ms, received_ms, {_ENVELOPE}, 0) FROM old_window ORDER BY rowid",
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
    _say(*db.execute("SELECT COUNT(*) FROM window").fetchone())
    db.create_function("partition_of", 1, partition, deterministic=True)
    db.create_function("block_of", -1, block_of)
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


def from_2(db: sqlite3.Connection, table: Iterable[str]) -> None:
    """Brings a file of version 2 up to date, within the caller's transaction.

    Args:
        db: The file.
        table: The statements that make today's table of windows.
    """
    _say(*db.execute("SELECT COUNT(*) FROM window").fetchone())
    db.create_function("block_of", -1, block_of)
    for name in ("dev_at_ms", "p_id", "day"):
        db.execute(f"DROP INDEX window_{name}")
    db.execute("ALTER TABLE window RENAME TO old_window")
    for statement in table:
        db.execute(statement)
    db.execute(
        "INSERT INTO window SELECT id, p, day, dev, at_ms / 3600000 * 3600000, 1,"
        f" block_of(at_ms, received_ms, {_ENVELOPE}, merged) FROM old_window ORDER BY id"
    )
    # Numbers of windows that were removed do not come again either.
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'window'")
    db.execute("UPDATE sqlite_sequence SET name = 'window' WHERE name = 'old_window'")
    db.execute("DROP TABLE old_window")


def from_2_in_postgres(
    connection: psycopg.Connection[Row], table: Iterable[str], make_day: Callable[[int], None]
) -> None:
    """Brings a PostgreSQL of version 2 up to date, within the caller's transaction.

    Args:
        connection: Where the schema is.
        table: The statements that make today's table of windows.
        make_day: Makes a partition of it.
    """
    sql = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = '\"window\"'::regclass"
    for (name,) in [*connection.execute(sql).fetchall(), ("window",), ("window_id",)]:
        kind = "SEQUENCE" if name == "window_id" else "TABLE"
        connection.execute(f'ALTER {kind} "{name}" RENAME TO "old_{name}"'.encode())
    for statement in table:
        connection.execute(statement.encode())
    connection.execute("SELECT setval('window_id', last_value) FROM old_window_id")
    ((windows,),) = connection.execute("SELECT COUNT(*) FROM old_window").fetchall()
    _say(windows)
    for (day,) in connection.execute("SELECT DISTINCT day FROM old_window").fetchall():
        make_day(day)
    with connection.cursor("old", binary=True) as old, connection.cursor() as new:
        old.execute(f"SELECT id, p, day, dev, at_ms, received_ms, {_ENVELOPE}, merged FROM old_window".encode())
        while some := old.fetchmany(_AT_ONCE):
            with new.copy('COPY "window" FROM STDIN (FORMAT BINARY)') as copy:
                copy.set_types(["int8", "int8", "int8", "text", "int8", "int8", "bytea"])
                for number, p, day, dev, at_ms, *rest in some:
                    copy.write_row((number, p, day, dev, at_ms // HOUR_MS * HOUR_MS, 1, block_of(at_ms, *rest)))
    connection.execute("DROP TABLE old_window")
    connection.execute("DROP SEQUENCE old_window_id")


def _say(windows: int) -> None:
    log.warning("the store is of an older release and is brought up to date: %d windows are written anew", windows)


def _cursor(db: sqlite3.Connection, dev: str, epoch: int, high: int, ranges: tuple[Range, ...]) -> Cursor:
    """What version 1 would have answered for this epoch, as a cursor of today."""
    missing, lost = Spans(), 0
    gaps = db.execute("SELECT first, last, records FROM gap WHERE dev = ? AND epoch = ?", (dev, epoch)).fetchall()
    for first, last, records in gaps:
        here = Spans()
        for table in _RECORDS:
            where = f"FROM old_{table} WHERE dev = ? AND epoch = ? AND seq BETWEEN ? AND ?"
            for (sequence,) in db.execute(f"SELECT seq {where}", (dev, epoch, first, last)).fetchall():
                here.add(sequence, sequence)
        gone = max(0, records - size(here))
        lost += gone
        db.execute("UPDATE gap SET lost = ? WHERE dev = ? AND epoch = ? AND last = ?", (gone, dev, epoch, last))
        for hole in here.holes(first, last) if records == last - first + 1 else ():
            missing.add(*hole)
    recent = db.execute(
        "SELECT received_ms, dt_ms FROM old_window WHERE dev = ? AND epoch = ? ORDER BY received_ms DESC LIMIT ?",
        (dev, epoch, RECENT_MAX),
    ).fetchall()
    waiting = db.execute("SELECT received_ms, 0 FROM quarantine WHERE dev = ? AND epoch = ?", (dev, epoch)).fetchall()
    return Cursor(high, ranges, missing, lost, sorted([*recent, *waiting], reverse=True)[:RECENT_MAX])
