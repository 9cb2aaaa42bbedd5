"""What a collector does beside taking in, once an hour: windows go into the roll-ups, and what is too old is removed.

Soon after the end of an hour, because the hour of a device is then read and written once for all its windows, and not
once for each. A thread starts each pass (`passes`) as a process of its own, and waits for its end.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from edgekit.collector.keep import HOUR_MS, Keep
from edgekit.collector.passes import Task
from edgekit.collector.retention import SteadyClock
from edgekit.process import END_S
from edgekit_contracts.topics import PARTITIONS

log = logging.getLogger(__name__)

FIRST_S: Final = 60.0
"""After the start, for what an earlier run left."""
AFTER_HOUR_S: Final = 300.0
"""For windows that end with the hour and are on their way."""
AGAIN_S: Final = 60.0
"""After a fault."""
_COMMAND: Final = (sys.executable, "-P", "-m", "edgekit.collector.passes")


class Upkeep:
    """The thread.

    Args:
        where: The store, as of `open_store`.
        partitions: Of the topic tree, which this collector takes care of at present.
        clock_s: Seconds since 1970.
        first_s: When the first pass begins after the start.
        keep: How long what is kept.
        clock: Says what is old.
    """

    def __init__(
        self,
        where: Path | str,
        *,
        partitions: Callable[[], Iterable[int]] = lambda: range(PARTITIONS),
        clock_s: Callable[[], float] = time.time,
        first_s: float = FIRST_S,
        keep: Keep | None = None,
        clock: SteadyClock | None = None,
    ) -> None:
        self._where, self._partitions, self._clock_s, self._first_s = where, partitions, clock_s, first_s
        self._keep, self._clock = keep or Keep(), clock or SteadyClock()
        self._stopping = threading.Event()
        self._pass: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, after the transaction that is under way."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        if self._pass is not None:
            _end(self._pass)
        self._thread.join(END_S)
        if self._thread.is_alive() and self._pass is not None:
            self._pass.kill()
        self._thread.join()

    def _run(self) -> None:
        wait_s = self._first_s
        while not self._stopping.wait(wait_s):
            try:
                wait_s = until_next(self._clock_s()) if self._pass_over() else AGAIN_S
            except Exception:
                # Nothing here may end what the collector is for.
                log.exception("the store is not kept up")
                wait_s = AGAIN_S

    def _pass_over(self) -> bool:
        task = Task(
            where=str(self._where),
            partitions=tuple(self._partitions()),
            keep=self._keep,
            now_ms=self._clock.now_ms(),
            level=logging.getLogger().getEffectiveLevel(),
        )
        with subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, bufsize=0) as process:
            assert process.stdin is not None
            self._pass = process
            with suppress(OSError, ValueError):  # it has ended, and said why; or `stop` was quicker
                process.stdin.write(msgspec.json.encode(task) + b"\n")
            if self._stopping.is_set():
                _end(process)
            # It reads to the end of its input, so that is held open meanwhile.
            process.wait()
            self._pass = None
        return process.returncode == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def until_next(now_s: float) -> float:
    """Seconds until some minutes past the next full hour."""
    hour_s = HOUR_MS / 1000
    return hour_s - (now_s - AFTER_HOUR_S) % hour_s
