"""What roll-ups cost: processor time and bytes for each window; what a device's line takes with and without them.

    .venv/bin/python benchmarks/rollups.py    # SQLite, then PostgreSQL where it is installed; some minutes

Devices send a window of 30 features x 20 bins (1,000 rows, with moments) every five minutes, in the order of time. A
pass may come after each round of windows (then a window has its hour and its day to itself), or after each hour (then
twelve share them). Beside it stands `ingest` of the same windows in the same run: checked, stored and committed, each a
message of its own. Processor time is that of this process, and of PostgreSQL's.

Bytes are of the whole store before and after, compacted, by the number of windows or roll-ups.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edgekit.collector import rolled
from edgekit.collector.ingest import Message, read_batch
from edgekit.collector.rollup import HOUR_MS
from edgekit.collector.store import Store, open_store
from edgekit.fleet.status import fleet_status
from edgekit_contracts import topics
from edgekit_contracts.counts import FeatureWindow, WindowCounts, encode_counts
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
from tests.postgres import Postgres

FEATURES: Final = 30
BINS: Final = 20
ROWS: Final = 1000
WINDOW_MS: Final = 300_000
BATCH: Final = 500
START_MS: Final = 1_800_000_000_000 // (24 * HOUR_MS) * 24 * HOUR_MS
REFERENCE: Final = Reference(
    bins=Bins(
        features=tuple(
            FeatureBins(name=f"f{i}", edges=tuple(float(edge) for edge in range(1, BINS))) for i in range(FEATURES)
        ),
        classes=("no", "yes"),
        score_edges=tuple(edge / 20 for edge in range(1, 20)),
    ),
    rows=5000,
    features=(FeatureCounts(bins=(250,) * BINS, null=0),) * FEATURES,
    classes=(2500, 2500),
    scores=(250,) * BINS,
)


def bodies(number: int) -> list[bytes]:
    """Different windows on the reference's bins, as bodies of records."""
    rng = np.random.default_rng(0)
    return [_body(rng) for _ in range(number)]


def _body(rng: np.random.Generator) -> bytes:
    def spread(bins: int) -> tuple[int, ...]:
        return tuple(rng.multinomial(ROWS, np.full(bins, 1 / bins)).tolist())

    latency = [0] * LATENCY_BINS
    latency[18:26] = spread(8)
    counts = WindowCounts(
        features=tuple(FeatureWindow(bins=spread(BINS), null=0, invalid=0, out_of_range=3) for _ in range(FEATURES)),
        classes=spread(2),
        scores=spread(BINS),
        output_nulls=0,
        abstained=5,
        resent=0,
        latency=tuple(latency),
    )
    mean = rng.normal(10, 1, FEATURES)
    moments = np.stack([mean, mean * ROWS, mean - 9, mean + 9], axis=1).astype("<f4")
    software = Software(ROWS, 0, 0, 90_000, 1000, 60, 1)
    return encode(Window("bench", "1.0", encode_counts(counts), moments.tobytes(), software))


def record(device: str, sequence: int, kind: Kind, body: bytes, at_ms: int) -> Envelope:
    """One record of a device whose clock is right."""
    n = ROWS if kind is Kind.WINDOW else 0
    return Envelope(
        ENVELOPE_VERSION,
        device,
        1,
        sequence,
        kind,
        at_ms,
        WINDOW_MS,
        Clock.SYNCED,
        REFERENCE.bins_id,
        n,
        msgspec.Raw(body),
    )


class Place:
    """Where stores are made.

    Args:
        postgres: A server that runs, or None for files of SQLite.
    """

    def __init__(self, postgres: Postgres | None) -> None:
        self.name = "PostgreSQL" if postgres else "SQLite"
        self._postgres, self._made = postgres, 0

    def fresh(self) -> Store:
        """An empty store."""
        self._made += 1
        if self._postgres is not None:
            return open_store(self._postgres.create(f"fleet{self._made}"))
        return open_store(Path(tempfile.mkdtemp()) / "store.db")

    def cpu_s(self) -> float:
        """Processor time so far."""
        spent = time.process_time()
        if self._postgres is not None:
            assert self._postgres._process is not None
            server = self._postgres._process.pid
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):
                    fields = stat.read_text().rpartition(") ")[2].split()
                    if server in {int(stat.parent.name), int(fields[1])}:
                        ended = slice(11, 15) if int(stat.parent.name) == server else slice(11, 13)
                        spent += sum(map(int, fields[ended])) / os.sysconf("SC_CLK_TCK")
        return spent

    def size(self, store: Store) -> int:
        """Bytes of the compacted store."""
        with store.database.reading() as db:
            if self._postgres is None:
                db.run("VACUUM")
                return int(db.rows("PRAGMA page_count")[0][0]) * int(db.rows("PRAGMA page_size")[0][0])
            db.run("VACUUM FULL")
            tables = "relkind = 'r' AND relnamespace = 'edgekit'::regnamespace"
            return int(db.rows(f"SELECT SUM(pg_total_relation_size(oid)) FROM pg_class WHERE {tables}")[0][0])


