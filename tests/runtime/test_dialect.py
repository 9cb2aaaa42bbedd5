"""Which MQTT is spoken: real brokers that know MQTT 5 or do not, and one that behaves as those that are not here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from msgspec import structs

from edgekit.demo.broker import embedded_broker
from edgekit_contracts.telemetry import Event, Gap, Kind, decode_body, decode_message, encode
from edgekit_runtime.broker import Broker
from edgekit_runtime.dialect import Dialect
from edgekit_runtime.flight import Flight
from edgekit_runtime.mqtt import Link, Publication, Timing, probe
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, Nats, ScriptedBroker, wait_until
from tests.runtime.test_uplink import centre_of, running


@contextmanager
def mosquitto(folder: Path, extra: str = "") -> Iterator[Broker]:
    broker = Mosquitto(folder, extra)
    broker.start()
    yield replace(broker.broker, protocol="auto")
    broker.stop()


@contextmanager
def link_to(broker: Broker, timing: Timing = QUICK) -> Iterator[Link]:
    link = Link(
        broker,
        f"test-{os.getpid()}",
        will=lambda: None,
        subscriptions=("a/#",),
        on_up=lambda: None,
        on_message=lambda received: None,
        on_down=lambda reason: None,
        timing=timing,
    )
    link.start()
    try:
        yield link
    finally:
        link.stop()


def test_mosquitto_is_found_to_speak_mqtt_5_and_says_what_it_allows(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "max_packet_size 4000\nmax_inflight_messages 7\n") as broker:
        found = probe(broker)
        assert found == Dialect(protocol=5, packet_max_bytes=4000, at_once=7)
        assert str(found) == "MQTT 5 (packets of up to 4000 bytes, 7 at once)"
        with link_to(broker) as link:
            wait_until(lambda: link.connected, "it is connected")
            assert link.dialect == found
        # What is set is not probed.
        assert probe(replace(broker, protocol=4)) == Dialect(protocol=4)


def test_amqtt_which_knows_no_mqtt_5_is_spoken_to_in_3_1_1() -> None:
    with embedded_broker() as address:
        assert probe(Broker.parse(address, protocol="auto")) == Dialect(protocol=4)


def test_nats_which_refuses_mqtt_5_is_spoken_to_in_3_1_1(tmp_path: Path) -> None:
    server = Nats(tmp_path)
    server.start()
    try:
        with link_to(replace(server.broker, protocol="auto")) as link:
            wait_until(lambda: link.connected, "it is connected")
            assert str(link.dialect) == "MQTT 3.1.1"
            assert link.publish(Publication("a/b", b""))
    finally:
        server.stop()


@pytest.mark.parametrize("way", ["silence", "refusal", "hanging up"])
def test_a_broker_of_3_1_1_is_asked_in_mqtt_5_once_and_then_no_more(
    way: Literal["silence", "refusal", "hanging up"],
) -> None:
    timing = structs.replace(QUICK, probe_s=0.2)
    with ScriptedBroker(protocol="auto", without_5=way) as scripted, link_to(scripted.broker, timing) as link:
        wait_until(lambda: link.connected, "it is connected")
        assert link.dialect == Dialect(protocol=4)
        assert scripted.heard.count("CONNECT") == 2
        link.renew()
        wait_until(lambda: scripted.heard.count("SUBSCRIBE") == 2, "it is connected anew")
        assert scripted.heard.count("CONNECT") == 3


def test_a_broker_that_refuses_us_is_not_asked_in_another_version(tmp_path: Path) -> None:
    (tmp_path / "nobody").write_text("")
    guarded = Mosquitto(tmp_path, f"password_file {tmp_path}/nobody\n", anonymous=False)
    guarded.start()
    reasons: list[str] = []
    link = Link(
        replace(guarded.broker, protocol="auto"),
        "test",
        will=lambda: None,
        subscriptions=(),
        on_up=lambda: None,
        on_message=lambda received: None,
        on_down=reasons.append,
        timing=QUICK,
    )
    link.start()
    wait_until(lambda: reasons, "it is refused")
    link.stop()
    guarded.stop()
    assert reasons[0] == "the broker refuses the connection: Not authorized"  # 3.1.1 says it otherwise


def test_a_record_above_the_brokers_limit_is_given_up_and_the_others_arrive(tmp_path: Path) -> None:
    with (
        mosquitto(tmp_path, "max_packet_size 700\nmax_inflight_messages 1\n") as broker,
        Outbox(tmp_path / "outbox.db", "pump-1") as outbox,
        centre_of(replace(broker, protocol=4)) as centre,
        running(Uplink(broker, outbox, timing=QUICK, flight=Flight(first_s=0.2, cap_s=0.4))) as uplink,
    ):
        for size in (300, 900, 300, 300):
            outbox.append(Kind.EVENT, encode(Event("a", size * "x")), t0_ms=0)
        centre.say_alive(True)
        uplink.wake()
        wait_until(lambda: set(centre.sequences()) == {1, 2, 3, 4}, "all but one arrive, and a gap")
        wait_until(lambda: str(uplink.state.mqtt).startswith("MQTT 5"), "it is shown")
        records = [one for topic, data in centre.heard if "/up/" in topic for one in decode_message(data)]
        gaps = {body.reason for one in records if isinstance(body := decode_body(one), Gap)}
        assert gaps == {"above broker's limit"}
        assert uplink.state.last_error is None
