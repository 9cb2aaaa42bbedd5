"""What goes wrong with certificates, on either side, is said in words that a person can act on."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from edgekit.cli import run
from edgekit.fleet.authority import CERTIFICATE_NAME, Authority
from edgekit_contracts.errors import BrokerUnreachable, StorageFault
from edgekit_runtime.broker import Broker
from edgekit_runtime.identity import private_pem
from edgekit_runtime.mqtt import probe
from edgekit_runtime.tls import client_context
from tests.brokers import Mosquitto
from tests.fleet_security import address, certify, secured_mosquitto

GONE = -20 / 1440
"""Days: every certificate is dated back by an hour, so that one of these was good for 40 minutes, until lately."""

# paho-mqtt 2.2 leaves the socket of a failed handshake to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def broker(authority: Authority, place: Path) -> Iterator[Mosquitto]:
    with secured_mosquitto(authority, place) as running:
        yield running


def fault(broker: Broker) -> str:
    with pytest.raises(BrokerUnreachable) as caught:
        probe(broker)
    return caught.value.sentence.partition(": ")[2]


def test_a_good_certificate_is_let_in(broker: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    probe(address(broker, authority, certify(authority, "dev-1", tmp_path)))


def test_the_desk_s_doctor_tries_a_broker_with_certificates(
    broker: Mosquitto, authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["doctor", "--json", "--broker", f"mqtts://127.0.0.1:{broker.port}"]
    where += ["--ca", str(authority.folder / CERTIFICATE_NAME)]
    identity = str(certify(authority, "app.desk", tmp_path))
    for shown, verdict in (([], "FAIL"), (["--cert", identity, "--key", identity], "ok")):
        run([*where, *shown])
        findings = json.loads(capsys.readouterr().out)["findings"]
        assert [one["verdict"] for one in findings if one["check"] == "broker"] == [verdict]


def test_ours_has_expired(broker: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    said = fault(address(broker, authority, certify(authority, "dev-1", tmp_path, days=GONE)))
    assert said.startswith("it ended the TLS connection: our certificate expired on 2")
    assert "the clock here says 2" in said


def test_ours_is_of_another_authority(broker: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    with Authority.create(tmp_path / "rogue") as rogue:
        said = fault(address(broker, authority, certify(rogue, "dev-1", tmp_path)))
    assert "of an authority that it does not trust" in said


def test_we_show_none(broker: Mosquitto, authority: Authority) -> None:
    assert "ask" in fault(address(broker, authority, None))
    assert "none is set" in fault(address(broker, authority, None))


def test_we_speak_no_tls_where_it_does(broker: Mosquitto) -> None:
    for protocol in ("auto", 4, 5):
        said = fault(Broker(host="127.0.0.1", port=broker.port, protocol=protocol))
        assert said == "it ended the connection without an answer; it may speak TLS there (mqtts://), or no MQTT at all"


def test_we_speak_tls_where_it_does_not(stopped_mosquitto: Mosquitto, authority: Authority) -> None:
    stopped_mosquitto.start()
    assert "it may speak no TLS there" in fault(address(stopped_mosquitto, authority, None))


def test_the_broker_s_is_of_another_authority(broker: Mosquitto, tmp_path: Path) -> None:
    with Authority.create(tmp_path / "rogue") as rogue:
        said = fault(address(broker, rogue, certify(rogue, "dev-1", tmp_path)))
    assert said.startswith("its certificate is refused here: ")
    assert "certificate" in said


def test_the_broker_s_has_expired_or_is_of_another_name(authority: Authority, tmp_path: Path) -> None:
    identity = certify(authority, "dev-1", tmp_path)
    for folder, hosts, days, words in (
        (tmp_path / "expired", ("127.0.0.1",), GONE, "certificate has expired; the clock here says 2"),
        (tmp_path / "elsewhere", ("broker.example",), 1.0, "IP address mismatch"),
    ):
        folder.mkdir()
        with secured_mosquitto(authority, folder) as broker:
            probe(address(broker, authority, identity))
            key = ec.generate_private_key(ec.SECP256R1())
            issued = authority.issue_server(hosts, key.public_key(), days)
            (folder / "broker" / "broker.key").write_bytes(private_pem(key))
            (folder / "broker" / "broker.pem").write_bytes(issued.pem)
            broker.reload()
            said = fault(address(broker, authority, identity))
        assert said.startswith("its certificate is refused here: ")
        assert words in said


def test_files_that_are_not_what_they_should_be_are_named(authority: Authority, tmp_path: Path) -> None:
    ca, first, second = authority.folder / CERTIFICATE_NAME, *(certify(authority, n, tmp_path) for n in ("a", "b"))
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    with pytest.raises(StorageFault, match=f"{tmp_path / 'gone'}: No such file"):
        client_context(tmp_path / "gone")
    with pytest.raises(StorageFault, match="no certificate or crl found"):
        client_context(locked)
    with pytest.raises(StorageFault, match=f"{first} and {second}: key values mismatch"):
        client_context(ca, first, second)
    with pytest.raises(StorageFault, match="the key has a password"):
        client_context(ca, first, locked)


def test_a_client_speaks_tls_1_2_at_least_and_checks_the_name(authority: Authority) -> None:
    context = client_context(authority.folder / CERTIFICATE_NAME)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