class Fleet:
    """Devices and a store that takes in what they send.

    Args:
        place: Where it is.
        store: Empty.
        devices: How many.
    """

    def __init__(self, place: Place, store: Store, devices: int) -> None:
        self._cpu_s = place.cpu_s
        self.store, self.names = store, [f"device-{number}" for number in range(devices)]
        self.rounds, self.windows = 0, 0
        self.ingest_s = self.roll_up_s = 0.0
        self._bodies = bodies(256)
        part = encode(ReferencePart("bench", "1.0", 0, 1, encode_json(REFERENCE)))
        self._take([record(name, 1, Kind.REFERENCE, part, START_MS) for name in self.names])

    def send(self, rounds: int) -> None:
        """Every device sends so many windows."""
        for _ in range(rounds):
            at_ms, self.rounds = START_MS + self.rounds * WINDOW_MS, self.rounds + 1
            self._take(
                [
                    record(name, self.rounds + 1, Kind.WINDOW, self._bodies[(self.rounds * 31 + at) % 256], at_ms)
                    for at, name in enumerate(self.names)
                ]
            )
            self.windows += len(self.names)

    def roll_up(self) -> None:
        """A pass."""
        start = self._cpu_s()
        rolled.roll_up(self.store.database, self.store.bins)
        self.roll_up_s += self._cpu_s() - start

    def _take(self, records: list[Envelope]) -> None:
        messages = [Message(str(topics.Up(one.device)), encode_message([encode(one)]), one.t0_ms) for one in records]
        start = self._cpu_s()
        for at in range(0, len(messages), BATCH):
            done = self.store.ingest(read_batch(messages[at : at + BATCH], self.store))
            assert not done.refused
        self.ingest_s += self._cpu_s() - start


def passes(place: Place, devices: int, rounds: int, every: int) -> tuple[float, float]:
    """Microseconds for each window: taken in, and rolled up by a pass after `every` rounds."""
    with place.fresh() as store:
        fleet = Fleet(place, store, devices)
        fleet.ingest_s = 0.0
        for _ in range(0, rounds, every):
            fleet.send(every)
            fleet.roll_up()
        return 1e6 * fleet.ingest_s / fleet.windows, 1e6 * fleet.roll_up_s / fleet.windows


def sizes(place: Place, devices: int, hours: int) -> dict[str, float]:
    """Bytes for each window and each roll-up, and milliseconds for a device's line from either."""
    with place.fresh() as store:
        fleet = Fleet(place, store, devices)
        before = place.size(store)
        fleet.send(hours * 12)
        windows = place.size(store)
        now_ms = START_MS + hours * HOUR_MS
        from_windows = line_ms(store, now_ms, hours)
        fleet.roll_up()
        rollups = place.size(store)
        return {
            "bytes/window": (windows - before) / fleet.windows,
            "bytes/roll-up": (rollups - windows) / store.count("rollup"),
            "roll-ups": store.count("rollup"),
            "ms/line from windows": from_windows,
            "ms/line from roll-ups": line_ms(store, now_ms, hours),
        }


def line_ms(store: Store, now_ms: int, hours: int) -> float:
    """For one device, the best of three."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        lines = fleet_status(store, now_ms, look_back_ms=hours * HOUR_MS)
        took.append(1e3 * (time.perf_counter() - start) / len(lines))
    return min(took)


def main() -> None:
    """Prints a table and some figures for each kind of store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}; {given.devices} devices")
    measure(Place(None), given.devices, given.repeat)
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return
    server = Postgres()
    try:
        server.start()
        measure(Place(server), given.devices, given.repeat)
    finally:
        server.stop()


def measure(place: Place, devices: int, repeat: int) -> None:
    """One kind of store: medians of interleaved rounds."""
    ways: dict[int, list[tuple[float, float]]] = {1: [], 12: []}
    for _ in range(repeat):
        for every, found in ways.items():
            found.append(passes(place, devices, 12, every))
    print(f"\n{place.name}\n\n| windows for each hour's roll-up | ingest us/window | roll-up us/window |")
    print("|---:|---:|---:|")
    for every, found in ways.items():
        print(f"| {every} | {' | '.join(f'{statistics.median(column):.0f}' for column in zip(*found, strict=True))} |")
    print()
    for what, value in sizes(place, devices // 50, 48).items():
        print(f"{what}: {value:,.1f}")


if __name__ == "__main__":
    main()
