"""How a device gets its certificate: a token that travels by hand, a request, and what is granted.

A token is `ek1-` and 64 characters of base64url (RFC 4648, section 5): the SHA-256 of the authority's certificate, by
which a device recognises it at first contact, and 16 random bytes that are good for one certificate. The request and
the grant are JSON; certificates and the signing request are PEM (RFC 7468, RFC 2986).
"""

from __future__ import annotations

import base64
import re
from typing import Annotated, Final, Self

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import UsageError

REQUEST_FORMAT: Final = "edgekit-enrolment-request/1.0"
GRANT_FORMAT: Final = "edgekit-enrolment-grant/1.0"

AUTHORITY_PATH: Final = "/authority.pem"
ENROL_PATH: Final = "/enrol"
RENEW_PATH: Final = "/renew"

SECRET_BYTES: Final = 16
_TOKEN: Final = re.compile(r"ek1-([A-Za-z0-9_-]{64})")

Pem = Annotated[str, msgspec.Meta(max_length=8 * limits.KIB)]


class Token(msgspec.Struct, frozen=True):
    """What lets a device ask for one certificate."""

    authority: bytes
    """SHA-256 of the authority's certificate in DER."""
    secret: bytes

    def __str__(self) -> str:
        return "ek1-" + base64.urlsafe_b64encode(self.authority + self.secret).decode()

    def __repr__(self) -> str:
        return f"Token({self.authority.hex()[:12]}, ...)"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a token.

        Raises:
            UsageError: It is none.
        """
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                "that is not an enrolment token", "give the whole text that `edgekit fleet enrol token` has printed"
            )
        data = base64.urlsafe_b64decode(match[1])
        return cls(data[:-SECRET_BYTES], data[-SECRET_BYTES:])


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a device asks with: PKCS #10, and a token unless its present certificate speaks for it."""

    format: str = REQUEST_FORMAT
    csr: Pem
    token: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What it gets."""

    format: str = GRANT_FORMAT
    certificate: Pem
    authority: Pem
    """The authority's certificate, or several of them while it is exchanged."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why it gets nothing."""

    error: Annotated[str, msgspec.Meta(max_length=512)]
    next_step: Annotated[str, msgspec.Meta(max_length=512)] = "ask whoever runs the fleet"


def decode_request(data: bytes) -> Request:
    """Reads a request.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Request, what="enrolment request", limit=limits.ENROLMENT_MAX_BYTES, format=REQUEST_FORMAT)


def decode_grant(data: bytes) -> Grant:
    """Reads a grant.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Grant, what="enrolment grant", limit=limits.ENROLMENT_MAX_BYTES, format=GRANT_FORMAT)
