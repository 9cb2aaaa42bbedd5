from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekit_contracts.errors import CannotResume, EnvironmentFault, Refused, UsageError
from edgekit_runtime.batch import parquet_file, predict, predict_file
from edgekit_runtime.batch.journal import Origin
from edgekit_runtime.batch.tables import CHUNK_ROWS
from edgekit_runtime.engine import Engine
from tests import bundles

ROWS = 5 * CHUNK_ROWS + 7
KINDS = ("csv", "jsonl", "parquet")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), bundles.manifest())


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "SEGMENT_ROWS", CHUNK_ROWS)


def table(path: Path, rows: int) -> Path:
    """Rows of which each has its number; texts that hold line ends, of which a reader must not lose count."""
    numbers = np.arange(rows)
    ages, notes = 20 + numbers % 60, np.where(numbers % 3, "plain", "two\nlines")
    if path.suffix == ".parquet":
        columns = {"i": numbers, "age": ages, "bmi": ages / 2, "sex": ["f"] * rows, "note": pa.array(notes.tolist())}
        pq.write_table(pa.table(columns), path, row_group_size=10_000)
    elif path.suffix == ".csv":
        lines = (f'{i},{age},{age / 2},f,"{note}"\r\n' for i, age, note in zip(numbers, ages, notes, strict=True))
        path.write_text("i,age,bmi,sex,note\r\n" + "".join(lines), newline="")
    else:
        lines = (f'{{"i":{i},"age":{age},"bmi":{age / 2},"sex":"f"}}\n' for i, age in zip(numbers, ages, strict=True))
        path.write_text("".join(lines))
    return path


def content(path: Path) -> Any:
    return pq.read_table(path) if path.suffix == ".parquet" else path.read_bytes()


class Killed(BaseException):
    """Ends a run at once, as a signal would."""


def killed_after(engine: Engine, source: Path, target: Path, rows: int, *, resume: bool = False) -> None:
    def progress(done: int, share: float) -> None:
        if done >= rows:
            raise Killed

    with pytest.raises(Killed):
        predict_file(engine, source, target, progress, resume=resume)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_segments")
def test_a_run_that_ended_early_goes_on_where_it_was(engine: Engine, tmp_path: Path, kind: str) -> None:
    source, target, whole = table(tmp_path / f"in.{kind}", ROWS), tmp_path / f"out.{kind}", tmp_path / f"whole.{kind}"
    target.write_bytes(b"what was there before")
    predict_file(engine, source, whole)
    killed_after(engine, source, target, 2 * CHUNK_ROWS)
    assert target.read_bytes() == b"what was there before"
    killed_after(engine, source, target, 4 * CHUNK_ROWS, resume=True)
    begun: list[tuple[int, float]] = []
    assert predict_file(engine, source, target, lambda *done: begun.append(done), resume=True) == ROWS
    assert begun[0][0] == 5 * CHUNK_ROWS
    assert begun[-1] == (ROWS, 1.0)
    assert content(target) == content(whole)
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name, whole.name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_segments")
def test_a_torn_segment_and_a_torn_note_are_not_counted(engine: Engine, tmp_path: Path, kind: str) -> None:
    source, target, whole = table(tmp_path / f"in.{kind}", ROWS), tmp_path / f"out.{kind}", tmp_path / f"whole.{kind}"
    predict_file(engine, source, whole)
    killed_after(engine, source, target, 3 * CHUNK_ROWS)
    part, journal = tmp_path / f".out.{kind}.part", tmp_path / f".out.{kind}.journal"
    whole_lines = journal.read_bytes()
    for tail in (b"\0" * 999, b"half a row"):
        part.write_bytes(part.read_bytes() + tail)
    for cut in (len(whole_lines) - 1, len(whole_lines) - 30):
        journal.write_bytes(whole_lines[:cut])
        killed_after(engine, source, target, 3 * CHUNK_ROWS, resume=True)
    os.truncate(part, part.stat().st_size - 1)  # the disk lost what it had promised
    assert predict_file(engine, source, target, resume=True) == ROWS
    assert content(target) == content(whole)


