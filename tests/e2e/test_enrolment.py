"""A device comes by its certificate, and by the next one while it runs: real sockets, Mosquitto and processes."""

from __future__ import annotations

import datetime
import http.client
import json
import logging
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from edgekit.collector.service import Collector
from edgekit.fleet import broker_config, enrolment_server
from edgekit.fleet.authority import CERTIFICATE_NAME, Authority
from edgekit.fleet.enrolment import new_token
from edgekit.fleet.enrolment_server import CLIENT_DEPTH, EnrolmentServer
from edgekit.fleet.status import fleet_status
from edgekit_contracts import limits
from edgekit_contracts.decode import encode_json
from edgekit_contracts.enrolment import ENROL_PATH, RENEW_PATH, Request
from edgekit_contracts.errors import EnrolmentRefused, StorageFault
from edgekit_runtime.__main__ import main
from edgekit_runtime.config import Telemetry
from edgekit_runtime.enrolment import Address, enrol
from edgekit_runtime.identity import Identity, signing_request
from edgekit_runtime.renewal import Renewal
from tests import bundles
from tests.brokers import free_port, wait_until
from tests.fleet_security import address, certify, secured_mosquitto
from tests.service import Service

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    # The command puts a handler on the standard error of its time.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    with Authority.create(tmp_path / "authority") as made:
        yield made


@pytest.fixture
def server(authority: Authority) -> Iterator[EnrolmentServer]:
    with EnrolmentServer(authority.folder, ("127.0.0.1",)) as running:
        yield running


def url(server: EnrolmentServer) -> str:
    return f"https://127.0.0.1:{server.port}"


