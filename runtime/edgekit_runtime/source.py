"""One bundle's counts on their way to the outbox: what the reporter is told of a bundle in service.

A wall clock is called synchronised where systemd-timesyncd says so. Beside another keeper of time (chrony, ntpd, PTP)
nothing says so that could be relied on, and the collector dates the windows by their arrival.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from edgekit_contracts import limits
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.telemetry import Clock, ReferencePart
from edgekit_runtime.observe import Observer

_SYNCED: Final = Path("/run/systemd/timesync/synchronized")


class Source:
    """One bundle's counts on their way to the outbox.

    Args:
        manifest: The bundle's manifest.
        reference: Its `reference.json`.
        bins_id: What names its bins.
        observer: What counts.
        window_s: Length of a window in seconds.
    """

    def __init__(
        self, manifest: Manifest, reference: bytes, bins_id: bytes, observer: Observer, window_s: float
    ) -> None:
        self.manifest, self.bins_id, self.observer, self.window_s = manifest, bins_id, observer, window_s
        size = limits.REFERENCE_PART_BYTES
        pieces = [reference[at : at + size] for at in range(0, len(reference), size)]
        self.parts = [
            ReferencePart(manifest.name, manifest.version, index, len(pieces), piece)
            for index, piece in enumerate(pieces)
        ]
        self.stored = False
        """Whether the outbox has taken the reference."""
        self.idles = False
        """A bundle that is not live reports only the windows in which it was asked something."""
        self.fails = False
        """Whether requests failed in the last window."""
        self.due_s = time.monotonic() + window_s
        self.clock = clock_now()
        """How far the clock could be trusted when the present window began, for that is when its start was read."""

    def resize(self, window_s: float) -> None:
        """Other windows, the present one included: it ends no later than one of them."""
        self.window_s = window_s
        self.due_s = min(self.due_s, time.monotonic() + window_s)


def clock_now() -> Clock:
    """How far this device's clock can be trusted now."""
    return Clock.SYNCED if _SYNCED.exists() else Clock.UNKNOWN
