"""The outbox's file: its tables, how it is opened, and what becomes of one that cannot be used.

SQLite in WAL mode with `synchronous=FULL`: what was committed survives a power cut. Only one process at a time can hold
the file.
"""

from __future__ import annotations

import logging
import re
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from edgekit_contracts.errors import StorageFault
from edgekit_contracts.names import DEVICE_PATTERN
from edgekit_runtime.transaction import is_damage, make_durable, set_aside, transaction

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2

_META: Final = "CREATE TABLE meta (device TEXT NOT NULL, epoch INTEGER NOT NULL, session INTEGER NOT NULL)"
_RECORDS: Final = (
    """CREATE TABLE record (
        id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of production; never given twice
        epoch INTEGER, sequence INTEGER,       -- its key; null while it has none: then it never left
        first INTEGER,                         -- the first sequence that it stands for: its own, but for a gap
        kind INTEGER NOT NULL,
        stands INTEGER NOT NULL,               -- for so many records that were produced
        made_s INTEGER NOT NULL,               -- when, by the service's own time
        data BLOB NOT NULL
    )""",
    "CREATE INDEX record_key ON record (epoch, sequence) WHERE sequence IS NOT NULL",
    "CREATE INDEX record_keyed ON record (id) WHERE sequence IS NOT NULL",
    "CREATE INDEX record_new ON record (kind, id, stands) WHERE sequence IS NULL",
    # Where the values of numeric features are counted, by bins: the bundle may be gone when its windows are merged.
    "CREATE TABLE layout (bins_id BLOB PRIMARY KEY, places BLOB NOT NULL) WITHOUT ROWID",
)
_FROM_1: Final = (
    "ALTER TABLE record RENAME TO old",
    *_RECORDS,
    "INSERT INTO record SELECT sequence, (SELECT epoch FROM meta), sequence, first, kind, 1, 0, data FROM old",
    "DELETE FROM sqlite_sequence WHERE name = 'record'",
    "UPDATE sqlite_sequence SET name = 'record' WHERE name = 'old'",
    "DROP TABLE old",
)


class Damaged(Exception):
    """The file is no outbox of this device any more."""

    becomes = "damaged"
    """Whoever is set aside for it is called so."""


class Foreign(Damaged):
    """It is another device's: its records carry that name, and would be refused on this device's topics."""

    def __init__(self, owner: str, records: int) -> None:
        self.becomes = f"of-{owner}"
        super().__init__(
            f"it is of the device '{owner}' (records that wait in it: {records}); to have them sent, give this device"
            " that name again and put the file back"
        )


def open_file(path: Path, device: str) -> tuple[sqlite3.Connection, Path | None]:
    """Opens the file, made where it is missing; a new epoch and session begin.

    Args:
        path: The file.
        device: Whose it is.

    Returns:
        The file, and where a damaged one was moved that stood there.

    Raises:
        StorageFault: It cannot be opened or written.
        UnsupportedFormat: A newer release made it.
    """
    try:
        return _open(path, device), None
    except Damaged as damage:
        aside = set_aside(path, damage.becomes)
        log.warning("the outbox %s is set aside as %s, and a new one is begun: %s", path, aside.name, damage)
        try:
            return _open(path, device), aside
        except Damaged as again:
            raise StorageFault(str(path), str(again)) from again


def _open(path: Path, device: str) -> sqlite3.Connection:
    db: sqlite3.Connection | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # Exclusive: two services on one file would both believe that they own its sequences.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = make_durable(db, f"outbox {path}", SCHEMA_VERSION)
        db.execute("PRAGMA journal_size_limit = 4194304")
        if version < SCHEMA_VERSION:
            with transaction(db):
                for statement in (_META, *_RECORDS) if version == 0 else _FROM_1:
                    db.execute(statement)
                if version == 0:
                    db.execute("INSERT INTO meta VALUES (?, ?, 0)", (device, secrets.randbits(63)))
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Damaged(verdict)
        owner = db.execute("SELECT device FROM meta").fetchone()
        if owner is None or re.fullmatch(DEVICE_PATTERN, owner[0]) is None:
            raise Damaged("it does not say whose it is")
        if owner != (device,):
            raise Foreign(owner[0], *db.execute("SELECT COUNT(*) FROM record").fetchone())
        db.execute("UPDATE meta SET session = session + 1, epoch = ?", (secrets.randbits(63),))
    except BaseException as error:
        if db is not None:
            db.close()
        if is_damage(error):
            raise Damaged(str(error)) from error
        if isinstance(error, (sqlite3.Error, OSError)):
            raise StorageFault(str(path), str(error)) from error
        raise
    return db
