"""The fleet's authority: who gets a certificate, who does not, and what is kept of it."""

from __future__ import annotations

import datetime
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit.fleet.authority import GOOD_MAX, Authority
from edgekit.fleet.certificates import read_request
from edgekit.fleet.enrolment import grant_for_certificate, grant_for_token, issue, new_token, sign_request
from edgekit_contracts.enrolment import Grant, Request, Token
from edgekit_contracts.errors import (
    AuthorityRefused,
    EnrolmentRefused,
    StorageFault,
    UnknownName,
    UnsupportedFormat,
    UsageError,
)
from edgekit_runtime.identity import common_name, signing_request

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    with Authority.create(tmp_path / "authority") as made:
        yield made


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def asked(name: str, key: ec.EllipticCurvePrivateKey | None = None, token: Token | None = None) -> Request:
    return Request(csr=signing_request(key or new_key(), name), token=None if token is None else str(token))


def certificate(grant: Grant) -> x509.Certificate:
    return x509.load_pem_x509_certificate(grant.certificate.encode())


def shown(grant: Grant) -> bytes:
    return certificate(grant).public_bytes(Encoding.DER)


def test_only_its_owner_can_read_what_is_secret(authority: Authority) -> None:
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    for path in authority.folder.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o644 if path.name in {"authority.pem", "crl.pem"} else 0o600), path
    (authority.folder / "authority.key").chmod(0o640)
    with pytest.raises(AuthorityRefused, match="others can read"):
        Authority(authority.folder)


def test_there_is_one_authority_in_a_folder(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        Authority.create(authority.folder)
    with pytest.raises(UsageError, match="no authority"):
        Authority(tmp_path / "elsewhere")


def test_a_certificate_is_of_its_name_for_clients_only_and_ends_in_time(authority: Authority) -> None:
    key = new_key()
    token = new_token(authority, "dev-1", HOUR, days=7)
    found = certificate(grant_for_token(authority, asked("dev-1", key, token)))
    found.verify_directly_issued_by(authority.certificate)
    assert common_name(found) == "dev-1"
    assert found.public_key() == key.public_key()
    assert found.serial_number.bit_length() > 100
    assert (
        7 <= (found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400 + 0.001 < 7.01
    )
    extensions = found.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_what_a_request_asks_for_beside_its_name_is_ignored(authority: Authority) -> None:
    key, subject = new_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-1")])
    greedy = x509.CertificateSigningRequestBuilder().subject_name(subject)
    greedy = greedy.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    greedy = greedy.add_extension(x509.SubjectAlternativeName([x509.DNSName("broker")]), critical=False)
    text = greedy.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()
    _, grant = sign_request(authority, text, "dev-1")
    extensions = certificate(grant).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_token_is_good_for_one_key_of_its_name_and_its_time(authority: Authority) -> None:
    token, key = new_token(authority, "dev-1", HOUR), new_key()
    with pytest.raises(EnrolmentRefused, match="not good for a certificate of 'dev-2'"):
        grant_for_token(authority, asked("dev-2", key, token))
    first = grant_for_token(authority, asked("dev-1", key, token))
    # The answer was lost: the same key is given the same certificate.
    assert grant_for_token(authority, asked("dev-1", key, token)) == first
    with pytest.raises(EnrolmentRefused, match="used before"):
        grant_for_token(authority, asked("dev-1", new_key(), token))
    authority.revoke("dev-1")
    with pytest.raises(EnrolmentRefused, match="used before"):
        grant_for_token(authority, asked("dev-1", key, token))
    assert len(authority.register.issued("dev-1")) == 1


def test_a_token_ends(authority: Authority) -> None:
    late = new_token(authority, "dev-1", datetime.timedelta(0))
    with pytest.raises(EnrolmentRefused, match="expired"):
        grant_for_token(authority, asked("dev-1", token=late))
    good = new_token(authority, "dev-1", HOUR)
    authority.revoke("dev-1")
    with pytest.raises(EnrolmentRefused, match="expired"):
        grant_for_token(authority, asked("dev-1", token=good))


def test_a_token_that_nobody_gave_out_is_refused(authority: Authority) -> None:
    new_token(authority, "dev-1", HOUR)
    guess = Token(authority.fingerprint, bytes(16))
    with pytest.raises(EnrolmentRefused, match="not good for"):
        grant_for_token(authority, asked("dev-1", token=guess))
    for text in ("", "ek1-short", "x" * 100):
        with pytest.raises(EnrolmentRefused, match="not an enrolment token"):
            grant_for_token(authority, Request(csr=signing_request(new_key(), "dev-1"), token=text))


def test_the_register_holds_no_secret(authority: Authority) -> None:
    token = new_token(authority, "dev-1", HOUR)
    held = b"".join(path.read_bytes() for path in authority.folder.iterdir())
    assert token.secret not in held
    assert str(token).encode() not in held


def test_the_next_certificate_is_for_the_same_name_and_as_long(authority: Authority) -> None:
    first = grant_for_token(authority, asked("dev-1", token=new_token(authority, "dev-1", HOUR, days=7)))
    key = new_key()
    second = certificate(grant_for_certificate(authority, asked("dev-1", key), shown(first)))
    assert (common_name(second), second.public_key()) == ("dev-1", key.public_key())
    assert (second.not_valid_after_utc - second.not_valid_before_utc).days == 7
    with pytest.raises(EnrolmentRefused, match="does not speak for 'dev-2'"):
        grant_for_certificate(authority, asked("dev-2"), shown(first))
    authority.revoke("dev-1")
    with pytest.raises(EnrolmentRefused, match="was revoked"):
        grant_for_certificate(authority, asked("dev-1"), shown(first))


def test_renewing_has_an_end(authority: Authority) -> None:
    for _ in range(GOOD_MAX):
        issue(authority, "dev-1", new_key().public_key(), 1, "here")
    with pytest.raises(AuthorityRefused, match="good certificates already"):
        issue(authority, "dev-1", new_key().public_key(), 1, "here")
    authority.revoke("dev-1")
    issue(authority, "dev-1", new_key().public_key(), 1, "here")


def test_a_request_that_is_none_or_another_s_is_refused(authority: Authority) -> None:
    good = signing_request(new_key(), "dev-1")
    with pytest.raises(AuthorityRefused, match="is of 'dev-1', not of 'dev-2'"):
        sign_request(authority, good, "dev-2")
    lines = good.splitlines()
    forged = "\n".join([*lines[:-2], lines[-2][:4] + lines[-2][4:][::-1], lines[-1]])
    for text in ("", "x", forged, good.replace("REQUEST", "CERTIFICATE")):
        with pytest.raises(AuthorityRefused, match="no signing request") as refused:
            read_request(text)
        assert "http" not in refused.value.sentence
    with pytest.raises(UnknownName):
        read_request(signing_request(new_key(), "Dev/1"))


def test_weak_keys_are_not_certified(authority: Authority) -> None:
    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP224R1())):
        with pytest.raises(AuthorityRefused, match="of a kind"):
            issue(authority, "dev-1", key.public_key(), 1, "here")
    assert authority.register.issued() == []


