"""Asks the service that runs here: HTTP over its Unix socket where there is one, else over its port."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edgekit_contracts.errors import EnvironmentFault, Refused
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.lock import holder

TIMEOUT_S: Final = 10.0
_ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
_PAUSE_S: Final = 0.1


class NobodyAnswers(EnvironmentFault):
    """No service runs here, or it does not answer."""

    def __init__(self, tried: Sequence[str]) -> None:
        super().__init__(
            f"no service answers at {', '.join(tried)}",
            "start it (edgekit-runtime run), or name its settings with --config",
        )


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


SYSTEM_SOCKET: Final = "/run/edgekit/edgekit.sock"
"""Where the systemd unit puts the socket, by a variable that only the service sees."""


def places(config: DeviceConfig) -> list[str]:
    """Where this device's service would answer, the Unix socket first: `unix:/run/x.sock`, `http://127.0.0.1:8080`."""
    path = config.serve.socket or (SYSTEM_SOCKET if Path(SYSTEM_SOCKET).exists() else None)
    found = [f"unix:{path}"] if path else []
    running = holder(Path(config.state_dir))
    if running is not None and running.addresses:
        # It may have been started with other settings than those that are read now, and port 0 is any port.
        told = {reachable(address) for address in running.addresses}
        return sorted({*found, *told}, key=lambda address: not address.startswith("unix:"))
    if config.serve.port not in {"off", 0}:
        host = f"[{config.serve.host}]" if ":" in config.serve.host else config.serve.host
        found.append(reachable(f"http://{host}:{config.serve.port}"))
    return found


def reachable(address: str) -> str:
    """Where one connects to what listens on an address: on every interface means on this machine too."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def ask(
    addresses: Sequence[str], path: str, method: str = "GET", timeout_s: float = TIMEOUT_S, body: bytes | None = None
) -> tuple[int, Any]:
    """The first answer of any address.

    Args:
        addresses: As `places` gives them.
        path: Of the resource.
        method: Of HTTP.
        timeout_s: For each step of the connection.
        body: JSON.

    Returns:
        The status, and the JSON of the body.

    Raises:
        NobodyAnswers: None of them answers, or not with JSON over HTTP.
    """
    tried = []
    for address in addresses:
        connection = _connection(address, timeout_s)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, msgspec.json.decode(response.read(_ANSWER_MAX_BYTES))
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            tried.append(f"{address} ({getattr(error, 'strerror', None) or str(error) or type(error).__name__})")
        finally:
            connection.close()
    raise NobodyAnswers(tried or ["any address: the settings name no socket and no fixed port"])


def self_test(config: DeviceConfig, timeout_s: float = 120.0) -> dict[str, Any]:
    """Has the running service replay the golden sets, and waits for what it found.

    Returns:
        `golden_rows` and `max_difference`.

    Raises:
        NobodyAnswers: No service runs.
        Refused: It could not be done, a model returned to its former bundle, or the service has ended: where there is
            none, a self-test that fails ends it.
        EnvironmentFault: It does not say what it found.
    """
    where = places(config)
    before = ask(where, "/edgekit/status")[1].get("self_test")
    running = holder(Path(config.state_dir))
    if running is None or not running.pid:
        raise EnvironmentFault(
            f"nobody holds {config.state_dir}, so its process is unknown", "send it SIGUSR1 yourself"
        )
    try:
        os.kill(running.pid, signal.SIGUSR1)
    except OSError as error:
        step = "ask as the user of the service, or as root"
        raise EnvironmentFault(f"process {running.pid} cannot be asked: {error.strerror}", step) from error
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        time.sleep(_PAUSE_S)
        try:
            found = ask(where, "/edgekit/status")[1].get("self_test")
        except NobodyAnswers as gone:
            raise Refused(
                "the service has ended: its self-test failed, or somebody stopped it", "read its log"
            ) from gone
        if found and found != before:
            if "error" in found:
                raise Refused(f"no self-test: {found['error']}", "read the service's log")
            if found["faults"]:
                raise Refused("; ".join(found["faults"]), "build that bundle for this device again, or mend the device")
            return dict(found)
    raise EnvironmentFault(f"the service says nothing of its self-test for {timeout_s:g} s", "read its log")


def _connection(address: str, timeout_s: float) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return UnixConnection(address.removeprefix("unix:"), timeout_s)
    host, _, port = address.removeprefix("http://").rpartition(":")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
