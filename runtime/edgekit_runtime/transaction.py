"""Transactions, durability, faults and damage of SQLite, for the device's files and the centre's alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgekit_contracts.errors import StorageFault, UnsupportedFormat

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


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


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that the file itself is at fault."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def set_aside(path: Path, becomes: str) -> Path:
    """Moves a file away, and what SQLite keeps beside it.

    Args:
        path: The file.
        becomes: Its new name says so, behind the old one.

    Returns:
        Where it is now.

    Raises:
        StorageFault: It cannot be moved.
    """
    number = 1
    while (target := path.with_name(f"{path.name}.{becomes}-{number}")).exists():
        number += 1
    with stored_in(path):
        path.rename(target)
        for suffix in ("-wal", "-shm"):
            side = path.with_name(path.name + suffix)
            if side.exists():
                side.rename(target.with_name(target.name + suffix))
    return target
