from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from edgekit.collector.ingest import Message, read
from edgekit.collector.store import Store, open_store
from edgekit.collector.upkeep import Upkeep, until_next
from edgekit_contracts import topics
from edgekit_contracts.errors import StorageFault
from edgekit_contracts.telemetry import encode, encode_message
from tests.telemetry_samples import NOW_MS, envelope, reference_parts, window


@pytest.mark.parametrize(("now_s", "wait_s"), [(0, 300), (299, 1), (300, 3600), (301, 3599), (3600, 300)])
def test_a_pass_begins_five_minutes_past_each_hour(now_s: float, wait_s: float) -> None:
    assert until_next(now_s) == wait_s


def test_a_window_that_cannot_be_read_holds_up_its_own_partition_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body, n = window()
    with open_store(tmp_path / "store.db") as store:
        for device in ("pump-1", "valve-9"):
            records = [*reference_parts(), body]
            many = [envelope(one, sequence=i + 1, n=n * (one is body), device=device) for i, one in enumerate(records)]
            message = Message(str(topics.Up(device)), encode_message([encode(one) for one in many]), NOW_MS)
            store.ingest(read(message, store))
        with store.database.writing() as db:
            db.run("UPDATE window SET records = x'00' WHERE dev = 'pump-1'")
        done = threading.Event()

        def clock_s() -> float:
            done.set()
            return 0.0

        upkeep = Upkeep(lambda: open_store(tmp_path / "store.db"), clock_s=clock_s, first_s=0.0)
        upkeep.start()
        assert done.wait(20)
        upkeep.stop()
        with store.database.reading() as db:
            assert {dev for (dev,) in db.rows("SELECT dev FROM rollup")} == {"", "valve-9"}
    assert [one.message for one in caplog.records if one.levelno == logging.ERROR] == [
        f"the windows of partition {topics.partition('pump-1')} are not rolled up"
    ]


def test_windows_are_rolled_up_beside_the_collector_and_a_fault_does_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body, n = window()
    records = [*reference_parts(), body]
    envelopes = [envelope(one, sequence=i + 1, n=n if one is body else 0) for i, one in enumerate(records)]
    done, asked = threading.Event(), 0

    def opened() -> Store:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StorageFault("store.db", "the disk is away")
        return open_store(tmp_path / "store.db")

    def clock_s() -> float:
        done.set()
        return 0.0

    with (
        open_store(tmp_path / "store.db") as store,
        caplog.at_level(logging.ERROR),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("edgekit.collector.upkeep.AGAIN_S", 0.01)
        message = Message(str(topics.Up("pump-1")), encode_message([encode(one) for one in envelopes]), NOW_MS)
        store.ingest(read(message, store))
        upkeep = Upkeep(opened, clock_s=clock_s, first_s=0.0)
        upkeep.start()
        assert done.wait(20)
        upkeep.stop()
        assert store.count("rollup") == 4
        assert [record.message[:35] for record in caplog.records] == ["the store is not kept up at present"]
