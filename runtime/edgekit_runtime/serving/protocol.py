"""One connection: bytes into requests, responses into bytes, and every bound on what a stranger may send.

httptools (llhttp) parses and refuses what is ambiguous: two lengths, a length beside chunks, folded or bare lines. What
it leaves to us is here: bounds on head, body and time, one `Host`, no other transfer coding than chunked, HTTP/1.0 and
1.1. A request that breaks a rule is answered with its status; then the connection ends, as nothing behind it can be
trusted.

Requests of one connection are answered in their order, a few in a turn of the event loop, so that a pipelining client
does not keep the others waiting. A client that does not read its answers is not read from.

It is long because it is one state machine: its parser, its clock and its answers turn the same dozen flags.

Source: RFC 9112 (HTTP/1.1), sections 2.2, 3.2, 6, 9; RFC 9110, section 10.1.1 (Expect).
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from edgekit_runtime.config import Serve
from edgekit_runtime.serving import message
from edgekit_runtime.serving.loop import Loop
from edgekit_runtime.serving.message import Later, Request, Response
from edgekit_runtime.serving.metrics import Traffic
from edgekit_runtime.serving.transport import Transport

BUFFER_BYTES: Final = 32 * 1024
"""Read in one call, and so a bound on what a connection holds beyond its limits."""
TURN_REQUESTS: Final = 16
"""Requests of one connection that are answered before the event loop looks at the others."""
KNOWN_HEADS: Final = 256
KNOWN_HEAD_BYTES: Final = 1024
"""So many heads, of at most so many bytes, are known again."""
TARGET_MAX_BYTES: Final = 4096
HEAD_MAX_LINES: Final = 256
LINGER_S: Final = 2.0
"""How long a connection that we end is still read: closing over unread bytes would destroy the last answer."""

_ONCE: Final = frozenset(
    {b"host", b"expect", b"content-type", b"content-encoding", b"transfer-encoding", b"inference-header-content-length"}
)
"""Headers that mean nothing twice (llhttp itself refuses a second Content-Length)."""


class _Refused(Exception):
    """Of a head that is refused nothing more is parsed: a stranger pays for it with one turn's work at most."""


class Head(NamedTuple):
    """What a request of HTTP/1.1 says before its body, where the connection stays open behind it."""

    method: str
    target: bytes
    headers: dict[bytes, bytes]
    body_bytes: int


class Connections:
    """Every open connection, and what they share.

    Args:
        loop: Who watches their sockets.
        answer: Answers one request; it does not raise.
        settings: The limits.
        traffic: What is counted of them.
    """

    def __init__(self, loop: Loop, answer: Callable[[Request], Response], settings: Serve, traffic: Traffic) -> None:
        self.loop, self.answer, self.settings, self.traffic = loop, answer, settings, traffic
        self.open: set[Connection] = set()
        # One for all: a connection's bytes are parsed before another's are read.
        self.bytes = bytearray(BUFFER_BYTES)
        self.buffer = memoryview(self.bytes)
        self.heads: dict[bytes, Head] = {}
        """By their bytes: what was parsed under these settings."""

    def adopt(self, settings: Serve) -> None:
        """Other limits, for the next connections."""
        if settings is not self.settings:
            self.settings = settings
            self.heads.clear()

    def accept(self, opened: socket.socket) -> None:
        """A client is there."""
        Connection(self, Transport(self.loop, opened, self.buffer))

    def expire(self) -> None:
        """Ends what is overdue."""
        now = time.perf_counter()
        for connection in list(self.open):
            connection.expire(now)

    def drain(self) -> None:
        """Ends idle connections now, and the others with their next answer."""
        self.traffic.draining = True
        for connection in list(self.open):
            connection.drain()

    def abort(self) -> None:
        """Ends them all at once."""
        for connection in list(self.open):
            connection.abort()


