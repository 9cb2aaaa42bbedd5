"""Real brokers on free loopback ports, which a test can kill and bring back, and a broker that a test scripts."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, ParamSpec, Self, TypeVar

import pytest

from edgekit_contracts.errors import BrokerUnreachable
from edgekit_runtime.broker import Broker
from edgekit_runtime.config import Protocol
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.mqtt import Link, Received, Timing, probe

T = TypeVar("T")
P = ParamSpec("P")

_RELOADED: Final = "Reloading config."

QUICK = Timing(reconnect_first_s=0.02, reconnect_cap_s=0.1, connect_timeout_s=5.0)


def wait_until(condition: Callable[[], T], what: str, within_s: float = 60.0) -> T:
    """Waits for a condition and returns its value; the deadline only ends a test that has failed."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {within_s:g} s in vain: {what}")
        time.sleep(0.01)
    return value


def link(
    broker: Broker,
    name: str,
    topics: Sequence[str],
    heard: Callable[[Received], None] = lambda received: None,
    *,
    on_down: Callable[[str], None] = lambda reason: None,
    timing: Timing = QUICK,
    by_hand: bool = False,
    meter: Callable[[int, int], None] = lambda sent, received: None,
) -> Link:
    """A connection that stands and hears these topics."""
    made = Link(
        broker,
        name,
        will=lambda: None,
        subscriptions=topics,
        on_up=lambda: None,
        on_message=heard,
        on_down=on_down,
        timing=timing,
        by_hand=by_hand,
        meter=meter,
    )
    made.start()
    assert made.wait_first(30) is None
    return made


def _while_wanted(make: Callable[P, Link]) -> Callable[P, contextlib.AbstractContextManager[Link]]:
    @contextlib.contextmanager
    def lasting(*args: P.args, **options: P.kwargs) -> Iterator[Link]:
        made = make(*args, **options)
        try:
            yield made
        finally:
            made.stop()

    return lasting


linked = _while_wanted(link)
"""The same, for as long as a test wants it."""


_given: Final[set[int]] = set()


def free_port() -> int:
    """A port that nobody listens on: none twice, and none of those that Linux gives to connections that go out."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


class Engine:
    """A broker's process on a free loopback port, which a test can kill and bring back.

    Args:
        folder: Where its log goes.
    """

    binary: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        found = shutil.which(
            self.binary, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin:{Path(sys.executable).parent}"
        )
        if found is None:
            reason = f"{self.binary} is not installed ({self.package})"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self.port = free_port()
        self.broker = Broker(host="127.0.0.1", port=self.port)
        self._log = folder / f"{self.binary}.log"
        self.program = found
        self._command = [found]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Starts it, unless it runs."""
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until it answers."""
        wait_until(self._answers, f"{self.binary} answers; its log: {self._log}")

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kills it as a power cut would: what it had not written is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class Mosquitto(Engine):
    """Mosquitto with the defaults of Debian's package but for its address.

    Args:
        folder: For its files.
        extra: Further lines of its configuration.
        anonymous: Whether it lets everybody in.
        whole: Makes the configuration for a port, instead of all of these.
    """

    binary, package = "mosquitto", "apt install mosquitto"

    def __init__(
        self,
        folder: Path,
        extra: str = "",
        *,
        anonymous: bool = True,
        whole: Callable[[int], str] | None = None,
    ) -> None:
        super().__init__(folder)
        config = folder / "mosquitto.conf"
        # As root it would change to a user who cannot write into the test's folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        plain = (
            f"listener {self.port} 127.0.0.1\nallow_anonymous {str(anonymous).lower()}\n"
            f"persistence true\npersistence_location {folder}/\n{extra}"
        )
        config.write_text(user + (plain if whole is None else whole(self.port)))
        self._command += ["-c", str(config)]

    def reload(self) -> None:
        """Has it read its files again, and waits until it has; it must have answered a client before."""
        before = self._log.read_text().count(_RELOADED)
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: self._log.read_text().count(_RELOADED) > before, "mosquitto reads its files again")


class Counters:
    """What a Mosquitto says that it has received and sent, in bytes; it needs `sys_interval 1`."""

    def __init__(self, broker: Broker) -> None:
        self._ledger, self._said, self._fresh = Ledger(), dict[str, int](), 0
        self._broker = broker

    def __enter__(self) -> Self:
        self._link = link(self._broker, "counters", ("$SYS/broker/bytes/+",), self._hear, meter=self._ledger.wire)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._link.stop()

    def read(self) -> tuple[int, int]:
        """Bytes received and sent, but for those of this connection (to some hundred)."""
        heard = self._fresh
        wait_until(lambda: self._fresh >= heard + 4, "Mosquitto counts twice")
        own = self._ledger.accounts.since_start
        return self._said["received"] - own.sent, self._said["sent"] - own.received

    def _hear(self, received: Received) -> None:
        self._said[received.topic.rpartition("/")[2]] = int(received.payload)
        self._fresh += 1


class Amqtt(Engine):
    """amqtt, which forgets everything when it ends; MQTT 3.1.1 alone."""

    binary, package = "amqtt", "pip install amqtt"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        config = folder / "amqtt.yaml"
        config.write_text(
            f"listeners: {{default: {{type: tcp, bind: '127.0.0.1:{self.port}'}}}}\n"
            "plugins: {amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}}\n"
        )
        self._command += ["-c", str(config)]


class Nats(Engine):
    """nats-server with JetStream and MQTT (3.1.1 alone), by itself or as a node of a cluster.

    Args:
        folder: For its log and its streams.
        route: The port for the other nodes.
        routes: Those ports of every node.
    """

    binary, package = "nats-server", "apt install nats-server"

    def __init__(self, folder: Path, route: int | None = None, routes: Sequence[int] = ()) -> None:
        super().__init__(folder)
        config, self._monitor = folder / "nats.conf", free_port()
        others = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
        cluster = f"cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{others}] }}\n" if route else ""
        config.write_text(
            f"server_name: node-{self.port}\nlisten: 127.0.0.1:{free_port()}\nhttp: 127.0.0.1:{self._monitor}\n"
            f'jetstream {{ store_dir: "{folder}/streams" }}\nmqtt {{ listen: 127.0.0.1:{self.port} }}\n{cluster}'
        )
        self._command += ["-c", str(config)]

    def _answers(self) -> bool:
        if not super()._answers():
            return False
        # In a cluster a node listens before it knows a leader. Not the health of every stream: nats-server 2.9 goes on
        # calling the consumer of a process that was killed "not current".
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._monitor, timeout=2)) as connection:
            connection.request("GET", "/healthz?js-server-only=true")
            if connection.getresponse().status != 200:
                return False
        with contextlib.suppress(BrokerUnreachable):
            probe(self.broker)
            return True
        return False


class NatsCluster:
    """Three nodes of NATS, of which each kill takes the next; `start` brings back what is down."""

    def __init__(self, folder: Path) -> None:
        routes = [free_port() for _ in range(3)]
        self.nodes: list[Nats] = []
        for number, route in enumerate(routes):
            (folder / f"node-{number}").mkdir()
            self.nodes.append(Nats(folder / f"node-{number}", route, routes))
        self.broker = replace(self.nodes[0].broker, others=tuple(("127.0.0.1", node.port) for node in self.nodes[1:]))
        self._next = 0

    def start(self) -> None:
        """Starts the nodes that do not run, and waits until all have caught up."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()

    def kill(self) -> None:
        """Kills the next node."""
        self.nodes[self._next].kill()
        self._next = (self._next + 1) % len(self.nodes)

    def stop(self) -> None:
        """Ends every node in good order."""
        for node in self.nodes:
            node.stop()


