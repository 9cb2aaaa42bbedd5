"""Sockets: bound before anything else runs, so that a taken port is one sentence; then uvicorn until a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from pathlib import Path

import uvicorn

from edgekit_contracts.errors import PortInUse, UsageError
from edgekit_runtime.config import Serve
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.protocol import BoundedProtocol


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


def addresses(sockets: list[socket.socket]) -> list[str]:
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


def serve_until_signal(app: App, sockets: list[socket.socket]) -> None:
    """Answers until SIGINT or SIGTERM; requests under way are finished first."""
    # uvicorn raises the signal again when it is done, and SIGTERM's own handler would end us before the last window.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=sockets)


def _bind_tcp(host: str, port: int) -> socket.socket:
    address = f"{host}:{port}"
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortInUse(address, error.strerror or str(error)) from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(target)
        opened.listen(512)
    except OSError as error:
        opened.close()
        raise PortInUse(address, error.strerror or str(error)) from error
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
        opened.listen(512)
    except OSError as error:
        opened.close()
        raise PortInUse(f"unix:{path}", error.strerror or str(error)) from error
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
