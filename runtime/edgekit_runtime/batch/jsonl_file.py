"""JSON Lines: one object a row in, the same bytes with the answers as further members out."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import msgspec

from edgekit_contracts.errors import BadInput, MissingFile, UsageError
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.batch.lines import Lines
from edgekit_runtime.batch.tables import Chunk, Kind, Made, Position, Segment, chunk_rows


class JsonLinesReader:
    """A file of JSON objects, one a line, in UTF-8."""

    def __init__(self, source: Path, manifest: Manifest) -> None:
        self._source, self._manifest, self._size = source, manifest, 0
        self._features = [feature.name for feature in manifest.features]
        self._most = chunk_rows(len(self._features), manifest)

    def chunks(self, start: Position) -> Generator[Chunk, None, None]:
        """The rows from `start` on; see `Reader`."""
        try:
            self._size = self._source.stat().st_size
            lines = Lines(self._source, start.offset, returns=False)
            number, done, rows = start.line, start.rows, list[tuple[bytes, dict[str, Any]]]()
            for line in lines:
                number += 1
                if not (bare := line.strip()):
                    continue
                rows.append((bare, self._row(bare, number)))
                if len(rows) == self._most:
                    done += len(rows)
                    yield self._chunk(rows, Position(rows=done, offset=lines.offset, line=number))
                    rows = []
            if rows:
                yield self._chunk(rows, Position(rows=done + len(rows), offset=lines.offset, line=number))
        except OSError as error:
            raise MissingFile("table", str(self._source), error.strerror or str(error)) from error

    def share(self, position: Position) -> float:
        """How much of the file's bytes lie before `position`."""
        return min(1.0, position.offset / max(self._size, 1))

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(
                f"line {number} of {self._source} is not JSON ({error})", "give one JSON object a line, in UTF-8"
            ) from error
        if not isinstance(row, dict):
            raise UsageError(
                f"line {number} of {self._source} is not a JSON object", "give one object a line, with the features"
            )
        lacking = next((name for name in self._features if name not in row), None)
        if lacking is not None:
            raise BadInput(
                "",
                f"line {number} of {self._source.name} lacks '{lacking}'",
                "give every feature; null is a missing value",
            )
        return row

    def _chunk(self, rows: list[tuple[bytes, dict[str, Any]]], end: Position) -> Chunk:
        return Chunk(
            rows=len(rows),
            columns={name: [row[name] for _, row in rows] for name in self._features},
            names=set().union(*(row for _, row in rows)),
            carried=[line for line, _ in rows],
            end=end,
        )


class JsonLinesWriter:
    """Each object's own bytes, with the answers before its last brace: no number or text of it is written anew."""

    def __init__(self, begun: bool) -> None:
        self.size = 0
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode

    def add(self, chunk: Chunk, made: Made) -> None:
        """Holds some rows."""
        names = tuple(made)
        answers = zip(*(column.tolist() for column in made.values()), strict=True)
        for line, answer in zip(chunk.carried, answers, strict=True):
            extra = self._encode(dict(zip(names, answer, strict=True)))
            self._lines.append(line[:-1].rstrip() + b"," + extra[1:] + b"\n")
            self.size += len(self._lines[-1])

    def segment(self) -> Segment:
        """The rows that were added since the last segment."""
        data = b"".join(self._lines)
        self._lines, self.size = [], 0
        return Segment(data)


KIND: Final = Kind(suffixes=(".jsonl", ".ndjson"), reader=JsonLinesReader, writer=JsonLinesWriter)