class ScriptedBroker:
    """A socket that takes one MQTT connection after another and answers as it is told.

    Args:
        protocol: Of the client; 4 is MQTT 3.1.1.
        without_5: What MQTT 5 meets at a broker that does not know it.
        properties: Of the answer to CONNECT; MQTT 5 only.
        connack: Whether a connection is ever let in.
        suback: What every subscription is answered.
        puback: What every message is answered; MQTT 5 only.
    """

    _NAMES: Final = {1: "CONNECT", 3: "PUBLISH", 8: "SUBSCRIBE", 12: "PINGREQ", 14: "DISCONNECT"}

    def __init__(
        self,
        *,
        protocol: Protocol = 4,
        without_5: Literal["silence", "refusal", "hanging up"] | None = None,
        properties: bytes = b"",
        connack: bool = True,
        suback: int = 1,
        puback: int = 0,
    ) -> None:
        self.heard: list[str] = []
        self.closed = False
        self._five, self._without_5, self._properties = False, without_5, properties
        self._connack, self._suback, self._puback = connack, suback, puback
        self._server = socket.create_server(("127.0.0.1", 0))
        self.broker = Broker(host="127.0.0.1", port=self._server.getsockname()[1], protocol=protocol)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for one in (self._server, self._connection):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connection, _ = self._server.accept()
                with contextlib.suppress(OSError, EOFError), self._connection:
                    while True:
                        self._answer(self._connection)
                self.closed = True

    def _answer(self, connection: socket.socket) -> None:
        first, length, shift = _exactly(connection, 1)[0], 0, 0
        while (octet := _exactly(connection, 1)[0]) & 0x80:
            length, shift = length | (octet & 0x7F) << shift, shift + 7
        body = _exactly(connection, length | octet << shift)
        name = self._NAMES[first >> 4]
        self.heard.append(name)
        if name == "CONNECT":
            self._five = body[6] == 5
            if self._five and self._without_5 is not None:
                if self._without_5 == "hanging up":
                    raise EOFError
                if self._without_5 == "refusal":  # in MQTT 3.1.1: unacceptable protocol version
                    _send(connection, 0x20, b"\0\1")
                return
        properties = b"\0" if self._five else b""
        if name == "CONNECT" and self._connack:
            said = bytes([len(self._properties)]) + self._properties
            _send(connection, 0x20, b"\0\0" + (said if self._five else b""))
        elif name == "SUBSCRIBE":
            _send(connection, 0x90, body[:2] + properties + bytes([self._suback]))
        elif name == "PUBLISH" and first & 0x06:
            at = 2 + int.from_bytes(body[:2], "big")
            _send(connection, 0x40, body[at : at + 2] + (bytes([self._puback]) + properties if self._five else b""))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _send(connection: socket.socket, kind: int, body: bytes) -> None:
    connection.sendall(bytes([kind, len(body)]) + body)
