"""A folder of Parquet files that are whole at any moment: each is written beside, synced, and then given its name.

Each remembers how much of the store it holds, so that a folder can be written again and again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from edgekit_contracts.errors import EnvironmentFault, StorageFault, UsageError
from edgekit_runtime.replacing import sync

ROWS: Final = 32_768
"""In a row group, about: what is in memory at a time."""
SELECTION: Final = "_selection.json"
"""Readers of a folder pass over names that begin so."""
_HOLDS: Final = b"edgekit.holds"
_FAULTS: Final = (OSError, pa.ArrowException)


class Holds(msgspec.Struct, frozen=True):
    """How much of the store a file holds."""

    count: int
    """Of rows, or of what they speak of."""
    oldest: int
    newest: int

    def covers(self, other: Holds) -> bool:
        """Whether the other has nothing that this one lacks, as far as these numbers tell."""
        return self.count >= other.count and self.oldest <= other.oldest and self.newest >= other.newest


class File:
    """One that is being written; made with its first row.

    Args:
        path: Its name in the end.
        schema: Of its table.
        holds: What it will hold.

    Raises:
        StorageFault: From every method: it cannot be written.
    """

    def __init__(self, path: Path, schema: pa.Schema, holds: Holds) -> None:
        self._path, self._beside = path, path.with_name(f".{path.name}.part")
        self._schema = schema.with_metadata({_HOLDS: msgspec.json.encode(holds)})
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Takes rows, and writes them when they are many."""
        self._waiting.append(table)
        self.rows += len(table)
        if sum(map(len, self._waiting)) >= ROWS:
            self._flush()

    def close(self) -> None:
        """Gives it its name; without a row there is no file."""
        self._flush()
        if self._writer is None:
            return
        with _storage(self._path):
            self._writer.close()
            sync(self._beside)
            os.replace(self._beside, self._path)
            sync(self._path.parent)

    def discard(self) -> None:
        """Leaves nothing unfinished behind."""
        with suppress(*_FAULTS):
            if self._writer is not None:
                self._writer.close()
            self._beside.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.discard()

    def _flush(self) -> None:
        if not self._waiting:
            return
        with _storage(self._path):
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self._beside, self._schema, compression="zstd")
            table = pa.concat_tables(self._waiting).replace_schema_metadata(self._schema.metadata)
            self._writer.write_table(table.unify_dictionaries(), row_group_size=ROWS)
        self._waiting = []


def holds(path: Path) -> Holds | None:
    """How much of the store a file holds; None for none that tells."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return msgspec.json.decode(metadata.get(_HOLDS, b""), type=Holds)
    except (*_FAULTS, msgspec.DecodeError):
        return None


@contextmanager
def held(folder: Path, selection: bytes) -> Iterator[None]:
    """Holds a folder of one selection, made where it is missing.

    Raises:
        UsageError: It is of another selection, or no folder.
        EnvironmentFault: Another process writes into it.
        StorageFault: It cannot be used.
    """
    path = folder / SELECTION
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", "name a folder to write into")
    with _storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EnvironmentFault(f"another process exports into {folder}", "wait for its end") from error
        found = os.pread(file, 1 << 20, 0)
        if found not in {b"", selection}:
            raise UsageError(
                f"{folder} holds an export of other devices or models: {found.decode(errors='replace')}",
                "give each selection a folder of its own",
            )
        with _storage(path):
            os.pwrite(file, selection, 0)
        yield
    finally:
        os.close(file)


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        number = getattr(error, "errno", None)
        raise StorageFault(str(path), os.strerror(number) if number else str(error)) from error
