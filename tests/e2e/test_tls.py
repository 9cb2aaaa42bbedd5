"""TLS with client certificates, against a real Mosquitto: the device's name is its certificate's."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edgekit.collector.service import Collector
from edgekit.fleet.status import fleet_status
from edgekit_contracts.errors import BrokerUnreachable
from edgekit_runtime.mqtt import Broker, probe
from tests import bundles
from tests.brokers import Mosquitto, wait_until
from tests.service import Service


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._builder(self._subject, self._key.public_key()).add_extension(basic, critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files for a name, good for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
        certificate = self._builder(subject, key.public_key()).add_extension(address, critical=False)
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )


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
