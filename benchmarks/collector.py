"""`edgekit collect` beside a C subscriber of the same Mosquitto and beside the collector that one writes first.

    .venv/bin/python benchmarks/collector.py                 # all three, in turn: about three minutes
    .venv/bin/python benchmarks/collector.py --minutes 10    # 20,000 windows/s: lag and memory; needs 20 GB of disk

A fleet in C (mqtt_load.c) sends windows of 30 features x 20 bins, one a message and eight a message, QoS 1; whoever
takes them in is a process of its own, and so is the broker: they share the machine's cores. The C subscriber
acknowledges, counts, and keeps nothing. The naive collector is paho-mqtt with a commit for each message.

The fleet sends what is taken in: at most `--window` messages are out at a time, each until the collector's
acknowledgement (after its commit), or the other two's word on `bench/heard`. Nothing can pile up in the broker, so its
limits (Mosquitto drops what is beyond `max_queued_messages`, 1,000) drop nothing; after each run the stored windows are
counted, and must be those that were sent. Mosquitto has Debian's defaults but for `max_inflight_messages 0`; a line of
the table has the default of 20.

Each run has a broker, a fleet, a consumer and a store of its own; the consumers come in turn, round by round, and a
figure is the median of its rounds. CPU is of each process, from the first message to the last commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edgekit.collector.store import open_store
from edgekit_contracts import topics
from edgekit_contracts.counts import FeatureWindow, WindowCounts, encode_counts, encode_distances
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import LATENCY_BINS, Bins, FeatureBins, FeatureCounts, Reference
from edgekit_contracts.telemetry import (
    ENVELOPE_VERSION,
    Clock,
    Envelope,
    Kind,
    ReferencePart,
    Software,
    Window,
    encode,
    encode_message,
)
from tests.brokers import Mosquitto

HERE: Final = Path(__file__).parent
FEATURES: Final = 30
BINS: Final = 20
ROWS: Final = 1000
BUNDLES: Final = (1, 8)
STEADY: Final = 20_000
"""Windows a second of the long run."""
EPOCH: Final = 2**62 + 1
MARK: Final = 2**63 - 2**40
"""A sequence that MessagePack writes in eight bytes, and whose place is found again."""
INFLIGHT: Final = "max_inflight_messages 0\n"
CONSUMERS: Final = ("C", "naive", "edgekit")


@dataclass(frozen=True)
class Run:
    """One consumer's run."""

    windows: int
    fleet: dict[str, float]
    """What mqtt_load.c says."""
    cpu_s: dict[str, float]
    """Of the fleet, the broker and the consumer."""
    memory: list[tuple[float, dict[str, float]]]
    """Seconds since the start, and resident megabytes of the broker and the consumer."""
    store_bytes: int
    broker: str
    """Its name and version."""

    @property
    def rate(self) -> float:
        """Windows a second."""
        return self.windows / self.fleet["seconds"]

    def cpu_us(self, process: str) -> float:
        """Microseconds for a window."""
        return 1e6 * self.cpu_s[process] / self.windows


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        load = folder / "mqtt_load"
        subprocess.run(["cc", "-O2", "-o", str(load), str(HERE / "mqtt_load.c")], check=True)
        for bundle in BUNDLES:
            (folder / f"messages-{bundle}.bin").write_bytes(fleet_file(options.devices, bundle, full=options.full))
        if options.minutes:
            steady(folder, options)
            return
        runs: dict[tuple[str, int, str], list[Run]] = defaultdict(list)
        for _ in range(options.rounds):
            for bundle in BUNDLES:
                for consumer in CONSUMERS:
                    runs[consumer, bundle, INFLIGHT].append(run(folder, consumer, bundle, options))
                runs["edgekit", bundle, ""].append(run(folder, "edgekit", bundle, options, broker=""))
        report(runs, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="the collector's throughput, beside a C subscriber and a naive one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run (default 4)")
    parser.add_argument("--devices", type=int, default=256, help="a multiple of 64 (default 256)")
    parser.add_argument("--window", type=int, default=1000, help="messages that are out at a time (default 1000)")
    parser.add_argument("--minutes", type=float, default=0, help="instead: a steady rate for so long")
    parser.add_argument("--rate", type=int, default=STEADY, help=f"windows/s of that (default {STEADY:,})")
    parser.add_argument("--bundle", type=int, default=8, choices=BUNDLES, help="windows a message of that (default 8)")
    parser.add_argument(
        "--full", action="store_true", help="windows with moments and distances too, as devices send them"
    )
    parser.add_argument(
        "--processes", type=int, choices=(1, 2), help="of edgekit collect (default 2; with --minutes its own choice)"
    )
    parser.add_argument("--folder", help="where stores and broker write (default: where temporary files lie)")
    options = parser.parse_args()
    options.processes = options.processes or (None if options.minutes else 2)
    if options.devices % 64:
        parser.error("--devices must be a multiple of 64")
    return options


