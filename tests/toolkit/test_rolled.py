from __future__ import annotations

import random
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from edgekit.collector import rolled, rollup_rows
from edgekit.collector.database import Transaction
from edgekit.collector.ingest import Birth, Message, read
from edgekit.collector.lookback import Total, counts_of, distances_of, look_back
from edgekit.collector.rollup import DAY, EVERY_DEVICE, HOUR, HOUR_MS, LAST, SUMS, Rows, add_up, joined
from edgekit.collector.schema import ROLLUP
from edgekit.collector.store import Store, open_store
from edgekit.fleet.status import fleet_status
from edgekit_contracts import topics
from edgekit_contracts.counts import encode_distances, encode_varints
from edgekit_contracts.reference import Distance
from edgekit_contracts.state import Running, Status
from edgekit_contracts.telemetry import Envelope, Software, encode, encode_message
from tests.telemetry_samples import BINS, BINS_ID, MODEL, NOW_MS, VERSION, envelope, reference_parts, window

DAY_MS = DAY * HOUR_MS
DEVICES = ("pump-1", "pump-2", "valve-9")


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with open_store(where) as opened:
        for device in DEVICES:
            ingest(opened, *(envelope(one, sequence=i + 1, device=device) for i, one in enumerate(reference_parts())))
        yield opened


def ingest(store: Store, *records: Envelope) -> None:
    for record in records:
        message = Message(str(topics.Up(record.device)), encode_message([encode(record)]), max(NOW_MS, record.t0_ms))
        assert store.ingest(read(message, store)).refused == {}


