from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from edgekit_runtime.serving.loop import READ, Loop, Watcher
from edgekit_runtime.serving.transport import FULL_BYTES, Listener, Transport

PATIENCE_S = 20


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


class Reader:
    """A transport's user that notes what it is told."""

    answers_on = False

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.told: list[str] = []

    def received(self, bytes_: int) -> None:
        self.told.append(f"received {bytes_}")
        if bytes_ == 13:
            raise RuntimeError("thirteen")

    def ended(self) -> bool:
        self.told.append("ended")
        return self.answers_on

    def full(self) -> None:
        self.told.append("full")

    def emptied(self) -> None:
        self.told.append("emptied")

    def lost(self) -> None:
        self.told.append("lost")


Connected = tuple[Reader, socket.socket]
Connect = Callable[[], Connected]


@pytest.fixture
def connect(loop: Loop) -> Iterator[Connect]:
    """Opens a connection: its reader here, and the client's end."""
    ends: list[Connected] = []

    def connect() -> Connected:
        ours, theirs = socket.socketpair()
        theirs.settimeout(PATIENCE_S)
        transport = Transport(loop, ours, memoryview(bytearray(4096)))
        ends.append((Reader(transport), theirs))
        transport.start(ends[-1][0])
        return ends[-1]

    yield connect
    for reader, theirs in ends:
        reader.transport.abort()
        theirs.close()
    loop.turn(0)
    assert all(reader.told.count("lost") == 1 for reader, _ in ends)


def read_whole(theirs: socket.socket) -> bytes:
    data = b""
    while more := theirs.recv(65536):
        data += more
    return data


def test_what_a_client_does_not_read_waits_and_is_sent_before_the_end(loop: Loop, connect: Connect) -> None:
    reader, theirs = connect()
    sent = os.urandom(8 * FULL_BYTES)
    for at in range(0, len(sent), 1024):
        reader.transport.write(sent[at : at + 1024])
    assert reader.told == ["full"]
    assert reader.transport.unsent_bytes > FULL_BYTES
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(read_whole(theirs)))
    thread.start()
    while "emptied" not in reader.told:
        loop.turn(PATIENCE_S)
    reader.transport.close()
    reader.transport.write(b"behind the end")
    while "lost" not in reader.told:
        loop.turn(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert got == [sent]
    assert reader.told == ["full", "emptied", "lost"]


def test_a_client_that_sends_no_more_is_still_answered(loop: Loop, connect: Connect) -> None:
    reader, theirs = connect()
    reader.answers_on = True
    theirs.sendall(b"ask")
    theirs.shutdown(socket.SHUT_WR)
    for _ in range(3):
        loop.turn(0)
    assert reader.told == ["received 3", "ended"]
    reader.transport.write(b"answer")
    reader.transport.write_end()
    assert read_whole(theirs) == b"answer"
    reader.transport.close()
    loop.turn(0)
    assert reader.told[-1] == "lost"


def test_a_client_that_breaks_off_is_lost_once(loop: Loop, connect: Connect) -> None:
    reader, theirs = connect()
    theirs.close()
    for _ in range(3):
        reader.transport.write(b"x" * 4096)
        loop.turn(0)
    assert reader.told == ["lost"]


def test_an_error_ends_its_own_connection_alone(loop: Loop, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    (bad, to_bad), (good, to_good) = connect(), connect()
    to_bad.sendall(b"x" * 13)
    to_good.sendall(b"y")
    for _ in range(3):
        loop.turn(0)
    assert (bad.told, good.told) == (["received 13", "lost"], ["received 1"])
    assert "a connection failed" in caplog.text


class Lacking(socket.socket):
    """Listens where no descriptor is left."""

    calls = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.calls += 1
        if self.calls == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_a_lack_of_descriptors_delays_connections_without_a_busy_loop(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    listening = Lacking(socket.AF_INET)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    accepted: list[socket.socket] = []
    listener = Listener(loop, listening, accepted.append)
    with socket.create_connection(listening.getsockname()):
        for _ in range(5):
            loop.turn(0.01)
        assert (listening.calls, accepted) == (1, [])
        assert "Too many open files" in caplog.text
        listener.resume()
        loop.turn(PATIENCE_S)
        assert len(accepted) == 1
    accepted[0].close()
    listener.close()


def test_a_thread_and_a_signal_end_the_wait(loop: Loop) -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGUSR2)
    loop.on_signal(signal.SIGUSR2, lambda: told.append("signal"))
    try:
        for wake in (
            lambda: loop.from_thread(lambda: told.append("thread")),
            lambda: os.kill(os.getpid(), signal.SIGUSR2),
        ):
            thread = threading.Timer(0.05, wake)
            thread.start()
            size = len(told)
            while len(told) == size:
                loop.turn(PATIENCE_S)
            thread.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert told == ["thread", "signal"]
    loop.stop()
    assert loop.stopped


def test_a_watch_that_ended_is_not_called_again(loop: Loop) -> None:
    ours, theirs = socket.socketpair()

    class Once(Watcher):
        calls = 0

        def readable(self) -> None:
            self.calls += 1
            loop.watch(ours, self, 0)

    once = Once()
    loop.watch(ours, once, READ)
    theirs.sendall(b"x")
    for _ in range(3):
        loop.turn(0)
    assert once.calls == 1
    ours.close()
    theirs.close()


def test_a_call_that_fails_keeps_no_other_from_being_made(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    made: list[int] = []
    loop.soon(lambda: made.append(1))
    loop.soon(lambda: [].pop())
    loop.soon(lambda: made.append(2))
    loop.turn(0)
    assert made == [1, 2]
    assert "a call of the event loop failed" in caplog.text
