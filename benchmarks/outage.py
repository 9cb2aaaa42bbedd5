"""A day without a collector, at ten times what the outbox holds: what comes of it, counted on both sides.

    .venv/bin/python -m benchmarks.outage [--short]

The day is simulated (windows are dated, nobody waits), the outbox and the replay are real: Mosquitto and
`edgekit collect`. The device is restarted now and then, and tells an event every ten minutes. Ends with 1 where
produced is not stored + merged + given up, in records or in rows. All figures but the times at the end are counts.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest

from benchmarks.chaos.centre import collector
from edgekit.collector import blocks
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import LATENCY_BINS, Bins, FeatureBins, FeatureCounts, Reference
from edgekit_contracts.telemetry import Clock, Event, Kind, ReferencePart, Software, Window, encode
from edgekit_runtime.broker import Broker
from edgekit_runtime.config import Telemetry
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.uplink import REPLAY_BURST_BYTES, Uplink
from edgekit_runtime.varints import encode_varint_block
from tests.brokers import Mosquitto

DAY_S: Final = 86_400
DAY_MS: Final = 1_800_000_000_000
EVENT_S: Final = 600
DEVICE, MODEL, VERSION = "device-0", "outage", "1.0"
BINS: Final = 20


class Plan(NamedTuple):
    """What the device does."""

    window_s: int
    features: int
    budget: int
    """Of the outbox in bytes; ten times as much is produced."""
    restarts: int
    pace: float | None
    """Bytes of the backlog a second."""


FULL = Plan(
    window_s=10, features=30, budget=1_000_000, restarts=8, pace=1000.0 * float(Telemetry(broker="").replay_kb_s)
)
SHORT = Plan(window_s=90, features=10, budget=45_000, restarts=4, pace=None)


class Outcome(NamedTuple):
    """What came of it."""

    produced: int
    produced_bytes: int
    merged: int
    given_up: int
    outbox_records: int
    outbox_bytes: int
    largest_outbox: int
    file_bytes: int
    """What the outbox takes on the disk, its journal too."""
    stored: int
    stored_merged: int
    lost: int
    """Given up, as the collector counts."""
    rows: int
    stored_rows: int
    lost_rows: int
    longest_s: float
    """The coarsest window stored."""
    wire_bytes: int
    append_ms: float
    """Median of an append while there is room."""
    merging_ms: float
    """The same on an outbox that overflows."""
    replay_s: float

    @property
    def is_exact(self) -> bool:
        """Whether nothing is missing or counted twice."""
        return (
            self.produced == self.stored + self.stored_merged + self.lost
            and self.rows == self.stored_rows + self.lost_rows
            and (self.merged, self.given_up) == (self.stored_merged, self.lost)
        )


def reference_of(features: int) -> Reference:
    """Bins as frozen ones are."""
    edges = tuple(np.linspace(-2, 2, BINS - 1).tolist())
    return Reference(
        bins=Bins(
            features=tuple(FeatureBins(name=f"f{at}", edges=edges) for at in range(features)),
            classes=("no", "yes"),
            score_edges=tuple(np.linspace(0.5, 1, 11)[1:-1].tolist()),
        ),
        rows=BINS,
        features=tuple(FeatureCounts(bins=(1,) * BINS, null=0) for _ in range(features)),
        classes=(10, 10),
        scores=(2,) * 10,
    )


def windows_of(features: int, count: int = 200) -> list[tuple[bytes, int]]:
    """Bodies of windows as a device makes them, with moments, and their rows."""
    random, made = np.random.default_rng(0), []
    for _ in range(count):
        n = int(random.integers(50, 250))
        parts = [np.array([*random.multinomial(n, [1 / BINS] * BINS), 0, 0, 0]) for _ in range(features)]
        yes = int(random.integers(0, n))
        parts += [np.array([n - yes, yes]), random.multinomial(n, [0.1] * 10), np.zeros(3, np.int64)]
        parts += [random.multinomial(n, [0.2, 0.5, 0.3]), np.zeros(LATENCY_BINS - 3, np.int64)]
        quadruples = [[float(random.normal()) / 4, float(n), -2.5, 2.5] for _ in range(features)]
        software = Software(calls=n, rejected=0, failed=0, rss_kb=90_000, cpu_ms=40, uptime_s=60, outbox_records=9)
        counts = encode_varint_block(np.concatenate(parts))
        made.append((encode(Window(MODEL, VERSION, counts, np.array(quadruples, "<f4").tobytes(), software)), n))
    return made


def run(plan: Plan, folder: Path) -> Outcome:
    """A day, and the replay."""
    path = folder / f"{DEVICE}.db"
    rows, produced_bytes, largest, times, merged, given_up = _day(plan, path)
    file_bytes = sum(one.stat().st_size for one in folder.glob(f"{path.name}*") if one.suffix != ".ballast")
    broker = Mosquitto(folder)
    centre = collector(folder, broker.broker, str(folder / "fleet.db"))
    with Outbox(path, DEVICE, plan.budget) as outbox:
        produced, records, size = outbox.produced, outbox.records, outbox.size
        uplink = Uplink(
            Broker(host="127.0.0.1", port=broker.port),
            outbox,
            pace=None if plan.pace is None else TokenBucket(plan.pace, REPLAY_BURST_BYTES),
        )
        try:
            broker.start()
            centre.start()
            uplink.start()
            _until(lambda: uplink.state.state == "connected")
            begun = time.monotonic()
            _until(lambda: outbox.records == 0)
            replay_s = time.monotonic() - begun
            uplink.stop()
        finally:
            centre.stop()
            broker.stop()
    with closing(sqlite3.connect(folder / "fleet.db")) as store:
        windows = blocks.windows_of([records for (records,) in store.execute("SELECT records FROM window")])
        (others,) = store.execute("SELECT (SELECT COUNT(*) FROM event) + (SELECT COUNT(*) FROM part)").fetchone()
        (lost,) = store.execute("SELECT TOTAL(lost) FROM cursor").fetchone()
        (lost_rows,) = store.execute("SELECT TOTAL(rows) FROM gap").fetchone()
    # The first tenth fits.
    append_ms, merging_ms = (
        1000 * statistics.median(some) for some in (times[: len(times) // 12], times[len(times) // 5 :])
    )
    return Outcome(
        produced=produced,
        produced_bytes=produced_bytes,
        merged=merged,
        given_up=given_up,
        outbox_records=records,
        outbox_bytes=size,
        largest_outbox=largest,
        file_bytes=file_bytes,
        stored=len(windows) + others,
        stored_merged=sum(one.merged for one in windows),
        lost=int(lost),
        rows=rows,
        stored_rows=sum(one.n for one in windows),
        lost_rows=int(lost_rows),
        longest_s=max(one.dt_ms for one in windows) / 1000,
        wire_bytes=uplink.state.bytes.since_start.total,
        append_ms=append_ms,
        merging_ms=merging_ms,
        replay_s=replay_s,
    )


def _day(plan: Plan, path: Path) -> tuple[int, int, int, Sequence[float], int, int]:
    """Fills the outbox; gives rows, bytes, the largest size, the times of the appends, and what was merged and lost."""
    reference, bodies = reference_of(plan.features), windows_of(plan.features)
    count, rows, produced_bytes, largest, merged, given_up = DAY_S // plan.window_s, 0, 0, 0, 0, 0
    times = []
    lives = np.array_split(np.arange(count), plan.restarts)
    for life, numbers in enumerate(lives):
        with Outbox(path, DEVICE, plan.budget) as outbox:
            outbox.learn(reference.bins_id, reference.bins)
            if life == 0:
                part = ReferencePart(MODEL, VERSION, 0, 1, encode_json(reference))
                outbox.append(Kind.REFERENCE, encode(part), bins_id=reference.bins_id, t0_ms=DAY_MS)
            for number in numbers.tolist():
                body, n = bodies[number % len(bodies)]
                at_ms = DAY_MS + 1000 * plan.window_s * number
                begun = time.perf_counter()
                outbox.append(
                    Kind.WINDOW,
                    body,
                    bins_id=reference.bins_id,
                    n=n,
                    t0_ms=at_ms,
                    dt_ms=1000 * plan.window_s,
                    clock=Clock.SYNCED,
                )
                times.append(time.perf_counter() - begun)
                rows += n
                if plan.window_s * number % EVENT_S == 0:
                    outbox.append(Kind.EVENT, encode(Event("note", f"window {number}")), t0_ms=at_ms)
                largest = max(largest, outbox.size)
            merged, given_up = merged + outbox.merged, given_up + outbox.given_up
            produced_bytes += outbox.appended_bytes
    return rows, produced_bytes, largest, times, merged, given_up


def _until(condition: Callable[[], bool], within_s: float = 1800.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not within {within_s:g} s")
        time.sleep(0.01)


def main() -> int:
    """Runs it and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a window every 90 s, 10 features, and no pace")
    plan = SHORT if parser.parse_args().short else FULL
    with tempfile.TemporaryDirectory() as name:
        try:
            found = run(plan, Path(name))
        except pytest.skip.Exception as missing:  # what the tests' broker says where it is not installed
            raise SystemExit(str(missing)) from None
    pace = "none" if plan.pace is None else f"{plan.pace:,.0f} bytes/s after {REPLAY_BURST_BYTES:,}"
    print(
        f"24 h, a window every {plan.window_s} s, {plan.features} features; outbox {plan.budget:,} bytes; pace {pace}"
    )
    for what, value in found._asdict().items():
        shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        print(f"  {what.replace('_', ' '):16} {shown:>14}")
    print(f"  budget x {found.produced_bytes / plan.budget:.1f}; exact: {found.is_exact}")
    return int(not found.is_exact or found.largest_outbox > plan.budget)


if __name__ == "__main__":
    sys.exit(main())
