"""The store in PostgreSQL, by psycopg 3: a schema `edgekit` of a database that exists.

Whole batches go by COPY and `unnest`. Windows lie in one partition for each day on which they were stored, made ahead
or when they are needed; a day that is over its time is dropped whole. A connection that breaks is made anew by whoever
asks next; until then everybody is told that the store cannot be used.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from edgekit.collector import migration
from edgekit.collector import postgres_statements as statements
from edgekit.collector.database import Row, Table
from edgekit.collector.postgres_address import parse
from edgekit.collector.schema import VERSION, WINDOW
from edgekit_contracts.errors import StorageFault, UnsupportedFormat
from edgekit_contracts.topics import PARTITIONS

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

_PARTITION_LOCKS: Final = 0x656B7000
_NAME_LOCKS: Final = 0x656B7001
_SCHEMA_LOCK: Final = 0x656B7002
"""Advisory locks of this database: two numbers of 32 bits each."""


class Postgres:
    """One connection; safe to use from several threads, which take turns.

    Args:
        url: `postgresql://USER@HOST:PORT/DATABASE`, as libpq reads it.
        create: Make the tables where they are missing; a command that only reads says False.

    Raises:
        UsageError: It is no such address.
        MissingExtra: psycopg is not installed.
        StorageFault: The server does not answer, or does not let us in.
        UnsupportedFormat: A newer release made the tables.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self._conninfo, self.name = parse(url)
        self._lock = threading.RLock()
        self._days: set[int] = set()
        self._connection: psycopg.Connection[Row] | None = None
        try:
            with self._using() as connection:
                self._prepare(connection, create)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[PostgresTransaction]:
        """As `Database` says."""
        with self._using() as connection:
            yield PostgresTransaction(connection, set())

    @contextmanager
    def writing(self) -> Iterator[PostgresTransaction]:
        """As `Database` says."""
        with self._using() as connection:
            days = set(self._days)
            with connection.transaction():
                yield PostgresTransaction(connection, days)
            self._days = days

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    @contextmanager
    def _using(self) -> Iterator[psycopg.Connection[Row]]:
        import psycopg

        with self._lock:
            try:
                yield self._connected()
            except (psycopg.OperationalError, psycopg.InternalError) as error:
                self._forget()
                raise self._fault(error) from error
            except (
                psycopg.errors.InsufficientPrivilege,
                psycopg.errors.InvalidSchemaName,
                psycopg.errors.UndefinedTable,
            ) as error:
                # Nothing that another record would mend.
                raise self._fault(error) from error
            except psycopg.errors.CheckViolation as error:
                # A day that we knew of was dropped.
                self._days = set()
                raise self._fault(error) from error

    def _connected(self) -> psycopg.Connection[Row]:
        import psycopg

        if self._connection is None or self._connection.closed:
            self._days = set()
            connection = psycopg.connect(self._conninfo, autocommit=True)
            try:
                ((commit, encoding, durable),) = connection.execute(
                    "SELECT current_setting('synchronous_commit'), current_setting('server_encoding'),"
                    " current_setting('fsync')"
                )
                if encoding != "UTF8":
                    raise StorageFault(self.name, f"its encoding is {encoding}", "make a database with encoding UTF8")
                if commit == "off":
                    # What is acknowledged must be on the disk.
                    connection.execute("SET synchronous_commit = on")
                if durable == "off":
                    log.warning("%s runs with fsync off: what is acknowledged may be lost with its power", self.name)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _forget(self) -> None:
        if self._connection is not None and self._connection.broken:
            self._connection.close()
            self._connection = None

    def _fault(self, error: psycopg.Error) -> StorageFault:
        said = error.diag.message_primary or str(error)
        reason = "; ".join(line.strip() for line in said.splitlines() if line.strip()) or type(error).__name__
        return StorageFault(self.name, reason, "check that the server runs, its address, and what its user may do")

    def _prepare(self, connection: psycopg.Connection[Row], create: bool) -> None:
        # Not `to_regclass`, which within a transaction goes on saying what it said before the lock.
        exists = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'edgekit' AND tablename = 'version')"
        if connection.execute(exists).fetchall() == [(False,)]:
            if not create:
                raise StorageFault(self.name, "it holds no collector's store", "start edgekit collect on it, once")
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_SCHEMA_LOCK,))
                # Asked again under the lock: another collector may have come first.
                if connection.execute(exists).fetchall() == [(False,)]:
                    for statement in (*statements.SCHEMA, *statements.ddl()):
                        connection.execute(statement.encode())
        ((found,),) = connection.execute("SELECT version FROM version").fetchall()
        if found > VERSION:
            raise UnsupportedFormat(f"store {self.name}", f"version {found}", f"version {VERSION}")
        if found < VERSION:
            if not create:
                raise StorageFault(self.name, "it is of an older release", "start edgekit collect on it, once")
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_SCHEMA_LOCK,))
                if connection.execute("SELECT version FROM version").fetchall() != [(VERSION,)]:
                    transaction = PostgresTransaction(connection, set())
                    migration.from_2_in_postgres(
                        connection, statements.ddl(WINDOW), partial(transaction.make_day, WINDOW)
                    )
                    connection.execute("UPDATE version SET version = %s", (VERSION,))


