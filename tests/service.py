"""A real `edgekit-runtime run` in a process of its own, for tests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit_runtime.ask import UnixConnection
from tests import bundles
from tests.brokers import wait_until

STOP_S = 60


class Service:
    """The device's process.

    Args:
        directory: For configuration, log and state.
        made: The bundle that it runs.
        broker: Address of the broker; None without telemetry.
        port: 0 for a free one.
        device: The device's name.
        telemetry: Further lines of its section.
    """

    def __init__(
        self,
        directory: Path,
        made: bundles.Made,
        *,
        broker: str | None = None,
        port: int = 0,
        device: str = "dev-1",
        telemetry: str = "",
    ) -> None:
        self.directory, self.log_path = directory, directory / "log"
        self.config = directory / "device.toml"
        self.socket_path = directory / "edgekit.sock"
        section = f'[telemetry]\nbroker = "{broker}"\nwindow_s = 0.3\n{telemetry}\n' if broker else ""
        self.config.write_text(
            f'device = "{device}"\nbundle = "{made.path}"\nkeys = ["{made.public}"]\n'
            f'[serve]\nport = {port}\nsocket = "edgekit.sock"\n{section}'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self, **environment: str) -> None:
        """Starts the process."""
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgekit_runtime", "run", "--config", str(self.config)],
                stderr=log,
                env=os.environ | environment,
            )

    def start(self, **environment: str) -> None:
        """Starts the process and waits until it serves.

        Raises:
            AssertionError: It ended instead.
        """
        self.spawn(**environment)
        wait_until(lambda: "serving" in self.log or self.process.poll() is not None, "the service")  # type: ignore[union-attr]
        assert "serving" in self.log, self.log

    @property
    def log(self) -> str:
        """What it said so far."""
        return self.log_path.read_text()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.log.partition("http://127.0.0.1:")[2].partition(",")[0])

    def call(self, method: str, path: str, body: object = None, *, unix: bool = False) -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = (
            UnixConnection(str(self.socket_path), timeout_s=30)
            if unix
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        )
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def infer(self, rows: Mapping[str, list[Any]] = bundles.ROWS, *, unix: bool = False) -> tuple[int, Any]:
        """An inference request with one tensor for each feature."""
        inputs = [
            {"name": n, "shape": [len(c)], "datatype": "BYTES" if n == "sex" else "FP64", "data": c}
            for n, c in rows.items()
        ]
        return self.call("POST", "/v2/models/tiny/infer", {"inputs": inputs}, unix=unix)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        return self.process.wait(STOP_S)

    def close(self) -> None:
        """Makes sure that nothing is left running."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
