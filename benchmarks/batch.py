"""`edgekit-runtime predict` on a large Parquet file beside bare onnxruntime; its memory; killed and gone on with.

    .venv/bin/python benchmarks/batch.py [--rows 1000000] [--rounds 5] [--kills 10]

For each model, in interleaved rounds: bare onnxruntime on rows that lie in memory as the model wants them, in batches
of the same size, one thread; and the whole way from file to file (read, encode, infer, write, sync). Reading and
encoding alone, and writing alone, stand beside; so does pyarrow, which reads the rows and writes them again without any
model: what goes from file to file can hardly be faster. Then the command itself: its memory while it runs; and killed
(SIGKILL) at random moments and run again with --resume until it ends, its rows compared with those of a run that
nobody killed.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import edgekit
from edgekit_contracts.manifest import Manifest
from edgekit_converters.signing import PRIVATE_NAME, SigningKey
from edgekit_runtime.batch import predict_file
from edgekit_runtime.batch.parquet_file import ParquetReader, ParquetWriter
from edgekit_runtime.batch.predict import SEGMENT_ROWS
from edgekit_runtime.batch.tables import Position, answer_columns, chunk_rows
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engine import Engine
from edgekit_runtime.trust import PUBLIC_NAME

FEATURES: Final = 30
MODELS: Final[dict[str, Callable[[], Any]]] = {
    "forest": lambda: RandomForestClassifier(100, max_depth=8, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=100, random_state=0),
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
}
"""100 trees of depth 8; 100 rounds; a scaler and a logistic regression."""


def data(rows: int, seed: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Measurements [rows, FEATURES] and a class for each."""
    drawn: Any = make_classification(rows, FEATURES, n_informative=12, random_state=seed)
    X, y = drawn
    return pd.DataFrame(X, columns=[f"sensor_{index}" for index in range(FEATURES)]), y


def bundle(name: str, folder: Path) -> Path:
    """Trains and builds."""
    frame, y = data(3000, 0)
    model = MODELS[name]().fit(frame, y)
    keys = folder / "keys"
    if not keys.exists():
        SigningKey.create(keys)
    out = folder / f"{name}-1.0.edge"
    edgekit.build(model, frame, out=out, key=keys / PRIVATE_NAME, allow_unfit=True, check_runtimes=None)
    return out


def bare(model: bytes, manifest: Manifest, rows: NDArray[Any]) -> Callable[[], None]:
    """Onnxruntime with the settings of the Engine, and nothing else."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (tensor,) = manifest.inputs
    rows = np.ascontiguousarray(rows, np.float32 if tensor.dtype == "float32" else np.float64)
    names, size = [output.name for output in manifest.outputs], chunk_rows(FEATURES, manifest)

    def run() -> None:
        for start in range(0, len(rows), size):
            session.run(names, {tensor.name: rows[start : start + size]})

    return run


def timed(call: Callable[[], Any]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def reading(engine: Engine, source: Path) -> None:
    """All rows of the file as the model's tensors."""
    for chunk in ParquetReader(source, engine.manifest).chunks(Position()):
        engine.encode(chunk.columns)


def writing(engine: Engine, source: Path, target: Path) -> float:
    """Seconds that go into encoding and syncing the file, with answers that are made before."""
    writer, taken = ParquetWriter(False), 0.0
    with target.open("wb") as file:
        for chunk in ParquetReader(source, engine.manifest).chunks(Position()):
            made = answer_columns(engine.predict(chunk.columns), engine.manifest)
            start = time.perf_counter()
            writer.add(chunk, made)
            if chunk.end.rows % SEGMENT_ROWS == 0:
                file.write(writer.segment().data)
                file.flush()
                os.fsync(file.fileno())
            taken += time.perf_counter() - start
    return taken


def copying(source: Path, target: Path) -> None:
    """The rows from file to file by pyarrow, with all its threads and our encodings, and synced: no answers."""
    with pq.ParquetFile(source) as read, pq.ParquetWriter(target, read.schema_arrow, use_dictionary=False) as written:
        for record in read.iter_batches(SEGMENT_ROWS):
            written.write_batch(record, row_group_size=SEGMENT_ROWS)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def command(bundle: Path, source: Path, target: Path, *further: str) -> list[str]:
    """The words of `edgekit-runtime predict`."""
    key = str(bundle.parent / "keys" / PUBLIC_NAME)
    words = ["-m", "edgekit_runtime", "predict", str(bundle), str(source), "--key", key, "-o", str(target)]
    return [sys.executable, *words, *further]


