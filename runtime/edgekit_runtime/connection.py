"""paho's client with a loop of its own: bytes come and go in large pieces, and one thread alone writes.

paho asks the system four times for the bytes of one message, once more whether there is one, and again for each
acknowledgement; each time Python's lock goes to whoever waits for it. Here a piece of 256 KiB is read, and paho takes
its bytes from that; and what paho sends is written once a turn. The loop is what paho documents for programs that have
one (`loop_read`, `loop_write`, `loop_misc`, `want_write`). Only `_sock_recv`, `_sock_send` and `_in_packet` are no
documented names: should a later paho not ask the first two, it reads and writes for itself, and this is a plain loop.

Small messages go out at once (TCP_NODELAY): an answer behind the acknowledgement of its request would wait, some 40 ms,
until the broker confirms that on the level of TCP.

What a busy connection is made of, messages that come and acknowledgements that go, does not reach paho (`packets`): it
takes whole messages of MQTT 3.1.1 out of the piece, as long as somebody wants them so (`on_delivery`), and writes whole
packets that others made (`say`). paho reads and writes whatever else there is, between them.

In paho's own loop a message that another thread publishes is written by that thread, beside what the loop writes. When
the system takes only a part of one, the other may come in between; two threads in one TLS connection break it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as paho

from edgekit_runtime.packets import Delivery, read_publish

PIECE_BYTES: Final = 262_144
"""Read at once, and kept unsent at most."""
FAREWELL_S: Final = 1.0
"""How long a connection that ends waits for the system to take the rest."""
PACKETS_IN_A_TURN: Final = 256
"""Read before what waits is written."""

Meter = Callable[[int, int], None]
"""Takes bytes sent and bytes received; of MQTT: inside TLS, where there is TLS."""


class Connection(paho.Client):
    """One connection; other threads may publish and acknowledge.

    Args:
        meter: Called for each piece that went out or came in, on the loop's thread.
        arguments: paho's.
        named: paho's.
    """

    def __init__(self, meter: Meter, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._meter = meter
        self._piece, self._taken = b"", 0
        self._unsent = bytearray()
        self._said: deque[bytes] = deque()
        self.on_delivery: Callable[[Delivery], None] | None = None
        """Told of messages, where the connection speaks MQTT 3.1.1: of most of them, and `on_message` of the others."""
        self._poll = select.poll()
        # Another thread writes into the second, and `poll` returns for the first.
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self.on_socket_open = self._opened
        self.on_socket_register_write = self._interrupt
        self.on_socket_close = self._finish

    def turn(self, timeout_s: float = 1.0) -> bool:
        """Waits for something to do, and does it; False: the connection has ended."""
        sock: Any = self.socket()
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)
            self._poll.register(self._ends[0], select.POLLIN)
        try:
            # Closed by another thread, it has no number any more.
            waits = self.want_write() or self._unsent or self._said
            self._poll.register(sock, select.POLLIN | (select.POLLOUT if waits else 0))
        except (TypeError, ValueError):
            return False
        ready = dict(self._poll.poll(0 if self._waiting(sock) else 1000 * timeout_s))
        woken = self._ends[0].fileno() in ready
        if woken:
            with contextlib.suppress(BlockingIOError):
                self._ends[0].recv(4096)
        if ready.get(sock.fileno(), 0) & ~select.POLLOUT or self._waiting(sock):
            for _ in range(PACKETS_IN_A_TURN):
                if not self._deliver() and (self.loop_read() != paho.MQTT_ERR_SUCCESS or self.socket() is None):
                    return False
                if not self._waiting(sock):
                    break
        while self._said:  # before paho's, for that may be the farewell
            self._unsent += self._said.popleft()
        # Also where nothing is left to write: paho wakes us once, and again only after it has written. Whoever queues a
        # message that is written before he wakes us would else be the last to do so, and the next one wait for a turn.
        if (woken or self.want_write()) and self.loop_write() != paho.MQTT_ERR_SUCCESS:
            return False
        alive = self.loop_misc() == paho.MQTT_ERR_SUCCESS and self.socket() is not None
        if alive:
            self._flush(sock)
        return alive

    def say(self, packets: bytes) -> None:
        """Has whole packets written that paho need not know of; any thread may."""
        self._said.append(packets)
        self._interrupt()

    def close(self) -> None:
        """Gives back what the loop needed; the connection has ended."""
        for end in self._ends or ():
            end.close()

    def _waiting(self, sock: Any) -> bool:
        """Whether bytes are here already: read by us, or by TLS."""
        return self._taken < len(self._piece) or bool(hasattr(sock, "pending") and sock.pending())

    def _deliver(self) -> bool:
        """Takes a message out of the piece; False: what stands there, if anything, is paho's to read."""
        if self.on_delivery is None or self._taken >= len(self._piece) or self._in_packet["command"]:
            return False
        found = read_publish(self._piece, self._taken)
        if found is None:
            return False
        self._taken = found.end
        self.on_delivery(found)
        return True

    def _opened(self, _client: paho.Client, _user: object, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _interrupt(self, *_: object) -> None:
        if self._ends is not None:
            with contextlib.suppress(OSError):
                self._ends[1].send(b"w")

    def _sock_recv(self, bufsize: int) -> bytes:
        start = self._taken
        if start >= len(self._piece):
            self._piece, self._taken = b"", 0
            piece = super()._sock_recv(PIECE_BYTES)
            self._meter(0, len(piece))
            if len(piece) <= bufsize:
                return piece
            self._piece, start = piece, 0
        found = self._piece[start : start + bufsize]
        self._taken = start + len(found)
        return found

    def _sock_send(self, buf: bytes | bytearray) -> int:
        if len(self._unsent) >= PIECE_BYTES:
            self._flush(self.socket())
            if len(self._unsent) >= PIECE_BYTES:
                raise BlockingIOError
        self._unsent += buf
        return len(buf)

    def _finish(self, _client: paho.Client, _user: object, sock: Any) -> None:
        """The farewell is among what is not sent yet."""
        with contextlib.suppress(OSError):
            sock.settimeout(FAREWELL_S)
            self._flush(sock)
            if not self._unsent:
                # A socket closed with bytes that nobody read is reset, and the farewell lost with it.
                end = time.monotonic() + FAREWELL_S
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096) and time.monotonic() < end:
                    pass

    def _flush(self, sock: Any) -> None:
        """Writes what the system takes; that the connection is broken shows when it is read from."""
        with contextlib.suppress(OSError):
            while self._unsent:
                sent = sock.send(self._unsent)
                del self._unsent[:sent]
                self._meter(sent, 0)
