"""What a collector does beside taking in, once an hour: windows go into the roll-ups, and what is too old is removed.

A thread with a connection of its own, so that batches are stored meanwhile. Soon after the end of an hour, because the
hour of a device is then read and written once for all its windows, and not once for each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from edgekit.collector import retention, rolled
from edgekit.collector.keep import DAY_MS, HOUR_MS, Keep
from edgekit.collector.retention import SteadyClock
from edgekit.collector.schema import WINDOW
from edgekit.collector.store import Store
from edgekit_contracts.errors import StorageFault
from edgekit_contracts.topics import PARTITIONS

log = logging.getLogger(__name__)

FIRST_S: Final = 60.0
"""After the start, for what an earlier run left."""
AFTER_HOUR_S: Final = 300.0
"""For windows that end with the hour and are on their way."""
AGAIN_S: Final = 60.0
"""After a fault."""


class Upkeep:
    """The thread.

    Args:
        open_store: Opens the store a second time.
        partitions: Of the topic tree, which this collector takes care of at present.
        clock_s: Seconds since 1970.
        first_s: When the first pass begins after the start.
        keep: How long what is kept.
        clock: Says what is old.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        partitions: Callable[[], Iterable[int]] = lambda: range(PARTITIONS),
        clock_s: Callable[[], float] = time.time,
        first_s: float = FIRST_S,
        keep: Keep | None = None,
        clock: SteadyClock | None = None,
    ) -> None:
        self._open, self._partitions, self._clock_s, self._first_s = open_store, partitions, clock_s, first_s
        self._keep, self._clock = keep or Keep(), clock or SteadyClock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, after the transaction that is under way."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        wait_s = self._first_s
        while not self._stopping.wait(wait_s):
            try:
                with self._open() as store:
                    windows = self._roll_up(store)
                    self._remove(store)
            except StorageFault as fault:
                log.error("the store is not kept up at present: %s (%s)", fault, fault.next_step)
                wait_s = AGAIN_S
            except Exception:
                # Nothing here may end what the collector is for.
                log.exception("the store is not kept up")
                wait_s = AGAIN_S
            else:
                log.info("%d windows were rolled up", windows)
                wait_s = until_next(self._clock_s())

    def _roll_up(self, store: Store) -> int:
        windows = 0
        for p in self._partitions():
            begun = time.monotonic()
            try:
                while not self._stopping.is_set() and (taken := rolled.take_in(store.database, p, store.bins)):
                    windows += taken
                    # Half of the time belongs to those that take in: both threads run under Python's one lock.
                    self._stopping.wait(time.monotonic() - begun)
                    begun = time.monotonic()
            except StorageFault:
                raise
            except Exception:
                # A window that somebody changed in the database: the other partitions go on.
                log.exception("the windows of partition %d are not rolled up", p)
        return windows

    def _remove(self, store: Store) -> None:
        now_ms = self._clock.now_ms()
        if now_ms is None or self._stopping.is_set():
            return
        with store.database.writing() as db:
            db.make_day(WINDOW, now_ms // DAY_MS + 1)
        removed = retention.remove(store.database, self._keep, now_ms, self._stopping.wait)
        if removed:
            rows = ", ".join(f"{count} {what}" for what, count in removed.items())
            log.info("removed for their age: %s; kept are %s", rows, self._keep)


def until_next(now_s: float) -> float:
    """Seconds until some minutes past the next full hour."""
    hour_s = HOUR_MS / 1000
    return hour_s - (now_s - AFTER_HOUR_S) % hour_s
