"""What happened on this device, on its way to the centre: told by whoever noticed, stored by the reporter.

Telling takes no time and never fails: the disk is the reporter's business. What repeats itself is held back, and the
next one says how many were.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from edgekit_contracts.alerts import EventName
from edgekit_contracts.telemetry import Event
from edgekit_runtime.strategies.budget import TokenBucket

AT_ONCE: Final = 5
"""Of one name; then"""
PAUSE_S: Final = 600.0
"""between two of them, in seconds."""
WAITING_MAX: Final = 64
"""In memory, while nobody stores them: then the oldest is lost."""

_log = logging.getLogger("edgekit.events")


class Told(NamedTuple):
    """An event that waits to be stored."""

    event: Event
    at_ms: int
    """By this device's clock, milliseconds since 1970."""


class Events:
    """The events of one service. Safe to use from several threads.

    Args:
        now_s: A clock that never goes back.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._buckets: dict[str, TokenBucket] = {}
        self._held: Counter[str] = Counter()
        self._waiting: deque[Told] = deque(maxlen=WAITING_MAX)
        self.on_told: Callable[[], None] = lambda: None
        """Called when there is one to store."""

    def tell(self, name: EventName, detail: str) -> None:
        """Notes that something happened."""
        with self._lock:
            bucket = self._buckets.setdefault(name, TokenBucket(1.0 / PAUSE_S, AT_ONCE))
            if not bucket.take(1.0, self._now_s()):
                self._held[name] += 1
                return
            held = self._held.pop(name, 0)
            more = f" ({held} more were not told)" if held else ""
            event = Event(name, detail[: 1024 - len(more)] + more)
            self._waiting.append(Told(event, max(0, round(time.time() * 1000))))
        _log.debug("%s: %s", name, detail)
        self.on_told()

    @property
    def oldest(self) -> Told | None:
        """The one to store next."""
        with self._lock:
            return self._waiting[0] if self._waiting else None

    def stored(self, told: Told) -> None:
        """It is stored, or can never be."""
        with self._lock:
            if self._waiting and self._waiting[0] is told:
                self._waiting.popleft()
