from __future__ import annotations

import logging
import os
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from edgekit.collector import rolled
from edgekit.collector.database import Database
from edgekit.collector.ingest import Message, read
from edgekit.collector.keep import DAY_MS, Keep
from edgekit.collector.passes import Task, pass_over
from edgekit.collector.store import Store, open_store
from edgekit.collector.upkeep import _COMMAND, Upkeep, until_next
from edgekit_contracts import topics
from edgekit_contracts.telemetry import encode, encode_message
from tests.brokers import wait_until
from tests.telemetry_samples import NOW_MS, envelope, reference_parts, window


def send(store: Store, *devices: str) -> None:
    """Of each device a reference and a window."""
    body, n = window()
    records = [*reference_parts(), body]
    for device in devices:
        many = [envelope(one, sequence=i + 1, n=n * (one is body), device=device) for i, one in enumerate(records)]
        message = Message(str(topics.Up(device)), encode_message([encode(one) for one in many]), NOW_MS)
        store.ingest(read(message, store))


@pytest.mark.parametrize(("now_s", "wait_s"), [(0, 300), (299, 1), (300, 3600), (301, 3599), (3600, 300)])
def test_a_pass_begins_five_minutes_past_each_hour(now_s: float, wait_s: float) -> None:
    assert until_next(now_s) == wait_s


def test_a_window_that_cannot_be_read_holds_up_its_own_partition_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Task(where="", partitions=tuple(range(16)), keep=Keep(windows=DAY_MS), now_ms=NOW_MS + 3 * DAY_MS)
    with open_store(tmp_path / "store.db") as store:
        send(store, "pump-1", "valve-9")
        with store.database.writing() as db:
            db.run("UPDATE window SET records = x'00' WHERE dev = 'pump-1'")
        pass_over(store, task, threading.Event())
        with store.database.reading() as db:
            assert {dev for (dev,) in db.rows("SELECT dev FROM rollup")} == {"", "valve-9"}
        # Nor is anything of the day removed before it is in the roll-ups.
        assert store.count("window") == 2
    assert [one.message for one in caplog.records if one.levelno == logging.ERROR] == [
        f"the windows of partition {topics.partition('pump-1')} are not rolled up"
    ]


def test_a_pass_ends_though_windows_go_on_coming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(where="", partitions=tuple(range(16)), keep=Keep(), now_ms=None)
    taken, take_in = list[int](), rolled.take_in
    with open_store(tmp_path / "store.db") as store:

        def another(database: Database, p: int, bins: rolled.BinsOf, *, until: int) -> int:
            assert len(taken) < 40
            taken.append(take_in(database, p, bins, until=until))
            send(store, *(f"pump-{len(taken)}-{number}" for number in range(64)))
            return taken[-1]

        monkeypatch.setattr(rolled, "take_in", another)
        send(store, *(f"pump-{number}" for number in range(64)))
        pass_over(store, task, threading.Event())
        # Those of partitions that were looked at later are in it too.
        assert 64 <= sum(taken) < store.count("window")


def test_the_store_is_kept_up_by_a_process_of_its_own_and_a_fault_does_not_end_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = threading.Event()

    def clock_s() -> float:
        done.set()
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.collector.upkeep.AGAIN_S", 0.01)
        upkeep = Upkeep(tmp_path / "store.db", clock_s=clock_s, first_s=0.0)
        upkeep.start()
        said = ""

        def seen() -> bool:
            nonlocal said
            said += capfd.readouterr().err
            return "the store is not kept up at present: cannot read the store" in said

        wait_until(seen, "a fault, for there is no store")
        with open_store(tmp_path / "new.db") as store:
            send(store, "pump-1")
        (tmp_path / "new.db").rename(tmp_path / "store.db")
        assert done.wait(20)
        upkeep.stop()
    with open_store(tmp_path / "store.db") as store:
        assert store.count("rollup") == 4


def test_a_pass_ends_with_its_collector(tmp_path: Path) -> None:
    """Also with one that was killed: then the pass reads the end of its input."""
    task = Task(where=str(tmp_path / "store.db"), partitions=(6, 12), keep=Keep(), now_ms=None)
    with open_store(tmp_path / "store.db") as store:
        send(store, "pump-1", "pump-2")
        with subprocess.Popen(_COMMAND, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            with store.database.writing():
                process.stdin.write(msgspec.json.encode(task) + b"\n")
                process.stdin.flush()
                wait_until(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) > 0, "it has begun")
                process.stdin.close()
            assert process.wait(20) == 0
        # The transaction that waited, at most: of one partition, not of both.
        assert store.count("rollup") in {0, 4}
