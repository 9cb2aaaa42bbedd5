"""Transactions and faults of SQLite, for the device's files and the centre's alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_contracts.errors import StorageFault


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


@contextmanager
def stored_in(path: Path) -> Iterator[None]:
    """Whatever SQLite or the disk refuses inside is a fault of this file.

    Raises:
        StorageFault: It was refused; the cause is SQLite's own.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageFault(str(path), str(error)) from error
