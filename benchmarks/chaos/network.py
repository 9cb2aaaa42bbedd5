"""What lies between devices and broker: a relay that cuts connections, and somebody who delivers messages again."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Final, Self

from benchmarks.chaos.centre import WITHIN_S
from benchmarks.chaos.device import TIMING
from edgekit_contracts import topics
from edgekit_runtime.broker import Broker
from edgekit_runtime.mqtt import Link, Publication, Received

KEPT: Final = 500
"""Messages that are remembered for delivering them again."""


class Relay:
    """Takes connections on a port of its own and joins each with one to the broker.

    Args:
        target: The broker's port.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut(1.0, random.Random(0))

    def cut(self, share: float, dice: random.Random) -> int:
        """Ends this share of the connections in the middle of whatever they carry; gives how many."""
        with self._lock:
            chosen = [pair for pair in self._pairs if dice.random() < share]
            self._pairs = [pair for pair in self._pairs if pair not in chosen]
        for one in (end for pair in chosen for end in pair):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        return len(chosen)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            with self._lock:
                self._pairs.append((client, broker))
            for source, sink in ((client, broker), (broker, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    source.close()


class Echo:
    """Hears what devices send, and sends some of it again."""

    def __init__(self, broker: Broker) -> None:
        self._heard: list[tuple[str, bytes]] = []
        self._link = Link(
            broker,
            "chaos-echo",
            will=lambda: None,
            subscriptions=(topics.ALL_UP,),
            on_up=lambda: None,
            on_message=self._hear,
            on_down=lambda reason: None,
            timing=TIMING,
        )

    def __enter__(self) -> Self:
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def wait(self) -> None:
        """Until something was heard."""
        end = time.monotonic() + WITHIN_S
        while not self._heard:
            if time.monotonic() > end:
                raise SystemExit(f"no device sent anything within {WITHIN_S:g} s")
            time.sleep(0.02)

    def again(self, count: int, dice: random.Random) -> int:
        """Publishes so many of the messages that were heard; gives how many the connection took."""
        chosen = dice.sample(self._heard, min(count, len(self._heard)))
        return sum(self._link.publish(Publication(topic, payload)) for topic, payload in chosen)

    def _hear(self, received: Received) -> None:
        topic, payload = received.topic, received.payload
        if len(self._heard) < KEPT:
            self._heard.append((topic, payload))
        else:
            self._heard[random.randrange(KEPT)] = (topic, payload)
