"""What exchanging bundles and running a shadow cost those who ask, and whether the agreement's interval holds.

    .venv/bin/python benchmarks/strategies.py [--short]

Swaps: a service under four clients at full speed, each a process of its own that compares every answer, byte for byte,
with what the one or the other version answers; meanwhile bundles are staged from their files and promoted, again and
again. The 99th percentile of the requests during a swap (from the order to its answer, loading and self-test included)
beside those of the quiet times between them, and the resident memory after beside before.

Shadow: the same clients at a fixed rate, with a shadow and without one in turns; medians of the paired rounds.

Interval: simulated runs of rows that agree with a known probability. Ends by itself, in about seven minutes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing as mp
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import edgekit
from benchmarks.footprint import cpu
from benchmarks.start import resident_kb, stop
from edgekit_converters.signing import PRIVATE_NAME, SigningKey
from edgekit_runtime.ask import UnixConnection
from edgekit_runtime.strategies.agreement import share
from edgekit_runtime.trust import PUBLIC_NAME

CLIENTS: Final = 4
RATE: Final = 100.0
"""Requests a second of each client beside the shadow."""
NAMES: Final = ("1.0", "2.0")


@dataclass(frozen=True)
class Bench:
    """A running service and what its versions answer."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    request: bytes
    expected: dict[bytes, str]
    """Body -> version."""


@dataclass(frozen=True)
class Seen:
    """What the clients saw."""

    began: NDArray[np.float64]
    """[requests], seconds of the machine's monotonic clock."""
    took: NDArray[np.float64]
    """[requests], microseconds."""
    errors: int
    mixed: int
    """Answers that are neither version's."""
    versions: frozenset[str]


def main() -> None:
    """Builds two versions, then the three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few swaps, rounds and runs")
    short = parser.parse_args().short
    print(f"{platform.machine()}, Python {platform.python_version()}, {cpu()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        swaps(folder, 20 if short else 200)
        shadows(folder, 4 if short else 40, 3.0)
    intervals(100)


def build(folder: Path) -> None:
    """Two versions of one model, signed by one key, and a configuration."""
    data: Any = load_breast_cancer(as_frame=True)
    SigningKey.create(folder / "keys")
    for seed, version in enumerate(NAMES):
        model = RandomForestClassifier(50, random_state=seed).fit(data.data[seed::2], data.target[seed::2])
        edgekit.build(model, data.data, out=folder / f"cancer-{version}.edge", key=folder / "keys" / PRIVATE_NAME)
    (folder / "device.toml").write_text(
        f'device = "bench"\nbundle = "cancer-1.0.edge"\nkeys = ["keys/{PUBLIC_NAME}"]\n'
        '[serve]\nport = 0\nsocket = "s.sock"\n'
    )
    row = np.asarray(data.data[40:41]).ravel().tolist()
    tensor = {"name": "numbers", "shape": [1, len(row)], "datatype": "FP64", "data": row}
    (folder / "request.json").write_text(json.dumps({"inputs": [tensor]}))


def start(folder: Path) -> Bench:
    """The service with both versions' answers asked for once; 1.0 is live, and nothing is beside it."""
    log = (folder / "log").open("wb")
    command = [sys.executable, "-m", "edgekit_runtime", "run", "--config", str(folder / "device.toml")]
    process = subprocess.Popen(command, stderr=log)
    while "serving" not in (words := (folder / "log").read_text()):
        if process.poll() is not None:
            raise SystemExit(words)
        time.sleep(0.05)
    port = int(words.partition("http://127.0.0.1:")[2].partition(",")[0])
    request = (folder / "request.json").read_bytes()
    expected = {}
    for version in (NAMES[1], NAMES[0]):
        order(folder, "stage", version)
        order(folder, "promote")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/v2/models/cancer/infer", request)
        expected[connection.getresponse().read()] = version
        connection.close()
    assert len(expected) == len(NAMES), "the versions must answer differently"
    return Bench(process, folder, port, request, expected)