def resident(process: subprocess.Popen[bytes]) -> Iterator[tuple[float, float]]:
    """(seconds, MiB that only this process holds) every 20 ms while it runs."""
    start = time.perf_counter()
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            yield (
                time.perf_counter() - start,
                next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0),
            )
        except OSError:
            return
        time.sleep(0.02)


def rates(name: str, made: Path, source: Path, rounds: int) -> None:
    """Prints one model's figures."""
    folder = made.parent
    opened = open_bundle(made, keys=None)
    engine, rows = Engine(opened.model, opened.manifest), pq.read_metadata(source).num_rows
    matrix = pd.read_parquet(source).to_numpy()
    alone = bare(opened.model, opened.manifest, matrix)
    del matrix
    bare_s, ours_s, copied_s, ratios, beside = [], [], [], [], []
    for _ in range(rounds):
        bare_s.append(timed(alone))
        ours_s.append(timed(lambda: predict_file(engine, source, folder / "out.parquet")))
        copied_s.append(timed(lambda: copying(source, folder / "copied.parquet")))
        ratios.append(bare_s[-1] / ours_s[-1])
        beside.append(copied_s[-1] / ours_s[-1])
    del alone
    read_s = float(np.median([timed(lambda: reading(engine, source)) for _ in range(3)]))
    write_s = writing(engine, source, folder / "written.parquet")
    one, whole = float(np.median(bare_s)), float(np.median(ours_s))
    print(
        f"{name:10} batches of {chunk_rows(FEATURES, opened.manifest):,}   "
        f"bare {rows / one:12,.0f} rows/s   predict {rows / whole:12,.0f} rows/s   "
        f"ratio {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})   "
        f"pyarrow, file to file without a model {rows / float(np.median(copied_s)):12,.0f} rows/s, "
        f"ratio {np.median(beside):.2f}   "
        f"alone, of the bare time: read and encode {read_s / one:.2f}, write and sync {write_s / one:.2f}",
        flush=True,
    )


def memory(made: Path, source: Path) -> None:
    """Prints the command's memory over the time that it runs."""
    target = made.parent / "memory.parquet"
    with subprocess.Popen(command(made, source, target), stderr=subprocess.DEVNULL) as process:
        found = list(resident(process))
    quarters = [max(mib for _, mib in part) for part in np.array_split(np.array(found), 4)]
    print(
        f"memory of the command over {found[-1][0]:.1f} s, its four quarters: "
        + ", ".join(f"{mib:.0f}" for mib in quarters)
        + f" MiB; the file has {source.stat().st_size / 2**20:.0f} MiB",
        flush=True,
    )


def killed(made: Path, source: Path, kills: int) -> None:
    """Kills and resumes; prints what came of it."""
    whole, target = made.parent / "whole.parquet", made.parent / "killed.parquet"
    seconds = timed(lambda: subprocess.run(command(made, source, whole), stderr=subprocess.DEVNULL, check=True))
    chance, runs, died = random.Random(0), 0, 0
    while runs < kills:
        target.unlink(missing_ok=True)
        while not target.exists():
            process = subprocess.Popen(command(made, source, target, "--resume"), stderr=subprocess.DEVNULL)
            try:
                process.wait(chance.uniform(0.3, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                died += 1
            process.wait()
        runs += 1
        # The file is there, perhaps not yet the journal's end.
        subprocess.run(command(made, source, target, "--resume"), stderr=subprocess.DEVNULL, check=True)
        left, right = pq.ParquetFile(whole), pq.ParquetFile(target)
        if left.metadata.num_rows != right.metadata.num_rows or not same(left, right):
            raise SystemExit(f"run {runs}: the rows differ after a kill")
    print(f"killed {died} times in {runs} runs and gone on with: every run's rows equal to the undisturbed run's, once")


def same(left: pq.ParquetFile, right: pq.ParquetFile) -> bool:
    """Whether both hold the same rows in the same order."""
    return bool(left.read().equals(right.read()))


def main() -> None:
    """Measures all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, onnxruntime {ort.__version__}; {options.rows:,} rows by "
        f"{FEATURES} columns of float64 in Parquet; one thread inside onnxruntime"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = folder / "in.parquet"
        data(options.rows, 1)[0].to_parquet(source)
        made = {name: bundle(name, folder) for name in MODELS}
        for name, path in made.items():
            rates(name, path, source, options.rounds)
        memory(made["logistic"], source)
        killed(made["logistic"], source, options.kills)


if __name__ == "__main__":
    main()
