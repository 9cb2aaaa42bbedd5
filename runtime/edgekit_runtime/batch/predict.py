"""The loop: read ahead, answer ahead, write; and behind it, sync and note down what is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TextIO

from edgekit_contracts.errors import BadInput, MissingFile, StorageFault, UsageError
from edgekit_runtime.batch import csv_file, jsonl_file, parquet_file
from edgekit_runtime.batch.ahead import ahead, behind
from edgekit_runtime.batch.journal import Origin
from edgekit_runtime.batch.part import Part, Sink, Stream
from edgekit_runtime.batch.tables import Chunk, Kind, Made, Reader, answer_columns
from edgekit_runtime.engine import Batch, Engine

KINDS: Final = {
    suffix: kind for kind in (csv_file.KIND, jsonl_file.KIND, parquet_file.KIND) for suffix in kind.suffixes
}
SEGMENT_ROWS: Final = 65_536
SEGMENT_BYTES: Final = 8 << 20
SEGMENT_S: Final = 5.0
"""What is written, synced and noted at once, at most: what a crash costs."""


def predict_file(
    engine: Engine,
    source: Path,
    target: Path | TextIO,
    progress: Callable[[int, float], None] = lambda rows, share: None,
    *,
    resume: bool = False,
) -> int:
    """Answers each row of `source` and writes row and answers to `target`.

    Args:
        engine: The model.
        source: `.csv`, `.jsonl`, `.ndjson` or `.parquet`; columns that the model does not know are carried along.
        target: A file of the same kind, replaced only when all is written; or an open text file, but for Parquet.
        progress: Called with the number of rows done and the share of the table, 0 to 1; first with where it begins.
        resume: Go on where a run on the same table, bundle and target was killed, or ended for want of room.

    Returns:
        The number of rows of the table.

    Raises:
        MissingFile, UsageError, MissingExtra: The file cannot be read or is of another kind.
        BadInput: A row does not fit the model; the error names the row. Nothing is left of the target.
        CannotResume: What was left was made of another table or bundle.
        EnvironmentFault, StorageFault: The target cannot be written; `resume` goes on with what is there.
        Refused: ONNX Runtime failed; likewise.
    """
    kind = _kind(source, target)
    reader = kind.reader(source, engine.manifest)
    if not isinstance(target, Path):
        if resume:
            raise UsageError("only a file can be gone on with", "name it with -o")
        return _answer(engine, source, kind, reader, Stream(target), progress)
    with _part(engine, source, target, kind, resume=resume) as part:
        rows = _answer(engine, source, kind, reader, part, progress)
        part.finish()
    return rows


def _kind(source: Path, target: Path | TextIO) -> Kind:
    suffix = source.suffix.lower()
    kind = KINDS.get(suffix)
    if kind is None:
        raise UsageError(f"{source} is neither a .csv nor a .parquet nor a .jsonl file", "save it as one of them")
    if isinstance(target, Path) and target.suffix.lower() not in kind.suffixes:
        raise UsageError(f"the answers to a {suffix} file cannot be written to {target}", f"name a {suffix} file")
    if isinstance(target, Path) and target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target} is the table itself", "name another file for the answers")
    if not isinstance(target, Path) and not kind.streams:
        raise UsageError("Parquet goes to a file only", "name it with -o")
    return kind


@contextmanager
def _part(engine: Engine, source: Path, target: Path, kind: Kind, *, resume: bool) -> Iterator[Part]:
    try:
        origin = Origin.of(source, engine.manifest, kind.library())
    except OSError as error:
        raise MissingFile("table", str(source), error.strerror or str(error)) from error
    try:
        part = Part(target, origin, kind.head, kind.end, resume=resume)
        with closing(part):
            try:
                yield part
            except (BadInput, UsageError) as refusal:
                # The table has to be changed, so that nothing can go on; but not where it could not be read just now.
                if not isinstance(refusal, MissingFile):
                    part.discard()
                raise
    except OSError as error:
        raise StorageFault(
            str(target),
            error.strerror or str(error),
            "check its permissions and the free space, then go on with --resume",
        ) from error


def _answer(
    engine: Engine, source: Path, kind: Kind, reader: Reader, sink: Sink, progress: Callable[[int, float], None]
) -> int:
    done = kept = sink.start
    writer = kind.writer(done.rows > 0)
    since = time.monotonic()
    with (
        closing(ahead(_answered(engine, source, ahead(_encoded(engine, source, reader.chunks(done)))))) as answered,
        behind(sink.append) as append,
    ):
        for chunk, made in answered:
            writer.add(chunk, made)
            done = chunk.end
            full = done.rows - kept.rows >= SEGMENT_ROWS or writer.size >= SEGMENT_BYTES
            if full or sink.eager or time.monotonic() - since >= SEGMENT_S:
                append(writer.segment(), done)
                kept, since = done, time.monotonic()
            progress(done.rows, reader.share(done))
        if done is not kept:
            append(writer.segment(), done)
    if not done.rows:
        raise UsageError(f"{source} has no rows", "give a table with rows")
    return done.rows


def _encoded(
    engine: Engine, source: Path, chunks: Generator[Chunk, None, None]
) -> Generator[tuple[Chunk, Batch], None, None]:
    for chunk in chunks:
        lacking = [feature.name for feature in engine.manifest.features if feature.name not in chunk.names]
        if lacking:
            shown = ", ".join(f"'{name[:64]}'" for name in lacking[:5])
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            has = ", ".join(name[:64] for name in sorted(chunk.names)[:20])
            split = "separate its columns by commas" if len(chunk.names) == 1 else f"it has {has}"
            raise BadInput("", f"{source.name} has no column {shown}{more}", f"give every feature a column; {split}")
        with _naming_the_row(engine, source, chunk):
            batch = engine.encode(chunk.columns)
        yield chunk, batch


def _answered(
    engine: Engine, source: Path, encoded: Generator[tuple[Chunk, Batch], None, None]
) -> Generator[tuple[Chunk, Made], None, None]:
    with closing(encoded):
        for chunk, batch in encoded:
            with _naming_the_row(engine, source, chunk):
                made = answer_columns(engine.run(batch), engine.manifest)
            taken = next((name for name in made if name in chunk.names), None)
            if taken is not None:
                raise UsageError(f"{source} has a column '{taken}' already", "rename it, or drop it")
            yield chunk, made


@contextmanager
def _naming_the_row(engine: Engine, source: Path, chunk: Chunk) -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        row, error = _first_bad_row(engine, chunk, error)
        number = chunk.end.rows - chunk.rows + row + 1
        raise BadInput("", f"{error.sentence} (row {number} of {source.name})", "correct the table") from error


def _first_bad_row(engine: Engine, chunk: Chunk, error: BadInput) -> tuple[int, BadInput]:
    """The row that is refused, and what is said of it alone; the first where the fault is in the columns."""
    for row in range(chunk.rows):
        try:
            engine.predict({name: column[row : row + 1] for name, column in chunk.columns.items()})
        except BadInput as alone:
            return row, alone
    return 0, error