class PostgresTransaction:
    """As `Transaction` says.

    Args:
        connection: Within a transaction, where something is written.
        days: Those that have a partition; grows.
    """

    def __init__(self, connection: psycopg.Connection[Row], days: set[int]) -> None:
        self.connection = connection
        self._days = days

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:  # noqa: D102
        return self._execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[object] = ()) -> int:  # noqa: D102
        return self._execute(sql, values).rowcount

    def pick(self, table: Table, keys: Iterable[Row]) -> list[Row]:  # noqa: D102
        wanted = list(keys)
        return self._execute(statements.pick(table), _columns(wanted)).fetchall() if wanted else []

    def insert(self, table: Table, rows: Sequence[Row]) -> int:  # noqa: D102
        if not rows:
            return 0
        if not table.numbered:
            return self._execute(statements.insert(table), _columns(rows)).rowcount
        at = list(table.columns).index("day")
        for day in {row[at] for row in rows} - self._days:
            self.make_day(table, day)
        statement = f'COPY "{table.name}" ({", ".join(table.columns)}) FROM STDIN (FORMAT BINARY)'
        with self.connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.set_types([statements.BINARY[kind] for kind in table.columns.values()])
            for row in rows:
                copy.write_row(row)
        return len(rows)

    def put(self, table: Table, rows: Sequence[Row]) -> None:  # noqa: D102
        if rows:
            self._execute(statements.put(table), _columns(rows))

    def make_day(self, table: Table, day: int) -> None:  # noqa: D102
        name = statements.day_name(table, day)
        self._execute("SELECT pg_advisory_xact_lock(?, 1)", (_SCHEMA_LOCK,))
        if not self.rows("SELECT FROM pg_tables WHERE schemaname = 'edgekit' AND tablename = ?", (name,)):
            # Attached, not created as a partition: that would wait for everybody who reads the table.
            self._execute(
                f'CREATE TABLE {name} (LIKE "{table.name}" INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING STORAGE)'
            )
            self._execute(f'ALTER TABLE "{table.name}" ATTACH PARTITION {name} FOR VALUES IN ({day})')
        self._days.add(day)

    def days(self, table: Table) -> list[int]:  # noqa: D102
        sql = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = ?::regclass"
        names = [name for (name,) in self.rows(sql, (f'edgekit."{table.name}"',))]
        return [statements.day_of(name) for name in names]

    def remove_day(self, table: Table, day: int, marks: Mapping[int, int], limit: int) -> int:  # noqa: D102
        name = statements.day_name(table, day)
        if self.rows("SELECT to_regclass(?) IS NULL", (f"edgekit.{name}",)) == [(True,)]:
            return 0
        ((rows,),) = self.rows("SELECT reltuples FROM pg_class WHERE oid = ?::regclass", (f"edgekit.{name}",))
        ((each,),) = self.rows(f"SELECT AVG(windows)::real FROM {name} TABLESAMPLE SYSTEM (1)")
        if rows < 0 or each is None:
            # Small, else the server would have looked at it, and the sample would hold something.
            rows, ((each,),) = 1, self.rows(f"SELECT COALESCE(SUM(windows), 0) FROM {name}")
        # Before the numbers are looked at: nobody adds to them then.
        if not self._lock_table(f'"{table.name}", {name}'):
            log.info("%s is being read: it is dropped another time", name)
            return 0
        for p in range(PARTITIONS):
            ((newest,),) = self.rows(f"SELECT MAX(id) FROM {name} WHERE p = ?", (p,))
            if newest is not None and newest > marks.get(p, 0):
                return 0
        self._execute(f"DROP TABLE {name}")
        self._days.discard(day)
        return max(1, int(rows * each))

    def _lock_table(self, names: str) -> bool:
        """Whether nobody uses these tables now. Who waits for that makes all others wait behind him: not for long."""
        import psycopg

        self._execute("SET LOCAL lock_timeout = '200ms'")
        try:
            with self.connection.transaction():
                self._execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def lock(self, partitions: Iterable[int], names: Iterable[bytes]) -> None:  # noqa: D102
        # In one order everywhere, so that nobody waits in a circle. They end after the commit can be seen: of one
        # partition, numbers of windows are given in the order of commits.
        for number, keys in (
            (_PARTITION_LOCKS, sorted(partitions)),
            (_NAME_LOCKS, sorted({int.from_bytes(name[:4], "big", signed=True) for name in names})),
        ):
            if keys:
                self._execute("SELECT pg_advisory_xact_lock(?, key) FROM unnest(?::int[]) key", (number, keys))

    def _execute(self, sql: str, values: Sequence[object] = ()) -> psycopg.Cursor[Row]:
        return self.connection.execute(statements.marked(sql), values)


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
