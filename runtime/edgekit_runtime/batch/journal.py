"""What of a file that is being made is whole: appended to, synced, and read again after a crash.

The first line says what the answers are made of; each further one, how far they are. A line that a crash tore is not
counted. This is a note of one release to itself: another release begins anew.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

import edgekit_runtime
from edgekit_contracts.errors import CannotResume
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.batch.tables import Position

ENDS_BYTES: Final = 1 << 20
"""Hashed at the beginning and at the end of the table; size and time of change stand for the rest."""


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the answers are made of."""

    table_bytes: int
    table_changed_ns: int
    table_ends_sha256: str
    model_sha256: str
    """Of the manifest, which names every file of the bundle with its hash."""
    edgekit_runtime: str
    onnxruntime: str
    """Two releases may differ in the last digit."""
    library: str
    """What writes the file."""

    @classmethod
    def of(cls, source: Path, manifest: Manifest, library: str) -> Self:
        """Of a table, a model, and the library that writes the answers.

        Raises:
            OSError: The table cannot be read.
        """
        import onnxruntime

        with source.open("rb") as file:
            found = os.fstat(file.fileno())
            ends = hashlib.sha256(file.read(ENDS_BYTES))
            file.seek(max(0, found.st_size - ENDS_BYTES))
            ends.update(file.read(ENDS_BYTES))
        return cls(
            table_bytes=found.st_size,
            table_changed_ns=found.st_mtime_ns,
            table_ends_sha256=ends.hexdigest(),
            model_sha256=hashlib.sha256(msgspec.json.encode(manifest)).hexdigest(),
            edgekit_runtime=edgekit_runtime.__version__,
            onnxruntime=onnxruntime.__version__,
            library=library,
        )

    def difference(self, other: Origin) -> str | None:
        """What has changed since, in words; None where nothing has."""
        if self.model_sha256 != other.model_sha256:
            return "the bundle is another one"
        for what in ("edgekit_runtime", "onnxruntime"):
            if getattr(self, what) != getattr(other, what):
                return f"{what.replace('_', '-')} was {getattr(self, what)} and is {getattr(other, what)}"
        if self.library != other.library:
            return f"{self.library} is {other.library} now"
        return None if self == other else "the table has changed"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the answers are."""

    rows: int
    offset: int
    line: int
    """Of the table; see `Position`."""
    size: int
    """Bytes of the file that is being made: so many are whole."""
    footer: bytes | None = None
    """Parquet's, of the segment that ends here."""

    @property
    def position(self) -> Position:
        """Where reading goes on."""
        return Position(rows=self.rows, offset=self.offset, line=self.line)


class Journal:
    """The journal of one file that is being made.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, origin: Origin) -> None:
        """Begins anew.

        Raises:
            OSError: It cannot be written.
        """
        self._write("wb", origin)

    def append(self, checkpoint: Checkpoint) -> None:
        """Returns when the disk has it.

        Raises:
            OSError: It cannot be written.
        """
        self._write("ab", checkpoint)

    def resume(self, origin: Origin, size: int, target: Path) -> Checkpoint | None:
        """The last checkpoint that holds, and nothing torn after it; None where there is none.

        Args:
            origin: What the answers would be made of now.
            size: Bytes of the file that is being made; checkpoints beyond it are passed over.
            target: Whose file it is.

        Raises:
            CannotResume: The answers were made of something else.
            OSError: It cannot be read or written.
        """
        if not self.path.exists():
            return None
        last: Checkpoint | None = None
        with self.path.open("r+b") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                return None
            try:
                difference = msgspec.json.decode(first, type=Origin).difference(origin)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                difference = "another release of edgekit-runtime began it"
            if difference is not None:
                raise CannotResume(str(target), difference)
            whole = len(first)
            for line in file:
                found = _checkpoint(line)
                if found is None or found.size > size:
                    break
                last, whole = found, whole + len(line)
            file.truncate(whole)
            os.fsync(file.fileno())
        return last

    def read(self) -> Iterator[Checkpoint]:
        """All checkpoints, one after the other: there are many of a long table.

        Raises:
            OSError: It cannot be read.
        """
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                found = _checkpoint(line)
                if found is not None:
                    yield found

    def _write(self, mode: str, line: Origin | Checkpoint) -> None:
        with self.path.open(mode) as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _checkpoint(line: bytes) -> Checkpoint | None:
    try:
        return msgspec.json.decode(line, type=Checkpoint) if line.endswith(b"\n") else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
