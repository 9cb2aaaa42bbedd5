"""Budgets and the daily cap, from the outbox to the store, with a real Mosquitto and a real collector."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edgekit.collector.service import Collector
from edgekit.fleet.status import fleet_status
from edgekit_contracts.telemetry import Event, Kind, ReferencePart, encode
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.thrift import DAILY_CAP, DAY_S, Rhythm, Thrift
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.telemetry_samples import BINS_ID, NOW_MS, append_reference, append_window, window


class Clock:
    """The ledger's wall clock."""

    def __init__(self) -> None:
        self.now_s = 20_000 * DAY_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def collector(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Collector]:
    with Collector(mosquitto.broker, tmp_path / "store.db", timing=QUICK, clock_ms=lambda: NOW_MS) as started:
        yield started


@contextmanager
def device(collector: Collector, folder: Path, thrift: Thrift, ledger: Ledger) -> Iterator[tuple[Outbox, Uplink]]:
    """A device that is connected, and whose reference is stored."""
    with Outbox(folder / "outbox.db", "pump-1") as outbox:
        append_reference(outbox)
        uplink = Uplink(collector.broker, outbox, timing=QUICK, thrift=thrift, ledger=ledger)
        uplink.start()
        try:
            wait_until(lambda: outbox.records == 0, "the reference is stored")
            yield outbox, uplink
        finally:
            uplink.stop()


def come_round(uplink: Uplink) -> None:
    """Until the uplink has looked at what waits now."""
    for _ in range(2):
        uplink.pulse.ask()
        wait_until(lambda: uplink.pulse.answered, "it comes round")


def rows(collector: Collector) -> int:
    return sum(one.rows for one in fleet_status(collector.store, NOW_MS + 1000, look_back_ms=10**12))


def test_windows_wait_for_one_another_are_added_up_and_events_do_not_wait(collector: Collector, tmp_path: Path) -> None:
    thrift = Thrift()
    thrift.rhythm = Rhythm(merge_s=60.0, send_s=3600.0)
    with device(collector, tmp_path, thrift, Ledger()) as (outbox, uplink):
        for at in range(15):
            append_window(outbox, t0_ms=NOW_MS + 10_000 * at)
        come_round(uplink)
        assert (outbox.records, rows(collector)) == (15, 0)
        assert (uplink.state.windows_s, uplink.state.sends_s, uplink.state.capped) == (60.0, 3600.0, False)
        outbox.append(Kind.EVENT, encode(Event("alarm", "hot")), t0_ms=NOW_MS)
        uplink.wake()
        wait_until(lambda: outbox.records == 15, "the event is stored")
        assert rows(collector) == 0
        uplink.hurry()
        wait_until(lambda: outbox.records == 0, "the windows are stored")
        assert rows(collector) == 15 * 100
        # Of 10 s each: two of 60 s, and one of 30 s.
        assert [one.dt_ms for one in collector.store.windows("pump-1", 0)] == [60_000, 60_000, 30_000]
        assert outbox.merged == 12
        (line,) = fleet_status(collector.store, NOW_MS + 1000 + 5_000_000)
        assert line.state == "online", "its birth says how seldom it sends"


def test_what_passes_the_daily_cap_is_added_up_and_goes_the_next_day(collector: Collector, tmp_path: Path) -> None:
    clock, thrift = Clock(), Thrift(10_000, keepalive_s=65_535)
    ledger = Ledger(now_s=clock)
    with device(collector, tmp_path, thrift, ledger) as (outbox, uplink):
        for at in range(80):
            append_window(outbox, t0_ms=NOW_MS + 10_000 * at)
            come_round(uplink)
        assert uplink.state.capped
        assert 5_000 < ledger.today <= 9_000, "a tenth is kept for events"
        waiting, stored = 80 * 100 - rows(collector), rows(collector)
        assert stored > 0
        assert waiting > 0
        assert outbox.records < 12, "what waits has become few"
        for at in range(3):
            outbox.append(Kind.EVENT, encode(Event("alarm", "hot")), t0_ms=NOW_MS + at)
            uplink.wake()
        wait_until(lambda: all(one.kind != Kind.EVENT for one in outbox.waiting()), "events go")
        assert ledger.today <= 10_000
        clock.now_s += DAY_S
        uplink.wake()
        wait_until(lambda: outbox.records == 0, "the next day the rest is stored")
        assert rows(collector) == 80 * 100
        assert fleet_status(collector.store, NOW_MS)[0].lost_records == 0
        assert not uplink.state.capped


def test_the_reference_is_no_matter_of_the_cap(collector: Collector, tmp_path: Path) -> None:
    ledger = Ledger()
    with device(collector, tmp_path, Thrift(4_000, keepalive_s=65_535), ledger) as (outbox, uplink):
        part = ReferencePart("wide", "1", 0, 2, os.urandom(6_000))
        outbox.append(Kind.REFERENCE, encode(part), bins_id=bytes(8), t0_ms=NOW_MS)
        append_window(outbox)
        uplink.wake()
        wait_until(lambda: outbox.records == 0, "both are stored")
        assert ledger.accounts.today.total > 6_000 > ledger.today
        assert (rows(collector), uplink.state.capped) == (100, False)


def test_what_no_day_can_hold_is_given_up_and_counted(collector: Collector, tmp_path: Path) -> None:
    with device(collector, tmp_path, Thrift(8_000, keepalive_s=65_535), Ledger()) as (outbox, uplink):
        body, n = window()
        wide = msgspec.structs.replace(body, counts=os.urandom(9_000))
        outbox.append(Kind.WINDOW, encode(wide), bins_id=BINS_ID, n=n, t0_ms=NOW_MS)
        append_window(outbox)
        uplink.wake()
        wait_until(lambda: outbox.records == 0, "the other one goes, and the gap")
        assert rows(collector) == 100
        assert fleet_status(collector.store, NOW_MS)[0].lost_records == 1
        with collector.store.database.reading() as db:
            assert db.rows("SELECT records, rows, reason FROM gap") == [(1, n, DAILY_CAP)]
