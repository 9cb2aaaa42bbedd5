"""A window every so often: what the observer counted goes to the outbox, and the uplink is told.

The reference goes first, in parts, so that the collector can read the windows of a bundle that it has never seen.

A wall clock is called synchronised where systemd-timesyncd says so. Beside another keeper of time (chrony, ntpd, PTP)
nothing says so that could be relied on, and the collector dates the windows by their arrival.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.errors import FormatError, StorageFault, TooLarge
from edgekit_contracts.manifest import REFERENCE_PATH
from edgekit_contracts.telemetry import Clock, Kind, ReferencePart, encode
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.observe import ClosedWindow, Observer
from edgekit_runtime.outbox import Outbox

MEMORY_WINDOWS: Final = 1440
"""Windows kept in memory while the disk refuses them: a day at one a minute."""

_SYNCED: Final = Path("/run/systemd/timesync/synchronized")

_log = logging.getLogger("edgekit.reporter")


class Reporter:
    """Closes a window every `window_s` seconds on a thread of its own.

    Args:
        bundle: The bundle that runs.
        observer: What counts.
        outbox: Where records wait.
        wake: Called when there is something to send.
        window_s: Length of a window in seconds.
    """

    def __init__(
        self, bundle: Bundle, observer: Observer, outbox: Outbox, wake: Callable[[], None], window_s: float
    ) -> None:
        self._bundle, self._observer, self._outbox, self._wake, self._window_s = (
            bundle,
            observer,
            outbox,
            wake,
            window_s,
        )
        self._bins_id = bundle.reference.bins_id
        self._waiting: deque[tuple[ClosedWindow, Clock]] = deque(maxlen=MEMORY_WINDOWS)
        self._clock = _clock()
        """How far the clock could be trusted when the present window began, for that is when its start was read."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgekit-reporter", daemon=True)

    def start(self) -> None:
        """Stores the reference, unless all of it waits already, and begins.

        All or none, so that the parts of one text stand side by side: by that the collector knows them.

        Raises:
            StorageFault: The outbox cannot be written.
        """
        data, size = self._bundle.files[REFERENCE_PATH], limits.REFERENCE_PART_BYTES
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        manifest = self._bundle.manifest
        parts = [
            ReferencePart(manifest.name, manifest.version, index, len(pieces), piece)
            for index, piece in enumerate(pieces)
        ]
        if self._latest_parts() != parts:
            for part in parts:
                self._append(Kind.REFERENCE, encode(part), n=0, t0_ms=_now_ms(), dt_ms=0, clock=_clock())
        self._thread.start()

    def stop(self) -> None:
        """Closes the last window, stores it, and ends the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._window_s
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += self._window_s
            self._report()
        self._observer.stop()
        self._report()

    def _report(self) -> None:
        if len(self._waiting) == MEMORY_WINDOWS:
            _log.error("a window is lost: the outbox has refused windows for too long")
        begins = _clock()
        self._waiting.append((self._observer.close(outbox_records=self._outbox.records), self._clock))
        self._clock = begins
        try:
            while self._waiting:
                window, clock = self._waiting[0]
                body = encode(window.body)
                try:
                    self._append(Kind.WINDOW, body, n=window.n, t0_ms=window.t0_ms, dt_ms=window.dt_ms, clock=clock)
                except (TooLarge, FormatError) as error:
                    # A window that cannot travel (its clock before 1970, for one) must not stop the others.
                    _log.error("a window of %d rows is lost: %s", window.n, error.sentence)
                self._waiting.popleft()
        except StorageFault as fault:
            _log.error("%s; %d windows wait in memory; %s", fault.sentence, len(self._waiting), fault.next_step)
        self._wake()

    def _latest_parts(self) -> list[ReferencePart]:
        """The parts of this model's reference that wait, of each number the latest, in order."""
        manifest, found = self._bundle.manifest, dict[int, ReferencePart]()
        for body in self._outbox.bodies(Kind.REFERENCE, self._bins_id):
            try:
                part = decode_msgpack(body, ReferencePart, what="telemetry body", limit=limits.RECORD_MAX_BYTES)
            except (FormatError, TooLarge):
                continue
            if (part.model, part.model_version) == (manifest.name, manifest.version):
                found[part.part] = part
        return [found[number] for number in sorted(found)]

    def _append(self, kind: Kind, body: bytes, *, n: int, t0_ms: int, dt_ms: int, clock: Clock) -> None:
        self._outbox.append(kind, body, bins_id=self._bins_id, n=n, t0_ms=t0_ms, dt_ms=dt_ms, clock=clock)


def _clock() -> Clock:
    return Clock.SYNCED if _SYNCED.exists() else Clock.UNKNOWN


def _now_ms() -> int:
    return max(0, round(time.time() * 1000))
