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
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edgekit.fleet.certificates import Signer, key_digest, now_utc
from edgekit.fleet.register import How, Issued, Register
from edgekit_contracts.errors import AuthorityRefused, MissingFile, StorageFault, UsageError
from edgekit_contracts.names import check_holder
from edgekit_runtime.identity import private_pem
from edgekit_runtime.replacing import replace

KEY_NAME: Final = "authority.key"
CERTIFICATE_NAME: Final = "authority.pem"
REGISTER_NAME: Final = "register.db"
CRL_NAME: Final = "crl.pem"

AUTHORITY_DAYS: Final = 3652
DEVICE_DAYS: Final = 90
SERVER_DAYS: Final = 365
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
        self._signer = Signer(self.certificate, key)
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
        certificate = Signer.create(key, name, AUTHORITY_DAYS).certificate
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
        now_ms = _now_ms()
        if sum(one.good(now_ms) for one in self.register.issued(name)) >= GOOD_MAX:
            raise AuthorityRefused(
                f"{name} has {GOOD_MAX} good certificates already",
                "look why it asks without end; `edgekit fleet revoke` ends them all",
            )
        return self._enter(name, self._signer.client(name, key, days), how)

    def issue_server(self, hosts: tuple[str, ...], key: ec.EllipticCurvePublicKey, days: float = SERVER_DAYS) -> Issued:
        """Issues a server's certificate for host names and addresses."""
        return self._enter(f"server {hosts[0]}", self._signer.server(hosts, key, days), "here")

    def revoke(self, name: str) -> int:
        """Revokes the good certificates of a name, ends its tokens, and writes the list; returns how many it was."""
        revoked = self.register.revoke(name, _now_ms())
        self.write_crl()
        return revoked

    def write_crl(self) -> None:
        """Writes the list of what is revoked."""
        revoked = [
            (int(one.serial, 16), datetime.datetime.fromtimestamp((one.revoked_ms or 0) / 1000, datetime.UTC))
            for one in self._revoked()
        ]
        replace(self.crl_path, self._signer.revocations(revoked))

    def denied(self) -> list[str]:
        """Names whose certificates were revoked, all of them: a connection that was made before may still stand."""
        now_ms = _now_ms()
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
        now_ms = _now_ms()
        return [one for one in self.register.issued() if one.revoked_ms is not None and one.expires_ms > now_ms]

    def _enter(self, name: str, certificate: x509.Certificate, how: How) -> Issued:
        issued = Issued(
            serial=f"{certificate.serial_number:x}",
            name=name,
            how=how,
            key=key_digest(certificate.public_key()),
            issued_ms=_now_ms(),
            expires_ms=round(certificate.not_valid_after_utc.timestamp() * 1000),
            pem=certificate.public_bytes(Encoding.PEM),
        )
        self.register.add(issued)
        return issued


def _listed(path: Path) -> set[int] | None:
    try:
        return {one.serial_number for one in x509.load_pem_x509_crl(path.read_bytes())}
    except (OSError, ValueError):
        return None


def _now_ms() -> int:
    return round(now_utc().timestamp() * 1000)
