"""The real server on the loopback, in a thread of the test's process."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.config import Serve
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.route import Member
from edgekit_runtime.served import Lineup, Served
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.loop import Loop
from edgekit_runtime.serving.server import bind, serve
from tests import bundles

TIMEOUT_S = 20
INFER = json.dumps(
    {
        "inputs": [
            {"name": "age", "shape": [1], "datatype": "FP64", "data": [20]},
            {"name": "bmi", "shape": [1], "datatype": "FP64", "data": [22.0]},
            {"name": "sex", "shape": [1], "datatype": "BYTES", "data": ["f"]},
        ]
    }
).encode()


def request(
    target: str = "/v2/models/tiny/infer",
    body: bytes | None = None,
    *lines: str,
    method: str | None = None,
    version: str = "1.1",
) -> bytes:
    """The bytes of a request; with a body, a POST with its length."""
    head = [f"{method or ('GET' if body is None else 'POST')} {target} HTTP/{version}", "Host: device", *lines]
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + (body or b"")


@dataclass
class Reply:
    """A response, parsed independently of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


@dataclass
class Client:
    """One connection, read response by response."""

    socket: socket.socket
    rest: bytes = field(default=b"", repr=False)

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def reply(self, *, without_body: bool = False) -> Reply:
        """The next response.

        Raises:
            ConnectionError: The connection ended instead.
        """
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .+", first)
        assert match, first
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = 0 if without_body else int(headers.get("content-length", "0"))
        while len(self.rest) < size:
            self._more()
        body, self.rest = self.rest[:size], self.rest[size:]
        return Reply(int(match[1]), headers, body)

    def ended(self) -> bool:
        """Whether the server ends the connection, with nothing more to read."""
        try:
            return not self.rest and self.socket.recv(65536) == b""
        except ConnectionError:
            return True

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended; left: {self.rest[:200]!r}")
        self.rest += data


class Server:
    """What a test sees of a running server."""

    def __init__(self, app: App, sockets: list[socket.socket], settings: Serve) -> None:
        self.app, self.settings = app, settings
        self.port: int = next((s.getsockname()[1] for s in sockets if s.family == socket.AF_INET), 0)
        self.stop: Any = None

    @contextmanager
    def connect(self, *, unix: bool = False) -> Iterator[Client]:
        """A new connection."""
        address = str(self.settings.socket) if unix else ("127.0.0.1", self.port)
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM) as opened:
            opened.settimeout(TIMEOUT_S)
            opened.connect(address)
            yield Client(opened)

    def ask(self, data: bytes) -> Reply:
        """One request on a connection of its own."""
        with self.connect() as client:
            client.send(data)
            return client.reply()


@contextmanager
def running(member: Member | None = None, **changes: Any) -> Iterator[Server]:
    """Serves the small model, or another one in its place, with these settings, and drains at the end."""
    settings = Serve(**{"port": 0, "drain_timeout_s": 0.5, **changes})
    observer = Observer(bundles.manifest(), bundles.reference().bins)
    member = member or Member(Engine(bundles.model(), bundles.manifest()), observer)
    app = App({"tiny": Served(Lineup(member))}, dict, settings)
    sockets = bind(settings)
    server = Server(app, sockets, settings)
    started = threading.Event()

    def run() -> None:
        with Loop() as loop:
            server.stop = loop.stop
            loop.soon(started.set)
            serve(app, sockets, loop)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(TIMEOUT_S)
        yield server
    finally:
        server.stop()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
        assert server.app.traffic.open == server.app.traffic.busy == 0
