"""A device that produces windows until it has made so many, and lives through being killed.

    python -m benchmarks.chaos.device NAME FOLDER BROKER WINDOWS MAX_BYTES SEED

The number of a record that the outbox has returned for is noted in NAME.journal. Ends when its outbox is
empty. Its clock jumps by a year now and then, and in some of its lives the disk is full for a while (a limit on the
size of files).
"""

from __future__ import annotations

import os
import random
import resource
import sys
import time
import zlib
from pathlib import Path
from typing import Final

from edgekit_contracts.counts import FeatureWindow, WindowCounts, encode_counts
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import StorageFault
from edgekit_contracts.reference import LATENCY_BINS, Bins, FeatureBins, FeatureCounts, Reference
from edgekit_contracts.telemetry import (
    Clock,
    Kind,
    ReferencePart,
    Software,
    Window,
    encode,
)
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import Flight
from edgekit_runtime.mqtt import Timing
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink

MODEL, VERSION = "chaos", "1.0"
REFERENCE: Final = Reference(
    bins=Bins(features=(FeatureBins(name="x", edges=(0.0, 1.0)),), classes=("no", "yes"), score_edges=(0.7,)),
    rows=30,
    features=(FeatureCounts(bins=(10, 10, 10), null=0),),
    classes=(10, 20),
    scores=(10, 20),
)
YEAR_MS: Final = 365 * 86_400_000
TIMING: Final = Timing(reconnect_first_s=0.05, reconnect_cap_s=1.0, connect_timeout_s=5.0)
FULL_LIVES: Final = 0.15
"""Share of the lives in which the disk is full for a while."""
FULL_BYTES: Final = 1_000_000
"""What a file may grow to then; more than the journal does."""
JUMPS: Final = 0.01
"""How often the clock jumps, for each window."""
PACE_S: Final = 0.01


def rows_of(number: int) -> int:
    """How many rows the window of a record's number speaks of: so that a wrong one shows."""
    return 1 + zlib.crc32(b"%d" % number) % 997


def window(rows: int) -> bytes:
    """A window's body."""
    calls = (rows, *[0] * (LATENCY_BINS - 1))
    counts = WindowCounts(
        features=(FeatureWindow(bins=(rows, 0, 0), null=0, invalid=0, out_of_range=0),),
        classes=(rows, 0),
        scores=(rows, 0),
        output_nulls=0,
        abstained=0,
        resent=0,
        latency=calls,
    )
    software = Software(calls=rows, rejected=1, failed=0, rss_kb=1, cpu_ms=1, uptime_s=1, outbox_records=0)
    return encode(Window(MODEL, VERSION, encode_counts(counts), b"", software))


def live(name: str, folder: Path, broker: str, windows: int, max_bytes: int, seed: int) -> None:
    """One life."""
    journal = os.open(folder / f"{name}.journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    path = folder / f"{name}.db"
    with Outbox(path, name, max_bytes=max_bytes) as outbox:
        dice = random.Random(seed + outbox.session)
        off_ms = 0
        heals_s = time.monotonic() + dice.random() * (dice.random() < FULL_LIVES)
        uplink = Uplink(Broker.parse(broker), outbox, timing=TIMING, flight=Flight(first_s=0.5, cap_s=5.0))
        uplink.start()
        full = time.monotonic() < heals_s
        if full:
            _limit(max(FULL_BYTES, path.with_name(path.name + "-wal").stat().st_size))
        while outbox.produced < windows or outbox.records:
            if full and time.monotonic() >= heals_s:
                full = False
                _limit(resource.RLIM_INFINITY)
            if outbox.produced >= windows:
                time.sleep(0.01)
                continue
            # What the clock is worth differs from window to window: those on either side cannot be merged.
            clock = dice.choice((Clock.SYNCED, Clock.UNKNOWN))
            if dice.random() < JUMPS:
                off_ms = dice.choice((-YEAR_MS, 0, YEAR_MS))
            clock_ms = time.time_ns() // 1_000_000 + off_ms
            try:
                if outbox.produced == 0:
                    part = ReferencePart(MODEL, VERSION, 0, 1, encode_json(REFERENCE))
                    _append(outbox, journal, Kind.REFERENCE, encode(part), 0, clock_ms, clock)
                else:
                    rows = rows_of(outbox.produced + 1)
                    _append(outbox, journal, Kind.WINDOW, window(rows), rows, clock_ms, clock)
            except StorageFault:
                time.sleep(0.01)
            assert outbox.size <= max_bytes, f"{outbox.size} bytes in an outbox of {max_bytes}"
            uplink.wake()
            time.sleep(PACE_S)
        uplink.stop()


def _append(outbox: Outbox, journal: int, kind: Kind, body: bytes, rows: int, clock_ms: int, clock: Clock) -> None:
    number = outbox.append(kind, body, bins_id=REFERENCE.bins_id, n=rows, t0_ms=clock_ms, dt_ms=1000, clock=clock)
    os.write(journal, f"{number}\n".encode())


def _limit(size: int) -> None:
    """No file may grow beyond this: what a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    live(sys.argv[1], Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
