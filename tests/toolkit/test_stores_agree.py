"""Both stores are given the same, and must say the same; what they count is compared with what was sent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgekit.collector import retention, rolled
from edgekit.collector.ingest import Birth, Message, Reading, read
from edgekit.collector.keep import DAY_MS, Keep
from edgekit.collector.store import Store, open_store
from edgekit_contracts import topics
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Envelope, Event, Gap, encode, encode_message
from tests.telemetry_samples import NOW_MS, envelope, reference_parts, window

BODY, ROWS = window()
DEVICES = ("pump-1", "pump-2", "valve-9")
KEEP = Keep(windows=2 * DAY_MS, events=DAY_MS, gaps=DAY_MS, refused=DAY_MS, quarantine=3 * DAY_MS)


def some_record(dice: random.Random, device: str) -> Envelope:
    sequence, epoch = dice.randrange(3, 60), dice.choice((7, 7, 8))
    where = {"sequence": sequence, "device": device, "epoch": epoch}
    match dice.randrange(8):
        case 0:
            return envelope(Event("hot\0", "9\0"), **where)  # type: ignore[arg-type]
        case 1:
            first = max(3, sequence - dice.randrange(4))
            span = sequence - first + 1
            gap = Gap(first, sequence, span - (span > 1 and dice.random() < 0.2), rows=0, bytes=1, reason="full\0")
            return envelope(gap, **where)  # type: ignore[arg-type]
        case 2:
            return envelope(BODY, n=ROWS + 1, **where)  # type: ignore[arg-type]
        case 3:
            return envelope(BODY, n=ROWS, bins_id=dice.choice((b"unknown1", b"unknown2")), **where)  # type: ignore[arg-type]
        case 4:
            return envelope(dice.choice(reference_parts()), **where)  # type: ignore[arg-type]
        case _:
            return envelope(BODY, n=ROWS, t0_ms=NOW_MS + 60_000 * sequence, **where)  # type: ignore[arg-type]


def some_batch(dice: random.Random, now_ms: int, store: Store) -> list[Reading]:
    readings: list[Reading] = []
    for _ in range(dice.randrange(1, 12)):
        device = dice.choice(DEVICES)
        if dice.random() < 0.1:
            status = Status(device=device, session=dice.randrange(4), epoch=7, dead=dice.random() < 0.3)
            readings.append(Birth(status, now_ms))
            continue
        data = encode(some_record(dice, device))
        if dice.random() < 0.05:
            data = data[:-1] + b"\xc1"
        readings += read(Message(str(topics.Up(device)), encode_message([data]), now_ms), store)
    return readings


def everything(store: Store) -> list[object]:
    with store.database.reading() as db:
        tables = [
            sorted(db.rows(f'SELECT {columns} FROM "{table}"'))
            for table, columns in (
                ("window", "p, day, dev, hour_ms, windows, records"),
                ("cursor", "*"),
                ("gap", "*"),
                ("event", "*"),
                ("dead", "*"),
                ("device", "*"),
                ("quarantine", "*"),
                ("part", "*"),
                ("rollup_counts", "*"),
            )
        ]
    windows = [[one.sequence for one in store.windows(device, 0)] for device in DEVICES]
    seen = [store.last_window(device) for device in DEVICES]
    return [tables, windows, seen, store.lost(), store.refused(), store.quarantined(), store.devices()]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_stores_say_the_same_of_the_same(seed: int, tmp_path: Path, where_postgres: str) -> None:
    dice = random.Random(seed)
    accepted, gone = 0, 0
    with open_store(tmp_path / "store.db") as file, open_store(where_postgres) as server:
        stores = (file, server)
        for turn in range(60):
            now_ms = NOW_MS + turn * DAY_MS // 10
            batches = [some_batch(random.Random(seed * 1000 + turn), now_ms, store) for store in stores]
            done = [store.ingest(batch) for store, batch in zip(stores, batches, strict=True)]
            assert done[0] == done[1]
            accepted += done[0].stored
            if dice.random() < 0.2:
                for store in stores:
                    rolled.roll_up(store.database, store.bins)
                removed = [retention.remove(store.database, KEEP, now_ms, lambda seconds: False) for store in stores]
                assert {what: count for what, count in removed[0].items() if what != "windows"} == {
                    what: count for what, count in removed[1].items() if what != "windows"
                }
                gone += sum(removed[0].values())
            assert everything(file) == everything(server)
    assert accepted > 50
    assert gone > 20
