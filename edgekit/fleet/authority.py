"""The fleet's certificate authority: a key, a certificate, a register, and a list of what is revoked, in one folder.

| file | who may read | holds |
|---|---|---|
| `authority.key` | its owner | EC P-256, PEM |
| `authority.pem` | anybody | the certificate that devices, collectors and brokers trust |
| `register.db` | its owner | what was given out (`register`) |
| `crl.pem` | anybody | what is revoked; written anew from the register |

A certificate's name says what its holder is: a device's name has no dot, `collector.NAME` and `app.NAME` have one. So
no device can hold a collector's certificate, and brokers tell them apart by the name alone. Clients' certificates are
good for clients, servers' for servers: no device can pass for a broker.

Source: RFC 5280.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit.fleet.register import How, Issued, Register
from edgekit_contracts.errors import AuthorityRefused, MissingFile, StorageFault, UsageError
from edgekit_contracts.names import check_holder
from edgekit_runtime.identity import common_name
from edgekit_runtime.replacing import replace

KEY_NAME: Final = "authority.key"
CERTIFICATE_NAME: Final = "authority.pem"
REGISTER_NAME: Final = "register.db"
CRL_NAME: Final = "crl.pem"

AUTHORITY_DAYS: Final = 3652
DEVICE_DAYS: Final = 90
SERVER_DAYS: Final = 365
BACKDATED: Final = datetime.timedelta(hours=1)
"""So that a broker whose clock is a little behind takes a certificate of this minute."""
GOOD_MAX: Final = 16
"""Good certificates of one name: beyond, something renews without end."""


class Authority:
    """An authority whose folder is open.

    Args:
        folder: Made by `create`.

    Raises:
        MissingFile: There is none.
        AuthorityRefused: Others can read its key.
        StorageFault, UnsupportedFormat: As `Register`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key_path, certificate_path = folder / KEY_NAME, folder / CERTIFICATE_NAME
        try:
            mode = key_path.stat().st_mode
            key = load_pem_private_key(key_path.read_bytes(), password=None)
            self.certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except FileNotFoundError as error:
            raise UsageError(f"there is no authority in {folder}", "make one: edgekit fleet ca init") from error
        except OSError as error:
            raise MissingFile("authority", str(folder), error.strerror or str(error)) from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise StorageFault(str(folder), str(error), "put its files back from a copy") from error
        if mode & 0o077:
            raise AuthorityRefused(
                f"others can read {key_path}", f"chmod 600 {key_path}, and think who may have read it"
            )
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise StorageFault(
                str(key_path), f"it is not the key of {CERTIFICATE_NAME}", "put the files back from a copy"
            )
        self._key = key
        self.register = Register(folder / REGISTER_NAME)
        if _listed(self.crl_path) != {int(one.serial, 16) for one in self._revoked()}:
            self.write_crl()  # a revocation was cut off between register and list

    @classmethod
    def create(cls, folder: Path, name: str = "edgekit fleet") -> Self:
        """Makes an authority.

        Raises:
            UsageError: There is one already.
            StorageFault: The folder cannot be written.
        """
        if (folder / KEY_NAME).exists():
            raise UsageError(f"there is an authority in {folder} already", "use it, or name another folder")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = _now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + datetime.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
        except OSError as error:
            raise StorageFault(str(folder), error.strerror or str(error)) from error
        replace(folder / CERTIFICATE_NAME, certificate.public_bytes(Encoding.PEM))
        # The key last: with it the authority is there.
        replace(folder / KEY_NAME, private_pem(key), 0o600)
        return cls(folder)

    @property
    def crl_path(self) -> Path:
        """The list of what is revoked."""
        return self.folder / CRL_NAME

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate in DER."""
        return self.certificate.fingerprint(SHA256())

    def issue(self, name: str, key: CertificatePublicKeyTypes, days: float, how: How) -> Issued:
        """Issues a client's certificate and enters it in the register; inside `register.writing`, all or nothing.

        Args:
            name: Whom it names.
            key: The holder's public key.
            days: Its life; it ends with the authority's at the latest.
            how: What for.

        Raises:
            UnknownName: The name may not stand in a certificate.
            AuthorityRefused: The key is too weak, or the name has too many certificates.
        """
        check_holder(name)
        now_ms = round(_now().timestamp() * 1000)
        if sum(one.good(now_ms) for one in self.register.issued(name)) >= GOOD_MAX:
            raise AuthorityRefused(
                f"{name} has {GOOD_MAX} good certificates already",
                "look why it asks without end; `edgekit fleet revoke` ends them all",
            )
        return self._enter(name, self._sign(name, key, days, server=()), how)

    def issue_server(self, hosts: tuple[str, ...], key: ec.EllipticCurvePublicKey, days: float = SERVER_DAYS) -> Issued:
        """Issues a server's certificate for host names and addresses."""
        return self._enter(f"server {hosts[0]}", self._sign(hosts[0], key, days, server=hosts), "here")

    def revoke(self, name: str) -> int:
        """Revokes the good certificates of a name, ends its tokens, and writes the list; returns how many it was."""
        revoked = self.register.revoke(name, round(_now().timestamp() * 1000))
        self.write_crl()
        return revoked

    def write_crl(self) -> None:
        """Writes the list of what is revoked.

        It is pushed to the broker, not fetched; and where a list has expired, OpenSSL refuses everybody. So it ends
        with the authority.
        """
        now = _now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for one in self._revoked():
            assert one.revoked_ms is not None
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(one.serial, 16))
                .revocation_date(datetime.datetime.fromtimestamp(one.revoked_ms / 1000, datetime.UTC))
                .build()
            )
        replace(self.crl_path, builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def denied(self) -> list[str]:
        """Names whose certificates were revoked, all of them: a connection that was made before may still stand."""
        now_ms = round(_now().timestamp() * 1000)
        good = {one.name for one in self.register.issued() if one.good(now_ms)}
        return sorted({one.name for one in self._revoked()} - good)

    def close(self) -> None:
        """Closes the register."""
        self.register.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _revoked(self) -> list[Issued]:
        now_ms = round(_now().timestamp() * 1000)
        return [one for one in self.register.issued() if one.revoked_ms is not None and one.expires_ms > now_ms]

    def _enter(self, name: str, certificate: x509.Certificate, how: How) -> Issued:
        issued = Issued(
            serial=f"{certificate.serial_number:x}",
            name=name,
            how=how,
            key=key_digest(certificate.public_key()),
            issued_ms=round(_now().timestamp() * 1000),
            expires_ms=round(certificate.not_valid_after_utc.timestamp() * 1000),
            pem=certificate.public_bytes(Encoding.PEM),
        )
        self.register.add(issued)
        return issued

    def _sign(
        self, name: str, key: CertificatePublicKeyTypes, days: float, *, server: tuple[str, ...]
    ) -> x509.Certificate:
        _check_key(key)
        now = _now()
        end = min(now + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if server:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in server]), critical=False
            )
        return builder.sign(self._key, SHA256())


def read_request(text: str) -> tuple[str, CertificatePublicKeyTypes]:
    """The name and the key of a signing request; whatever else it asks for is ignored.

    Raises:
        AuthorityRefused: It is none, or not signed by its own key.
        UnknownName: Its name may not stand in a certificate.
    """
    try:
        csr = x509.load_pem_x509_csr(text.encode())
        if not csr.is_signature_valid:
            raise ValueError("it is not signed by its own key")
        return check_holder(common_name(csr)), csr.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityRefused(
            f"that is no signing request in PEM: {str(error)[:200]}", "make one with edgekit-runtime enrol --request"
        ) from error


def key_digest(key: CertificatePublicKeyTypes) -> bytes:
    """SHA-256 of a public key."""
    digest = Hash(SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check_key(key: CertificatePublicKeyTypes) -> None:
    strong = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    if not strong and not (isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096):
        raise AuthorityRefused(
            "the key is of a kind that is not certified", "use EC P-256 or P-384, or RSA of 2048 bits"
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _listed(path: Path) -> set[int] | None:
    try:
        return {one.serial_number for one in x509.load_pem_x509_crl(path.read_bytes())}
    except (OSError, ValueError):
        return None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