# --- what is sent -----------------------------------------------------------------------------------------------------


def fleet_file(devices: int, bundle: int, *, full: bool = False) -> bytes:
    """What mqtt_load.c sends: each device's reference, then a message of `bundle` windows for each."""
    dice = np.random.default_rng(5)
    bins = Bins(
        features=tuple(
            FeatureBins(name=f"feature_{i}", edges=tuple(float(x) for x in np.sort(dice.normal(size=BINS - 1))))
            for i in range(FEATURES)
        ),
        classes=("no", "yes"),
        score_edges=tuple(i / BINS for i in range(1, BINS)),
    )
    even = FeatureCounts(bins=(ROWS,) * BINS, null=0, mean=0.0, m2=1.0)
    reference = Reference(
        bins=bins,
        rows=ROWS * BINS,
        features=(even,) * FEATURES,
        classes=(ROWS * BINS // 2,) * 2,
        scores=(ROWS,) * BINS,
    )
    part = ReferencePart(model="bench", model_version="1", part=0, parts=1, data=encode_json(reference))
    names = [f"bench-{number}" for number in range(devices)]
    sent = [
        packed(number, 1, [], name, encode_message([record(name, 1, Kind.REFERENCE, encode(part), reference.bins_id)]))
        for number, name in enumerate(names)
    ]
    for number, name in enumerate(names):
        body = encode(window(dice, full=full))
        records = [record(name, MARK + i, Kind.WINDOW, body, reference.bins_id, n=ROWS) for i in range(bundle)]
        payload = encode_message(records)
        places = [payload.index(struct.pack(">BQ", 0xCF, MARK + i)) + 1 for i in range(bundle)]
        sent.append(packed(number, 2, places, name, payload))
    return b"".join(sent)


def window(dice: np.random.Generator, *, full: bool = False) -> Window:
    def spread(bins: int, most: float = 1.0) -> tuple[int, ...]:
        return tuple(int(count) for count in dice.multinomial(ROWS, dice.dirichlet(np.full(bins, 10 * most))))

    counts = WindowCounts(
        features=tuple(FeatureWindow(bins=spread(BINS), null=0, invalid=0, out_of_range=0) for _ in range(FEATURES)),
        classes=spread(2),
        scores=spread(BINS),
        output_nulls=0,
        abstained=0,
        resent=0,
        latency=(0,) * 20 + spread(12) + (0,) * (LATENCY_BINS - 32),
    )
    software = Software(calls=ROWS, rejected=0, failed=0, rss_kb=80_000, cpu_ms=150, uptime_s=86_400, outbox_records=3)
    moments = np.tile(np.array([0.0, ROWS / 2, -3.0, 3.0], "<f4"), FEATURES).tobytes() if full else b""
    return Window(
        model="bench",
        model_version="1",
        counts=encode_counts(counts),
        moments=moments,
        software=software,
        distances=encode_distances(b"size", spread(BINS)) if full else b"",
    )


def window_bytes(options: argparse.Namespace) -> int:
    return len(encode(window(np.random.default_rng(5), full=options.full)))


def record(device: str, sequence: int, kind: Kind, body: bytes, bins_id: bytes, n: int = 0) -> bytes:
    return encode(
        Envelope(
            version=ENVELOPE_VERSION,
            device=device,
            epoch=EPOCH,
            sequence=sequence,
            kind=kind,
            t0_ms=time.time_ns() // 1_000_000,
            dt_ms=60_000,
            clock=Clock.SYNCED,
            bins_id=bins_id,
            n=n,
            body=msgspec.Raw(body),
        )
    )


def packed(number: int, first: int, places: list[int], device: str, payload: bytes) -> bytes:
    topic = str(topics.Up(device)).encode()
    head = struct.pack(f"={5 + len(places)}I", number, first, len(places), len(topic), len(payload), *places)
    return head + topic + payload


# --- who takes it in --------------------------------------------------------------------------------------------------


@contextmanager
def consumer_of(
    name: str, port: int, folder: Path, load: Path, processes: int | None
) -> Iterator[tuple[int, list[str]]]:
    """A consumer that is subscribed: its process, and what it says at its end."""
    store, python = str(folder / "store.db"), sys.executable
    collect = ["collect", "--broker", f"mqtt://127.0.0.1:{port}", "--store", store]
    if processes is not None:
        collect += ["--processes", str(processes)]
    command, ready = {
        "C": ([str(load), "subscribe", str(port)], "ready"),
        "naive": ([python, str(HERE / "peers" / "naive_collector.py"), str(port), store], "ready"),
        "edgekit": ([python, "-m", "edgekit", *collect], "collecting from"),
    }[name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if ready in line:
                break
        else:
            raise SystemExit(f"{name} does not start:\n{''.join(said)}")
        yield process.pid, said
        if process.poll() is not None:
            raise SystemExit(f"{name} ended by itself:\n{''.join([*said, *process.stdout])}")
        process.terminate()
        said += process.stdout
        if process.wait(60):
            raise SystemExit(f"{name} ended with {process.returncode}:\n{''.join(said)}")
    finally:
        process.kill()
        process.wait()


def run(
    folder: Path, name: str, bundle: int, options: argparse.Namespace, broker: str = INFLIGHT, rate: float = 0
) -> Run:
    """One consumer, with a broker, a fleet and a store of its own; what is stored is counted afterwards.

    Args:
        folder: Where the programs and messages lie.
        name: Of the consumer.
        bundle: Windows a message.
        options: How long, and how much is out at a time.
        broker: Settings beyond Debian's.
        rate: Windows a second; 0 for as fast as they are taken in.
    """
    load = folder / "mqtt_load"
    with tempfile.TemporaryDirectory(dir=folder) as made:
        own = Path(made)
        mosquitto = Mosquitto(own, broker)
        mosquitto.start()
        try:
            with consumer_of(name, mosquitto.port, own, load, options.processes) as (consumer, said):
                processes = {"broker": mosquitto.pid, "consumer": consumer}
                before = {process: cpu_s(pid) for process, pid in processes.items()}
                messages, limit = folder / f"messages-{bundle}.bin", options.window
                seconds = options.minutes * 60 or options.seconds
                command = [load, "publish", mosquitto.port, messages, limit, seconds, rate / bundle]
                fleet = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
                memory = watched(fleet, processes)
                assert fleet.stdout is not None
                out = fleet.stdout.read()
                told = json.loads(out) if fleet.wait() == 0 else {}
                cpu = {process: cpu_s(pid) - before[process] for process, pid in processes.items()}
        finally:
            mosquitto.kill()
        if not told:
            raise SystemExit(f"{name}: the fleet ended with {fleet.returncode}")
        stored = kept(name, own / "store.db", said, bundle, options.devices)
        if stored != told["records"]:
            raise SystemExit(f"{name} has {stored:,} of {told['records']:,} windows")
        logged = (own / "mosquitto.log").read_text().partition("mosquitto version ")[2].split()[0]
        size = sum(file.stat().st_size for file in own.glob("store.db*"))
    return Run(stored, told, cpu | {"fleet": told["cpu_s"]}, memory, size, f"Mosquitto {logged}")


def watched(fleet: subprocess.Popen[str], processes: dict[str, int]) -> list[tuple[float, dict[str, float]]]:
    """Resident megabytes of the processes, every second (the fleet's output is one line: no pipe runs full)."""
    began, seen = time.monotonic(), []
    while True:
        seen.append((time.monotonic() - began, {process: resident_mb(pid) for process, pid in processes.items()}))
        try:
            fleet.wait(1)
        except subprocess.TimeoutExpired:
            continue
        return seen


def kept(name: str, store: Path, said: list[str], bundle: int, devices: int) -> int:
    """Windows that are stored; those of the subscriber's messages."""
    if name == "C":
        heard: int = json.loads(said[-1])["messages"]
        return (heard - devices) * bundle  # each device's first message is its reference
    if name == "edgekit":
        with open_store(store, create=False) as opened:
            return opened.count("window")
    with closing(sqlite3.connect(store)) as db:
        (count,) = db.execute("SELECT COUNT(*) FROM record WHERE kind = ?", (int(Kind.WINDOW),)).fetchone()
        return int(count)


def about(pid: int, file: str) -> str:
    """What the system says of a process; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/{file}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def family(pid: int) -> list[int]:
    """The process and those that it started, and those that these did."""
    threads = [entry.name for entry in Path(f"/proc/{pid}/task").glob("*")]
    children = [int(word) for thread in threads for word in about(pid, f"task/{thread}/children").split()]
    return [pid, *(one for child in children for one in family(child))]


def cpu_s(pid: int) -> float:
    """Of the whole family, those that have ended among them."""
    used = 0
    for one in family(pid):
        used += sum(map(int, about(one, "stat").rpartition(")")[2].split()[11:15]))
    return used / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Of the family, less a pass over the store, which comes and goes; what several have in common counts for each."""
    used = 0
    for one in family(pid):
        if "edgekit.collector.passes" not in about(one, "cmdline"):
            lines = about(one, "status").splitlines()
            used += int(next((line for line in lines if line.startswith("VmRSS")), "VmRSS: 0").split()[1])
    return used * 1024 / 1e6


# --- saying -----------------------------------------------------------------------------------------------------------

Runs = dict[tuple[str, int, str], list[Run]]
SHOWN: Final = {
    "C": "C subscriber, stores nothing",
    "naive": "paho-mqtt, a commit a message",
    "edgekit": "edgekit collect",
}


def report(runs: Runs, options: argparse.Namespace) -> None:
    median = statistics.median
    machine(runs["edgekit", 1, INFLIGHT][0].broker)
    print(
        f"{options.devices} devices, windows of {window_bytes(options):,} bytes, {options.window} messages out at a "
        f"time; medians of {options.rounds} rounds of {options.seconds:g} s\n"
    )
    print("| consumer | windows a message | windows/s | lag ms, p50 | p99 | CPU us a window | broker | fleet | MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for (consumer, bundle, broker), these in sorted(runs.items(), key=lambda item: item[0][1]):
        shown = SHOWN[consumer] + ("" if broker else ", max_inflight_messages 20")
        figures = [
            median(one.rate for one in these),
            median(one.fleet["p50_ms"] for one in these),
            median(one.fleet["p99_ms"] for one in these),
        ]
        cpu = [median(one.cpu_us(process) for one in these) for process in ("consumer", "broker", "fleet")]
        memory = median(one.memory[-1][1]["consumer"] for one in these)
        print(
            f"| {shown} | {bundle} | {' | '.join(f'{figure:,.0f}' for figure in figures)} | "
            f"{' | '.join(f'{figure:.1f}' for figure in cpu)} | {memory:.0f} |"
        )

    def ratio(ours: int, consumer: str, theirs: int) -> float:
        pairs = zip(runs["edgekit", ours, INFLIGHT], runs[consumer, theirs, INFLIGHT], strict=True)
        return median(a.rate / b.rate for a, b in pairs)

    print("\nwindows/s of edgekit collect as a ratio (medians of the rounds' ratios)\n")
    print("| to | both 1 a message | both 8 | edgekit 8, the other 1 |\n|---|---:|---:|---:|")
    for consumer in CONSUMERS[:2]:
        ratios = (ratio(1, consumer, 1), ratio(8, consumer, 8), ratio(8, consumer, 1))
        print(f"| {SHOWN[consumer]} | {' | '.join(f'{one:.2f}' for one in ratios)} |")


def steady(folder: Path, options: argparse.Namespace) -> None:
    """A long run at a fixed rate: lag, and whether memory grows."""
    done = run(folder, "edgekit", options.bundle, options, rate=options.rate)
    machine(done.broker)
    print(
        f"{options.rate:,} windows/s asked for, {options.bundle} a message, {options.minutes:g} minutes: "
        f"{done.windows:,} windows stored at {done.rate:,.0f}/s, {done.store_bytes / 1e9:.1f} GB\n"
        f"lag from when a message was due to its acknowledgement: p50 {done.fleet['p50_ms']:.0f} ms, "
        f"p99 {done.fleet['p99_ms']:.0f} ms, most {done.fleet['max_ms']:.0f} ms; {done.fleet['again']:.0f} sent again\n"
    )
    print("| process | share of a core | MB at the end | MB a minute |\n|---|---:|---:|---:|")
    # The first half is there to fill what is bounded: caches, the roll-up's arrays.
    late = done.memory[len(done.memory) // 2 :]
    for process in ("consumer", "broker"):
        at, resident = np.array([(at / 60, seen[process]) for at, seen in late]).T
        slope = float(np.polyfit(at, resident, 1)[0])
        share = done.cpu_s[process] / done.fleet["seconds"]
        print(f"| {process} | {share:.2f} | {resident[-1]:.0f} | {slope:+.2f} |")


def machine(broker: str) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {processor}; Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, paho-mqtt {version('paho-mqtt')}, {broker}"
    )


if __name__ == "__main__":
    main()
