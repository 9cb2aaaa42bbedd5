"""Collectors that share a PostgreSQL: each stores what it holds, and nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgekit.cli.centre import _host_name
from edgekit.collector.claims import Terms
from edgekit.collector.service import Collector
from edgekit_contracts.names import check_device
from edgekit_contracts.topics import PARTITIONS, partition
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import Flight
from edgekit_runtime.mqtt import Publication
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.telemetry_samples import NOW_MS, append_reference, append_window

UNAWARE = Terms(lease_s=600.0, renew_s=300.0)
"""It hears of a change when the fence stops it, or when it is woken."""
GHOST = 7
NAMES = [f"pump-{number}" for number in range(100)]


def collector(broker: Broker, database: str, name: str, terms: Terms | None = None, *, processes: int = 1) -> Collector:
    return Collector(broker, database, name, timing=QUICK, terms=terms, clock_ms=lambda: NOW_MS, processes=processes)


@contextmanager
def device(broker: Broker, folder: Path, name: str, again_s: float = 0.2) -> Iterator[Outbox]:
    """A device with 20 windows to send, and again where nobody acknowledges them within some time."""
    with Outbox(folder / f"{name}.db", name) as outbox:
        append_reference(outbox)
        for _ in range(20):
            append_window(outbox)
        uplink = Uplink(broker, outbox, timing=QUICK, flight=Flight(first_s=again_s, cap_s=2 * again_s))
        uplink.start()
        try:
            yield outbox
        finally:
            uplink.stop()


def windows(centre: Collector, name: str) -> int:
    with centre.store.database.reading() as db:
        ((count,),) = db.rows('SELECT COALESCE(SUM(windows), 0) FROM "window" WHERE dev = ?', (name,))
    return int(count)


def run(centre: Collector, sql: str, *values: object) -> None:
    with centre.store.database.writing() as db:
        db.run(sql, values)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_another_collector_took_is_not_stored_and_its_neighbours_are(
    mosquitto: Mosquitto, database: str, tmp_path: Path, processes: int
) -> None:
    # Of two, a collector keeps its first partitions.
    kept, taken = (next(name for name in NAMES if partition(name) == p) for p in (0, 1))
    with collector(mosquitto.broker, database, "one", UNAWARE, processes=processes) as centre:
        wait_until(lambda: len(centre.held) == PARTITIONS, "it holds all")
        run(
            centre, "INSERT INTO collector (name, instance, until_ms) SELECT 'ghost', ?, until_ms FROM collector", GHOST
        )
        run(centre, "UPDATE lease SET instance = ? WHERE p = ?", GHOST, partition(taken))
        with device(mosquitto.broker, tmp_path, taken) as lost, device(mosquitto.broker, tmp_path, kept) as stored:
            wait_until(lambda: stored.records == 0, "what it holds is stored and acknowledged")
            wait_until(lambda: partition(taken) not in centre.held, "it has heard of it")
            assert (windows(centre, taken), windows(centre, kept)) == (0, 20)
            assert lost.records > 0
            wait_until(lambda: centre.store.devices()[taken][0] is not None, "a status is anybody's to store")
            assert centre.counts.refused == {}
            run(centre, "DELETE FROM collector WHERE instance = ?", GHOST)
            assert centre._claims is not None
            centre._claims.wake()
            wait_until(lambda: lost.records == 0, "it holds it again, and stores it")
            assert windows(centre, taken) == 20


def test_two_collectors_share_the_devices_and_one_goes_on_alone(
    mosquitto: Mosquitto, database: str, tmp_path: Path
) -> None:
    names = NAMES[:12]

    def send_all() -> None:
        with ExitStack() as stack:
            made = [stack.enter_context(device(mosquitto.broker, tmp_path, name, again_s=30.0)) for name in names]
            wait_until(lambda: not any(outbox.records for outbox in made), "all is acknowledged")

    with collector(mosquitto.broker, database, "one") as one:
        with collector(mosquitto.broker, database, "two") as two:
            wait_until(lambda: len(one.held) == len(two.held) == 8, "each has its share")
            send_all()
            mine = sum(partition(name) in one.held for name in names)
            assert 0 < mine < len(names)
            assert (one.counts.stored, two.counts.stored) == (22 * mine, 22 * (len(names) - mine))
        wait_until(lambda: len(one.held) == PARTITIONS, "it holds all")
        send_all()
        assert {windows(one, name) for name in names} == {40}


def test_a_collector_whose_name_another_one_took_steps_aside(mosquitto: Mosquitto, database: str) -> None:
    with collector(mosquitto.broker, database, "one", UNAWARE) as centre:
        wait_until(lambda: len(centre.held) == PARTITIONS, "it holds all")
        told = threading.Event()
        centre.on_superseded = told.set
        run(centre, "UPDATE collector SET instance = ?", GHOST)
        assert centre._claims is not None
        centre._claims.wake()
        wait_until(told.is_set, "it is told")
        assert centre.superseded
        assert (centre.held, centre.publish(Publication("a", b""))) == (frozenset(), False)


def test_two_collectors_on_one_file_each_take_everything_and_it_is_stored_once(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    path = str(tmp_path / "store.db")
    with collector(mosquitto.broker, path, "one") as one, collector(mosquitto.broker, path, "two") as two:
        with device(mosquitto.broker, tmp_path, NAMES[0], again_s=30.0) as outbox:
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
            wait_until(lambda: one.counts.messages == two.counts.messages, "both have taken it in")
        assert windows(one, NAMES[0]) == 20
        assert one.counts.stored + two.counts.stored == 22
        assert one.counts.duplicates + two.counts.duplicates >= 22


def test_a_collector_of_a_shared_store_is_named_after_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, name in (
        ("Node7.example.org", "collector-node7"),
        ("ä" * 80, "collector--"),
        ("x" * 80, f"collector-{'x' * 53}"),
    ):
        monkeypatch.setattr(socket, "gethostname", lambda here=host: here)
        assert check_device(_host_name()) == name
