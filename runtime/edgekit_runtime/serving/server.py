"""Sockets, and the server's life.

They are bound before anything else runs, so that a taken port is one sentence; at the end the connections are drained,
so that no request under way is lost.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from edgekit_contracts.errors import PortInUse, UsageError
from edgekit_runtime.config import Serve
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.loop import Loop
from edgekit_runtime.serving.protocol import Connections
from edgekit_runtime.serving.transport import Listener

BACKLOG: Final = 512
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
SWEEP_S: Final = 1.0
"""How often overdue connections are looked for, at the least."""
DRAIN_STEP_S: Final = 0.02


class Keeper(Protocol):
    """Who hangs on the event loop; every call is on the loop's thread and returns at once."""

    @property
    def signals(self) -> Mapping[signal.Signals, Callable[[], None]]:
        """What to do on a signal that does not end the service."""
        ...

    def started(self) -> None:
        """Requests are answered from now on."""

    def passed(self) -> None:
        """The loop came round; at least once in `SWEEP_S`."""

    def stopping(self) -> None:
        """No new requests."""


def serve_until_signal(app: App, sockets: Sequence[socket.socket], keeper: Keeper | None = None) -> None:
    """Answers until SIGTERM or SIGINT, then drains.

    Args:
        app: What answers, and the limits.
        sockets: Listening sockets, from `bind`. They are closed at the end.
        keeper: Hangs on the loop.
    """
    signals = keeper.signals if keeper is not None else {}
    with Loop() as loop:
        for number in STOP_SIGNALS:
            loop.on_signal(number, loop.stop)
        for number, action in signals.items():
            loop.on_signal(number, action)
        serve(app, sockets, loop, keeper)
    # A second signal to stop ends the storing of the last window too; another one means nothing any more.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    for number in signals:
        signal.signal(number, signal.SIG_IGN)


def serve(app: App, sockets: Sequence[socket.socket], loop: Loop, keeper: Keeper | None = None) -> None:
    """Answers until `loop` is stopped; then takes no more connections and gives those there are `drain_timeout_s`."""
    app.group(loop)
    connections = Connections(loop, app.answer, app.settings, app.traffic)
    listeners = [Listener(loop, opened, connections.accept) for opened in sockets]
    if keeper is not None:
        keeper.started()
    sweep_s = due_s = 0.0
    while not loop.stopped:
        loop.turn(sweep_s)
        now_s = time.monotonic()
        if now_s < due_s:
            continue
        sweep_s = min(SWEEP_S, app.settings.request_timeout_s / 4, app.settings.idle_timeout_s / 4)
        due_s = now_s + sweep_s
        connections.expire()
        connections.adopt(app.settings)
        for listener in listeners:
            listener.resume()
        if keeper is not None:
            keeper.passed()
    if keeper is not None:
        keeper.stopping()
    for _ in range(2):  # who has connected is accepted, and what has come is read
        loop.turn(0)
    for listener in listeners:
        listener.close()
    connections.drain()
    deadline_s = time.monotonic() + app.settings.drain_timeout_s
    while connections.open and time.monotonic() < deadline_s:
        loop.turn(DRAIN_STEP_S)
        connections.expire()
    connections.abort()
    loop.turn(0)  # so that each connection hears of its end


def bind(serve: Serve) -> list[socket.socket]:
    """Opens the TCP and the Unix socket that the configuration names.

    Raises:
        PortInUse: One of them is taken or not permitted; none stays open.
    """
    sockets: list[socket.socket] = []
    if serve.port == "off" and serve.socket is None:
        raise UsageError("the configuration serves nowhere: port is off and there is no socket", "set serve.socket")
    try:
        if serve.port != "off":
            sockets.append(_bind_tcp(serve.host, serve.port))
        if serve.socket is not None:
            sockets.append(_bind_unix(Path(serve.socket)))
    except PortInUse:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def addresses(sockets: Sequence[socket.socket]) -> list[str]:
    """What people type: `http://127.0.0.1:8080`, `unix:/run/edgekit.sock`."""
    return [
        f"unix:{opened.getsockname()}"
        if opened.family == socket.AF_UNIX
        else "http://{}:{}".format(
            f"[{opened.getsockname()[0]}]" if opened.family == socket.AF_INET6 else opened.getsockname()[0],
            opened.getsockname()[1],
        )
        for opened in sockets
    ]


def _bind_tcp(host: str, port: int) -> socket.socket:
    address = f"{host}:{port}"
    # Of a text Python would import the tables of international names first.
    name = host.encode() if host.isascii() else host
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortInUse(address, error.strerror or str(error), error.errno) from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(target)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise PortInUse(address, error.strerror or str(error), error.errno) from error
    return opened


def _bind_unix(path: Path) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            _refuse_if_alive(path)
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        opened.bind(str(path))
        os.chmod(path, 0o660)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise PortInUse(f"unix:{path}", error.strerror or str(error), error.errno) from error
    except PortInUse:
        opened.close()
        raise
    return opened


def _refuse_if_alive(path: Path) -> None:
    # A socket file that nobody listens on is what a crash left behind.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise PortInUse(f"unix:{path}", "another process listens there")
