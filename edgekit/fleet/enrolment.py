"""Who gets a certificate: one for each token, the next one for each that is in force, or whom a person signs for.

A token is good once. The answer to a device may be lost, so the same token with the same key gets the same certificate
again; with another key it gets nothing.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import secrets
import time
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from edgekit.fleet.authority import DEVICE_DAYS, Authority
from edgekit.fleet.certificates import key_digest, read_request
from edgekit.fleet.register import How, Issued, Ticket
from edgekit_contracts.enrolment import SECRET_BYTES, Grant, Request, Token
from edgekit_contracts.errors import AuthorityRefused, EnrolmentRefused, UsageError
from edgekit_contracts.names import check_holder

_NEXT: Final = "get a new one: edgekit fleet enrol token DEVICE"


def new_token(authority: Authority, name: str, life: datetime.timedelta, days: int = DEVICE_DAYS) -> Token:
    """Makes a token that is good for one certificate of `name`.

    Args:
        authority: Keeps what is needed to know it again.
        name: A device, `collector.NAME` or `app.NAME`.
        life: How long the token is good.
        days: Life of the certificate.

    Raises:
        UnknownName: The name may not stand in a certificate.
    """
    token = Token(authority.fingerprint, secrets.token_bytes(SECRET_BYTES))
    now_ms = _now_ms()
    expires_ms = now_ms + round(life.total_seconds() * 1000)
    authority.register.add_ticket(Ticket(_digest(token.secret), check_holder(name), days, now_ms, expires_ms))
    return token


def grant_for_token(authority: Authority, request: Request) -> Grant:
    """A certificate for a token.

    Raises:
        EnrolmentRefused, AuthorityRefused, UnknownName: And why.
    """
    name, key = read_request(request.csr)
    try:
        token = Token.parse(request.token or "")
    except UsageError as error:
        raise EnrolmentRefused(error.sentence, error.next_step) from error
    digest, now_ms, wanted = _digest(token.secret), _now_ms(), key_digest(key)
    with authority.register.writing():
        # Every one is compared, in constant time: how long it takes says nothing.
        found = [one for one in authority.register.tickets(name) if hmac.compare_digest(one.digest, digest)]
        if not found:
            raise EnrolmentRefused(f"the token is not good for a certificate of '{name}'", _NEXT)
        (ticket,) = found
        if ticket.serial is not None:
            issued = authority.register.by_serial(ticket.serial)
            if issued is None or not hmac.compare_digest(issued.key, wanted) or not issued.good(now_ms):
                raise EnrolmentRefused("the token was used before", f"{_NEXT}; if it was not you, revoke '{name}'")
        elif ticket.expires_ms <= now_ms:
            raise EnrolmentRefused("the token has expired", _NEXT)
        else:
            issued = authority.issue(name, key, ticket.days, "token")
            authority.register.use(ticket, issued.serial, now_ms)
    return _grant(authority, issued)


def grant_for_certificate(authority: Authority, request: Request, shown: bytes) -> Grant:
    """The next certificate for one that is in force, of the same life.

    Args:
        authority: Who issued it.
        request: The new key.
        shown: The certificate in DER; TLS has seen that its holder has its key.

    Raises:
        EnrolmentRefused, AuthorityRefused, UnknownName: And why.
    """
    name, key = read_request(request.csr)
    old = x509.load_der_x509_certificate(shown)
    with authority.register.writing():
        issued = authority.register.by_serial(f"{old.serial_number:x}")
        if issued is None or not issued.good(_now_ms()):
            raise EnrolmentRefused("the certificate in force was revoked", "have the device enrolled with a new token")
        if issued.name != name:
            raise EnrolmentRefused(
                f"a certificate of '{issued.name}' does not speak for '{name}'", "ask for the name that you have"
            )
        days = max(1, (old.not_valid_after_utc - old.not_valid_before_utc).days)
        return _grant(authority, authority.issue(name, key, days, "renewal"))


def sign_request(authority: Authority, csr: str, name: str | None, days: int = DEVICE_DAYS) -> tuple[str, Grant]:
    """A certificate for a request that a person has carried here.

    Args:
        authority: Signs.
        csr: The request, in PEM.
        name: Whom it must name; None: whom it names.
        days: Life of the certificate.

    Returns:
        The name, and what to carry back.

    Raises:
        AuthorityRefused, UnknownName: It is no request, or another's.
    """
    found, key = read_request(csr)
    if name is not None and found != name:
        raise AuthorityRefused(f"the request is of '{found}', not of '{name}'", "make sure that it is the right file")
    return found, _grant(authority, issue(authority, found, key, days, "request"))


def issue(authority: Authority, name: str, key: CertificatePublicKeyTypes, days: float, how: How) -> Issued:
    """Issues one certificate in a transaction of its own; errors as `Authority.issue`."""
    with authority.register.writing():
        return authority.issue(name, key, days, how)


def _grant(authority: Authority, issued: Issued) -> Grant:
    return Grant(certificate=issued.pem.decode(), authority=authority.pem.decode())


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
