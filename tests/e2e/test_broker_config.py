"""What `edgekit fleet broker-config` writes, in a real Mosquitto, against those it is to keep out."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edgekit.collector.service import Collector
from edgekit.fleet import broker_config
from edgekit.fleet.authority import CERTIFICATE_NAME, Authority
from edgekit_contracts import topics
from edgekit_contracts.errors import BrokerUnreachable, UnknownName, UsageError
from edgekit_contracts.telemetry import encode, encode_message
from edgekit_runtime.identity import private_pem
from edgekit_runtime.mqtt import Link, probe
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.fleet_security import Client, address, certify, secured_mosquitto
from tests.telemetry_samples import envelope, window

GRANTED, DENIED = "Success", "Not authorized"
NAMES = ("dev-1", "dev-2", "collector.collector", "collector", "app.panel", "app.screen")


@pytest.fixture(scope="module")
def members(authority: Authority, place: Path) -> dict[str, Path]:
    return {name: certify(authority, name, place) for name in NAMES}


@pytest.fixture(scope="module")
def broker(authority: Authority, place: Path) -> Iterator[Mosquitto]:
    with secured_mosquitto(authority, place, apps=("panel",), readers=("screen",)) as running:
        yield running


@pytest.fixture
def enter(broker: Mosquitto, authority: Authority, members: dict[str, Path]) -> Iterator[object]:
    with _Entrance(broker, authority, members) as entrance:
        yield entrance


class _Entrance:
    """Lets clients in, and out at the end."""

    def __init__(self, broker: Mosquitto, authority: Authority, members: dict[str, Path]) -> None:
        self._broker, self._ca, self._members = broker, authority.folder / CERTIFICATE_NAME, members
        self._clients: list[Client] = []

    def __call__(self, name: str, **how: object) -> Client:
        return self.with_file(self._members[name], **how)

    def with_file(self, identity: Path | None, **how: object) -> Client:
        client = Client(self._broker, identity, self._ca, **how).__enter__()  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    def __enter__(self) -> _Entrance:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.__exit__(None, None, None)


def up(device: str) -> str:
    return str(topics.Up(device))


def test_a_device_writes_and_reads_what_is_its_own(enter: _Entrance) -> None:
    device, collector = enter("dev-1"), enter("collector.collector")
    for topic in (topics.ALL_UP, topics.ALL_STATUS):
        collector.subscribe(topic)
    device.subscribe(topics.ack("dev-1"))
    device.subscribe(topics.ALL_HOSTS)
    for topic in (up("dev-1"), str(topics.Up("dev-1", "e")), topics.status("dev-1")):
        assert device.publish(topic) == GRANTED
    for topic in (topics.ack("dev-1"), topics.host("collector")):
        assert collector.publish(topic) == GRANTED
    wait_until(lambda: len(collector.heard) == 3, "the collector hears it")
    wait_until(lambda: len(device.heard) == 2, "the device hears it")


@pytest.mark.parametrize(
    "topic",
    [
        up("dev-2"),
        topics.status("dev-2"),
        topics.ack("dev-1"),
        topics.ack("dev-2"),
        topics.host("collector"),
        topics.alert("dev-1"),
        "ek/1/dn/dev-2/infer/tiny",
        "ek/1/up/dev-1",
        "ek/2/st/dev-1",
        "$SYS/broker/uptime",
        "elsewhere",
    ],
)
def test_a_device_writes_nothing_else(enter: _Entrance, topic: str) -> None:
    device = enter("dev-1")
    assert device.publish(topic) == DENIED
    assert device.publish(topic, retain=True) == DENIED


def test_what_a_device_calls_itself_counts_for_nothing(enter: _Entrance) -> None:
    victim, thief = enter("dev-2", client_id="ek-dev-2"), enter("dev-1", client_id="dev-2")
    assert thief.publish(up("dev-2")) == DENIED
    assert thief.publish(up("dev-1")) == GRANTED
    assert victim.publish(up("dev-2")) == GRANTED


def test_in_mqtt_3_1_1_a_forbidden_message_is_dropped_without_a_word(enter: _Entrance) -> None:
    collector, device = enter("collector.collector"), enter("dev-1", protocol=4)
    collector.subscribe(topics.ALL_UP)
    assert device.publish(up("dev-2")) == GRANTED  # a lie, which is why the device prefers MQTT 5
    device.publish(up("dev-1"))
    wait_until(lambda: collector.heard, "the permitted one")
    assert collector.heard == [up("dev-1")]


@pytest.mark.parametrize("everything", ["#", "ek/#", "ek/1/up/#", "ek/1/dn/+/ack", "$SYS/#", "ek/1/st/+"])
def test_a_device_that_asks_for_everything_hears_what_is_its_own(enter: _Entrance, everything: str) -> None:
    curious, other, collector = enter("dev-1"), enter("dev-2"), enter("collector.collector")
    curious.subscribe(everything)
    curious.subscribe("ek/1/dn/dev-1/#")
    other.publish(up("dev-2"))
    other.publish(topics.status("dev-2"), retain=True)
    collector.publish(topics.ack("dev-2"))
    collector.publish(topics.ack("dev-1"))
    wait_until(lambda: topics.ack("dev-1") in curious.heard, "its own")
    assert set(curious.heard) <= {topics.ack("dev-1"), topics.host("collector")}


def test_a_device_named_like_a_collector_is_a_device(enter: _Entrance) -> None:
    false = enter("collector")
    assert false.publish(topics.ack("dev-1")) == DENIED
    assert false.publish(topics.host("collector")) == DENIED
    assert false.publish(up("collector")) == GRANTED


def test_an_app_asks_models_and_a_reader_reads_and_neither_does_more(enter: _Entrance) -> None:
    app, reader, device = enter("app.panel"), enter("app.screen"), enter("dev-1")
    infer = topics.Infer("dev-1", "tiny")
    device.subscribe(topics.every_infer("dev-1"))
    app.subscribe(infer.answer)
    reader.subscribe("#")
    assert app.publish(str(infer)) == GRANTED
    wait_until(lambda: device.heard == [str(infer)], "the request")
    assert device.publish(infer.answer) == GRANTED
    wait_until(lambda: app.heard == [infer.answer], "the answer")
    assert device.publish(topics.status("dev-1"), retain=True) == GRANTED
    wait_until(lambda: topics.status("dev-1") in reader.heard, "the birth")
    for topic in (topics.ack("dev-1"), up("dev-1"), topics.status("dev-1"), topics.host("collector")):
        assert app.publish(topic) == DENIED
        assert reader.publish(topic) == DENIED
    assert reader.publish(str(infer)) == DENIED
    assert not [topic for topic in reader.heard if "/up/" in topic]


@pytest.mark.parametrize(
    "name", ["dev-1/..", "dev-1/x", "+", "#", "dev-1/#", "Dev", "", "collector.", "app.a.b", "a\n"]
)
def test_the_authority_certifies_no_name_that_breaks_out_of_a_topic(
    authority: Authority, place: Path, name: str
) -> None:
    with pytest.raises(UnknownName):
        certify(authority, name, place)


def test_the_collector_takes_nothing_of_a_name_that_another_authority_would_certify(
    enter: _Entrance, broker: Mosquitto, authority: Authority, members: dict[str, Path], tmp_path: Path
) -> None:
    """Mosquitto lets `dev-1/..` write below `dev-1`: topics are matched whole, so nothing is stored."""
    record = encode_message([encode(envelope(window()[0], device="dev-1", n=100))])
    where = address(broker, authority, members["collector.collector"])
    with Collector(where, tmp_path / "fleet.db") as collector:
        for name in ("dev-1/..", "+", "#"):
            key = ec.generate_private_key(ec.SECP256R1())
            path = tmp_path / "strange.pem"
            certificate = authority._signer.client(name, key.public_key(), 1)
            path.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
            stranger = enter.with_file(path)
            assert stranger.publish(up("dev-1"), record) == DENIED
            if name == "dev-1/..":
                assert stranger.publish(f"ek/1/up/{topics.partition('dev-1')}/dev-1/../w", record) == GRANTED
        assert enter("dev-1").publish(up("dev-1"), record) == GRANTED
        wait_until(lambda: collector.counts.stored == 1, "the true one is")
        assert (
            collector.store.count("window") + collector.store.count("quarantine"),
            collector.store.count("device"),
        ) == (1, 0)


def test_whoever_shows_no_certificate_of_the_fleet_stays_outside(
    enter: _Entrance, authority: Authority, tmp_path: Path
) -> None:
    assert not enter.with_file(None).let_in
    with Authority.create(tmp_path / "rogue") as rogue:
        assert not enter.with_file(certify(rogue, "dev-1", tmp_path)).let_in
    # The broker's own certificate is good for a server, not for a client.
    server = authority.folder.parent / "broker"
    both = tmp_path / "both.pem"
    both.write_bytes((server / "broker.key").read_bytes() + (server / "broker.pem").read_bytes())
    assert not enter.with_file(both).let_in


def test_a_device_cannot_pass_for_the_broker(authority: Authority, members: dict[str, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(members["dev-2"]))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    trusting = ssl.create_default_context(cafile=str(authority.folder / CERTIFICATE_NAME))
    trusting.check_hostname = False
    client = trusting.wrap_bio(to_client, to_server)
    for side in (client, server):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        client.do_handshake()


def test_a_message_beyond_the_limit_ends_its_connection_and_no_other(
    authority: Authority, members: dict[str, Path], tmp_path: Path
) -> None:
    with secured_mosquitto(authority, tmp_path) as broker, _Entrance(broker, authority, members) as enter:
        good, large = enter("dev-1"), enter("dev-2")
        assert large.publish(up("dev-2"), bytes(65_536)) == GRANTED
        assert large.publish(up("dev-2"), bytes(70_000)) == "ended"
        assert good.publish(up("dev-1")) == GRANTED


def test_without_apps_a_device_cannot_push_another_off_the_broker(
    authority: Authority, members: dict[str, Path], tmp_path: Path
) -> None:
    with secured_mosquitto(authority, tmp_path) as broker, _Entrance(broker, authority, members) as enter:
        victim = enter("dev-2", client_id="ek-dev-2")
        assert enter("dev-1", client_id="ek-dev-2").let_in
        assert enter("dev-1", client_id="dev-2").let_in
        assert victim.publish(up("dev-2")) == GRANTED
        assert not victim.ended


def test_with_apps_nobody_guesses_the_identifier_by_which_another_could_be_pushed_off(
    broker: Mosquitto, enter: _Entrance, authority: Authority, members: dict[str, Path]
) -> None:
    downs: list[str] = []
    heard = threading.Event()
    own = address(broker, authority, members["dev-2"])

    def link() -> Link:
        return Link(
            own,
            "ek-dev-2",
            will=lambda: None,
            subscriptions=(topics.ack("dev-2"),),
            on_up=lambda: None,
            on_message=lambda received: heard.set(),
            on_down=downs.append,
            timing=QUICK,
        )

    first, again = link(), link()
    first.start()
    try:
        assert first.wait_first(30) is None
        other = address(broker, authority, members["dev-1"])
        assert own.client_id("ek-dev-2") == replace(own).client_id("ek-dev-2") != other.client_id("ek-dev-2")
        for guess in ("ek-dev-2", "dev-2", other.client_id("ek-dev-2")):
            assert enter("dev-1", client_id=guess).let_in
        assert enter("collector.collector").publish(topics.ack("dev-2")) == GRANTED
        assert heard.wait(60)
        assert downs == []
        again.start()  # as after a cut that the broker has not noticed
        wait_until(lambda: downs, "it takes its own former place")
    finally:
        again.stop()
        first.stop()


def test_a_revoked_device_is_out_at_once_and_is_told_why(authority: Authority, place: Path, tmp_path: Path) -> None:
    identity, other = certify(authority, "dev-9", tmp_path), certify(authority, "dev-8", tmp_path)
    with secured_mosquitto(authority, tmp_path) as broker, _Entrance(broker, authority, {}) as enter:
        standing, neighbour = enter.with_file(identity), enter.with_file(other)
        collector = enter.with_file(certify(authority, "collector.collector", tmp_path))
        collector.subscribe(topics.ALL_UP)
        assert standing.publish(up("dev-9")) == GRANTED
        assert authority.revoke("dev-9") == 1
        broker_config.publish(authority, tmp_path / "broker")
        broker.reload()
        # Mosquitto 2.0 leaves the connection that stands; the access rules stop it.
        assert standing.publish(up("dev-9")) == DENIED
        assert neighbour.publish(up("dev-8")) == GRANTED
        wait_until(lambda: len(collector.heard) == 2, "what was permitted")
        assert not enter.with_file(identity).let_in
        with pytest.raises(BrokerUnreachable, match=r"our certificate (is|may be) revoked"):
            probe(address(broker, authority, identity))
        # Enrolled again, it is let in again.
        again = certify(authority, "dev-9", tmp_path)
        broker_config.publish(authority, tmp_path / "broker")
        broker.reload()
        assert enter.with_file(again).publish(up("dev-9")) == GRANTED


def test_home_assistant_and_sparkplug_are_open_where_they_are_asked_for_and_to_whom(
    authority: Authority, members: dict[str, Path], tmp_path: Path
) -> None:
    announced, born = "homeassistant/device/edgekit/{}/config", "spBv1.0/edgekit/NBIRTH/{}"
    with (
        secured_mosquitto(authority, tmp_path, readers=("screen",), home_assistant=True, sparkplug="edgekit") as broker,
        _Entrance(broker, authority, members) as enter,
    ):
        device, screen = enter("dev-1"), enter("app.screen")
        screen.subscribe("#")
        device.subscribe("#")
        own = [announced.format("dev-1"), born.format("dev-1"), "ek/1/now/dev-1"]
        for topic in own:
            assert device.publish(topic) == GRANTED
        for topic in (announced, born, "spBv1.0/edgekit/NCMD/{}", "spBv1.0/STATE/{}", "ek/1/now/{}"):
            assert device.publish(topic.format("dev-2")) == DENIED
        assert device.publish("spBv1.0/elsewhere/NBIRTH/dev-1") == DENIED
        assert screen.publish("spBv1.0/edgekit/NCMD/dev-1") == GRANTED
        assert screen.publish("spBv1.0/edgekit/NBIRTH/dev-1") == DENIED
        wait_until(lambda: screen.heard[-3:] == own or set(own) <= set(screen.heard), "what devices tell")
        wait_until(lambda: device.heard == ["spBv1.0/edgekit/NCMD/dev-1"], "the command")
        # Two connections of one device are not in each other's way.
        assert enter("dev-1", client_id="ek-dev-1-sparkplug").publish(born.format("dev-1")) == GRANTED
        assert device.publish(own[2]) == GRANTED


def test_publishing_needs_rules_of_ours(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite #\n")
    with pytest.raises(UsageError, match="not written by edgekit"):
        broker_config.publish(authority, tmp_path)
