"""A request and a response as values, and a response's bytes.

No `Date` is sent: a device's clock may never have been set, and "an origin server without a clock ... MUST NOT generate
a Date header field" (RFC 9110, section 6.6.1).
"""

from __future__ import annotations

from concurrent.futures import Future
from http import HTTPStatus
from typing import Final

import msgspec

JSON: Final = b"application/json"


class Request(msgspec.Struct, frozen=True, gc=False):
    """One whole request."""

    method: str
    target: bytes
    """As the client wrote it: path and query, percent-encoded."""
    headers: dict[bytes, bytes]
    """By name in lower case."""
    body: bytes
    started: float
    """`time.perf_counter()` when its first byte arrived."""
    local: bool = False
    """Whether it came over the Unix socket."""
    whole: float | None = None
    """When its last byte was there, at the latest; None: with its first."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """One answer."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: bytes = b""
    """Further lines of the head, each with its CRLF."""


class Later(Response, frozen=True, kw_only=True):
    """An answer that is not there yet: its connection waits, the others do not."""

    future: Future[Response]


def error(status: int, sentence: str, headers: bytes = b"") -> Response:
    """The error object of the Open Inference Protocol, with a status."""
    return Response(status, msgspec.json.encode({"error": sentence}), headers=headers)


def to_bytes(response: Response, *, connection: bytes = b"", without_body: bool = False) -> bytes:
    """What goes over the wire.

    Args:
        response: The answer.
        connection: `CLOSE`, `KEEP_ALIVE` or nothing, which is HTTP/1.1's own way to keep a connection.
        without_body: The answer to HEAD: the same head, no body.
    """
    body = response.body
    return b"".join(
        (
            _STATUS_LINES[response.status],
            response.content_type,
            b"\r\ncontent-length: ",
            str(len(body)).encode(),
            b"\r\n",
            response.headers,
            connection,
            b"\r\n",
            b"" if without_body else body,
        )
    )


CLOSE: Final = b"connection: close\r\n"
KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
"""For HTTP/1.0, where a client must be told."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: ".encode() for status in HTTPStatus
}
