"""CSV: rows of cells in, the same cells and the answers out."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgekit_contracts.errors import BadInput, MissingFile, UsageError
from edgekit_contracts.manifest import Feature, Manifest
from edgekit_runtime.batch.lines import Lines
from edgekit_runtime.batch.tables import Chunk, Kind, Made, Position, Segment, chunk_rows
from edgekit_runtime.encoding import Coded, Column

MISSING_WORDS: Final = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""Cells that are missing values: those of pandas.read_csv, since models are trained on what it reads."""

_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


class CsvReader:
    """A CSV file in UTF-8 with a header line."""

    def __init__(self, source: Path, manifest: Manifest) -> None:
        self._source, self._manifest, self._size = source, manifest, 0
        self._features = {feature.name: feature for feature in manifest.features}

    def chunks(self, start: Position) -> Generator[Chunk, None, None]:
        """The rows from `start` on; see `Reader`."""
        try:
            self._size = self._source.stat().st_size
            header, first = self._header()
            start = start if start.rows else first
            lines = Lines(self._source, start.offset, returns=True)
            reader = csv.reader(line.decode() for line in lines)
            most = chunk_rows(len(header), self._manifest)
            done, rows = start.rows, list[list[str]]()
            for row in reader:
                if not row:  # a blank line, which pandas passes over too
                    continue
                if len(row) != len(header):
                    raise BadInput(
                        "",
                        f"line {start.line + reader.line_num} of {self._source.name} "
                        f"has {len(row)} cells, not {len(header)}",
                        "correct the table",
                    )
                rows.append(row)
                if len(rows) == most:
                    done += most
                    end = Position(rows=done, offset=lines.offset, line=start.line + reader.line_num)
                    yield self._chunk(header, rows, end)
                    rows = []
            if rows:
                end = Position(rows=done + len(rows), offset=lines.offset, line=start.line + reader.line_num)
                yield self._chunk(header, rows, end)
        except OSError as error:
            raise MissingFile("table", str(self._source), error.strerror or str(error)) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(
                f"{self._source} is not a CSV file in UTF-8 ({error})", "save it as CSV in UTF-8"
            ) from error

    def share(self, position: Position) -> float:
        """How much of the file's bytes lie before `position`."""
        return min(1.0, position.offset / max(self._size, 1))

    def _header(self) -> tuple[list[str], Position]:
        lines = Lines(self._source, 0, returns=True)
        reader = csv.reader(line.decode() for line in lines)
        header = next(reader, None)
        if not header:
            raise UsageError(f"{self._source} is empty", "give a CSV file with a header line")
        twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
        if twice is not None:
            raise UsageError(f"{self._source} has two columns '{twice}'", "rename one of them")
        return header, Position(offset=lines.offset, line=reader.line_num)

    def _chunk(self, header: list[str], rows: list[list[str]], end: Position) -> Chunk:
        columns = {
            name: _column(cells, self._features[name])
            for name, cells in zip(header, zip(*rows, strict=True), strict=True)
            if name in self._features
        }
        return Chunk(rows=len(rows), columns=columns, names=set(header), carried=(header, rows), end=end)


def _column(cells: Sequence[str], feature: Feature) -> Column:
    if feature.dtype in {"text", "bool"}:
        distinct = dict.fromkeys(cells)
        codes = {cell: code for code, cell in enumerate(distinct)}
        values: list[Any] = [_cell(cell, feature) for cell in distinct]
        return Coded(values, np.fromiter(map(codes.__getitem__, cells), np.intp, len(cells)))
    if "_" not in "".join(cells):  # "1_0" is ten to Python alone
        with suppress(ValueError):
            return np.array(list(map(float, cells)))  # of the missing values it knows NaN, with or without a sign
        with suppress(ValueError):
            return np.array([math.nan if cell in MISSING_WORDS else float(cell) for cell in cells])
    return [_cell(cell, feature) for cell in cells]


def _cell(cell: str, feature: Feature) -> str | float | bool | None:
    if cell in MISSING_WORDS:
        return None
    if feature.dtype == "text":
        return cell
    if feature.dtype == "bool" and cell.lower() in _TRUTH:
        return _TRUTH[cell.lower()]
    try:
        return float(cell) if "_" not in cell else cell
    except ValueError:
        return cell  # the engine refuses it by the feature's name


class CsvWriter:
    """Cells as they were read, and the answers; a header line before the first row."""

    def __init__(self, begun: bool) -> None:
        self._headed = begun
        self._text = io.StringIO(newline="")

    @property
    def size(self) -> int:
        """Bytes that are held, about."""
        return self._text.tell()

    def add(self, chunk: Chunk, made: Made) -> None:
        """Holds some rows."""
        header, rows = chunk.carried
        writer = csv.writer(self._text, lineterminator="\n")
        if not self._headed:
            writer.writerow([*header, *made])
            self._headed = True
        answers = zip(*(column.tolist() for column in made.values()), strict=True)
        writer.writerows([*row, *answer] for row, answer in zip(rows, answers, strict=True))

    def segment(self) -> Segment:
        """The rows that were added since the last segment."""
        text, self._text = self._text.getvalue(), io.StringIO(newline="")
        return Segment(text.encode())


KIND: Final = Kind(suffixes=(".csv",), reader=CsvReader, writer=CsvWriter)
