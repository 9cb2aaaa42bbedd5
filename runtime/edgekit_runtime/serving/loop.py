"""The event loop: waits for sockets, and calls whom it concerns, on one thread.

asyncio could do it, at 10 us a request and, as it brings `ssl` and `concurrent.futures` along, 7 MiB (ADR 0035).
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


_log = logging.getLogger("edgekit.serving")


class Watcher:
    """Who is called about a socket. Each may be called once more behind the end of the watch."""

    def readable(self) -> None:
        """There is something to read, or to accept."""

    def writable(self) -> None:
        """There is room to write."""

    def failed(self) -> None:
        """One of these raised an error, which has been logged."""


class Loop(Watcher):
    """Calls watchers on the thread that turns it. Only `from_thread` and `stop` may be called on another."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._soon: deque[Callable[[], None]] = deque()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._selector.register(self._woken, READ, self)
        self._signals: dict[signal.Signals, Callable[[], None]] = {}
        self.stopped = False
        """Whether `stop` was called; for who turns the loop."""
        self.woke = 0.0
        """When the wait of this turn ended (`time.perf_counter()`): what is read in it had come by then."""
        self.ready = 0
        """At how many sockets it found something."""

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of what it waited for; signals are nobody's from now on."""
        if self._signals:
            signal.set_wakeup_fd(-1)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def watch(self, opened: socket.socket, watcher: Watcher, events: int) -> None:
        """Has `watcher` called about `opened` from now on.

        Args:
            opened: A socket that does not block.
            watcher: Whom to call.
            events: `READ`, `WRITE`, both or 0, which ends the watch.
        """
        if opened.fileno() not in self._selector.get_map():
            if events:
                self._selector.register(opened, events, watcher)
        elif events:
            self._selector.modify(opened, events, watcher)
        else:
            self._selector.unregister(opened)

    def soon(self, call: Callable[[], None]) -> None:
        """Has `call` called in the next turn."""
        self._soon.append(call)

    def from_thread(self, call: Callable[[], None]) -> None:
        """`soon`, on any thread; nothing happens where the loop has ended."""
        self._soon.append(call)
        with contextlib.suppress(OSError):  # full, so that the loop is woken anyway; or closed
            self._waker.send(b"\0")

    def stop(self) -> None:
        """Sets `stopped`, on any thread or in a signal's handler, and ends the wait."""
        self.stopped = True
        self.from_thread(lambda: None)

    def on_signal(self, number: signal.Signals, call: Callable[[], None]) -> None:
        """Has `call` called on the loop for each signal; only on the main thread."""
        if not self._signals:
            signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._signals[number] = call
        signal.signal(number, lambda *_: self._soon.append(call))

    def turn(self, timeout_s: float) -> None:
        """Waits for at most `timeout_s` seconds until something happens, and calls whom it concerns."""
        ready = self._selector.select(0 if self._soon else timeout_s)
        self.woke, self.ready = time.perf_counter(), len(ready)
        for key, events in ready:
            watcher = key.data
            try:
                if events & READ:
                    watcher.readable()
                if events & WRITE:
                    watcher.writable()
            except Exception:
                _log.exception("a connection failed")
                watcher.failed()
        for _ in range(len(self._soon)):
            try:
                self._soon.popleft()()
            except Exception:
                _log.exception("a call of the event loop failed")

    def readable(self) -> None:
        """Another thread or a signal has woken the loop."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
