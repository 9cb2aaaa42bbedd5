from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from edgekit.collector import retention, rolled
from edgekit.collector.ingest import Message, Reading, read
from edgekit.collector.keep import DAY_MS, HOUR_MS, Keep, said, span_ms
from edgekit.collector.retention import SteadyClock
from edgekit.collector.store import Ingested, Store, open_store
from edgekit.fleet.status import fleet_status
from edgekit_contracts import topics
from edgekit_contracts.errors import UsageError
from edgekit_contracts.telemetry import Envelope, Event, Gap, encode, encode_message
from tests.telemetry_samples import NOW_MS, envelope, reference_parts, window
from tests.toolkit.conftest import Run
from tests.toolkit.test_store import ack

BODY, ROWS = window()
FOREVER = Keep(windows=None, hours=None, events=None, gaps=None, refused=None, quarantine=None)


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with open_store(where) as opened:
        ingest(opened, *(envelope(part, sequence=i + 1) for i, part in enumerate(reference_parts())))
        yield opened


def ingest(store: Store, *records: Envelope, days: int = 0) -> Ingested:
    """Takes in records that come so many days after the first."""
    found: list[Reading] = []
    for record in records:
        topic = str(topics.Up(record.device))
        found += read(Message(topic, encode_message([encode(record)]), NOW_MS + days * DAY_MS), store)
    return store.ingest(found)


def seen(first: int, last: int, days: int = 0) -> list[Envelope]:
    return [
        envelope(BODY, sequence=number, n=ROWS, t0_ms=NOW_MS + days * DAY_MS + number)
        for number in range(first, last + 1)
    ]


def gap(first: int, last: int) -> Envelope:
    body = Gap(first=first, last=last, records=last - first + 1, rows=0, bytes=0, reason="outbox full")
    return envelope(body, sequence=last)


def remove(store: Store, after_days: float, **keep: int | None) -> dict[str, int]:
    """What is removed so many days after the first records came."""
    kept = Keep(**{**{name: getattr(FOREVER, name) for name in Keep.__slots__}, **keep})
    return dict(retention.remove(store.database, kept, NOW_MS + round(after_days * DAY_MS), lambda seconds: False))


def roll_up(store: Store) -> None:
    rolled.roll_up(store.database, store.bins)


def test_windows_go_by_whole_days_once_they_are_in_the_roll_ups(store: Store) -> None:
    for day in range(4):
        ingest(store, *seen(3 + 5 * day, 7 + 5 * day, day), days=day)
    assert remove(store, 3, windows=DAY_MS) == {}
    roll_up(store)
    ingest(store, *seen(23, 24, 3), days=3)
    # The sample's first day begins at 08:00: of the two days that are kept, the older one has begun.
    removed = remove(store, 3, windows=2 * DAY_MS)
    assert set(removed) == {"windows"}
    assert (store.count("window"), removed["windows"]) == (17, 5)
    assert remove(store, 3, windows=2 * DAY_MS) == {}
    remove(store, 30, windows=2 * DAY_MS)
    # A day that is not rolled up whole stays whole.
    assert store.count("window") == 7
    roll_up(store)
    remove(store, 30, windows=2 * DAY_MS)
    assert store.count("window") == 0
    # Nothing is forgotten: the sums are those of every window.
    (line,) = fleet_status(store, NOW_MS + 4 * DAY_MS, look_back_ms=10 * DAY_MS)
    assert line.rows == 22 * ROWS


def test_a_record_that_comes_again_after_its_row_was_removed_is_a_duplicate(store: Store) -> None:
    event = envelope(Event("a", "b"), sequence=9)
    first = ingest(store, *seen(3, 8), event)
    roll_up(store)
    remove(store, 30, windows=DAY_MS, events=DAY_MS, quarantine=DAY_MS)
    assert [store.count(table) for table in ("window", "event", "part")] == [0, 0, 0]
    parts = [envelope(part, sequence=i + 1) for i, part in enumerate(reference_parts())]
    again = ingest(store, *parts, *seen(3, 8), event, days=31)
    assert (again.stored, again.duplicates, ack(again)) == (0, 9, ack(first))
    roll_up(store)
    (line,) = fleet_status(store, NOW_MS + 31 * DAY_MS, look_back_ms=60 * DAY_MS)
    assert line.rows == 6 * ROWS
    # Its reference is there, and new ones go on.
    assert ingest(store, *seen(10, 10, 31), days=31).stored == 1
    assert store.reference(next(store.windows("pump-1", 0))) is not None
    # And so does what was said of it last.
    assert store.last_window("pump-1") == (NOW_MS + 31 * DAY_MS, 10_000)


def test_what_was_lost_stays_counted_when_rows_and_gaps_are_removed(store: Store) -> None:
    ingest(store, *seen(3, 5))
    ingest(store, gap(4, 8))
    assert store.lost() == {"pump-1": 3}
    roll_up(store)
    remove(store, 30, windows=DAY_MS)
    assert store.lost() == {"pump-1": 3}
    assert ingest(store, gap(4, 10)).stored == 1
    assert store.lost() == {"pump-1": 5}
    assert remove(store, 30, gaps=DAY_MS) == {"gaps": 1}
    assert ingest(store, gap(4, 10), gap(4, 8), *seen(4, 5)).duplicates == 4
    assert store.lost() == {"pump-1": 5}
    # One that had been given up comes after all.
    assert (ingest(store, *seen(9, 9)).stored, store.lost()) == (1, {"pump-1": 4})
    assert (ingest(store, *seen(9, 9)).stored, store.lost()) == (0, {"pump-1": 4})
    # And the gap grows, though its earlier self is not here any more.
    assert (ingest(store, gap(4, 12)).stored, store.lost()) == (1, {"pump-1": 6})


