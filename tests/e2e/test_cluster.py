"""Other brokers than Mosquitto: a cluster that loses its nodes in turn, and one that forgets what it held."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from edgekit.collector.service import Collector
from edgekit_contracts import topics
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import Flight
from edgekit_runtime.mqtt import Received
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Amqtt, Engine, Nats, NatsCluster, linked, wait_until
from tests.telemetry_samples import NOW_MS, append_reference, append_window


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    nodes = NatsCluster(tmp_path)
    nodes.start()
    yield nodes
    nodes.stop()


@pytest.fixture(params=[Amqtt, Nats])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine: Engine = request.param(tmp_path)
    engine.start()
    yield engine
    engine.stop()


def collector(broker: Broker, folder: Path) -> Collector:
    return Collector(broker, folder / "store.db", "centre", timing=QUICK, clock_ms=lambda: NOW_MS)


def uplink(broker: Broker, outbox: Outbox) -> Uplink:
    return Uplink(broker, outbox, timing=QUICK, flight=Flight(first_s=0.2, cap_s=0.5))


def stored(centre: Collector, outbox: Outbox) -> list[int]:
    return sorted(one.sequence for one in centre.store.windows(outbox.device, 0) if one.epoch == outbox.epoch)


def test_two_of_three_nodes_killed_in_turn_lose_nothing_and_double_nothing(
    cluster: NatsCluster, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        centre = stack.enter_context(collector(cluster.broker, tmp_path))
        outboxes = [stack.enter_context(Outbox(tmp_path / f"{name}.db", name)) for name in ("a", "b", "c", "d")]
        uplinks = [uplink(cluster.broker, outbox) for outbox in outboxes]

        def produce(count: int) -> None:
            for outbox, link in zip(outboxes, uplinks, strict=True):
                for _ in range(count):
                    append_window(outbox)
                link.wake()

        for outbox, link in zip(outboxes, uplinks, strict=True):
            append_reference(outbox)
            link.start()
            stack.callback(link.stop)
        for _ in range(2):
            before = centre.counts.stored
            produce(60)
            wait_until(partial(lambda then: centre.counts.stored > then, before), "it flows")
            cluster.kill()
            produce(60)
            cluster.start()
        # Beside other tests a cluster that was killed may take a minute until it takes sessions again.
        wait_until(lambda: not any(outbox.records for outbox in outboxes), "all is acknowledged", 180.0)
        for outbox in outboxes:
            assert len(set(stored(centre, outbox))) == 240
        assert centre.store.lost() == {}


def test_the_configuration_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/scale-out.md").read_text()
    (found,) = re.findall(r"```\n(server_name:.*?)```", page, re.DOTALL)
    config = tmp_path / "documented.conf"
    config.write_text(found)
    tried = subprocess.run(
        [Nats(tmp_path).program, "-t", "-c", str(config)], check=False, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr


def test_presence_and_births_stand_again_after_the_broker_was_killed(other: Engine, tmp_path: Path) -> None:
    with collector(other.broker, tmp_path) as centre, Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        link = uplink(other.broker, outbox)
        link.start()
        try:
            append_reference(outbox)
            for kills in (1, 2):
                for _ in range(50):
                    append_window(outbox)
                link.wake()
                wait_until(lambda: outbox.records == 0, "all is acknowledged")
                other.kill()
                for _ in range(50):
                    append_window(outbox)
                other.start()
                wait_until(lambda: outbox.records == 0, "the device was freed, and all is acknowledged")
                # A window that is sent before the reference has one of the first keys.
                assert len(set(stored(centre, outbox))) == 100 * kills
            assert {topics.host("centre"), topics.status("pump-1")} <= retained(other.broker)
        finally:
            link.stop()


def retained(broker: Broker) -> set[str]:
    """Topics at which something stands."""
    found: set[str] = set()

    def hear(received: Received) -> None:
        if received.retained:
            found.add(received.topic)

    with linked(broker, "stranger", (topics.ALL_HOSTS, topics.ALL_STATUS), hear):
        wait_until(lambda: len(found) > 1, "what stands is heard")
    return found
