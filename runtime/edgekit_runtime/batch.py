"""A table through the model: CSV with nothing installed, Parquet with the extra `parquet`. Streams; any size fits."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from edgekit_contracts.errors import BadInput, MissingExtra, MissingFile, StorageFault, UsageError
from edgekit_contracts.manifest import Feature, Manifest
from edgekit_runtime.engine import Answers, Engine
from edgekit_runtime.installed import is_installed

CHUNK_ROWS: Final = 4096

MISSING_WORDS: Final = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""Cells that are missing values: those of pandas.read_csv, since models are trained on what it reads."""

_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}

Table = Mapping[str, list[Any]]


def predict_file(engine: Engine, source: Path, target: Path | TextIO, progress: Callable[[int], None]) -> int:
    """Answers each row of `source` and writes row and answers to `target`.

    Args:
        engine: The model.
        source: `.csv` or `.parquet`; columns that the model does not know are carried along.
        target: A file of the same kind, replaced only when all is written; or an open text file for CSV.
        progress: Called with the number of rows done.

    Returns:
        The number of rows.

    Raises:
        MissingFile, UsageError, MissingExtra: The file cannot be read or is of another kind.
        BadInput: A row does not fit the model; the error names the row.
        StorageFault: The target cannot be written.
    """
    kinds = {".csv": (_read_csv, _write_csv), ".parquet": (_read_parquet, _write_parquet)}
    kind = source.suffix.lower()
    if kind not in kinds:
        raise UsageError(f"{source} is neither a .csv nor a .parquet file", "save it as one of them")
    if isinstance(target, Path) and target.suffix.lower() != kind:
        raise UsageError(f"the answers to a {kind} file cannot be written to {target}", f"name a {kind} file")
    if kind == ".parquet" and not isinstance(target, Path):
        raise UsageError("Parquet goes to a file only", "name it with -o")
    read, write = kinds[kind]
    done = 0

    def answered() -> Iterator[Table]:
        nonlocal done
        for chunk in read(source, engine.manifest):
            raw, columns = chunk
            try:
                answers = engine.predict({name: columns[name] for name in engine.features if name in columns})
            except BadInput as error:
                row = _first_bad_row(engine, columns)
                raise BadInput(
                    "", f"{error.sentence} (row {done + row + 1} of {source.name})", "correct the table"
                ) from error
            made = _answer_columns(answers, engine.manifest)
            if taken := [name for name in made if name in raw]:
                raise UsageError(f"{source} has a column '{taken[0]}' already", "rename it, or drop it")
            whole = _Record({**raw, **made})
            whole.types = raw.types if isinstance(raw, _Record) else {}
            yield whole
            done += len(next(iter(columns.values())))
            progress(done)

    if isinstance(target, Path):
        with _replacing(target) as partial:
            write(answered(), partial)
            if not done:
                partial.unlink(missing_ok=True)
    else:
        _write_csv_rows(answered(), target)
    if not done:
        raise UsageError(f"{source} has no rows", "give a table with rows")
    return done


def _answer_columns(answers: Answers, manifest: Manifest) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    if answers.labels is not None:
        columns["prediction"] = answers.labels.tolist()
    if answers.probabilities is not None:
        for index, label in enumerate(manifest.classes):
            columns[f"probability_{label}"] = answers.probabilities[:, index].tolist()
    if answers.values is not None:
        stem, width = "prediction" if answers.labels is None else "decision", answers.values.shape[1]
        for index in range(width):
            columns[stem if width == 1 else f"{stem}_{index}"] = answers.values[:, index].tolist()
    return columns


def _first_bad_row(engine: Engine, columns: Table) -> int:
    """The row of a chunk that is refused; 0 where the fault is in the columns."""
    for row in range(len(next(iter(columns.values()), []))):
        try:
            engine.encode({name: columns[name][row : row + 1] for name in engine.features if name in columns})
        except BadInput:
            return row
    return 0


def _read_csv(source: Path, manifest: Manifest) -> Iterator[tuple[Table, Table]]:
    features = {feature.name: feature for feature in manifest.features}
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, None)
            if not header:
                raise UsageError(f"{source} is empty", "give a CSV file with a header line")
            twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
            if twice is not None:
                raise UsageError(f"{source} has two columns '{twice}'", "rename one of them")
            rows: list[list[str]] = []
            for row in reader:
                if not row:  # a blank line, which pandas passes over too
                    continue
                if len(row) != len(header):
                    raise BadInput(
                        "", f"line {reader.line_num} of {source.name} has {len(row)} cells, not {len(header)}"
                    )
                rows.append(row)
                if len(rows) == CHUNK_ROWS:
                    yield _parse(header, rows, features, source)
                    rows = []
            if rows:
                yield _parse(header, rows, features, source)
    except OSError as error:
        raise MissingFile("table", str(source), error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{source} is not a CSV file in UTF-8 ({error})", "save it as CSV in UTF-8") from error


def _parse(
    header: list[str], rows: list[list[str]], features: Mapping[str, Feature], source: Path
) -> tuple[Table, Table]:
    raw = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    return raw, {name: [_cell(cell, features[name]) for cell in raw[name]] for name in header if name in features}


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


def _write_csv(tables: Iterator[Table], target: Path) -> None:
    with target.open("w", newline="", encoding="utf-8") as file:
        _write_csv_rows(tables, file)


def _write_csv_rows(tables: Iterator[Table], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for index, table in enumerate(tables):
        if index == 0:
            writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def _read_parquet(source: Path, manifest: Manifest) -> Iterator[tuple[Table, Table]]:
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(source) as file:
            names = file.schema_arrow.names
            if len(set(names)) != len(names):
                raise UsageError(f"{source} has two columns of one name", "rename one of them")
            for record in file.iter_batches(batch_size=CHUNK_ROWS):
                columns = _Record({name: record.column(name).to_pylist() for name in record.schema.names})
                columns.types = {field.name: field.type for field in record.schema}
                yield columns, columns
    except FileNotFoundError as error:
        raise MissingFile("table", str(source)) from error
    except arrow.ArrowException as error:
        raise UsageError(f"{source} is not a Parquet file ({error})", "give a .parquet or .csv file") from error


def _write_parquet(tables: Iterator[Table], target: Path) -> None:
    arrow, parquet = _pyarrow()
    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = parquet.ParquetWriter(target, _schema(arrow, table))
            writer.write_table(arrow.table(dict(table), schema=writer.schema))
    except arrow.ArrowException as error:
        raise UsageError(f"a column cannot be written as Parquet ({error})", "drop it from the table") from error
    finally:
        if writer is not None:
            writer.close()


def _schema(arrow: Any, table: Table) -> Any:
    """Of the file: carried columns keep their type, also where the first rows hold nothing but nulls."""
    carried = table.types if isinstance(table, _Record) else {}
    return arrow.schema([(name, carried.get(name) or arrow.array(values).type) for name, values in table.items()])


class _Record(dict[str, list[Any]]):
    """Columns that know the Arrow types that they were read with."""

    types: Mapping[str, Any] = {}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        ours, extra = (
            ("edgekit-toolkit", "build") if is_installed("edgekit-toolkit") else ("edgekit-runtime", "parquet")
        )
        raise MissingExtra("pyarrow", ours, extra) from error
    return pyarrow, pyarrow.parquet


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A file beside `target` that takes its name when all went well, and is removed otherwise."""
    partial = target.with_name(f".{target.name}.part")
    try:
        yield partial
        if partial.exists():
            os.replace(partial, target)
    except OSError as error:
        raise StorageFault(str(target), error.strerror or str(error)) from error
    finally:
        partial.unlink(missing_ok=True)
