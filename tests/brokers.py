"""A real Mosquitto on a free loopback port, which a test can kill and bring back, and a broker that a test scripts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import pytest

from edgekit_runtime.config import Protocol
from edgekit_runtime.mqtt import Broker, Timing

T = TypeVar("T")

QUICK = Timing(reconnect_first_s=0.02, reconnect_cap_s=0.1, connect_timeout_s=5.0)


def wait_until(condition: Callable[[], T], what: str, within_s: float = 60.0) -> T:
    """Waits for a condition and returns its value; the deadline only ends a test that has failed."""
    end = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {within_s:g} s in vain: {what}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mosquitto:
    """One broker with the defaults of Debian's package but for its address."""

    def __init__(self, folder: Path, extra: str = "", *, anonymous: bool = True) -> None:
        binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            reason = "mosquitto is not installed (apt install mosquitto)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self.port = free_port()
        self.broker = Broker(host="127.0.0.1", port=self.port)
        self._log = folder / "mosquitto.log"
        config = folder / "mosquitto.conf"
        # As root it would change to a user who cannot write into the test's folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user}listener {self.port} 127.0.0.1\nallow_anonymous {str(anonymous).lower()}\n"
            f"persistence true\npersistence_location {folder}/\n{extra}"
        )
        self._command = [binary, "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._answers, f"mosquitto answers; its log: {self._log}")

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
