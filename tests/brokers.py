"""A real Mosquitto on a free loopback port, which a test can kill and bring back."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

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
