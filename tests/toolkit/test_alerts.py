"""Alerts in JSON on a real broker: what devices told, and the alarms of the fleet as they begin and end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.collector.service import Collector
from edgekit.fleet.alerts import Alerts
from edgekit.fleet.status import DeviceStatus
from edgekit_contracts.alerts import Alert, decode_alert
from edgekit_contracts.telemetry import Event, Kind, encode
from edgekit_runtime.broker import Broker
from edgekit_runtime.mqtt import Publication, Received
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, linked, wait_until


@contextmanager
def listening(broker: Broker) -> Iterator[list[Alert]]:
    """The alerts that were told. At QoS 1 one may come twice, which its id shows."""
    heard: list[Alert] = []

    def hear(received: Received) -> None:
        alert = decode_alert(received.payload)
        if alert.id not in {one.id for one in heard}:
            heard.append(alert)

    with linked(broker, "listener", ("ek/1/alert/+",), hear):
        yield heard


def line(device: str = "pump-1", **alarms: str) -> DeviceStatus:
    return DeviceStatus(
        device=device,
        model="diabetes",
        version="1.0",
        state="online",
        agent=None,
        last_seen_ms=None,
        out_of_range={},
        lost_records=0,
        quarantined=0,
        alarms=tuple(alarms.values()),
        alarm_kinds=tuple(alarms),  # type: ignore[arg-type]
    )


def test_an_event_is_told_in_json_once_it_is_stored(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with (
        listening(mosquitto.broker) as heard,
        Outbox(tmp_path / "outbox.db", "pump-1") as outbox,
        Collector(mosquitto.broker, tmp_path / "fleet.db", timing=QUICK) as collector,
    ):
        collector.on_events = Alerts(collector.publish, list).stored
        outbox.append(Kind.EVENT, encode(Event("self-test failed", "row 3")), t0_ms=1_000_000)
        outbox.append(Kind.EVENT, encode(Event("of a newer release", "")), t0_ms=2_000_000)
        uplink = Uplink(mosquitto.broker, outbox, timing=QUICK)
        uplink.start()
        wait_until(lambda: len(heard) == 2, "both are told")
        assert collector.store.count("event") == 2
        uplink.stop()
        first = Alert(
            id=f"pump-1/{outbox.epoch}/1",
            device="pump-1",
            source="device",
            name="self-test failed",
            level="error",
            detail="row 3",
            at_ms=1_000_000,
        )
        assert heard[0] == first
        assert (heard[1].name, heard[1].level) == ("of a newer release", "info")


def test_edgekit_collect_tells_the_first_event_that_it_stores(mosquitto: Mosquitto, tmp_path: Path) -> None:
    arguments = ["collect", "--alerts", "--broker", str(mosquitto.broker), "--store", str(tmp_path / "fleet.db")]
    with listening(mosquitto.broker) as heard, Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        outbox.append(Kind.EVENT, encode(Event("started", "it serves")), t0_ms=1_000_000)
        uplink = Uplink(mosquitto.broker, outbox, timing=QUICK)
        uplink.start()
        collector = subprocess.Popen([sys.executable, "-m", "edgekit", *arguments])
        try:
            (alert,) = wait_until(lambda: heard, "it is told")
            assert (alert.name, alert.detail) == ("started", "it serves")
        finally:
            collector.terminate()
            collector.wait(60)
            uplink.stop()


def test_an_alarm_is_told_when_it_begins_and_when_it_is_over() -> None:
    told: list[Publication] = []
    now = [1000]
    fleet: list[DeviceStatus] = []

    def publish(publication: Publication) -> bool:
        told.append(publication)
        return True

    def heard() -> list[tuple[str, str, str, bool, int]]:
        alerts = [decode_alert(one.payload) for one in told]
        told.clear()
        return sorted((one.device, one.name, one.detail, one.over, one.at_ms) for one in alerts)

    alerts = Alerts(publish, lambda: fleet, clock_ms=lambda: now[0])
    alerts.look()
    assert heard() == []
    fleet[:] = [line(drift="drift: bmi", silent="silent for 5 min"), line("pump-2")]
    alerts.look()
    assert [one.topic for one in told] == 2 * ["ek/1/alert/pump-1"]
    assert heard() == [
        ("pump-1", "drift", "diabetes 1.0: drift: bmi", False, 1000),
        ("pump-1", "silent", "diabetes 1.0: silent for 5 min", False, 1000),
    ]
    now[0] = 2000
    fleet[:] = [line(drift="drift: bmi", silent="silent for 6 min")]
    alerts.look()
    assert heard() == []
    fleet[:] = [line(drift="drift: bmi")]
    alerts.look()
    assert heard() == [("pump-1", "silent", "diabetes 1.0: silent for 5 min", True, 2000)]


def test_of_several_collectors_each_tells_the_alarms_of_its_own_devices() -> None:
    told: list[Alert] = []
    mine = {"pump-1"}

    def publish(publication: Publication) -> bool:
        told.append(decode_alert(publication.payload))
        return True

    fleet = [line(drift="drift: bmi"), line("pump-2", drift="drift: bmi")]
    alerts = Alerts(publish, lambda: fleet, minds=lambda device: device in mine)
    alerts.look()
    mine.clear()  # another collector took its partition over: that is no end of the alarm
    alerts.look()
    assert [(one.device, one.over) for one in told] == [("pump-1", False)]


def test_what_could_not_be_told_is_told_at_the_next_look() -> None:
    told: list[Alert] = []
    connected = [False]

    def publish(publication: Publication) -> bool:
        if connected[0]:
            told.append(decode_alert(publication.payload))
        return connected[0]

    fleet = [line(failed="failed requests")]
    alerts = Alerts(publish, lambda: fleet)
    alerts.look()
    connected[0] = True
    alerts.look()
    connected[0] = False
    fleet.clear()
    alerts.look()
    connected[0] = True
    alerts.look()
    assert [(one.name, one.level, one.over) for one in told] == [("failed", "error", False), ("failed", "error", True)]
    assert told[0].id == told[1].id


def test_a_store_that_cannot_be_read_does_not_end_the_looking(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[int] = []

    def look() -> list[DeviceStatus]:
        looks.append(1)
        raise OSError("gone")

    with Alerts(lambda publication: True, look, every_s=0.01):
        wait_until(lambda: len(looks) > 2, "it looks again")
    assert "no look at the fleet's alarms" in caplog.text