def test_a_revocation_that_was_cut_off_before_its_list_is_mended(authority: Authority) -> None:
    issued = issue(authority, "dev-1", new_key().public_key(), 1, "here")
    authority.register.revoke("dev-1", issued.issued_ms)
    # Here the process ended.
    with Authority(authority.folder) as again:
        listed = x509.load_pem_x509_crl(again.crl_path.read_bytes())
    assert [f"{one.serial_number:x}" for one in listed] == [issued.serial]
    assert listed.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
    assert listed.next_update_utc == authority.certificate.not_valid_after_utc


def test_a_certificate_that_cannot_be_written_down_is_not_given_out(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token(authority, "dev-1", HOUR)
    request = asked("dev-1", token=token)

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(authority.register, "use", broken)
        with pytest.raises(StorageFault, match="disk is full"):
            grant_for_token(authority, request)
    assert authority.register.issued() == []
    grant_for_token(authority, request)
    assert len(authority.register.issued()) == 1


def test_a_register_of_a_newer_release_is_left_alone(authority: Authority) -> None:
    authority.close()
    with sqlite3.connect(authority.register.path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(UnsupportedFormat):
        Authority(authority.folder)


def test_two_processes_share_a_register(authority: Authority) -> None:
    with Authority(authority.folder) as other:
        token = new_token(authority, "dev-1", HOUR)
        first = grant_for_token(other, asked("dev-1", token=token))
        assert authority.revoke("dev-1") == 1
        with pytest.raises(EnrolmentRefused, match="was revoked"):
            grant_for_certificate(other, asked("dev-1"), shown(first))


def test_a_token_reads_back_and_shows_its_secret_only_when_it_is_written() -> None:
    token = Token(bytes(range(32)), bytes(range(16)))
    assert Token.parse(f" {token}\n") == token
    assert "AAEC" not in repr(token)
    assert token.secret.hex() not in repr(token)
