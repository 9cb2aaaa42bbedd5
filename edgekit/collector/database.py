"""What the store asks of a database: tables, transactions, and sets of rows at once. `sqlite` and `postgres` give it.

The store's rules are written once, in SQL that both understand, with `?` for values; only what they do not share has a
verb here. So one and the same code decides what is new, whatever it stands on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, cast

Row = tuple[Any, ...]
Kind = Literal["text", "integer", "bytes"]
"""`integer` has 64 bits and a sign."""

Fence = Callable[[Any, frozenset[int]], None]
"""Called in each transaction that ingests, before anything is read: with the database's own connection, and the
partitions of the topic tree that it writes to. What it raises, undoes the transaction."""


@dataclass(frozen=True)
class Table:
    """A table; no column is ever null.

    Args:
        name: In every database.
        declared: Its columns, as `name kind, ...`.
        key: Its primary key; a numbered table has none.
        indexes: Of several columns each.
        numbered: It has a column `id` before the others, which grows with every row in the order of commits, within
            each partition `p`, and a column `windows`, of how many a row holds. PostgreSQL cuts it into days by its
            column `day`.
    """

    name: str
    declared: str
    key: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    numbered: bool = False

    @cached_property
    def columns(self) -> dict[str, Kind]:
        """What a row holds, in order, without `id`."""
        pairs = (one.split() for one in self.declared.split(","))
        return {name: cast(Kind, kind) for name, kind in pairs}


class Transaction(Protocol):
    """Reading and writing, all of it or nothing."""

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """What a statement returns."""
        ...

    def run(self, sql: str, values: Sequence[object] = ()) -> int:
        """How many rows a statement changed."""
        ...

    def pick(self, table: Table, keys: Iterable[Row]) -> list[Row]:
        """The rows under these primary keys, in any order."""
        ...

    def insert(self, table: Table, rows: Sequence[Row]) -> int:
        """Adds rows whose key is not there yet, or which have none, and returns how many."""
        ...

    def put(self, table: Table, rows: Sequence[Row]) -> None:
        """Adds rows, or writes them over those of the same keys."""
        ...

    def make_day(self, table: Table, day: int) -> None:
        """Prepares a numbered table for rows of a day, so that the first of them need not."""
        ...

    def days(self, table: Table) -> list[int]:
        """The days that a numbered table may have rows of."""
        ...

    def remove_day(self, table: Table, day: int, marks: Mapping[int, int], limit: int) -> int:
        """Removes rows of a day, if none of them has a number beyond the mark of its partition; 0 where there is none.

        Args:
            table: Which.
            day: Since 1970.
            marks: By partition.
            limit: So many rows at most; PostgreSQL removes the whole day.

        Returns:
            How many windows they held; of a whole day about how many.
        """
        ...

    def lock(self, partitions: Iterable[int], names: Iterable[bytes]) -> None:
        """Waits until nobody else ingests into these partitions of the topic tree, nor what belongs to these names."""
        ...


class Database(Protocol):
    """Where the tables are."""

    name: str
    """For people; without a password."""

    def reading(self) -> AbstractContextManager[Transaction]:
        """To read, one statement at a time.

        Raises:
            StorageFault: It cannot be read at present.
        """
        ...

    def writing(self) -> AbstractContextManager[Transaction]:
        """To read and write: committed at the end, undone by an exception.

        Raises:
            StorageFault: It cannot be written at present. Nothing was, unless the connection broke while the end was
                on its way: then all of it may be there.
        """
        ...

    def close(self) -> None:
        """Lets it go."""
        ...
