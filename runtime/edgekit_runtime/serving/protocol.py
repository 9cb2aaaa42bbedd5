"""uvicorn's HTTP protocol, with a limit on a request's head and a deadline on the whole of it.

httptools collects headers without a bound, and a client may send a byte a minute: neither may cost the device its
memory or its sockets. Such a connection is closed; there is nothing to answer to.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgekit_contracts.limits import REQUEST_HEAD_MAX_BYTES, REQUEST_MAX_S


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Idle ones are closed by uvicorn's keep-alive time-out."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._head_bytes = 0
        self._in_head = True
        self._deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Counts what comes before the head is whole, and gives each request its time."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_MAX_S, self.transport.close)
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > REQUEST_HEAD_MAX_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request's first line."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; the next one's head may begin."""
        self._in_head, self._head_bytes = True, 0
        self._forget_deadline()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