def order(folder: Path, command: str, version: str = "1.0", **plan: Any) -> Any:
    """A command over the socket; refused where that version is live already."""
    connection = UnixConnection(str(folder / "s.sock"))
    body = json.dumps({"bundle": str(folder / f"cancer-{version}.edge"), "strategy": "blue-green"} | plan)
    connection.request("POST", f"/edgekit/models/cancer/{command}", body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == 200 or "is live already" in answer["error"], answer
    return answer


def ask(bench: tuple[int, bytes, dict[bytes, str]], rate: float, until: Event, out: Any) -> None:
    """One client: a process that asks until it is told to stop."""
    port, request, expected = bench
    head = f"POST /v2/models/cancer/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(request)}\r\n\r\n".encode()
    whole, seen = head + request, []
    errors = mixed = 0
    versions = set()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = connection.makefile("rb")
        due = time.monotonic() + np.random.default_rng().random() / rate if rate else 0.0
        while not until.is_set():
            if rate:
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due + 1 / rate, time.monotonic() - 1.0)
            began = time.monotonic()
            connection.sendall(whole)
            status, size = file.readline(), 0
            while (line := file.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            body = file.read(size)
            seen.append((began, 1e6 * (time.monotonic() - began)))
            if b" 200 " not in status:
                errors += 1
            elif body not in expected:
                mixed += 1
            else:
                versions.add(expected[body])
    out.send((np.array(seen).reshape(-1, 2), errors, mixed, versions))
    out.close()


class Clients:
    """Four clients that ask while the block lasts; `seen` then says what they saw."""

    def __init__(self, bench: Bench, rate: float = 0.0) -> None:
        context = mp.get_context("fork")
        self._stop = context.Event()
        self._pipes, self._processes = [], []
        for _ in range(CLIENTS):
            ours, theirs = context.Pipe(duplex=False)
            asked = (bench.port, bench.request, bench.expected)
            self._processes.append(context.Process(target=ask, args=(asked, rate, self._stop, theirs)))
            self._processes[-1].start()
            theirs.close()
            self._pipes.append(ours)

    def stop(self) -> Seen:
        """Ends them."""
        self._stop.set()
        found = [pipe.recv() for pipe in self._pipes]
        for process in self._processes:
            process.join()
        rows = np.concatenate([one[0] for one in found])
        return Seen(
            rows[:, 0],
            rows[:, 1],
            sum(one[1] for one in found),
            sum(one[2] for one in found),
            frozenset().union(*(one[3] for one in found)),
        )


def swaps(folder: Path, count: int) -> None:
    """Stages and promotes under load."""
    bench = start(folder)
    try:
        clients = Clients(bench)
        time.sleep(2.0)
        before_kb, spans = resident_kb(bench.process.pid), []
        for number in range(count):
            began = time.monotonic()
            order(folder, "stage", NAMES[(number + 1) % 2])
            order(folder, "promote")
            spans.append((began, time.monotonic()))
            time.sleep(spans[-1][1] - spans[-1][0])
        time.sleep(1.0)
        after_kb = resident_kb(bench.process.pid)
        seen = clients.stop()
    finally:
        stop(bench.process)
    during = np.zeros(len(seen.began), dtype=bool)
    for began, ended in spans:
        during |= (seen.began + seen.took / 1e6 >= began) & (seen.began <= ended)
    quiet = ~during & (seen.began >= spans[0][0])
    inside, outside = (float(np.percentile(seen.took[which], 99)) for which in (during, quiet))
    print(
        f"{count} swaps under {CLIENTS} clients, {len(seen.began):,} requests "
        f"({during.sum():,} of them during a swap, of {1000 * statistics.median(e - b for b, e in spans):.0f} ms): "
        f"{seen.errors} errors, {seen.mixed} answers of neither version; versions seen: {sorted(seen.versions)}"
    )
    print(f"p99 during a swap {inside:.0f} us, in quiet times {outside:.0f} us, ratio {inside / outside:.2f}")
    print(f"memory before {before_kb / 1024:.1f} MiB, after {after_kb / 1024:.1f}, ratio {after_kb / before_kb:.2f}")


def shadows(folder: Path, rounds: int, seconds: float) -> None:
    """With a shadow and without, in turns, under the same clients."""
    bench = start(folder)
    spans: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    rows = skipped = 0
    try:
        clients = Clients(bench, RATE)
        for number in range(2 * rounds):
            with_shadow = (number + number // 2) % 2 == 1  # off, on, on, off
            if with_shadow:
                order(folder, "stage", NAMES[1], strategy="shadow")
            time.sleep(0.5)
            began = time.monotonic()
            time.sleep(seconds)
            spans[with_shadow].append((began, time.monotonic()))
            if with_shadow:
                found = status(folder)["candidate"]["shadow"]
                rows, skipped = rows + found["agreement"]["rows"], skipped + found["skipped_rows"]
                order(folder, "drop")
        seen = clients.stop()
    finally:
        stop(bench.process)

    def p99(parts: list[tuple[float, float]]) -> float:
        inside = [seen.took[(seen.began >= began) & (seen.began < ended)] for began, ended in parts]
        return float(np.percentile(np.concatenate(inside), 99))

    ratios = [p99([on]) / p99([off]) for on, off in zip(spans[True], spans[False], strict=True)]
    alone, beside = p99(spans[False]), p99(spans[True])
    print(
        f"shadow at {CLIENTS * RATE:.0f} requests/s: p99 alone {alone:.0f} us, with it {beside:.0f} us, ratio "
        f"{beside / alone:.3f} (median of {rounds} rounds {statistics.median(ratios):.3f}); "
        f"it looked at {rows / (rows + skipped):.0%} of the rows"
    )


def status(folder: Path) -> Any:
    """The model as the status shows it."""
    connection = UnixConnection(str(folder / "s.sock"))
    connection.request("GET", "/edgekit/status")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer["models"][0]


def intervals(runs: int) -> None:
    """How often the interval covers the truth."""
    random = np.random.default_rng(0)
    for truth in (0.9, 0.99, 0.999):
        for rows in (200, 2000):
            found = [share(int(random.binomial(rows, truth)), rows) for _ in range(runs)]
            covered = sum(one.low <= truth <= one.high for one in found)
            print(f"agreement of {truth}, {rows:,} rows: the 95 % interval covers it in {covered} of {runs} runs")


if __name__ == "__main__":
    main()
