"""Batches are taken in by a process of its own, so that reading, checking and storing have a core to themselves.

Two ends of one socket pair. Messages go there as they came, one batch in one piece, and back comes what became of it
after its commit: so the broker and the devices hear of it no earlier than if it were done here. A second batch may be
on its way while the first is stored.

The process is bound to the socket. Where it ends, for whatever reason, another one is started and given again all that
nothing was heard of: the cursors know what had been committed. Where the collector ends, the process reads the end of
the socket, and what it has not begun is not stored; the devices still have it. Signals are the collector's to heed.
"""

from __future__ import annotations

import logging
import queue
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from edgekit.collector.claims import hold
from edgekit.collector.ingest import Message
from edgekit.collector.intake import RETRY_SECONDS, Fault, Here, Taken
from edgekit.collector.store import open_store
from edgekit.process import END_S, collect_rarely, heed_no_signals, log_to_stderr
from edgekit_contracts.errors import EdgekitError, EnvironmentFault, StorageFault

_MODULE: Final = "edgekit.collector.apart"

_Sent = tuple[str, bytes, int, int]
"""A message, without its receipt."""


class _Setup(msgspec.Struct, frozen=True):
    where: str
    instance: int | None
    level: int


class _Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The store is open."""


_encode: Final = msgspec.msgpack.Encoder().encode
_SETUP: Final = msgspec.msgpack.Decoder(_Setup)
_BATCH: Final = msgspec.msgpack.Decoder(list[_Sent])
_SAID: Final[msgspec.msgpack.Decoder[Taken | Fault | _Ready | None]] = msgspec.msgpack.Decoder(
    Taken | Fault | _Ready | None
)


class Apart:
    """The collector's end.

    Args:
        where: The store, which is there.
        instance: By which this collector holds partitions; None where it shares them with nobody.
        wait: Waits so many seconds; says whether the end has come.
        on_fault: Told each time that the store fails.

    Raises:
        EnvironmentFault: The process cannot be started, or not open the store.
    """

    depth = 2

    def __init__(
        self,
        where: Path | str,
        instance: int | None,
        *,
        wait: Callable[[float], bool],
        on_fault: Callable[[Fault], None],
    ) -> None:
        self._setup = _encode(_Setup(str(where), instance, logging.getLogger().level))
        self._wait, self._on_fault = wait, on_fault
        self._under_way: deque[bytes] = deque()
        try:
            self._start()
        except OSError as error:
            raise StorageFault(str(where), f"no process can be started that stores: {error}") from error
        try:
            said = _SAID.decode(_receive(self._end))
        except (OSError, EOFError):
            said = Fault("the process that stores ended as it started", "see what it said before")
        if isinstance(said, Fault):
            self.close()
            raise EnvironmentFault(said.reason, said.next_step)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def put(self, batch: Sequence[Message]) -> None:
        """As `Intake`."""
        data = _encode([message[:4] for message in batch])
        self._under_way.append(data)
        self._give(data)

    def get(self) -> Taken | None:
        """As `Intake`."""
        said = self._answer()
        self._under_way.popleft()
        return said

    def close(self) -> None:
        """As `Intake`."""
        self._end.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._end, other = socket.socketpair()
        with other:
            command = [sys.executable, "-P", "-m", _MODULE, str(other.fileno())]
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()])
            except OSError:
                self._end.close()
                raise
        _send(self._end, self._setup)

    def _answer(self) -> Taken | None:
        while True:
            try:
                said = _SAID.decode(_receive(self._end))
            except (OSError, EOFError, msgspec.MsgspecError):
                if self._start_anew():
                    continue
                return None
            if isinstance(said, Fault):
                self._on_fault(said)
                if self._wait(0):
                    self.close()
            elif not isinstance(said, _Ready):
                return said

    def _start_anew(self) -> bool:
        """After the process has ended; False where the end has come."""
        if self._wait(0):
            return False
        self.close()
        reason = f"the process that stores ended with {self._process.returncode}"
        self._on_fault(Fault(reason, "it is started anew, and given what nothing was heard of"))
        if self._wait(RETRY_SECONDS):
            return False
        with suppress(OSError):  # the next answer will not come either
            self._start()
        for data in self._under_way:
            self._give(data)
        return True

    def _give(self, data: bytes) -> None:
        with suppress(OSError):  # it has ended: so it is found when the answer is waited for
            _send(self._end, data)


def main() -> None:
    """The other end: what the process does."""
    heed_no_signals()
    end = socket.socket(fileno=int(sys.argv[1]))
    setup = _SETUP.decode(_receive(end))
    log_to_stderr(setup.level)
    collect_rarely()
    ended = threading.Event()
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def hear() -> None:
        # All the time, so that neither end waits for the other to read.
        with suppress(OSError, EOFError):
            while True:
                waiting.put(_receive(end))
        ended.set()
        waiting.put(None)

    def say(what: Taken | Fault | _Ready | None) -> None:
        with suppress(OSError):  # `hear` finds it out too
            _send(end, _encode(what))

    threading.Thread(target=hear, daemon=True).start()
    try:
        fence = None if setup.instance is None else partial(hold, instance=setup.instance)
        with open_store(setup.where, create=False, fence=fence) as store:
            say(_Ready())
            intake = Here(store, wait=ended.wait, on_fault=say)
            while (data := waiting.get()) is not None and not ended.is_set():
                say(intake.take_in([Message(*one) for one in _BATCH.decode(data)]))
    except EdgekitError as error:
        say(Fault(str(error), error.next_step))
        sys.exit(error.exit_code)


def _send(end: socket.socket, data: bytes) -> None:
    end.sendall(len(data).to_bytes(4, "big"))
    end.sendall(data)


def _receive(end: socket.socket) -> bytes:
    """The next piece.

    Raises:
        EOFError: There is none.
    """
    size = int.from_bytes(_exactly(end, 4), "big")
    return _exactly(end, size)


def _exactly(end: socket.socket, size: int) -> bytes:
    data = end.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError
    return data


if __name__ == "__main__":
    main()
