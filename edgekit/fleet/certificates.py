"""The certificates themselves: an authority's, its members', and its list of what is revoked; made, and nothing kept.

Source: RFC 5280.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgekit_contracts.errors import AuthorityRefused
from edgekit_contracts.names import check_holder
from edgekit_runtime.identity import common_name

BACKDATED: Final = datetime.timedelta(hours=1)
"""So that a broker whose clock is a little behind takes a certificate of this minute."""


class Signer:
    """An authority's certificate and key.

    Args:
        certificate: Its own.
        key: That one's key.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate, self._key = certificate, key
        self._issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    @classmethod
    def create(cls, key: ec.EllipticCurvePrivateKey, name: str, days: float) -> Signer:
        """An authority that vouches for itself."""
        subject, now = _subject(name), now_utc()
        builder = _builder(subject, subject, key.public_key(), now + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        return cls(builder.sign(key, SHA256()), key)

    def client(self, name: str, key: CertificatePublicKeyTypes, days: float) -> x509.Certificate:
        """A certificate that is good for a client of that name; errors as `server`."""
        return self._member(name, key, days, ExtendedKeyUsageOID.CLIENT_AUTH).sign(self._key, SHA256())

    def server(self, hosts: tuple[str, ...], key: CertificatePublicKeyTypes, days: float) -> x509.Certificate:
        """A certificate that is good for a server with those names and addresses.

        Raises:
            AuthorityRefused: The key is too weak.
        """
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = self._member(hosts[0], key, days, ExtendedKeyUsageOID.SERVER_AUTH)
        return builder.add_extension(names, critical=False).sign(self._key, SHA256())

    def revocations(self, revoked: Iterable[tuple[int, datetime.datetime]]) -> bytes:
        """The list of what is revoked, in PEM.

        It is pushed to the broker, not fetched; and where a list has expired, OpenSSL refuses everybody. So it ends
        with the authority.

        Args:
            revoked: Serial numbers, and since when.
        """
        now = now_utc()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(self.certificate.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(self._issuer, critical=False)
        )
        for serial, since in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(one)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def _member(
        self, name: str, key: CertificatePublicKeyTypes, days: float, usage: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        _check_key(key)
        end = min(now_utc() + datetime.timedelta(days=days), self.certificate.not_valid_after_utc)
        return (
            _builder(_subject(name), self.certificate.subject, key, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(self._issuer, critical=False)
        )


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
        fault = str(error).partition(". See ")[0][:200]  # where to read about it on the web
        raise AuthorityRefused(
            f"that is no signing request in PEM: {fault}", "make one with edgekit-runtime enrol --request"
        ) from error


def key_digest(key: CertificatePublicKeyTypes) -> bytes:
    """SHA-256 of a public key."""
    digest = Hash(SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()


def now_utc() -> datetime.datetime:
    """The time in whole seconds, which is what certificates hold."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now_utc() - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


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
