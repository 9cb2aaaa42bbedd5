from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.collector.archive import Archive
from edgekit.collector.service import Collector
from edgekit.fleet.status import DeviceStatus, fleet_status
from tests import bundles
from tests.brokers import Mosquitto, wait_until
from tests.service import Service


@pytest.fixture
def service(tmp_path: Path, stopped_mosquitto: Mosquitto) -> Iterator[Service]:
    service = Service(tmp_path, bundles.make(tmp_path), broker=str(stopped_mosquitto.broker))
    yield service
    service.close()


def devices(store: Archive) -> list[DeviceStatus]:
    return fleet_status(store, time.time_ns() // 1_000_000)


def rows(store: Archive) -> int:
    return sum(one.rows for one in devices(store))


def test_what_a_device_measured_while_the_broker_was_down_arrives_later(
    service: Service, stopped_mosquitto: Mosquitto, tmp_path: Path
) -> None:
    service.start()
    for _ in range(5):
        assert service.infer()[0] == 200
    state = service.call("GET", "/edgekit/status")[1]["telemetry"]
    assert state["state"] == "connecting"
    stopped_mosquitto.start()
    with Collector(stopped_mosquitto.broker, tmp_path / "fleet.db") as collector:
        for _ in range(3):
            assert service.infer()[0] == 200
        wait_until(lambda: rows(collector.store) == 8 * 4, "all rows at the collector")
        stopped_mosquitto.kill()
        for _ in range(2):
            assert service.infer()[0] == 200
        stopped_mosquitto.start()
        wait_until(lambda: rows(collector.store) == 10 * 4, "the rows of the second outage")
        assert service.stop() == 0
        wait_until(lambda: devices(collector.store)[0].state == "offline", "the farewell")
        (line,) = devices(collector.store)
    assert (line.model, line.version) == ("tiny", "1.0")
    assert line.requests == 10
    assert line.lost_records == 0
    assert line.latency_p99_ms is not None


def test_a_killed_device_keeps_what_it_had_stored(service: Service, mosquitto: Mosquitto, tmp_path: Path) -> None:
    service.start()
    for _ in range(4):
        service.infer()
    # Two windows of 0.3 s: the rows are in the outbox, and no collector was there to take them.
    before = json.dumps(service.call("GET", "/edgekit/status")[1])
    assert "tiny" in before
    time.sleep(1.0)
    service.stop(9)
    service.start()
    with Collector(mosquitto.broker, tmp_path / "fleet.db") as collector:
        wait_until(lambda: rows(collector.store) == 4 * 4, "the rows from before the kill")


def test_a_device_with_a_budget_gathers_windows_says_what_they_cost_and_sends_the_rest_when_it_stops(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker, budget = str(mosquitto.broker), 'budget = "tiny"\ndaily_cap_kb = 30'
    service = Service(tmp_path, bundles.make(tmp_path), broker=broker, telemetry=budget)
    with Collector(mosquitto.broker, tmp_path / "fleet.db") as collector:
        try:
            service.start()

            def telemetry() -> dict[str, Any]:
                found: dict[str, Any] = service.call("GET", "/edgekit/status")[1]["telemetry"]
                return found

            wait_until(lambda: telemetry()["bytes"]["today"]["streams"].get("reference"), "the reference is sent")
            for _ in range(4):
                assert service.infer()[0] == 200
            # Windows of 0.3 s are closed meanwhile, and wait.
            wait_until(lambda: telemetry()["outbox_records"] > 2, "windows wait")
            state = telemetry()
            assert state["sends_s"] == 2 * state["windows_s"] > 0
            assert not state["capped"]
            with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics") as answer:
                assert b'edgekit_mqtt_stream_bytes_total{stream="protocol"}' in answer.read()
            assert rows(collector.store) == 0
            assert service.stop() == 0
            wait_until(lambda: rows(collector.store) == 16, "what waited, sent at the stop")
            assert len(list(collector.store.windows("dev-1", 0))) <= 2, "added up"
            service.start()
            assert telemetry()["bytes"]["today"]["total"] > state["bytes"]["today"]["total"], "kept over the restart"
            assert service.stop() == 0
        finally:
            service.close()


def test_the_centre_hears_why_a_device_runs_nothing(service: Service, mosquitto: Mosquitto, tmp_path: Path) -> None:
    data = bytearray((tmp_path / "tiny-1.0.edge").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tiny-1.0.edge").write_bytes(data)
    with pytest.raises(AssertionError, match=r"tiny-1\.0\.edge is damaged"):
        service.start()
    with Collector(mosquitto.broker, tmp_path / "fleet.db") as collector:
        wait_until(lambda: devices(collector.store), "the device's word")
        (line,) = devices(collector.store)
    assert line.state == "offline"
    assert any("tiny-1.0.edge is damaged" in alarm for alarm in line.alarms)