def test_a_device_enrols_with_a_token_and_its_key_stays_its_own(
    authority: Authority, server: EnrolmentServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = str(new_token(authority, "dev-1", HOUR))
    folder = tmp_path / "device"
    assert main(["enrol", url(server), token, "--device", "dev-1", "--dir", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f'ca = "{folder}/ca.pem"',
        f'cert = "{folder}/identity.pem"',
        f'key = "{folder}/identity.pem"',
        f'enrolment = "{url(server)}"',
    ]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "ca.pem": 0o644,
        "identity.pem": 0o600,
    }
    assert (folder / "ca.pem").read_bytes() == authority.pem
    before = (folder / "identity.pem").read_bytes()
    assert main(["enrol", "--renew", url(server), "--device", "dev-1", "--dir", str(folder)]) == 0
    after = (folder / "identity.pem").read_bytes()
    key, certificate = (after.partition(b"-----BEGIN CERTIFICATE")[at] for at in (0, 2))
    assert key not in before
    assert certificate not in before
    assert [one.how for one in authority.register.issued("dev-1")] == ["token", "renewal"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["enrol", *arguments])
    said = capsys.readouterr()
    assert said.out == ""
    return code, said.err


def test_what_is_refused_is_said_in_a_sentence(
    authority: Authority, server: EnrolmentServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--device", "dev-1", "--dir", str(tmp_path / "device")]
    token = str(new_token(authority, "dev-2", HOUR))
    code, said = refused([url(server), token, *where], capsys)
    assert (code, said.splitlines()[-2:]) == (
        1,
        [
            "Error: the token is not good for a certificate of 'dev-1'",
            "Try:   get a new one: edgekit fleet enrol token DEVICE",
        ],
    )
    assert refused([f"https://127.0.0.1:{free_port()}", token, *where], capsys)[0] == 3
    assert refused([f"http://127.0.0.1:{server.port}", token, *where], capsys)[0] == 2
    assert refused([url(server), "token", *where], capsys)[0] == 2
    assert refused([url(server), token, "--renew", *where], capsys)[0] == 2
    assert refused(["--renew", url(server), *where], capsys)[0] == 3  # there is no certificate yet
    assert refused([*where[:2], url(server), token], capsys)[0] == 2
    assert not (tmp_path / "device" / "identity.pem").exists()


def test_a_service_of_another_authority_never_sees_the_token(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Authority.create(tmp_path / "rogue") as rogue, EnrolmentServer(rogue.folder, ("127.0.0.1",)) as server:
        token = str(new_token(authority, "dev-1", HOUR))
        code, said = refused([url(server), token, "--device", "dev-1", "--dir", str(tmp_path / "d")], capsys)
        assert code == 1
        assert "is not of the authority that the token names" in said
    # The same where the name in the service's certificate is not the one that was dialled.
    with EnrolmentServer(authority.folder, ("elsewhere.example",)) as server:
        code, said = refused([url(server), token, "--device", "dev-1", "--dir", str(tmp_path / "d")], capsys)
        assert code == 3
        assert "IP address mismatch" in said
    assert authority.register.tickets("dev-1")[0].used_ms is None


def test_a_device_without_a_network_enrols_by_two_files(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekit.cli import run

    where = ["--device", "dev-1", "--dir", str(tmp_path / "device")]
    request, grant = tmp_path / "dev-1.csr", tmp_path / "dev-1.grant"
    assert main(["enrol", "--request", str(request), *where]) == 0
    sign = ["fleet", "enrol", "sign", str(request), "--authority", str(authority.folder)]
    assert run([*sign, "--name", "dev-2"]) == 1
    assert run([*sign, "--name", "dev-1"]) == 0
    assert main(["enrol", "--accept", str(grant), "--device", "dev-2", "--dir", str(tmp_path / "device")]) == 1
    assert main(["enrol", "--accept", str(grant), *where]) == 0
    assert "PRIVATE" not in request.read_text() + grant.read_text()
    assert "dev-2" in capsys.readouterr().err
    # Another device cannot take it in: it has not the key, or none that waits.
    other = ["--device", "dev-1", "--dir", str(tmp_path / "other")]
    assert main(["enrol", "--accept", str(grant), *other]) == 1
    assert "no key waits here" in capsys.readouterr().err
    assert main(["enrol", "--request", str(request), *other]) == 0
    assert main(["enrol", "--accept", str(grant), *other]) == 1
    assert "is not of this device's key" in capsys.readouterr().err


def ask(server: EnrolmentServer, authority: Authority, path: str, body: bytes) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(authority.folder / CERTIFICATE_NAME))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=20)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, str(json.loads(answer.read())["error"])
    finally:
        connection.close()


def test_what_is_no_request_is_refused_before_it_is_read(authority: Authority, server: EnrolmentServer) -> None:
    assert ask(server, authority, "/elsewhere", b"{}")[0] == 404
    assert ask(server, authority, ENROL_PATH, b"{}")[0] == 403
    assert ask(server, authority, ENROL_PATH, b"[" * 20_000)[0] == 403
    assert ask(server, authority, RENEW_PATH, b"{}")[0] == 403
    status, said = ask(server, authority, ENROL_PATH, b" " * (limits.ENROLMENT_MAX_BYTES + 1))
    assert (status, "the limit is" in said) == (403, True)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(server, authority, ENROL_PATH, bytes(10 * limits.ENROLMENT_MAX_BYTES))


def test_what_a_stranger_writes_steers_neither_a_log_nor_a_terminal(
    authority: Authority, server: EnrolmentServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "x\n2026 INFO all is well \x1b[2J"
    request = Request(csr=signing_request(ec.generate_private_key(ec.SECP256R1()), name), token="t")
    status, said = ask(server, authority, ENROL_PATH, encode_json(request))
    assert (status, name in said) == (403, True)
    (line,) = [one.message for one in caplog.records if "refused" in one.message]
    assert line.isprintable()
    token = new_token(authority, "dev-1", HOUR)
    with pytest.raises(EnrolmentRefused) as refused:
        enrol(Address.parse(url(server)), token, Identity(tmp_path / "own.pem", tmp_path / "ca.pem"), name)
    assert refused.value.sentence.isprintable()


def test_who_asks_without_end_is_put_off(authority: Authority, server: EnrolmentServer) -> None:
    statuses = [ask(server, authority, ENROL_PATH, b"{}")[0] for _ in range(int(CLIENT_DEPTH) + 3)]
    assert statuses[0] == 403
    assert 429 in statuses


def test_who_is_slow_is_cut_off_and_others_are_answered(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment_server, "REQUEST_S", 0.5)
    context = ssl.create_default_context(cafile=str(authority.folder / CERTIFICATE_NAME))
    with (
        EnrolmentServer(authority.folder, ("127.0.0.1",)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as dripping,
    ):
        dripping.sendall(b"POST /enrol HTTP/1.1\r\n")
        assert ask(server, authority, ENROL_PATH, b"{}")[0] == 403
        assert dripping.recv(1) == b""
        assert silent.recv(1) == b""


def served(server: EnrolmentServer, authority: Authority) -> int:
    """The serial number of the certificate that the service shows."""
    context = ssl.create_default_context(cafile=str(authority.folder / CERTIFICATE_NAME))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").serial_number


def test_the_service_s_own_certificate_is_made_anew_while_it_answers_and_a_full_disk_does_not_end_it(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment_server, "REISSUE_S", 0.1)
    monkeypatch.setattr(enrolment_server, "RETRY_S", 0.1)
    with EnrolmentServer(authority.folder, ("127.0.0.1",)) as server:
        first = served(server, authority)
        wait_until(lambda: served(server, authority) != first, "another certificate")

        def full(*_: object) -> None:
            raise StorageFault("register.db", "database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(Authority, "issue_server", full)
            last = served(server, authority)
            wait_until(lambda: served(server, authority) == last, "it answers")
        wait_until(lambda: served(server, authority) != last, "another certificate again")


def test_a_service_is_renewed_revoked_and_enrolled_again_while_it_runs_and_nothing_is_lost(
    authority: Authority, server: EnrolmentServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collector_identity = certify(authority, "collector.collector", tmp_path)
    with secured_mosquitto(authority, tmp_path) as broker:
        service = Service(tmp_path, bundles.make(tmp_path), broker=f"mqtts://127.0.0.1:{broker.port}")
        files = 'ca = "own/ca.pem"\ncert = "own/identity.pem"\nkey = "own/identity.pem"\n'
        service.config.write_text(f'{service.config.read_text()}{files}enrolment = "{url(server)}"\n')
        token = str(new_token(authority, "dev-1", HOUR))
        enrol = ["enrol", "--config", str(service.config)]
        assert main([*enrol, url(server), token]) == 0
        assert capsys.readouterr().out == ""  # device.toml says all of it already
        try:
            with Collector(address(broker, authority, collector_identity), tmp_path / "fleet.db") as collector:
                service.start()

                def rows() -> int:
                    return sum(one.rows for one in fleet_status(collector.store, 0, look_back_ms=10**15))

                def ask_and_wait(times: int) -> None:
                    assert service.infer()[0] == 200
                    wait_until(lambda: rows() == 4 * times, "the rows of every request")

                ask_and_wait(1)
                first = Identity(tmp_path / "own" / "identity.pem", tmp_path / "own" / "ca.pem").certificate()
                assert service.infer()[0] == 200
                assert main([*enrol, "--renew"]) == 0
                assert "was told" in capsys.readouterr().err
                wait_until(lambda: "connecting to the broker anew" in service.log, "the service hears of it")
                ask_and_wait(3)
                second = Identity(tmp_path / "own" / "identity.pem", tmp_path / "own" / "ca.pem").certificate()
                assert first.serial_number != second.serial_number

                # Revoked, the connection that stands carries nothing more, and the device keeps what it has to say.
                authority.revoke("dev-1")
                broker_config.publish(authority, tmp_path / "broker")
                broker.reload()
                assert service.infer()[0] == 200
                wait_until(lambda: "Not authorized" in str(service.call("GET", "/edgekit/status")), "the refusal")
                assert rows() == 12
                assert main([*enrol, "--renew"]) == 1
                assert "was revoked" in capsys.readouterr().err
                # Enrolled again, it says all of it.
                assert main([*enrol, url(server), str(new_token(authority, "dev-1", HOUR))]) == 0
                broker_config.publish(authority, tmp_path / "broker")
                broker.reload()
                wait_until(lambda: rows() == 16, "what it kept")
                assert collector.counts.refused == {}
                assert service.stop() == 0
        finally:
            service.close()
        used = [line for line in (tmp_path / "mosquitto.log").read_text().splitlines() if "as dev-1" in line]
        assert len(used) >= 2


def test_a_certificate_is_renewed_in_the_last_third_of_its_life(
    authority: Authority, server: EnrolmentServer, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    renewed: list[x509.Certificate] = []

    def renewal(identity: Identity) -> Renewal:
        path = str(identity.path)
        telemetry = Telemetry(broker="mqtts://localhost", ca=str(ca), cert=path, key=path, enrolment=url(server))
        return Renewal("dev-1", telemetry, lambda: renewed.append(identity.certificate()), check_s=0.02)

    young = Identity(certify(authority, "dev-1", tmp_path, days=3), ca)
    first = young.certificate()
    assert young.renewal_due() - first.not_valid_before_utc == datetime.timedelta(hours=73) * 2 / 3
    # Every certificate is dated back by an hour: of this one's 80 minutes 60 are gone.
    old = Identity(certify(authority, "dev-1", tmp_path, days=20 / 1440), ca)
    with renewal(young), renewal(old):
        wait_until(lambda: renewed, "a renewal")
    assert renewed == [old.certificate()]
    assert young.certificate() == first
    assert old.certificate().not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=23)


def test_a_renewal_that_fails_is_said_once_and_tried_again(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    path, port = certify(authority, "dev-1", tmp_path, days=20 / 1440), free_port()
    telemetry = Telemetry(
        broker="mqtts://localhost", ca=str(ca), cert=str(path), key=str(path), enrolment=f"https://127.0.0.1:{port}"
    )
    renewed: list[bool] = []
    with Renewal("dev-1", telemetry, lambda: renewed.append(True), check_s=0.02):
        wait_until(lambda: caplog.records, "the complaint")
        with EnrolmentServer(authority.folder, ("127.0.0.1",), port=port):
            wait_until(lambda: renewed, "a renewal")
    said = [one.message for one in caplog.records if one.name == "edgekit.renewal"]
    assert len([line for line in said if "no enrolment service answers" in line]) == 1
