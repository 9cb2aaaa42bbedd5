"""Batches are taken in by a process of its own: whatever becomes of it, all is stored, and once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edgekit.collector import apart, busy
from edgekit.collector.apart import Apart
from edgekit.collector.ingest import Message
from edgekit.collector.intake import Fault, Taken
from edgekit.collector.service import Collector
from edgekit.collector.store import open_store
from edgekit_contracts import topics
from edgekit_contracts.errors import EnvironmentFault
from edgekit_contracts.telemetry import Ack, Envelope, Event, Kind, encode, encode_message
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.telemetry_samples import NOW_MS, append_reference, append_window, envelope, reference_parts, window

UP = str(topics.Up("pump-1"))
WINDOW, ROWS = window()


class Beside:
    """A process that stores, and what it said."""

    def __init__(self, store: Path) -> None:
        open_store(store).close()
        self.ended, self.faults = threading.Event(), list[Fault]()
        self.intake = Apart(store, None, wait=self.ended.wait, on_fault=self.faults.append)

    def put(self, *sequences: int) -> None:
        """Hands over a batch: the reference, and windows of these sequences."""
        records = [envelope(part, sequence=at + 1) for at, part in enumerate(reference_parts())]
        records += [envelope(WINDOW, sequence=sequence, n=ROWS) for sequence in sequences]
        self.intake.put([Message(UP, encode_message([encode(record)]), NOW_MS) for record in records])

    def signal(self, number: int) -> None:
        os.kill(self.intake.pid, number)

    def got(self) -> Taken:
        taken = self.intake.get()
        assert taken is not None
        return taken


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    monkeypatch.setattr(apart, "RETRY_SECONDS", 0.01)
    found = Beside(tmp_path / "store.db")
    yield found
    found.ended.set()
    found.intake.close()


def high(taken: Taken) -> int:
    ((_, ack),) = taken.acks
    return msgspec.msgpack.decode(ack, type=Ack).high


def test_batches_are_answered_in_their_order(beside: Beside) -> None:
    parts = len(reference_parts())
    beside.put(*range(parts + 1, 40))
    beside.put(*range(parts + 1, 80))
    first, second = beside.got(), beside.got()
    assert (first.stored, first.duplicates, high(first)) == (39, 0, 39)
    assert (second.stored, second.duplicates, high(second)) == (40, 39, 79)
    assert (first.messages, beside.faults) == (39, [])


def test_a_process_that_is_killed_is_started_anew_and_given_what_nothing_was_heard_of(beside: Beside) -> None:
    for turn in range(2):
        beside.signal(signal.SIGSTOP)
        beside.put(*range(3, 40))
        beside.put(*range(3, 80))
        beside.signal(signal.SIGKILL)
        first, second = beside.got(), beside.got()
        assert first.stored + second.stored == (79 if turn == 0 else 0)
        assert high(second) == 79
    assert len(beside.faults) == 2
    assert "ended with -9" in beside.faults[0].reason


def test_what_was_committed_and_not_heard_of_is_not_stored_twice(beside: Beside, tmp_path: Path) -> None:
    beside.put(*range(3, 40))
    with open_store(tmp_path / "store.db") as store:
        wait_until(lambda: store.count("window") == 37, "it is committed")
        beside.signal(signal.SIGKILL)
        assert high(beside.got()) == 39
        assert store.count("window") == 37


def test_a_store_that_fails_is_waited_for(beside: Beside, tmp_path: Path) -> None:
    with open_store(tmp_path / "store.db") as store:
        with store.database.writing() as db:
            db.run("ALTER TABLE cursor RENAME TO hidden")
        beside.put(3)
        answers = list[Taken]()
        waiting = threading.Thread(target=lambda: answers.append(beside.got()))
        waiting.start()
        wait_until(lambda: beside.faults, "it says so")
        with store.database.writing() as db:
            db.run("ALTER TABLE hidden RENAME TO cursor")
        waiting.join()
    assert [high(one) for one in answers] == [3]
    assert "no such table: cursor" in beside.faults[0].reason


def test_the_end_is_not_put_off_by_a_store_that_fails(beside: Beside, tmp_path: Path) -> None:
    with open_store(tmp_path / "store.db") as store, store.database.writing() as db:
        db.run("ALTER TABLE cursor RENAME TO hidden")
    beside.put(3)
    beside.put(4)
    beside.ended.set()
    assert [beside.intake.get(), beside.intake.get()] == [None, None]


def test_a_store_that_cannot_be_opened_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no such file"):
        Apart(tmp_path / "missing.db", None, wait=threading.Event().wait, on_fault=lambda fault: None)


def test_a_process_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EnvironmentFault, match="no process can be started"):
        Apart(tmp_path / "store.db", None, wait=threading.Event().wait, on_fault=lambda fault: None)


@contextmanager
def device(centre: Collector, folder: Path) -> Iterator[tuple[Outbox, Uplink]]:
    with Outbox(folder / "pump-1.db", "pump-1") as outbox:
        append_reference(outbox)
        uplink = Uplink(centre.broker, outbox, timing=QUICK)
        uplink.start()
        try:
            yield outbox, uplink
        finally:
            uplink.stop()


def test_a_collector_of_two_processes_stores_and_tells_as_one_does(mosquitto: Mosquitto, tmp_path: Path) -> None:
    told = list[tuple[Envelope, Event]]()
    centre = Collector(mosquitto.broker, tmp_path / "store.db", timing=QUICK, clock_ms=lambda: NOW_MS, processes=2)
    centre.on_events = told.extend
    with centre, device(centre, tmp_path) as (outbox, uplink):
        for _ in range(40):
            append_window(outbox)
        outbox.append(Kind.EVENT, encode(Event("started", "now")), t0_ms=NOW_MS)
        uplink.wake()
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert (centre.store.count("window"), centre.counts.stored, centre.counts.refused) == (40, 43, {})
        assert [event for _, event in told] == [Event("started", "now")]
        wait_until(lambda: centre.store.devices()["pump-1"][0] is not None, "the birth is stored")


def test_a_busy_collector_becomes_two_processes_while_records_flow(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(busy, "SHARE", 0.0)
    monkeypatch.setattr(busy, "SPAN_S", 0.0)
    centre = Collector(mosquitto.broker, tmp_path / "store.db", timing=QUICK, clock_ms=lambda: NOW_MS, processes=None)
    with centre, device(centre, tmp_path) as (outbox, uplink):
        for turn in range(3):
            for _ in range(20):
                append_window(outbox)
            uplink.wake()
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
            assert centre.store.count("window") == 20 * (turn + 1)
        assert isinstance(centre._intake, busy.WhenBusy)
        assert isinstance(centre._intake._intake, Apart)


def test_a_collector_that_is_killed_takes_the_process_with_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "collect", "--processes", "2"]
    command += ["--broker", str(mosquitto.broker), "--store", str(tmp_path / "store.db")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as collector:
        lines = collector.stderr
        assert lines is not None
        wait_until(lambda: "collecting from" in lines.readline(), "it has started")
        (child,) = Path(f"/proc/{collector.pid}/task/{collector.pid}/children").read_text().split()
        collector.kill()
        # The process has the other end of it too.
        lines.read()
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "it has ended")
