"""Taken in here at first, and by a process of its own once that pays.

A second process costs some 60 MB, and a small fleet gains nothing by it. So it is started when reading and storing have
taken a good part of a core for some seconds; from then on it stays. What is measured is processor time: a store that
fails, or a slow disk, is no reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from edgekit.collector.ingest import Message
from edgekit.collector.intake import Intake, Taken
from edgekit_contracts.errors import EnvironmentFault

log = logging.getLogger(__name__)

SHARE: Final = 0.3
"""Of a core."""
SPAN_S: Final = 2.0
"""Over which it is measured."""


class WhenBusy:
    """An intake that becomes another one.

    Args:
        here: At first.
        apart: Makes the other.
        clock_s: Seconds, of any origin.
        used_s: Processor time of the thread that calls, in seconds.
    """

    def __init__(
        self,
        here: Intake,
        apart: Callable[[], Intake],
        *,
        clock_s: Callable[[], float] = time.monotonic,
        used_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._intake, self._apart = here, apart
        self._clock_s, self._used_s = clock_s, used_s
        self._settled = False
        self._since_s = self._taken_s = 0.0

    @property
    def depth(self) -> int:
        """As `Intake`."""
        return self._intake.depth

    def put(self, batch: Sequence[Message]) -> None:
        """As `Intake`."""
        self._intake.put(batch)

    def get(self) -> Taken | None:
        """As `Intake`."""
        if self._settled:
            return self._intake.get()
        begun_s = self._used_s()
        taken = self._intake.get()
        self._note(self._used_s() - begun_s)
        return taken

    def close(self) -> None:
        """As `Intake`."""
        self._intake.close()

    def _note(self, taken_s: float) -> None:
        """Counts it in; nothing is under way."""
        now_s = self._clock_s()
        self._taken_s += taken_s
        if (span_s := now_s - self._since_s) < SPAN_S:
            return
        share = self._taken_s / span_s
        self._since_s, self._taken_s = now_s, 0.0
        if share < SHARE:
            return
        self._settled = True
        try:
            self._intake = self._apart()
        except EnvironmentFault as fault:
            log.warning("batches go on being stored by this process: %s (%s)", fault, fault.next_step)
        else:
            log.info("storing takes %.0f %% of a core: from now on a process of its own does it", 100 * share)
