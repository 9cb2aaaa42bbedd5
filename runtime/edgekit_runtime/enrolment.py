"""Asking the fleet's authority for a certificate: with a token at first, with the certificate in force later.

At first contact nothing is trusted: the authority's certificate is fetched, and counts only if its SHA-256 is the one
in the token. Everything after goes over TLS that this certificate vouches for. The token is not sent before that.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import socket
import ssl
import threading
from typing import Final
from urllib.parse import urlsplit

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json, encode_json
from edgekit_contracts.enrolment import (
    AUTHORITY_PATH,
    ENROL_PATH,
    RENEW_PATH,
    Refusal,
    Request,
    Token,
    decode_grant,
)
from edgekit_contracts.errors import AuthorityUnreachable, EdgekitError, EnrolmentRefused, UsageError
from edgekit_runtime.identity import Identity, authority_of, signing_request
from edgekit_runtime.tls import client_context, explain

PORT: Final = 8884
TIMEOUT_S: Final = 30.0
"""Of one exchange, from the first byte to the last."""


class Address(msgspec.Struct, frozen=True):
    """Where the enrolment service is."""

    host: str
    port: int = PORT

    def __str__(self) -> str:
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """Reads `https://HOST[:PORT]`.

        Raises:
            UsageError: No such address.
        """
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            plain = parts.username is None and parts.path in {"", "/"} and not parts.query and not parts.fragment
            if parts.scheme == "https" and parts.hostname and plain:
                return cls(parts.hostname, parts.port or PORT)
        raise UsageError(f"'{url}' is not an enrolment service's address", f"write https://HOST:{PORT}")


def enrol(address: Address, token: Token, identity: Identity, name: str) -> datetime.datetime:
    """Gets a device its first certificate, and puts it in force.

    Returns:
        Until when it is valid.

    Raises:
        AuthorityUnreachable: No service answers there.
        EnrolmentRefused: It is another authority's, or it refuses; nothing has changed.
        StorageFault: The files cannot be written.
    """
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    authority = authority_of(token, _exchange(address, unchecked, "GET", AUTHORITY_PATH))
    if authority is None:
        raise EnrolmentRefused(
            f"the service at {address} is not of the authority that the token names",
            "check the address; if it is right, somebody stands between: do not go on",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authority)
    request = Request(csr=signing_request(identity.next_key(), name), token=str(token))
    grant = decode_grant(_exchange(address, context, "POST", ENROL_PATH, encode_json(request)))
    return identity.install(grant, name, authority=token.authority).not_valid_after_utc


def renew(address: Address, identity: Identity, name: str) -> datetime.datetime:
    """Gets a device its next certificate, of a new key, on the strength of the one in force.

    Returns:
        Until when it is valid.

    Raises:
        AuthorityUnreachable, EnrolmentRefused, StorageFault: As `enrol`.
    """
    context = client_context(identity.ca, identity.path)
    request = Request(csr=signing_request(identity.next_key(), name))
    grant = decode_grant(_exchange(address, context, "POST", RENEW_PATH, encode_json(request), identity))
    return identity.install(grant, name).not_valid_after_utc


def _exchange(
    address: Address,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: bytes | None = None,
    identity: Identity | None = None,
) -> bytes:
    connection = http.client.HTTPSConnection(address.host, address.port, context=context, timeout=TIMEOUT_S)
    late = threading.Timer(TIMEOUT_S, _cut, (connection,))
    late.daemon = True
    late.start()
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        said = response.read(limits.ENROLMENT_MAX_BYTES + 1)
        status = response.status
    except ssl.SSLError as error:
        ours = None if identity is None else identity.path
        raise AuthorityUnreachable(str(address), explain(str(error), ours)) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AuthorityUnreachable(str(address), reason) from error
    finally:
        late.cancel()
        connection.close()
    if status == http.client.OK:
        return said
    try:
        refusal = decode_json(said, Refusal, what="refusal", limit=limits.ENROLMENT_MAX_BYTES)
    except EdgekitError as error:
        raise AuthorityUnreachable(
            str(address), f"it answers with status {status}, and says nothing of ours"
        ) from error
    raise EnrolmentRefused(_printable(refusal.error), _printable(refusal.next_step))


def _printable(text: str) -> str:
    """What somebody on the way may have written; it must not steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _cut(connection: http.client.HTTPSConnection) -> None:
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
