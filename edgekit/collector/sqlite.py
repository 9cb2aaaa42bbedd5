"""The store in one SQLite file: WAL and `synchronous=FULL`; other processes read while the collector writes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

from edgekit.collector import migration
from edgekit.collector.database import Row, Table
from edgekit.collector.schema import TABLES, VERSION, WINDOW
from edgekit_contracts.errors import MissingFile, StorageFault, UnsupportedFormat
from edgekit_contracts.topics import PARTITIONS
from edgekit_runtime.transaction import stored_in, transaction

ROWS_AT_ONCE: Final = 50
"""Rows that one statement inserts or finds. Python lets its lock go for each statement: were there one for each row,
this thread would wait for the one that receives as often."""
PAGE_BYTES: Final = 8192
"""Of a new file. Windows with moments, which take 1.3 kB and often come alone, fill it better than SQLite's 4096."""
JOURNAL_BYTES: Final = 32 * 1024 * 1024
"""What is written to the journal before it goes to the file."""

_TYPES: Final = {"text": "TEXT", "integer": "INTEGER", "bytes": "BLOB"}
_NAME_IT: Final = "name the file of 'edgekit collect --store'"
_TABLES: Final = (
    "SELECT count(*), count(CASE WHEN name IN ('device', 'window', 'reference') THEN 1 END)"
    " FROM sqlite_master WHERE type = 'table'"
)
"""All tables, and of three that every version has those that are there."""


class Sqlite:
    """One file; safe to use from several threads.

    Args:
        path: The file.
        create: Make it where it is missing; a command that only reads says False.

    Raises:
        MissingFile: It does not exist, and is not to be made.
        StorageFault: It cannot be opened.
        UnsupportedFormat: A newer release made it.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.name = str(path)
        self._lock = threading.RLock()
        if not create and not path.exists():
            raise MissingFile("store", str(path))
        if path.is_dir():
            raise StorageFault(str(path), "it is a folder", _NAME_IT)
        writable = create or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        with stored_in(path):
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(str(path)) if writable else _connect_to_read(path)
        try:
            self._examine(create)
            if writable:
                self._prepare()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error):
                foreign = getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB"
                raise StorageFault(str(path), str(error), *([_NAME_IT] if foreign else [])) from error
            raise

    def _examine(self, create: bool) -> None:
        found = self._version()
        if found > VERSION:
            raise UnsupportedFormat(f"store {self.name}", f"version {found}", f"version {VERSION}")
        # Another program's file may have a version too, and tables of ours have no place in it.
        tables, ours = self._db.execute(_TABLES).fetchone()
        if ours < 3 and (found > 0 or tables > 0 or not create):
            raise StorageFault(self.name, "it is no collector's store", _NAME_IT)
        if found < VERSION and not create:
            # Perhaps an older collector stores into it at this moment.
            raise StorageFault(self.name, "it is of an older release", "start edgekit collect on it, once")

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # Pages that many batches write go to the file once: by a third more windows a second.
        (page,) = self._db.execute("PRAGMA page_size").fetchone()
        self._db.execute(f"PRAGMA wal_autocheckpoint = {JOURNAL_BYTES // page}")
        if self._version() < VERSION:
            with transaction(self._db) as db:
                # Asked again under the lock: another process may have come first.
                if (found := self._version()) == 0:
                    for statement in ddl():
                        db.execute(statement)
                elif found == 1:
                    migration.from_1(db, ddl())
                elif found == 2:
                    migration.from_2(db, ddl(WINDOW))
                db.execute(f"PRAGMA user_version = {VERSION}")

    def _version(self) -> int:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(found)

    @contextmanager
    def reading(self) -> Iterator[SqliteTransaction]:
        """As `Database` says."""
        with self._lock:
            try:
                yield SqliteTransaction(self._db)
            except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError):
                # A fault of ours with one record, not of the disk: waiting would not mend it.
                raise
            except sqlite3.Error as error:
                raise StorageFault(self.name, str(error)) from error

    @contextmanager
    def writing(self) -> Iterator[SqliteTransaction]:
        """As `Database` says."""
        with self.reading() as inside, transaction(self._db):
            yield inside

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()


class SqliteTransaction:
    """As `Transaction` says."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.connection = db

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:  # noqa: D102
        return self.connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[object] = ()) -> int:  # noqa: D102
        return self.connection.execute(sql, values).rowcount

    def pick(self, table: Table, keys: Iterable[Row]) -> list[Row]:  # noqa: D102
        wanted, found = list(keys), list[Row]()
        whole = len(wanted) - len(wanted) % ROWS_AT_ONCE
        for start in range(0, whole, ROWS_AT_ONCE):
            values = [*chain.from_iterable(wanted[start : start + ROWS_AT_ONCE])]
            found += self.connection.execute(_pick(table, ROWS_AT_ONCE), values)
        for key in wanted[whole:]:
            found += self.connection.execute(_pick(table), key)
        return found

    def insert(self, table: Table, rows: Sequence[Row]) -> int:  # noqa: D102
        added, whole = 0, len(rows) - len(rows) % ROWS_AT_ONCE
        for start in range(0, whole, ROWS_AT_ONCE):
            values = [*chain.from_iterable(rows[start : start + ROWS_AT_ONCE])]
            added += self.connection.execute(_insert(table, ROWS_AT_ONCE), values).rowcount
        rest = rows[whole:]
        return added + self.connection.executemany(_insert(table), rest).rowcount if rest else added

    def put(self, table: Table, rows: Sequence[Row]) -> None:  # noqa: D102
        self.connection.executemany(_put(table), rows)

    def make_day(self, table: Table, day: int) -> None:
        """Nothing: all days lie together."""

    def days(self, table: Table) -> list[int]:
        """By the index on days: one look for each."""
        found: list[int] = []
        day = -1
        while (row := self.rows(f'SELECT MIN(day) FROM "{table.name}" WHERE day > ?', (day,))[0])[0] is not None:
            (day,) = row
            found.append(day)
        return found

    def remove_day(self, table: Table, day: int, marks: Mapping[int, int], limit: int) -> int:  # noqa: D102
        # `+day`: few are beyond a mark, and the index on days would find all of the day.
        beyond = f'SELECT 1 FROM "{table.name}" WHERE p = ? AND id > ? AND +day = ? LIMIT 1'
        if any(self.rows(beyond, (p, marks.get(p, 0), day)) for p in range(PARTITIONS)):
            return 0
        oldest = f'SELECT id FROM "{table.name}" WHERE day = ? LIMIT ?'
        gone = self.rows(f'DELETE FROM "{table.name}" WHERE id IN ({oldest}) RETURNING windows', (day, limit))
        return sum(windows for (windows,) in gone)

    def lock(self, partitions: Iterable[int], names: Iterable[bytes]) -> None:
        """Nothing: a transaction that writes is alone from its begin."""