@pytest.mark.usefixtures("small_segments")
def test_a_changed_table_or_another_bundle_is_not_gone_on_with(engine: Engine, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    killed_after(engine, source, target, 2 * CHUNK_ROWS)
    left = (tmp_path / ".out.csv.part").read_bytes()
    other = Engine(bundles.model(), bundles.manifest(version="1.1"))
    with pytest.raises(CannotResume, match=r"out\.csv: the bundle is another one since its first rows"):
        predict_file(other, source, target, resume=True)
    os.utime(source, (1, 1))
    with pytest.raises(CannotResume, match="the table has changed"):
        predict_file(engine, source, target, resume=True)
    assert (tmp_path / ".out.csv.part").read_bytes() == left
    assert predict_file(other, source, target) == ROWS  # without it, a run begins anew
    assert target.read_text().count("\n") == 1 + ROWS + len(range(0, ROWS, 3))


def test_an_earlier_release_is_not_gone_on_with(engine: Engine, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", 9), tmp_path / "out.csv"
    (tmp_path / ".out.csv.part").write_bytes(b"half a file")
    for line in (b'{"format":9}\n', b"\xff\n"):
        (tmp_path / ".out.csv.journal").write_bytes(line)
        with pytest.raises(CannotResume, match="another release of edgekit-runtime began it"):
            predict_file(engine, source, target, resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_sha256": "0" * 64}, "the bundle is another one"),
        ({"onnxruntime": "9.9.9"}, r"onnxruntime was .* and is 9\.9\.9"),
        ({"edgekit_runtime": "9.9.9"}, r"edgekit-runtime was .* and is 9\.9\.9"),
        ({"library": "pyarrow 9.9.9"}, r"pyarrow [0-9.]+ is pyarrow 9\.9\.9 now"),
        ({"table_ends_sha256": "0" * 64}, "the table has changed"),
        ({"table_changed_ns": 1}, "the table has changed"),
    ],
)
def test_what_has_changed_is_named(engine: Engine, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    origin = Origin.of(table(tmp_path / "in.parquet", 9), engine.manifest, parquet_file.KIND.library())
    assert origin.difference(origin) is None
    found = origin.difference(msgspec.structs.replace(origin, **change))
    assert found is not None
    assert re.fullmatch(words, found)


def test_a_note_without_its_file_is_of_a_run_that_ended(engine: Engine, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", 9), tmp_path / "out.csv"
    (tmp_path / ".out.csv.journal").write_bytes(b'{"of":"another table"}\n')
    assert predict_file(engine, source, target, resume=True) == 9
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}


def test_resuming_what_nobody_began_begins(engine: Engine, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", 9), tmp_path / "out.csv"
    assert predict_file(engine, source, target, resume=True) == 9
    assert predict_file(engine, source, target, resume=True) == 9
    with pytest.raises(UsageError, match="only a file can be gone on with"):
        predict_file(engine, source, sys.stdout, resume=True)


class Failing:
    """A session that gives up after some calls."""

    def __init__(self, calls: int) -> None:
        self._left, self._inside = calls, onnxruntime.InferenceSession(bundles.model())

    def run(self, names: Sequence[str], feed: Mapping[str, Any], /) -> Sequence[Any]:
        self._left -= 1
        if self._left < 0:
            raise MemoryError
        return list(self._inside.run(names, feed))


@pytest.mark.usefixtures("small_segments")
def test_what_was_answered_before_a_failure_is_kept(engine: Engine, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    with pytest.raises(Refused, match="ONNX Runtime failed"):
        predict_file(Engine(bundles.model(), bundles.manifest(), session=Failing(3)), source, target)
    begun: list[int] = []
    assert predict_file(engine, source, target, lambda rows, _: begun.append(rows), resume=True) == ROWS
    assert begun[0] == 4 * CHUNK_ROWS


def test_a_file_system_without_locks_is_written_to(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert predict_file(engine, table(tmp_path / "in.csv", 9), tmp_path / "out.csv") == 9


@pytest.mark.usefixtures("small_segments")
def test_two_runs_do_not_write_one_file(engine: Engine, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"

    def progress(done: int, share: float) -> None:
        with pytest.raises(EnvironmentFault, match="another run is writing"):
            predict_file(engine, source, target)

    assert predict_file(engine, source, target, progress) == ROWS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("bundle"))


def command(made: bundles.Made, source: Path, target: Path, *further: str) -> list[str]:
    words = ["predict", str(made.path), str(source), "--key", str(made.public), "-o", str(target)]
    return [sys.executable, "-m", "edgekit_runtime", *words, *further]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_kill_9_at_any_moment_doubles_and_loses_no_row(
    engine: Engine, made: bundles.Made, tmp_path: Path, kind: str
) -> None:
    rows = 2 * predict.SEGMENT_ROWS + 5
    source, target = table(tmp_path / f"in.{kind}", rows), tmp_path / f"out.{kind}"
    journal, chance, kills, noted = tmp_path / f".out.{kind}.journal", random.Random(kind), 0, 1
    while not target.exists():
        process = subprocess.Popen(command(made, source, target, "--resume"), stderr=subprocess.PIPE)
        # Killed a moment after it has noted something new; a run that notes nothing more ends by itself.
        while process.poll() is None:
            lines = 0
            with suppress(FileNotFoundError):  # it has not begun, or has just ended
                lines = journal.read_bytes().count(b"\n")
            if lines > noted:
                time.sleep(chance.uniform(0, 0.1))
                process.kill()
                kills, noted = kills + 1, lines
                break
            time.sleep(0.002)
        _, words = process.communicate()
        assert process.returncode in {0, -9}, words
    assert kills
    predict_file(engine, source, tmp_path / f"whole.{kind}")
    assert content(target) == content(tmp_path / f"whole.{kind}")


def test_a_full_disk_is_said_and_the_run_goes_on_later(engine: Engine, made: bundles.Made, tmp_path: Path) -> None:
    source, target = table(tmp_path / "in.csv", 2 * predict.SEGMENT_ROWS), tmp_path / "out.csv"
    limit = 7_000_000  # bytes of one file: what a full disk does, to this process alone
    full = subprocess.run(
        command(made, source, target),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert full.returncode == 3, full.stderr
    assert "out.csv: File too large" in full.stderr
    assert "go on with --resume" in full.stderr
    again = subprocess.run(command(made, source, target, "--resume"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    predict_file(engine, source, tmp_path / "whole.csv")
    assert content(target) == content(tmp_path / "whole.csv")
