"""What PostgreSQL is told of a table: how it is made, and how rows are found, added and replaced, in whole sets."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache, lru_cache
from typing import Final

from edgekit.collector.database import Table
from edgekit.collector.schema import TABLES, VERSION

_TYPES: Final = {"text": "text", "integer": "bigint", "bytes": "bytea"}
BINARY: Final = {"text": "text", "integer": "int8", "bytes": "bytea"}
"""As COPY names them."""

SCHEMA: Final = (
    "CREATE SCHEMA IF NOT EXISTS edgekit",
    "CREATE TABLE version (version bigint NOT NULL)",
    f"INSERT INTO version VALUES ({VERSION})",
)

_EPOCH: Final = date(1970, 1, 1)


def ddl(*tables: Table) -> list[str]:
    """The statements that make these tables, or all."""
    statements = []
    for table in tables or TABLES:
        columns = [f"{name} {_TYPES[kind]} NOT NULL" for name, kind in table.columns.items()]
        if table.numbered:
            statements.append(f"CREATE SEQUENCE {table.name}_id")
            columns.insert(0, f"id bigint NOT NULL DEFAULT nextval('{table.name}_id')")
            statements.append(f'CREATE TABLE "{table.name}" ({", ".join(columns)}) PARTITION BY LIST (day)')
            # Not compressed: that takes more than all else together, and counts hardly get smaller by it.
            packed = [name for name, kind in table.columns.items() if kind == "bytes"]
            statements += [f'ALTER TABLE "{table.name}" ALTER {name} SET STORAGE EXTERNAL' for name in packed]
        else:
            columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
            statements.append(f'CREATE TABLE "{table.name}" ({", ".join(columns)})')
        for index in table.indexes:
            statements.append(f'CREATE INDEX ON "{table.name}" ({", ".join(index)})')
    return statements


def day_name(table: Table, day: int) -> str:
    """The partition of a day: `window_20261128`."""
    return f"{table.name}_{_EPOCH + timedelta(days=day):%Y%m%d}"


def day_of(partition: str) -> int:
    """The day of a partition, since 1970."""
    return (date.fromisoformat(partition.rpartition("_")[2]) - _EPOCH).days


@lru_cache(1024)
def marked(sql: str) -> bytes:
    """A statement with psycopg's marks in place of SQLite's."""
    return sql.replace("?", "%s").encode()


@cache
def pick(table: Table) -> str:
    """The rows that have one of these keys; takes a column for each part of the key."""
    names = ", ".join(f"t.{name}" for name in table.columns)
    arrays = ", ".join(f"%b::{_TYPES[table.columns[name]]}[]" for name in table.key)
    keys = ", ".join(table.key)
    return f'SELECT {names} FROM "{table.name}" t JOIN unnest({arrays}) AS k ({keys}) USING ({keys})'


@cache
def insert(table: Table) -> str:
    """Adds rows whose keys are new; takes all columns."""
    # In binary: psycopg looks for what is to be escaped in every text of an array else.
    arrays = ", ".join(f"%b::{_TYPES[kind]}[]" for kind in table.columns.values())
    names = ", ".join(table.columns)
    return f'INSERT INTO "{table.name}" ({names}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING'


@cache
def put(table: Table) -> str:
    """Adds rows, in place of those of the same keys; takes all columns."""
    values = ", ".join(f"{name} = excluded.{name}" for name in table.columns if name not in table.key)
    return (
        insert(table).removesuffix("ON CONFLICT DO NOTHING")
        + f"ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {values}"
    )
