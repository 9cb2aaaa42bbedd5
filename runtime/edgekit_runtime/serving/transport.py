"""Sockets on the loop: one that accepts, and those that it accepted, which are read and written without waiting."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Final, Protocol

from edgekit_runtime.serving.loop import READ, WRITE, Loop, Watcher

FULL_BYTES: Final = 64 * 1024
"""So much that the client has not read yet, and the user is told to write no more."""
EMPTY_BYTES: Final = 16 * 1024
"""So little, and it may write again."""
ACCEPT_AT_ONCE: Final = 64

_log = logging.getLogger("edgekit.serving")


class User(Protocol):
    """Who reads from a transport and writes to it."""

    def received(self, bytes_: int) -> None:
        """So many bytes lie in the shared buffer."""

    def ended(self) -> bool:
        """The client sends no more; whether it is still written to."""
        ...

    def full(self) -> None:
        """The client does not read."""

    def emptied(self) -> None:
        """It reads again."""

    def lost(self) -> None:
        """The connection is gone; called once, last of all."""


class Transport(Watcher):
    """One connection's socket.

    Args:
        loop: Who watches it.
        opened: The connected socket; it is closed here.
        buffer: Where bytes are read into; the next connection's overwrite them.
    """

    def __init__(self, loop: Loop, opened: socket.socket, buffer: memoryview) -> None:
        self._loop, self._socket, self._buffer = loop, opened, buffer
        self._unsent = bytearray()
        self._events = 0
        self._user: User
        self._full = self._sends_end = self._gone = False
        self.closing = False
        """Whether it ends: nothing is read any more, and nothing more is taken to write."""
        opened.setblocking(False)
        self.local = opened.family == socket.AF_UNIX
        """Whether it is a Unix socket."""
        if not self.local:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self, user: User) -> None:
        """Has `user` called from now on."""
        self._user = user
        if not self.closing:
            self._watch(READ)

    @property
    def unsent_bytes(self) -> int:
        """What the client has not read, and the system did not take."""
        return len(self._unsent)

    def write(self, data: bytes) -> None:
        """Sends, now where the system takes it, else behind what waits."""
        if self.closing:
            return
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._watch(self._events | WRITE)
        self._unsent += data
        if len(self._unsent) > FULL_BYTES and not self._full:
            self._full = True
            self._user.full()

    def write_end(self) -> None:
        """Tells the client, behind what waits, that no more comes. The other way stays open."""
        self._sends_end = True
        if not self._unsent:
            self._send_end()

    def pause(self) -> None:
        """Reads no more."""
        self._watch(self._events & ~READ)

    def resume(self) -> None:
        """Reads again."""
        if not self.closing:
            self._watch(self._events | READ)

    def close(self) -> None:
        """Ends the connection behind what waits to be sent."""
        if self.closing:
            return
        self.closing = True
        self.pause()
        if not self._unsent:
            self._loop.soon(self._lose)

    def abort(self) -> None:
        """Ends the connection; what waits is not sent."""
        self._unsent.clear()
        self.closing = True
        self._watch(0)
        self._loop.soon(self._lose)

    def readable(self) -> None:
        """The loop's call: bytes, or the end."""
        if self.closing:
            return
        try:
            bytes_ = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:  # the client has broken off
            self.abort()
            return
        if bytes_:
            self._user.received(bytes_)
            return
        self.pause()
        if not self._user.ended():
            self.close()

    def writable(self) -> None:
        """The loop's call: room for what waits."""
        if self._gone or not self._unsent:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._watch(self._events & ~WRITE)
            if self.closing:
                self._loop.soon(self._lose)
            elif self._sends_end:
                self._send_end()
        if self._full and len(self._unsent) <= EMPTY_BYTES:
            self._full = False
            self._user.emptied()

    def failed(self) -> None:
        """The loop's call: an error of ours."""
        self.abort()

    def _watch(self, events: int) -> None:
        if events != self._events and not self._gone:
            self._events = events
            self._loop.watch(self._socket, self, events)

    def _send_end(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the client has gone
            self.abort()

    def _lose(self) -> None:
        if self._gone:
            return
        self._watch(0)
        self._gone = True
        self._socket.close()
        self._user.lost()
        del self._user  # it refers to us: without the collector of cycles, both would stay


class Listener(Watcher):
    """A socket that accepts.

    Args:
        loop: Who watches it.
        opened: The listening socket; it is closed here.
        accepted: Called with each new connection's socket.
    """

    def __init__(self, loop: Loop, opened: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        self._loop, self._socket, self._accepted = loop, opened, accepted
        opened.setblocking(False)
        loop.watch(opened, self, READ)

    def readable(self) -> None:
        """The loop's call: clients wait."""
        for _ in range(ACCEPT_AT_ONCE):
            try:
                opened, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor or no memory is left for it. It waits, and would have us called again and again.
                _log.error("a connection waits: %s", error.strerror or error)
                self._loop.watch(self._socket, self, 0)
                return
            self._accepted(opened)

    def resume(self) -> None:
        """Accepts again where a lack had it stop."""
        self._loop.watch(self._socket, self, READ)

    def close(self) -> None:
        """Accepts no more."""
        self._loop.watch(self._socket, self, 0)
        self._socket.close()
