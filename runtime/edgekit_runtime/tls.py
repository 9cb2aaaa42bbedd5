"""TLS as a client: at least 1.2, the server's name is checked, and what goes wrong is said in words of ours."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from edgekit_contracts.errors import StorageFault


def client_context(ca: Path | None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """What a client checks and shows.

    Args:
        ca: PEM file of the authority that the server's certificate must be of; None for the system's.
        cert: PEM file of our certificate, where the server asks for one.
        key: PEM file of its key; None where it is in `cert`.

    Raises:
        StorageFault: A file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the name in it
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(str(ca))
    except (OSError, ValueError) as error:
        raise StorageFault(str(ca), _words(error), "name the PEM file of the server's authority") from error
    if cert is None:
        return context
    try:
        context.load_cert_chain(str(cert), None if key is None else str(key), password=_no_password)
    except (OSError, ValueError) as error:
        paths = str(cert) if key in {None, cert} else f"{cert} and {key}"
        raise StorageFault(
            paths, _words(error), "name a certificate and its own key, in PEM without password"
        ) from error
    return context


def explain(fault: str, cert: Path | None) -> str:
    """Adds to what ended a TLS connection why that may be.

    A server that does not like a client's certificate says so after the handshake or, as Mosquitto does, not at all:
    it closes the connection. So the certificate is looked at here.

    Args:
        fault: What Python or OpenSSL said.
        cert: Our certificate's file, where we have shown one.
    """
    if "CERTIFICATE_VERIFY_FAILED" in fault:
        reason = fault.partition("verify failed: ")[2].partition(" (_ssl")[0] or fault
        dated = _now() if "not yet valid" in reason or "expired" in reason else ""
        return f"its certificate is refused here: {reason}{dated}"
    if "TLSV13_ALERT_CERTIFICATE_REQUIRED" in fault or "certificate required" in fault:
        return "it asks for a client's certificate, and none is set (cert, key)"
    if "EOF occurred" in fault or "ALERT" in fault or "reset by peer" in fault:
        if cert is None:
            plain = "" if "ALERT" in fault else ", or it may speak no TLS there"  # an alert is TLS
            return (
                f"it ended the TLS connection; it may ask for a client's certificate, and none is set{plain} ({fault})"
            )
        return f"it ended the TLS connection: {_of_ours(cert, fault)} ({fault})"
    return fault


def _of_ours(cert: Path, fault: str) -> str:
    from cryptography import x509  # a collector needs it for nothing else

    try:
        ours = x509.load_pem_x509_certificates(cert.read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return f"{cert} cannot be read"
    until = ours.not_valid_after_utc
    if until < datetime.datetime.now(datetime.UTC):
        return f"our certificate expired on {until:%Y-%m-%d}{_now()}"
    if "CERTIFICATE_REVOKED" in fault:
        return "our certificate is revoked"
    if "UNKNOWN_CA" in fault:
        return "our certificate is of an authority that it does not trust"
    return "our certificate may be revoked, or of an authority that it does not trust"


def _now() -> str:
    return f"; the clock here says {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"


def _words(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)


def _no_password() -> str:
    raise ValueError("the key has a password")
