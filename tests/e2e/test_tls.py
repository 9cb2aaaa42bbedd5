"""TLS with client certificates, against a real Mosquitto: the device's name is its certificate's."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.collector.service import Collector
from edgekit.fleet.status import fleet_status
from edgekit_contracts import topics
from edgekit_contracts.errors import BrokerUnreachable
from edgekit_runtime.broker import Broker
from edgekit_runtime.mqtt import Publication, Received, probe
from tests import bundles
from tests.brokers import Mosquitto, linked, wait_until
from tests.certificates import Authority
from tests.service import Service


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[Mosquitto]:
    certificate, key = authority.issue("broker")
    (tmp_path / "acl").write_text(
        "pattern write ek/1/st/%u\npattern write ek/1/up/+/%u/#\npattern read ek/1/dn/%u/#\npattern read ek/1/host/#\n"
        "user collector\ntopic readwrite ek/1/#\n"
    )
    (tmp_path / "mosquitto").mkdir()
    mosquitto = Mosquitto(
        tmp_path / "mosquitto",
        f"cafile {authority.path}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
        f"use_identity_as_username true\nacl_file {tmp_path / 'acl'}\n",
    )
    mosquitto.start()
    yield mosquitto
    mosquitto.stop()


def secured(mosquitto: Mosquitto, authority: Authority, name: str) -> Broker:
    certificate, key = authority.issue(name)
    url = f"mqtts://127.0.0.1:{mosquitto.port}"
    return Broker.parse(url, ca=authority.path, cert=certificate, key=key)


def test_a_device_reports_through_mutual_tls(broker: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("dev-1")
    service = Service(tmp_path, bundles.make(tmp_path), broker=f"mqtts://127.0.0.1:{broker.port}")
    service.config.write_text(
        service.config.read_text() + f'ca = "authority.pem"\ncert = "{certificate.name}"\nkey = "{key.name}"\n'
    )
    try:
        with Collector(secured(broker, authority, "collector"), tmp_path / "fleet.db") as collector:
            service.start()
            assert service.infer()[0] == 200

            def rows() -> int:
                return sum(one.rows for one in fleet_status(collector.store, 0, look_back_ms=10**15))

            wait_until(lambda: rows() == 4, "the rows, over TLS")
            assert service.stop() == 0
    finally:
        service.close()


def test_a_device_answers_through_mutual_tls_within_the_documented_rules(
    broker: Mosquitto, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("dev-1")
    service = Service(tmp_path, bundles.make(tmp_path), broker=f"mqtts://127.0.0.1:{broker.port}")
    service.config.write_text(
        service.config.read_text()
        + f'ca = "authority.pem"\ncert = "{certificate.name}"\nkey = "{key.name}"\ninfer = true\n'
    )
    asked, heard = topics.Infer("dev-1", "tiny"), list[Received]()
    # The rules let `collector` write and read anything of ours.
    with linked(secured(broker, authority, "collector"), "requester", (asked.answer,), heard.append) as requester:
        try:
            service.start()

            def answered() -> bool:
                assert requester.publish(Publication(str(asked), b"{}"))
                time.sleep(0.05)
                return bool(heard)

            wait_until(answered, "an answer over TLS")
            assert b"inputs" in heard[0].payload
            assert service.stop() == 0
        finally:
            service.close()


def test_a_stranger_s_certificate_is_refused(broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "rogue").mkdir()
    rogue = Authority(tmp_path / "rogue", "rogue")
    certificate, key = rogue.issue("dev-1")
    trusted = Broker.parse(f"mqtts://127.0.0.1:{broker.port}", ca=tmp_path / "authority.pem", cert=certificate, key=key)
    with pytest.raises(BrokerUnreachable):
        probe(trusted)


# paho-mqtt 2.2 leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_another_authority_vouches_for_is_refused(
    broker: Mosquitto, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rogue").mkdir()
    settings = secured(broker, authority, "dev-1")
    wrong = dataclasses.replace(settings, ca=Authority(tmp_path / "rogue", "x").path)
    with pytest.raises(BrokerUnreachable, match=r"(?i)certificate"):
        probe(wrong)


def test_threads_that_publish_at_once_do_not_break_a_connection(broker: Mosquitto, authority: Authority) -> None:
    heard: list[bytes] = []
    lost: list[str] = []

    def publish(number: int) -> None:
        for at in range(100):
            link.publish(Publication("ek/1/up/0/dev-1/w", f"{number} {at}".encode()))

    collector = secured(broker, authority, "collector")

    def hear(received: Received) -> None:
        heard.append(received.payload)

    with linked(collector, "many", ("ek/1/up/+/+/w",), hear, on_down=lost.append) as link:
        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(heard) == 400 or lost, "all of it came back")
        assert not lost
    assert len(set(heard)) == 400