def test_windows_that_waited_too_long_for_their_reference_are_counted_as_refused(store: Store) -> None:
    stray = envelope(BODY, sequence=3, n=ROWS, bins_id=b"unknown!")
    ingest(store, stray, msgspec.structs.replace(stray, sequence=4))
    assert remove(store, 0.5, quarantine=DAY_MS) == {}
    assert remove(store, 2, quarantine=DAY_MS) == {"quarantined windows": 2, "reference parts": 2}
    assert (store.quarantined(), store.refused()) == ({}, {"no reference": 2})
    assert ingest(store, stray).duplicates == 1


def test_heads_of_the_refused_go_and_their_number_stays(store: Store) -> None:
    ingest(store, envelope(BODY, sequence=3, n=1))
    assert remove(store, 2, refused=DAY_MS) == {"refused": 1}
    assert (store.count("dead"), store.refused()) == (0, {"body": 1})
    ingest(store, envelope(BODY, sequence=4, n=1))
    assert store.refused() == {"body": 2}


def test_what_is_kept_for_ever_stays(store: Store) -> None:
    ingest(store, *seen(3, 5), envelope(Event("a", ""), sequence=6), gap(8, 9), envelope(BODY, sequence=10, n=1))
    roll_up(store)
    assert remove(store, 5000) == {}


def test_hours_go_and_days_stay(store: Store) -> None:
    ingest(store, *seen(3, 5))
    roll_up(store)
    assert remove(store, 3, hours=DAY_MS)["hours"] == store.count("rollup")
    assert remove(store, 3, days=DAY_MS)["days"] > 0
    assert store.count("rollup") == 0


def test_few_rows_are_removed_at_once_with_pauses_and_it_ends_when_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS", 10)
    ingest(store, *(envelope(Event("a", str(i)), sequence=i) for i in range(3, 38)))
    pauses: list[int] = []

    def pause(seconds: float) -> bool:
        pauses.append(store.count("event"))
        assert seconds > 0
        return len(pauses) == 2

    keep = Keep(windows=None, hours=None, gaps=None, refused=None, quarantine=None, events=DAY_MS)
    assert retention.remove(store.database, keep, NOW_MS + 2 * DAY_MS, pause) == {"events": 20}
    assert pauses == [25, 15]


def test_a_reader_in_the_way_puts_the_removal_off_and_nobody_else(where_postgres: str) -> None:
    with open_store(where_postgres) as store, psycopg.connect(where_postgres) as reader:
        ingest(store, *(envelope(part, sequence=i + 1) for i, part in enumerate(reference_parts())), *seen(3, 5))
        roll_up(store)
        reader.execute("SELECT COUNT(*) FROM edgekit.window_20270115")
        assert remove(store, 30, windows=DAY_MS) == {}
        assert ingest(store, *seen(6, 6, 30), days=30).stored == 1
        reader.rollback()
        remove(store, 30, windows=DAY_MS)
        assert store.count("window") == 1


def test_records_that_come_during_the_removal_are_stored(store: Store) -> None:
    for first in range(3, 303, 100):
        ingest(store, *seen(first, first + 99))
    roll_up(store)
    ended = threading.Event()

    def clean() -> None:
        with open_store(store.database.name) as own:
            while not ended.wait(0.001):
                remove(own, 30, windows=DAY_MS)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    stored = sum(ingest(store, *seen(first, first + 9, 30), days=30).stored for first in range(303, 503, 10))
    ended.set()
    cleaner.join()
    remove(store, 30, windows=DAY_MS)
    assert (stored, store.count("window")) == (200, 200)


def test_a_clock_that_jumps_removes_nothing_for_a_day() -> None:
    wall, monotonic = [1000.0], [5.0]
    clock = SteadyClock(lambda: wall[0], lambda: monotonic[0])
    assert clock.now_ms() == 1_000_000
    for clocks in (wall, monotonic):
        clocks[0] += 100
    assert clock.now_ms() == 1_100_000
    wall[0] += 365 * 86_400
    assert clock.now_ms() is None
    for clocks in (wall, monotonic):
        clocks[0] += 86_399
    assert clock.now_ms() is None
    for clocks in (wall, monotonic):
        clocks[0] += 2
    assert clock.now_ms() == round(wall[0] * 1000)


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("48h", 48 * HOUR_MS), ("90d", 90 * DAY_MS), ("25h", 25 * HOUR_MS), ("forever", None)]
)
def test_times_are_read_and_said(text: str, milliseconds: int | None) -> None:
    assert span_ms(text) == milliseconds
    assert span_ms(said(milliseconds)) == milliseconds


@pytest.mark.parametrize("text", ["", "48", "0d", "-3d", "1.5d", "23h", "9999999d", "3 d", "d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time to keep"):
        span_ms(text)


def test_a_wrong_time_is_a_usage_error_of_the_command(run: Run, tmp_path: Any) -> None:
    code, _, err = run("collect", "--store", tmp_path / "x.db", "--keep-windows", "soon")
    assert (code, "48h, 90d or forever" in err) == (2, True)
