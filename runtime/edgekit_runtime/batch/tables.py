"""What the readers of a table, the model and the writers hand each other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from edgekit_contracts.manifest import Manifest
from edgekit_runtime.encoding import Column
from edgekit_runtime.engine import Answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_ROWS: Final = 4096
"""Rows in one call of the model, at most."""
CHUNK_VALUES: Final = 1 << 20
"""Cells in one chunk, at most: of wide tables fewer rows are held at a time."""
CHUNK_MS: Final = 2000.0
"""What a chunk may take, row by row on the slowest of the bundle's devices: progress and segments wait for chunks."""
DOCUMENT_CHUNK_ROWS: Final = 128
"""The same of free texts, each of which has up to 64 KiB."""

Made = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
"""The columns that the model adds: [rows] each (of several targets [rows, targets])."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a table has been read: always the end of a chunk."""

    rows: int = 0
    offset: int = 0
    """Bytes of the file (text only)."""
    line: int = 0
    """Lines of the file (text only)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows of a table."""

    rows: int
    columns: Mapping[str, Column]
    """The model's features, as far as the table has them."""
    names: Set[str]
    """All of the table's columns."""
    carried: Any
    """The rows as the writer of this kind of file wants them."""
    end: Position


class Reader(Protocol):
    """A table's rows, in chunks that lie the same however often reading began anew."""

    def chunks(self, start: Position) -> Generator[Chunk, None, None]:
        """The rows from `start` on.

        Raises:
            MissingFile, UsageError, MissingExtra: The file cannot be read, or is of another kind.
            BadInput: A row is not one of this table's.
        """
        ...

    def share(self, position: Position) -> float:
        """How much of the file lies before `position`, 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Some rows of the file that is being made."""

    data: bytes | memoryview
    footer: bytes | None = None
    """Parquet's: where the columns lie in `data`."""


class Writer(Protocol):
    """Rows and answers as the bytes of one kind of file."""

    @property
    def size(self) -> int:
        """Bytes that are held, about."""
        ...

    def add(self, chunk: Chunk, made: Made) -> None:
        """Holds some rows."""
        ...

    def segment(self) -> Segment:
        """The rows that were added since the last segment."""
        ...


class End(Protocol):
    """What follows the last row of a file."""

    def __call__(self, segments: Iterable[tuple[int, bytes]], /) -> bytes:
        """Given each segment's place in the file and its footer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file."""

    suffixes: tuple[str, ...]
    reader: Callable[[Path, Manifest], Reader]
    writer: Callable[[bool], Writer]
    """Given whether the file has rows already."""
    head: bytes = b""
    """The first bytes of such a file."""
    end: End | None = None
    library: Callable[[], str] = lambda: ""
    """Name and release of what writes it, where that is not ours."""
    streams: bool = True
    """Whether it can be written to a pipe."""


def chunk_rows(columns: int, manifest: Manifest) -> int:
    """Rows in a chunk of a table of so many columns: the same on every device, or a file gone on with would differ."""
    most = DOCUMENT_CHUNK_ROWS if any(feature.free for feature in manifest.features) else CHUNK_ROWS
    slowest_ms = max((budget.latency_ms for budget in manifest.budgets), default=0.0)
    if slowest_ms > 0:
        most = min(most, int(CHUNK_MS / slowest_ms))
    return max(1, min(most, CHUNK_VALUES // max(columns, 1)))


def answer_columns(answers: Answers, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Names for what the model says; floating-point numbers in float64, which holds each of them exactly."""
    columns: dict[str, NDArray[Any]] = {}
    if answers.labels is not None:
        columns["prediction"] = answers.labels
    if answers.probabilities is not None:
        for index, label in enumerate(manifest.classes):
            columns[f"probability_{label}"] = answers.probabilities[:, index]
    if answers.values is not None:
        stem, width = "prediction" if answers.labels is None else "decision", answers.values.shape[1]
        for index in range(width):
            columns[stem if width == 1 else f"{stem}_{index}"] = answers.values[:, index]
    return {name: column.astype(np.float64) if column.dtype.kind == "f" else column for name, column in columns.items()}
