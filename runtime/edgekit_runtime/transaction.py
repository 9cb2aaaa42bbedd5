"""A transaction of SQLite, for the device's files and the collector's alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it, or nothing: the write lock is taken at once, so that no other writer comes between."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back by itself after some faults (disk full).
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
