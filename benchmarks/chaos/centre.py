"""Devices and the collector, as processes that can be killed and come back where they were."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgekit_runtime.broker import Broker

WITHIN_S: Final = 60.0


class Process:
    """A command that is started again and again, with its words in a file.

    Args:
        command: What is run.
        log: Where it writes.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None
        self.ended: int | None = None
        """Exit code of a process that ended by itself with 0."""
        self.failures = 0
        """How often it ended by itself with another one."""

    def start(self) -> None:
        """Runs it, where it does not run."""
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM, and waits."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self.kill()

    def tend(self) -> None:
        """Starts it again where it has failed, and notes where it has ended well."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            if code == 0:
                self.ended = 0
                return
            self.failures += 1
        if self.ended is None:
            self.start()

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing that it writes finds room: its files may have no size."""
        process = self._process
        if process is None:
            yield
            return
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        yield
        if process.poll() is None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """It stands still, and then goes on as if nothing had been."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
        yield
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        """Its last words."""
        return self._log.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def started(process: Process) -> Iterator[Process]:
    """Runs it meanwhile."""
    process.start()
    try:
        yield process
    finally:
        process.stop()


def collector(folder: Path, broker: Broker, store: Path | str, name: str = "collector") -> Process:
    """`edgekit collect`."""
    command = [sys.executable, "-m", "edgekit", "collect"]
    options = ["--broker", str(broker), "--store", str(store), "--name", name]
    return Process([*command, *options], folder / f"{name}.log")