class Connection:
    """One connection, the user of its transport."""

    def __init__(self, shared: Connections, transport: Transport) -> None:
        self._shared, self._settings, self._transport = shared, shared.settings, transport
        self._parser = HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bytes]] = deque()
        """Requests to answer, each with the `Connection` line of its answer."""
        self._refusal: Response | None = None
        """Ends the connection, behind the answers that wait."""
        self._now = self._since = time.perf_counter()
        """When bytes came last; when the request under way began, or the last one ended."""
        self._within = self._in_head = self._busy = False
        self._awaiting = False
        """An answer is on its way from another thread."""
        self._writable, self._paused = True, False
        self._last = self._ended = False
        """No request is taken any more; the last answer is written."""
        self._target, self._headers, self._body = b"", dict[bytes, bytes](), list[bytes]()
        self._method, self._version = b"", ""
        self._head_bytes = self._head_lines = self._body_bytes = self._raw_bytes = 0
        self._continue = False
        transport.start(self)
        shared.open.add(self)
        shared.traffic.accepted += 1
        shared.traffic.open += 1
        if len(shared.open) > 2 * self._settings.max_connections:
            self._transport.abort()
        elif len(shared.open) > self._settings.max_connections:
            self._refuse(503, "too many connections", b"retry-after: 1\r\n")
            self._serve()

    # --- the transport's side ---------------------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection is gone."""
        self._shared.open.discard(self)
        self._shared.traffic.open -= 1
        self._set_busy(False)
        self._waiting.clear()
        self._last = self._ended = True
        # It refers to us: without the collector of cycles, both would stay.
        del self._parser

    def received(self, bytes_: int) -> None:
        """Bytes came."""
        if self._last:
            return
        self._now = time.perf_counter()
        if self._within or self._waiting:
            self._feed(self._shared.buffer[:bytes_])
        else:
            self._begin(bytes_)
        if not self._within:
            self._since = self._now
        else:
            # httptools keeps an unfinished line for itself, of any length; sizes, extensions and trailers of chunks
            # are nobody's. Up to a buffer of these bytes may belong to an earlier request.
            self._raw_bytes += bytes_
            most = self._settings.max_head_bytes if self._in_head else self._settings.max_request_bytes
            if self._raw_bytes > most + BUFFER_BYTES:
                self._refuse_head() if self._in_head else self._refuse_body()
        self._serve()

    def ended(self) -> bool:
        """The client sends no more; it may still read."""
        if self._within and not self._last:
            self._refuse(400, "the request ended before it was whole")
        self._last = True
        self._serve()
        return bool(self._waiting) or self._awaiting

    def full(self) -> None:
        """The client does not read its answers."""
        self._writable = False
        self._since = time.perf_counter()

    def emptied(self) -> None:
        """It reads again."""
        self._writable = True
        self._serve()

    # --- time -------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Ends the connection where it is overdue at `now`."""
        age, transport, timeout = now - self._since, self._transport, self._settings.request_timeout_s
        if transport.unsent_bytes:  # the client does not read what it asked for
            if age > timeout:
                transport.abort()
        elif self._ended or transport.closing:
            if age > LINGER_S:
                transport.abort()
        elif self._within:
            if age > timeout:
                self._refuse(408, f"the request was not whole after {timeout:g} s")
                self._serve()
        elif age > self._settings.idle_timeout_s and not self._waiting and not self._awaiting:
            transport.close()

    def drain(self) -> None:
        """Ends the connection, now where it is idle, else with the next answer."""
        if not (self._within or self._waiting or self._awaiting or self._ended):
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    # --- httptools' side --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._since = self._now
        self._within = self._in_head = True
        self._target, self._headers, self._body = b"", {}, []
        self._head_bytes = self._head_lines = self._body_bytes = self._raw_bytes = 0

    def on_url(self, url: bytes) -> None:
        """The target, or a part of it."""
        self._target += url
        if len(self._target) > TARGET_MAX_BYTES:
            self._refuse(414, f"the target of a request has at most {TARGET_MAX_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head, or a trailer, which means nothing here."""
        if not self._in_head:
            return
        self._head_bytes += len(name) + len(value) + 4
        self._head_lines += 1
        if self._head_bytes > self._settings.max_head_bytes:
            self._refuse_head()
        if self._head_lines > HEAD_MAX_LINES:
            self._refuse(431, f"the head of a request has at most {HEAD_MAX_LINES} lines")
        if self._refusal is not None:
            raise _Refused
        name, value = name.lower(), value.strip()
        before = self._headers.get(name)
        if before is not None:
            if name in _ONCE:
                self._refuse(400, f"the header '{name.decode('latin-1')}' comes twice")
            value = before + b", " + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._raw_bytes = False, 0
        headers = self._headers
        self._method, self._version = self._parser.get_method(), self._parser.get_http_version()
        version = self._version
        if version == "1.1":
            if b"host" not in headers:
                self._refuse(400, "a request of HTTP/1.1 has the header 'Host'")
        elif version != "1.0":
            self._refuse(505, "this server speaks HTTP/1.1")
        if self._method == b"CONNECT":
            self._refuse(501, "this server is no proxy")
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if version == "1.0":
                self._refuse(400, "HTTP/1.0 has no transfer codings")
            elif coding.lower() != b"chunked":
                self._refuse(501, "this server knows the transfer coding 'chunked'")
        if int(headers.get(b"content-length", b"0")) > self._settings.max_request_bytes:
            self._refuse_body()
        expected = headers.get(b"expect")
        if expected is not None:
            if expected.lower() != b"100-continue":
                self._refuse(417, "this server knows the expectation '100-continue'")
            self._continue = version == "1.1"
        if not self._busy and self._shared.traffic.busy >= self._settings.max_concurrent:
            self._refuse(503, "too many requests at once", b"retry-after: 1\r\n")
        self._set_busy(True)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._settings.max_request_bytes:
            self._refuse_body()
        elif self._refusal is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if b"upgrade" in self._headers and self._parser.should_upgrade() and self._refusal is None:
            return
        self._within = self._in_head = self._continue = False
        if self._refusal is not None:
            return
        body = self._body
        if not self._parser.should_keep_alive():
            line, self._last = message.CLOSE, True
        else:
            line = b"" if self._version == "1.1" else message.KEEP_ALIVE
        whole = body[0] if len(body) == 1 else b"".join(body)
        local, woke = self._transport.local, self._shared.loop.woke
        request = Request(self._method.decode(), self._target, self._headers, whole, self._since, local, woke)
        self._waiting.append((request, line))
        self._body = []

    # --- between them -----------------------------------------------------------------------------------------------

    def _begin(self, bytes_: int) -> None:
        """Takes the first bytes of a request, mostly the whole of it.

        A client sends the same head again and again: one that is known, byte for byte, and has its body behind it and
        nothing else, is not parsed again.
        """
        shared, settings = self._shared, self._settings
        end = shared.bytes.find(b"\r\n\r\n", 0, min(bytes_, KNOWN_HEAD_BYTES)) + 4
        head = bytes(shared.buffer[:end])
        known = shared.heads.get(head)
        if (
            known is not None
            and end + known.body_bytes == bytes_
            and settings is shared.settings
            and shared.traffic.busy < settings.max_concurrent
        ):
            self._set_busy(True)
            body = bytes(shared.buffer[end:bytes_])
            local, woke = self._transport.local, shared.loop.woke
            request = Request(known.method, known.target, known.headers, body, self._now, local, woke)
            self._waiting.append((request, b""))
            return
        self._feed(shared.buffer[:bytes_])
        if len(self._waiting) != 1 or self._within or self._last or self._refusal is not None:
            return
        request, line = self._waiting[0]
        if end > 4 and end + len(request.body) == bytes_ and not line and settings is shared.settings:
            if len(shared.heads) == KNOWN_HEADS:
                shared.heads.clear()
            shared.heads[head] = Head(request.method, request.target, request.headers, len(request.body))

    def _feed(self, data: memoryview) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                if self._refusal is not None:
                    return
                # "A server MAY ignore a received Upgrade header field" (RFC 9110, section 7.8). httptools stops behind
                # such a head, whatever body follows; it gets the head again, without the field.
                lines = [(name, value) for name, value in self._headers.items() if name != b"upgrade"]
                head = b"%b %b HTTP/%b\r\n" % (self._method, self._target, self._version.encode())
                head += b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"
                data = memoryview(head + bytes(data[upgrade.args[0] :]))
                self._parser = HttpRequestParser(self)
            except HttpParserError as fault:
                # Bytes behind the last request of a connection are nobody's.
                if not self._last:
                    self._refuse(400, f"not a request of HTTP/1.1: {fault}")
                return

    def _refuse(self, status: int, sentence: str, headers: bytes = b"") -> None:
        if self._refusal is None:
            self._refusal = message.error(status, sentence, headers)

    def _refuse_head(self) -> None:
        self._refuse(431, f"the head of a request has at most {self._settings.max_head_bytes:,} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, f"a request has at most {self._settings.max_request_bytes:,} bytes")

    def _serve(self) -> None:
        """Answers what waits."""
        waiting, turn = self._waiting, TURN_REQUESTS
        if self._awaiting:
            return
        while waiting and self._writable and not self._ended and not self._transport.closing:
            if not turn:
                self._pause()
                self._shared.loop.soon(self._serve)
                return
            turn -= 1
            request, line = waiting.popleft()
            response = self._shared.answer(request)
            if isinstance(response, Later):
                self._await(response, request, line)
                return
            self._respond(request, response, line)
        if self._ended or self._transport.closing:
            return
        if waiting:
            self._pause()
        elif self._refusal is not None:
            without_body = bool(self._target) and self._parser.get_method() == b"HEAD"
            self._write(self._refusal, message.CLOSE, without_body=without_body)
            self._end()
        elif self._last:
            self._transport.close()
        else:
            if self._paused:
                self._paused = False
                self._transport.resume()
            if not self._within:
                self._set_busy(False)
            elif self._continue and not self._body_bytes:
                self._continue = False
                self._transport.write(message.CONTINUE)

    def _respond(self, request: Request, response: Response, line: bytes) -> None:
        if self._shared.traffic.draining and not self._waiting and not self._within:
            line = message.CLOSE
        self._write(response, line, without_body=request.method == "HEAD")
        if line is message.CLOSE:
            self._end()

    def _await(self, later: Later, request: Request, line: bytes) -> None:
        """Answers when the answer is there; what the client sends behind it waits."""

        def answered() -> None:
            self._awaiting = False
            self._since = time.perf_counter()
            if not self._transport.closing:
                self._respond(request, later.future.result(), line)
                self._serve()

        self._awaiting = True
        self._pause()
        later.future.add_done_callback(lambda _done: self._shared.loop.from_thread(answered))

    def _write(self, response: Response, line: bytes, *, without_body: bool = False) -> None:
        self._shared.traffic.responses[response.status] += 1
        self._transport.write(message.to_bytes(response, connection=line, without_body=without_body))

    def _pause(self) -> None:
        if not self._paused and not self._transport.closing:
            self._paused = True
            self._transport.pause()

    def _end(self) -> None:
        """Says that no more comes, and reads on until the client has understood; `expire` sees to it that it does."""
        self._last = self._ended = True
        self._within = False
        self._since = time.perf_counter()
        self._waiting.clear()
        self._set_busy(False)
        if self._transport.closing:
            return
        if self._paused:
            self._paused = False
            self._transport.resume()
        self._transport.write_end()

    def _set_busy(self, busy: bool) -> None:
        if busy is not self._busy:
            self._busy = busy
            self._shared.traffic.busy += 1 if busy else -1
