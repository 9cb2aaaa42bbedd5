"""Transactions, durability and faults of SQLite, for the device's files and the centre's alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_contracts.errors import StorageFault, UnsupportedFormat


def make_durable(db: sqlite3.Connection, what: str, newest: int) -> int:
    """Sets a connection up so that what was committed survives a power cut.

    Args:
        db: A file that is nobody else's.
        what: Names it in an error.
        newest: The version that this release writes.

    Returns:
        The file's version; 0 for a new one.

    Raises:
        UnsupportedFormat: A newer release made it.
    """
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > newest:
        raise UnsupportedFormat(what, f"version {version}", f"version {newest}")
    return int(version)


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