def history(seed: int, windows: int, *, days: int = 4, device: str | None = None) -> list[Envelope]:
    """Windows of several devices and versions, shadows among them, over the days before NOW_MS; in no order."""
    dice = random.Random(seed)
    records = []
    for sequence in range(10, 10 + windows):
        calls = dice.choice((0, 1, 5, 9))
        software = Software(
            calls, dice.randrange(3), dice.randrange(2), dice.randrange(10**6), dice.randrange(900), 9, 1
        )
        body, n = window(tuple(dice.randrange(300) for _ in range(4)), software=software, resent=min(calls, 1))
        body = msgspec.structs.replace(
            body,
            model_version=dice.choice((VERSION, VERSION, "2.0.0")),
            distances=dice.choice((b"", b"abcd" + encode_varints([n - n // 3, n // 3]))),
        )
        t0_ms = NOW_MS - dice.randrange(days * DAY_MS)
        name = device or dice.choice(DEVICES)
        records.append(envelope(body, sequence=sequence, n=n, device=name, t0_ms=t0_ms, dt_ms=dice.randrange(90_000)))
    return records


def roll_up(store: Store) -> int:
    return rolled.roll_up(store.database, store.bins)


def say(totals: list[Total]) -> dict[object, object]:
    return {
        (one.model, one.version, one.bins_id, one.row.keys[0].distance, one.shadow): (
            {name: one[name] for name in SUMS if name != "devices"},
            {name: one.last(name) for name in LAST},
            one.row.rss_kb.tolist(),
            one.row.counts.tolist(),
        )
        for one in totals
    }


def every(store: Store, since_ms: int) -> dict[str, dict[object, object]]:
    return {device: say(look_back(store, device, since_ms)) for device in DEVICES}


SPANS_MS = (0, HOUR_MS, 5 * HOUR_MS // 2, DAY_MS, 30 * HOUR_MS, 5 * DAY_MS, NOW_MS)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_look_back_is_the_same_whatever_is_rolled_up(store: Store, seed: int) -> None:
    dice = random.Random(seed)
    records = history(seed, 240)
    ingest(store, *records[:150])
    spans = [NOW_MS - one for one in (*SPANS_MS, dice.randrange(4 * DAY_MS), dice.randrange(DAY_MS))]
    # Nothing is rolled up yet: these are windows alone.
    before = [every(store, since) for since in spans]
    assert before[-3]["pump-1"]
    assert roll_up(store) == 150
    assert [every(store, since) for since in spans] == before
    ingest(store, *records[150:])
    mixed = [every(store, since) for since in spans]
    assert roll_up(store) == 90
    assert [every(store, since) for since in spans] == mixed
    assert roll_up(store) == 0


def test_hours_days_and_all_devices_are_what_their_windows_add_up_to(store: Store) -> None:
    records = history(7, 200, days=2)
    ingest(store, *records)
    while sum(rolled.take_in(store.database, p, store.bins, sums_max=3) for p in range(16)):
        pass
    with store.database.reading() as db:
        for hours in (HOUR, DAY):
            rows = [r for d in DEVICES for r in rollup_rows.read(db, d, hours, (0, 2 * NOW_MS), store.bins)]
            merged = rollup_rows.read(db, EVERY_DEVICE, hours, (0, 2 * NOW_MS), store.bins)
            assert sum(int(one.column("windows").sum()) for one in rows) == 200
            assert all(set(one.column("devices").tolist()) == {1} for one in rows)
            assert sums(merged) == sums(rows)
            assert len({key for one in merged for key in one.keys}) == sum(map(len, merged))
            for one in rows:
                assert all(key.start_ms % (hours * HOUR_MS) == 0 for key in one.keys)


def sums(parts: list[Rows]) -> dict[object, tuple[object, object]]:
    """Of all devices by hour or day, with the number of devices."""
    kinds: dict[object, list[Rows]] = {}
    for part in parts:
        kinds.setdefault((part.keys[0].bins_id, part.keys[0].distance), []).append(part)
    whole = [add_up(joined(alike), lambda key: key._replace(device=EVERY_DEVICE)) for alike in kinds.values()]
    return {key: (one.sums[at].tolist(), one.counts[at].tolist()) for one in whole for at, key in enumerate(one.keys)}


def test_a_late_window_reopens_its_hour_and_its_day(store: Store) -> None:
    body, n = window()
    first, late = (envelope(body, sequence=i, n=n, t0_ms=NOW_MS - 3 * DAY_MS) for i in (3, 4))
    ingest(store, first)
    roll_up(store)
    ingest(store, late)
    roll_up(store)
    with store.database.reading() as db:
        for hours in (HOUR, DAY):
            (rows,) = rollup_rows.read(db, "pump-1", hours, (0, NOW_MS), store.bins)
            assert rows.column("windows").tolist() == [2]
            assert rows.column("rows").tolist() == [2 * n]


def test_a_pass_that_is_cut_short_leaves_nothing_behind_and_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, *history(5, 60, device="pump-1"))
    before = every(store, 0)
    put, left = rollup_rows.put, 3

    def torn(*arguments: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rollup_rows, "put", torn)
    with pytest.raises(KeyboardInterrupt):
        roll_up(store)
    assert [store.count(table) for table in ("rollup", "rollup_counts", "rollup_mark")] == [0, 0, 0]
    monkeypatch.undo()
    assert roll_up(store) == 60
    assert every(store, 0) == before


def remove(store: Store, table: str, where: str, *values: object) -> None:
    with store.database.writing() as db:
        assert db.run(f'DELETE FROM "{table}" WHERE {where}', values)


def test_removed_windows_are_still_in_the_look_back_which_begins_with_a_whole_hour(store: Store) -> None:
    ingest(store, *history(11, 300))
    since_ms = NOW_MS - 2 * DAY_MS - 1234
    hour_ms, day_ms = since_ms // HOUR_MS * HOUR_MS, since_ms // DAY_MS * DAY_MS
    by_hour, by_day = every(store, hour_ms), every(store, day_ms)
    assert by_hour != every(store, since_ms)
    roll_up(store)
    remove(store, "window", "hour_ms < ?", NOW_MS - DAY_MS)
    assert every(store, since_ms) == every(store, hour_ms) == by_hour
    late = history(12, 40)
    late = [msgspec.structs.replace(one, sequence=one.sequence + 1000) for one in late]
    # And with windows that came since, and are not rolled up yet.
    mark = every(store, day_ms)
    ingest(store, *late)
    assert every(store, day_ms) != mark
    by_hour, by_day = every(store, hour_ms), every(store, day_ms)
    remove(store, "rollup", "hours = 1 AND start_ms < ?", NOW_MS - DAY_MS)
    assert every(store, since_ms) == every(store, day_ms) == by_day
    roll_up(store)
    assert every(store, since_ms) == by_day


def test_hours_that_are_removed_while_they_are_read_are_read_as_their_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(store, *history(13, 200))
    roll_up(store)
    since_ms, read = NOW_MS - 2 * DAY_MS - 1234, rollup_rows.read
    by_day = say(look_back(store, "pump-1", since_ms // DAY_MS * DAY_MS))

    def late(db: Transaction, *arguments: Any) -> list[Rows]:
        monkeypatch.undo()
        db.run("DELETE FROM rollup WHERE hours = 1")
        return read(db, *arguments)

    monkeypatch.setattr(rollup_rows, "read", late)
    assert say(look_back(store, "pump-1", since_ms)) == by_day


def test_the_fleet_s_lines_are_the_same_from_roll_ups_and_without_their_windows(store: Store) -> None:
    run = Running(model=MODEL, version=VERSION, bundle_sha256="0" * 64, bins_id=BINS_ID.hex())
    store.ingest([Birth(Status(device=device, session=1, running=(run,)), NOW_MS) for device in DEVICES[:2]])
    ingest(store, *history(21, 300))
    since = [NOW_MS % DAY_MS + 2 * DAY_MS, 3 * DAY_MS + 777, HOUR_MS]
    before = [fleet_status(store, NOW_MS, look_back_ms=one) for one in since]
    assert before[0][0].rows
    assert before[0][0].tested_rows
    roll_up(store)
    assert [fleet_status(store, NOW_MS, look_back_ms=one) for one in since] == before
    remove(store, "window", "hour_ms < ?", NOW_MS - DAY_MS)
    remove(store, "rollup", "hours = 1 AND start_ms < ?", NOW_MS - DAY_MS)
    assert fleet_status(store, NOW_MS, look_back_ms=since[0]) == before[0]


def test_the_columns_of_a_roll_up_are_those_of_its_rows() -> None:
    names = list(ROLLUP.columns)[len(ROLLUP.key) :]
    last = ["seq" if name == "sequence" else name for name in LAST]
    assert names == [*SUMS, *last, "largest_rss_kb", "latency"]


def test_moments_are_stored_with_the_counts_of_their_values(store: Store) -> None:
    quadruples = [(22.0, 5.0, 18.5, 31.0), (24.5, 9.0, 19.0, 36.25), (20.0, 0.5, 19.5, 21.0)]
    for sequence, numbers in enumerate(quadruples, 10):
        body, n = window((10 * sequence, 20, 30, 40))
        body = msgspec.structs.replace(body, moments=struct.pack("<4f", *numbers))
        ingest(store, envelope(body, sequence=sequence, n=n))
        if sequence != 11:
            roll_up(store)
    silent, n = window()
    ingest(store, envelope(silent, sequence=20, n=n))
    roll_up(store)
    values = [190, 200, 210]
    mean = sum(v * q[0] for v, q in zip(values, quadruples, strict=True)) / 600
    m2 = sum(q[1] + v * (q[0] - mean) ** 2 for v, q in zip(values, quadruples, strict=True))
    with store.database.reading() as db:
        for device, hours in (("pump-1", HOUR), ("pump-1", DAY), (EVERY_DEVICE, DAY)):
            (rows,) = rollup_rows.read(db, device, hours, (0, 2 * NOW_MS), store.bins)
            assert rows.moments[0, 0].tolist() == pytest.approx([600, mean, m2, 18.5, 36.25], rel=1e-12)
            assert rows.column("rows").tolist() == [600 + n]


def test_old_hours_are_removed_with_their_counts_and_moments(store: Store) -> None:
    ingest(store, *history(31, 80))
    roll_up(store)
    days = store.count("rollup")
    with store.database.reading() as db:
        ((hours, old),) = db.rows(
            "SELECT COUNT(*), SUM(CASE WHEN start_ms < ? THEN 1 ELSE 0 END) FROM rollup WHERE hours = 1",
            (NOW_MS - DAY_MS,),
        )
    days -= hours
    removed: list[int] = []
    while not removed or removed[-1]:
        with store.database.writing() as db:
            removed.append(rollup_rows.remove(db, HOUR, NOW_MS - DAY_MS, 25))
    assert (sum(removed), max(removed)) == (old, 25)
    assert store.count("rollup") == store.count("rollup_counts") == days + hours - old


KILLED = """
import sys
from edgekit.collector import rolled
from edgekit.collector.store import open_store
rolled.WINDOWS = 2
with open_store(sys.argv[1]) as store:
    print("open", flush=True)
    for p in range(16):
        while rolled.take_in(store.database, p, store.bins, sums_max=1):
            print(flush=True)
"""


def test_kills_in_the_middle_of_passes_neither_lose_nor_double_a_window(store: Store) -> None:
    ingest(store, *history(41, 200))
    before, dice = every(store, 0), random.Random(41)
    for _ in range(3):
        command = [sys.executable, "-c", KILLED, store.database.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 12)):
                child.stdout.readline()
            time.sleep(dice.random() / 100)
            child.kill()
        assert every(store, 0) == before
    assert 0 < roll_up(store) < 200
    assert every(store, 0) == before


def test_passes_at_once_and_windows_that_come_meanwhile_are_counted_once(store: Store) -> None:
    records = history(51, 240)
    ingest(store, *records[:80])

    def pass_over() -> None:
        with open_store(store.database.name) as mine:
            for _ in range(3):
                for p in range(16):
                    rolled.take_in(mine.database, p, mine.bins, sums_max=2)

    threads = [threading.Thread(target=pass_over) for _ in range(2)]
    for one in threads:
        one.start()
    ingest(store, *records[80:])
    for one in threads:
        one.join()
    roll_up(store)
    with store.database.reading() as db:
        ((windows,),) = db.rows("SELECT SUM(windows) FROM rollup WHERE hours = 24 AND dev <> ''")
        ((everyone,),) = db.rows("SELECT SUM(windows) FROM rollup WHERE hours = 1 AND dev = ''")
    assert (windows, everyone) == (240, 240)


def test_only_distances_by_the_reference_s_own_measure_are_compared(store: Store) -> None:
    distance = Distance(center=(0.0,), scale=(1.0,), components=(), weights=(), rest=1.0, edges=(1.0, 4.0))
    counts = [
        (distance.name, (90, 9, 1)),
        (distance.name, (0, 100, 0)),
        (distance.name, (50, 50)),
        (b"else", (1, 2, 97)),
    ]
    for sequence, (name, measured) in enumerate(counts, 10):
        body, n = window()
        body = msgspec.structs.replace(body, distances=encode_distances(name, measured))
        ingest(store, envelope(body, sequence=sequence, n=n))
        if sequence == 11:
            roll_up(store)
    totals = look_back(store, "pump-1", 0)
    assert distances_of(totals, distance) == [90, 109, 1]
    assert distances_of(totals, msgspec.structs.replace(distance, rest=2.0)) is None
    assert distances_of(totals, None) is None
    assert counts_of(totals, BINS).classes == (200, 200)
