"""Devices of the demo: each is the real service in a process of its own, asked over HTTP like any client would."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from edgekit_contracts.errors import EnvironmentFault

START_S: Final = 60
STOP_S: Final = 20

_ADDRESS: Final = re.compile(r"serving .* at http://(?P<host>[0-9.]+):(?P<port>[0-9]+)")


class Device:
    """A running `edgekit-runtime run`, once it serves.

    Args:
        name: The device's name.
        config: Its device.toml.

    Raises:
        EnvironmentFault: It did not start; the sentence holds what it said.
    """

    def __init__(self, name: str, config: Path) -> None:
        self.name = name
        self.said: list[str] = []
        # A session of its own: Ctrl-C is for the demo, which then stops its devices in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgekit_runtime", "run", "--config", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Waits until it serves."""
        self._serving.wait(START_S)
        found = [match for line in self.said if (match := _ADDRESS.match(line))]
        if not found:
            raise EnvironmentFault(
                f"{self.name} did not start: {' '.join(self.said[-2:])}", "run 'edgekit doctor' and try again"
            )
        self._http = http.client.HTTPConnection(found[0]["host"], int(found[0]["port"]), timeout=30)

    def infer(self, model: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row as an Open Inference Protocol request."""
        inputs = [
            {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
            for name, value in row.items()
        ]
        self._http.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}))
        response = self._http.getresponse()
        body: dict[str, Any] = json.loads(response.read())
        if response.status != 200:
            raise EnvironmentFault(f"{self.name} refused a request: {body.get('error')}", "report this as an issue")
        return body

    def stop(self) -> None:
        """Asks it to end, and waits for its last window to be stored."""
        if hasattr(self, "_http"):
            self._http.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line.rstrip())
            if _ADDRESS.match(line):
                self._serving.set()
        self._serving.set()


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Between the start of a process and the promise to stop it, Ctrl-C waits."""
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


@contextmanager
def running(directory: Path, names: Sequence[str], bundle: Path, key: Path, broker: str) -> Iterator[list[Device]]:
    """Starts one device for each name and stops them all at the end."""
    with ExitStack() as stack:
        devices = []
        for name in names:
            config = directory / f"{name}.toml"
            config.write_text(
                f'device = "{name}"\nbundle = "{bundle}"\nkeys = ["{key}"]\nstate_dir = "{directory / name}"\n\n'
                f'[serve]\nport = 0\n\n[telemetry]\nbroker = "{broker}"\nwindow_s = 1\n'
            )
            with _ctrl_c_later():
                devices.append(Device(name, config))
                stack.callback(devices[-1].stop)
        for device in devices:
            device.wait()
        yield devices
