"""Parquet: columns stay in Arrow's memory, and the model's are NumPy's view of it where no value is missing.

The file is written in segments, each one a Parquet file of one row group whose footer is kept aside: so what is
on disk is whole up to the last segment, and `parquet_footer` makes one footer of all at the end.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgekit_contracts.errors import MissingExtra, MissingFile, UsageError
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.batch.parquet_footer import MAGIC, footer_of, merged
from edgekit_runtime.batch.tables import Chunk, Kind, Made, Position, Segment, chunk_rows
from edgekit_runtime.encoding import Coded, Column
from edgekit_runtime.installed import installed_version

BUFFER_BYTES: Final = 1 << 18
"""Read at once of one column: row groups are larger than a device's memory."""


class ParquetReader:
    """A Parquet file."""

    def __init__(self, source: Path, manifest: Manifest) -> None:
        self._source, self._manifest = source, manifest
        self._arrow, self._parquet = _pyarrow()
        self._rows = 0

    def chunks(self, start: Position) -> Generator[Chunk, None, None]:
        """The rows from `start` on; see `Reader`."""
        kinds = {feature.name: feature.dtype for feature in self._manifest.features}
        try:
            with self._parquet.ParquetFile(
                self._source, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            ) as file:
                names = file.schema_arrow.names
                if len(set(names)) != len(names):
                    raise UsageError(f"{self._source} has two columns of one name", "rename one of them")
                self._rows = file.metadata.num_rows
                most, done = chunk_rows(len(names), self._manifest), start.rows
                for record in self._records(file, start.rows, most):
                    done += record.num_rows
                    columns = {
                        name: self._column(record.column(name), kinds[name] == "text")
                        for name in names
                        if name in kinds
                    }
                    yield Chunk(
                        rows=record.num_rows,
                        columns=columns,
                        names=set(names),
                        carried=record,
                        end=Position(rows=done),
                    )
        except self._arrow.ArrowException as error:
            raise UsageError(
                f"{self._source} is not a Parquet file ({error})", "give a .parquet, .csv or .jsonl file"
            ) from error
        except OSError as error:
            if error.errno is None:  # pyarrow's for damage inside the file
                raise UsageError(f"{self._source} is damaged ({error})", "fetch or write it again") from error
            raise MissingFile("table", str(self._source), error.strerror or str(error)) from error

    def share(self, position: Position) -> float:
        """How much of the file's rows lie before `position`."""
        return position.rows / max(self._rows, 1)

    def _records(self, file: Any, skip: int, most: int) -> Generator[Any, None, None]:
        """Record batches of `most` rows each, the last one excepted, wherever row groups end."""
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        first = 0
        while first < len(sizes) and skip >= sizes[first]:
            skip -= sizes[first]
            first += 1
        held: list[Any] = []
        for record in file.iter_batches(most, row_groups=range(first, len(sizes)), use_threads=False):
            record, skip = record.slice(skip), max(0, skip - record.num_rows)
            while record.num_rows:
                room = most - sum(part.num_rows for part in held)
                held.append(record.slice(0, room))
                record = record.slice(room)
                if sum(part.num_rows for part in held) == most:
                    yield self._joined(held)
                    held = []
        if held:
            yield self._joined(held)

    def _joined(self, records: Sequence[Any]) -> Any:
        if len(records) == 1:
            return records[0]
        return self._arrow.Table.from_batches(records).unify_dictionaries().combine_chunks().to_batches()[0]

    def _column(self, array: Any, text: bool) -> Column:
        arrow = self._arrow
        types, kind = arrow.types, array.type
        if text:
            if types.is_dictionary(kind) and _is_text(types, kind.value_type):
                array = array.cast(kind.value_type)  # what the dictionary holds and no row has is no one's fault
            if _is_text(types, array.type):
                coded = array.dictionary_encode()
                values, codes = coded.dictionary.to_pylist(), coded.indices
                if codes.null_count:
                    codes, values = codes.fill_null(len(values)), [*values, None]
                return Coded(values, codes.to_numpy(zero_copy_only=False).astype(np.intp))
        elif types.is_boolean(kind) and array.null_count:
            return np.asarray(array.cast(arrow.float64()).to_numpy(zero_copy_only=False))
        elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            return np.asarray(array.to_numpy(zero_copy_only=False))  # nulls become NaN
        found: list[Any] = array.to_pylist()  # the engine refuses what is neither, by the feature's name
        return found


class ParquetWriter:
    """Record batches as they were read, and the answers as further columns."""

    def __init__(self, begun: bool) -> None:
        self._arrow, self._parquet = _pyarrow()
        self._held: list[Any] = []
        self._made: list[Made] = []
        self._row_bits: int | None = None
        self.size = 0

    def add(self, chunk: Chunk, made: Made) -> None:
        """Holds some rows."""
        record = chunk.carried
        if self._row_bits is None:
            self._row_bits = _row_bits(record.schema)
        self._held.append(record)
        self._made.append(made)
        # To count the bytes of a record takes as long as to make it.
        self.size += record.num_rows * self._row_bits // 8 if self._row_bits else record.nbytes
        self.size += sum(column.nbytes for column in made.values())

    def segment(self) -> Segment:
        """The rows that were added since the last segment."""
        arrow = self._arrow
        try:
            table = arrow.Table.from_batches(self._held).unify_dictionaries()
            for name in self._made[0]:
                column = np.concatenate([made[name] for made in self._made])
                table = table.append_column(name, arrow.array(column.tolist() if column.ndim > 1 else column))
            # A dictionary of measured values is as long as the column: made in vain, in five times the time.
            plain = [field.name for field in table.schema if not arrow.types.is_floating(field.type)]
            sink = arrow.BufferOutputStream()
            with self._parquet.ParquetWriter(sink, table.schema, use_dictionary=plain) as writer:
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
        except arrow.ArrowException as error:
            raise UsageError(f"a column cannot be written as Parquet ({error})", "drop it from the table") from error
        self._held, self._made, self.size = [], [], 0
        return Segment(*footer_of(sink.getvalue()))


def _row_bits(schema: Any) -> int:
    """Of a row, where all have as many; else 0."""
    try:
        return sum(field.type.bit_width for field in schema)
    except ValueError:
        return 0


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        ours, extra = (
            ("edgekit-toolkit", "build") if installed_version("edgekit-toolkit") else ("edgekit-runtime", "parquet")
        )
        raise MissingExtra("pyarrow", ours, extra) from error
    return pyarrow, pyarrow.parquet


KIND: Final = Kind(
    suffixes=(".parquet",),
    reader=ParquetReader,
    writer=ParquetWriter,
    head=MAGIC,
    end=merged,
    library=lambda: f"pyarrow {_pyarrow()[0].__version__}",
    streams=False,
)
