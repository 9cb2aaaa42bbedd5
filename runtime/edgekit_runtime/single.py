"""One row at a time of one bundle: by the ring, once a row shows how large its answers are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from edgekit_contracts.errors import Refused
from edgekit_runtime.encoding import Batch
from edgekit_runtime.engine import Answer, Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.ring import Held, Ring


class Single:
    """The ring of a bundle, from `learn` on. Safe to use from several threads.

    It holds nothing of the engine before `learn` and after `close`: a bundle that is let go gives its memory back.

    Args:
        observer: What counts; None: nothing is counted.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._lock = threading.Lock()  # the ring's beginning and end
        self._ring: Ring | None = None
        self._over = False
        """Whether no ring is to be made (any more)."""
        self.answer: Callable[[Any, int], Answer | None] = _none
        """As `Ring.answerer`; None to every row while there is no ring."""
        self.hold: Callable[[Any, int], Held | None] = _none
        """As `Ring.holder`, likewise."""

    @property
    def ready(self) -> bool:
        """Whether there is a ring."""
        return self._ring is not None

    def learn(self, engine: Engine, sample: Batch) -> None:
        """Makes the ring, where there is none and the model is one whose memory can be bound.

        Args:
            engine: The bundle's.
            sample: A row that it answered.
        """
        if self._over or self._ring is not None:
            return
        with self._lock:
            if self._over or self._ring is not None:
                return
            if engine.encoder.text:
                self._over = True
                return
            try:
                ring = Ring(engine, self._observer, sample)
            except (ValueError, Refused):
                self._over = True
                return
            if self._observer is not None:
                self._observer.follow(ring.flush)
            self._ring, self.answer, self.hold = ring, ring.answerer(engine), ring.holder(engine)

    def note(self, held: Held, latency_ns: int) -> None:
        """As `Ring.note`; the row of a ring that is no more was counted, or will not be."""
        if self._ring is not None:
            self._ring.note(held, latency_ns)

    def close(self) -> None:
        """Lets the ring go; what waited in it is counted."""
        with self._lock:
            self._over, ring = True, self._ring
            self._ring, self.answer, self.hold = None, _none, _none
        if ring is not None and self._observer is not None:
            ring.flush()
            self._observer.leave(ring.flush)


def _none(row: Any, started_ns: int) -> None:
    """No row is taken as it is."""