def _connect(place: str) -> sqlite3.Connection:
    return sqlite3.connect(
        place, isolation_level=None, check_same_thread=False, timeout=30, uri=place.startswith("file:")
    )


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A file that cannot be written, nor anything beside it.

    Source: "Read-Only Databases", https://www.sqlite.org/wal.html: what a collector has open at this moment has its
    journal beside it, and is read with it; without one the file is all there is, and `immutable` says so.
    """
    for how in ("mode=ro", "immutable=1"):
        db = _connect(f"{path.resolve().as_uri()}?{how}")
        try:
            db.execute(_TABLES).fetchone()
            return db
        except sqlite3.OperationalError as error:
            db.close()
            journal = path.with_name(path.name + "-wal")
            if journal.exists() and journal.stat().st_size:
                fault = f"its journal {journal.name} cannot be read where nothing can be written"
                raise StorageFault(str(path), fault, "copy both into a folder of your own") from error
            last = error
        except sqlite3.DatabaseError:
            return db  # no database: said by whoever reads it
    raise last


def ddl(*tables: Table) -> list[str]:
    """The statements that make these tables, or all."""
    statements = []
    for table in tables or TABLES:
        columns = [f"{name} {_TYPES[kind]} NOT NULL" for name, kind in table.columns.items()]
        if table.numbered:
            # AUTOINCREMENT, so that no number comes again when the last rows were removed.
            columns.insert(0, "id INTEGER PRIMARY KEY AUTOINCREMENT")
        else:
            columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
        statements.append(f'CREATE TABLE "{table.name}" ({", ".join(columns)})')
        for index in table.indexes:
            name = "_".join((table.name, *index))
            statements.append(f'CREATE INDEX {name} ON "{table.name}" ({", ".join(index)})')
    return statements


@cache
def _insert(table: Table, rows: int = 1) -> str:
    marks = ", ".join([f"({', '.join('?' * len(table.columns))})"] * rows)
    return f'INSERT INTO "{table.name}" ({", ".join(table.columns)}) VALUES {marks} ON CONFLICT DO NOTHING'


@cache
def _put(table: Table) -> str:
    return (
        _insert(table).removesuffix("NOTHING").replace("ON CONFLICT", f"ON CONFLICT ({', '.join(table.key)})")
        + "UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in table.columns if name not in table.key)
    )


@cache
def _pick(table: Table, rows: int = 1) -> str:
    marks = ", ".join([f"({', '.join('?' * len(table.key))})"] * rows)
    same = " AND ".join(f"t.{name} = k.{name}" for name in table.key)
    names = ", ".join(f"t.{name}" for name in table.columns)
    # CROSS JOIN: by the keys, each of which is looked up, and not by the table.
    return (
        f"WITH k ({', '.join(table.key)}) AS (VALUES {marks})"
        f' SELECT {names} FROM k CROSS JOIN "{table.name}" t ON {same}'
    )
