"""The device's own key and certificate: in one file, so that both change in one step, readable by its owner alone.

The key is made here and never leaves. While a certificate is asked for, the new key waits beside (`.next`): an answer
that was lost on the way is asked for again with the same key, and a power cut costs nothing.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edgekit_contracts.enrolment import Grant, Token
from edgekit_contracts.errors import EnrolmentRefused, MissingFile, StorageFault, UsageError
from edgekit_runtime.replacing import replace

RENEW_AFTER: Final = 2 / 3
"""Of a certificate's life; the last third is there to bridge an outage."""


class Identity:
    """The files of one device's identity.

    Args:
        path: Key and certificate, in PEM.
        ca: The authority's certificate.
    """

    def __init__(self, path: Path, ca: Path) -> None:
        self.path, self.ca = path, ca
        self._next = path.with_name(path.name + ".next")

    def certificate(self) -> x509.Certificate:
        """What is in force.

        Raises:
            MissingFile: There is none.
            UsageError: The file holds no certificate.
        """
        try:
            return x509.load_pem_x509_certificates(self.path.read_bytes())[0]
        except OSError as error:
            raise MissingFile("certificate", str(self.path), error.strerror or str(error)) from error
        except (ValueError, IndexError) as error:
            raise UsageError(f"{self.path} holds no certificate", "enrol this device with a token") from error

    def renewal_due(self) -> datetime.datetime:
        """When it is to be renewed.

        Raises:
            MissingFile, UsageError: As `certificate`.
        """
        ours = self.certificate()
        return ours.not_valid_before_utc + RENEW_AFTER * (ours.not_valid_after_utc - ours.not_valid_before_utc)

    def next_key(self) -> ec.EllipticCurvePrivateKey:
        """The key that waits for its certificate; made where there is none.

        Raises:
            StorageFault: It cannot be written or read.
        """
        try:
            found = load_pem_private_key(self._next.read_bytes(), password=None)
        except FileNotFoundError:
            found = None
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise StorageFault(str(self._next), str(error), f"remove {self._next}, and ask again") from error
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
        key = ec.generate_private_key(ec.SECP256R1())
        replace(self._next, private_pem(key), 0o600)
        return key

    def install(self, grant: Grant, name: str, *, authority: bytes | None = None) -> x509.Certificate:
        """Puts what was granted in force.

        Args:
            grant: The certificate, of the key that waits.
            name: Whom it must name.
            authority: SHA-256 of the authority's certificate that it must be of; None: the file `ca`, or any where
                there is none yet.

        Raises:
            EnrolmentRefused: It is not what was asked for; nothing has changed.
            StorageFault: It cannot be written.
        """
        certificate, authorities = _read(grant)
        if not self._next.exists():
            raise EnrolmentRefused(
                "no key waits here for a certificate", "make a request here, and have that one signed: enrol --request"
            )
        key = self.next_key()
        _check(certificate, authorities, key, name)
        trusted = {authority} if authority is not None else self._trusted()
        if trusted and not trusted & {one.fingerprint(SHA256()) for one in authorities}:
            raise EnrolmentRefused(
                "the certificate is of another authority",
                f"if the fleet has a new one, remove {self.ca}, and enrol again",
            )
        # The authority first: with it the old identity is as good as the new one.
        replace(self.ca, b"".join(one.public_bytes(Encoding.PEM) for one in authorities), 0o644)
        replace(self.path, private_pem(key) + certificate.public_bytes(Encoding.PEM), 0o600)
        self._next.unlink(missing_ok=True)
        return certificate

    def _trusted(self) -> set[bytes]:
        try:
            return {one.fingerprint(SHA256()) for one in x509.load_pem_x509_certificates(self.ca.read_bytes())}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError) as error:
            raise StorageFault(str(self.ca), str(error), f"remove {self.ca}, and enrol again with a token") from error


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A request for a certificate that names `name`, in PEM. Source: RFC 2986."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
    return csr.public_bytes(Encoding.PEM).decode()


def common_name(of: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The one name in a subject; empty where there is none, or more."""
    found = [str(one.value) for one in of.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return found[0] if len(found) == 1 else ""


def authority_of(token: Token, data: bytes) -> str | None:
    """The authority's certificate in PEM, if it is the one that a token names."""
    try:
        found = x509.load_pem_x509_certificate(data)
    except ValueError:
        return None
    return found.public_bytes(Encoding.PEM).decode() if found.fingerprint(SHA256()) == token.authority else None


def _read(grant: Grant) -> tuple[x509.Certificate, list[x509.Certificate]]:
    try:
        authorities = x509.load_pem_x509_certificates(grant.authority.encode())
        return x509.load_pem_x509_certificate(grant.certificate.encode()), authorities
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentRefused("what was granted holds no certificate", "ask whoever runs the fleet") from error


def _check(
    certificate: x509.Certificate, authorities: list[x509.Certificate], key: ec.EllipticCurvePrivateKey, name: str
) -> None:
    if certificate.public_key() != key.public_key():
        raise EnrolmentRefused(
            "the certificate is not of this device's key", "make a new request here, and have that one signed"
        )
    if common_name(certificate) != name:
        raise EnrolmentRefused(
            f"the certificate is of '{common_name(certificate)}', and this device is '{name}'",
            "give the device the name that it was enrolled with",
        )
    if not any(_issued(certificate, one) for one in authorities):
        raise EnrolmentRefused("the certificate is not of the authority beside it", "ask whoever runs the fleet")
    now = datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise EnrolmentRefused(
            f"the certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d} until "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}, and the clock here says {now:%Y-%m-%d}",
            "set the clock, and try again",
        )


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
