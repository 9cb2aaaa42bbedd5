"""The byte ledger beside the broker's own counters, and over days and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.state import Host
from edgekit_contracts.telemetry import Ack, Event, Kind, decode_message, encode
from edgekit_runtime.broker import Broker
from edgekit_runtime.ledger import DAYS, Ledger
from edgekit_runtime.mqtt import Publication, Received
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Counters, Mosquitto, linked, wait_until
from tests.certificates import Authority
from tests.telemetry_samples import append_reference, append_window

DAY_S = 86_400.0


class Clock:
    def __init__(self, now_s: float = 20_000 * DAY_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["MQTT 3.1.1", "MQTT 5", "TLS"])
def counted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A Mosquitto that counts every second."""
    extra, settings = "sys_interval 1\n", {}
    if request.param == "TLS":
        authority = Authority(tmp_path, "authority")
        certificate, key = authority.issue("broker")
        extra += f"certfile {certificate}\nkeyfile {key}\n"
        settings = {"tls": True, "ca": authority.path}
    (tmp_path / "broker").mkdir()
    mosquitto = Mosquitto(tmp_path / "broker", extra)
    mosquitto.start()
    yield replace(mosquitto.broker, protocol=5 if request.param == "MQTT 5" else 4, **settings)  # type: ignore[arg-type]
    mosquitto.stop()


def test_the_ledger_agrees_with_the_brokers_own_counters(counted: Broker, tmp_path: Path) -> None:
    centre, device = Ledger(), Ledger()
    heard: set[int] = set()

    def take(received: Received) -> None:
        if topics.Up.parse(received.topic):
            records = decode_message(received.payload)
            heard.update(record.sequence for record in records)
            ack = Ack(records[0].epoch, 0, tuple((record.sequence, record.sequence) for record in records))
            link.publish(Publication(topics.ack("pump-1"), encode(ack)), qos=0)

    with Counters(counted) as counters, Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        with linked(counted, "centre", (topics.ALL_UP, topics.ALL_STATUS), take, meter=centre.wire) as link:
            link.publish(
                Publication(topics.host("centre"), encode_json(Host(collector="centre", alive=True)), retain=True)
            )
            uplink = Uplink(counted, outbox, timing=QUICK, ledger=device)
            append_reference(outbox)
            outbox.give_up(append_window(outbox), "a test")
            uplink.start()
            for number in range(200):
                append_window(outbox)
                if number % 5 == 0:
                    uplink.wake()
            outbox.append(Kind.EVENT, encode(Event("started", "by a test")), t0_ms=1)
            uplink.wake()
            wait_until(lambda: outbox.records == 0, "all of it is acknowledged")
            uplink.stop()
        received, sent = counters.read()
    one, two = device.accounts.since_start, centre.accounts.since_start
    assert received == pytest.approx(one.sent + two.sent, rel=0.02)
    assert sent == pytest.approx(one.received + two.received, rel=0.02)
    assert set(one.streams) == {"windows", "gaps", "events", "reference", "births", "acknowledgements", "presences"}
    assert one.total == one.sent + one.received == one.protocol + sum(one.streams.values())
    assert one.streams["windows"] > 10 * one.streams["gaps"] > 0
    # Each message has at least a header, a topic and a PUBACK.
    assert one.protocol > 200


def test_a_payload_is_shared_by_those_whose_records_were_in_it() -> None:
    ledger = Ledger()
    ledger.carried(100, ("windows", 300), ("gaps", 100), ("windows", 200))
    assert ledger.accounts.today.streams == {"gaps": 16, "windows": 84}


def test_days_are_kept_over_restarts_and_old_ones_go(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "ledger.json"
    for day in range(DAYS + 3):
        ledger = Ledger(path, clock)
        assert ledger.today == 0
        assert sum(ledger.accounts.days.values()) == sum(100 + one for one in range(day)[1 - DAYS :])
        ledger.wire(100, day)
        ledger.carried(40, ("windows", 1))
        ledger.save()
        clock.now_s += DAY_S
    clock.now_s -= DAY_S
    again = Ledger(path, clock)
    assert (again.today, again.accounts.today.streams) == (110, {"windows": 40})
    assert again.accounts.since_start.total == 0
    assert len(again.accounts.days) == DAYS
    again.wire(1, 0)
    assert again.today == 111


def test_it_is_written_at_most_once_a_minute(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "ledger.json"
    ledger = Ledger(path, clock)
    ledger.wire(1, 1)
    clock.now_s += 59
    ledger.save_in_time()
    assert not path.exists()
    clock.now_s += 1
    ledger.save_in_time()
    assert Ledger(path, clock).today == 2
    path.unlink()
    clock.now_s += 100
    ledger.save_in_time()
    assert not path.exists(), "there was no news"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"days":{"2026-11-28":{"sent":-1}}}', b"\xff\xfe"])
def test_a_damaged_file_begins_anew(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.json"
    path.write_bytes(damage)
    ledger = Ledger(path)
    assert "begins anew" in caplog.text
    ledger.wire(1, 2)
    ledger.save()
    assert Ledger(path).today == 3


def test_a_disk_that_refuses_it_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path / "gone" / "ledger.json")
    ledger.wire(1, 2)
    ledger.save()
    assert "is not written" in caplog.text
    assert ledger.today == 3
