"""What telemetry may cost: budgets, and a cap for each day.

A budget is a number of bytes a day for ordinary windows. It says how long a window is when it is sent, which the device
makes of shorter ones by adding them up, how many wait for one another so that they share a message, and what is left
out. So a device of many features sends longer windows, not more bytes.

The cap is hard: what would pass it waits, added up to ever longer windows, and goes the next day. What not even a whole
day could hold is given up and counted (`daily cap`). Events may use the last part of the day's bytes, which is kept for
them. The reference, without which no window can be read, is sent once and does not count.

Pure: it is told the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Final, Literal

import msgspec

from edgekit_contracts.reference import Bins
from edgekit_runtime.config import Telemetry

DAY_S: Final = 86_400.0
LENGTHS_S: Final[tuple[float, ...]] = (
    300,
    600,
    900,
    1200,
    1800,
    3600,
    5400,
    7200,
    10_800,
    14_400,
    21_600,
    28_800,
    43_200,
    DAY_S,
)
"""Lengths of windows that a budget chooses from: each goes whole into a day, and 5 minutes into each."""
MESSAGE_BYTES: Final = 150
"""What a message costs beside its payload: header, topic, PUBACK, and the collector's acknowledgement."""
PING_BYTES: Final = 4
"""And its answer."""
DAILY_CAP: Final = "daily cap"
"""Why something is given up that no day can hold."""

_BIN_BYTES: Final = 2.0
"""Of a packed window, for each bin: what counts of some thousands take; some tens take half of it."""
_RECORD_BYTES: Final = 60
_MOMENTS_BYTES: Final = 16


class Budget(msgspec.Struct, frozen=True):
    """A budget, before it is known what is counted."""

    windows_bytes: int
    """A day."""
    together: int
    """Windows that wait for one another."""
    keepalive_s: int
    moments: bool


BUDGETS: Final[dict[Literal["tiny", "normal"], Budget]] = {
    "tiny": Budget(windows_bytes=7_500, together=2, keepalive_s=900, moments=False),
    "normal": Budget(windows_bytes=45_000, together=2, keepalive_s=300, moments=True),
}


class Rhythm(msgspec.Struct, frozen=True):
    """How windows are sent."""

    merge_s: float = 0.0
    """They are added up to this length before; 0: they are sent as they are."""
    send_s: float = 0.0
    """Seconds between two times; 0: at once."""


def rhythm(telemetry: Telemetry, counted: Iterable[Bins]) -> Rhythm:
    """What the settings say of the models that are counted on these bins."""
    merge_s, together = telemetry.merge_s, 1
    if merge_s is None and telemetry.budget is not None:
        budget, moments = BUDGETS[telemetry.budget], sends_moments(telemetry)
        size = sum(_window_bytes(bins, moments=moments) for bins in counted)
        merge_s = next((one for one in LENGTHS_S if size * DAY_S / one <= budget.windows_bytes), DAY_S)
        together = budget.together
    merge_s = merge_s or 0.0
    return Rhythm(
        merge_s, max(merge_s, min(DAY_S, together * merge_s) if telemetry.send_s is None else telemetry.send_s)
    )


def keepalive_s(telemetry: Telemetry) -> int:
    """Seconds after which a silent connection is asked whether it stands; pings take a tenth of a cap at most."""
    if telemetry.keepalive_s is not None:
        return telemetry.keepalive_s
    usual = 30 if telemetry.budget is None else BUDGETS[telemetry.budget].keepalive_s
    cap = telemetry.daily_cap_kb
    return usual if cap is None else max(usual, min(65_535, ceil(PING_BYTES * DAY_S / (100 * cap))))


def sends_moments(telemetry: Telemetry) -> bool:
    """Whether windows carry moments, where the bundle allows them."""
    if telemetry.moments is not None:
        return telemetry.moments
    return telemetry.budget is None or BUDGETS[telemetry.budget].moments


class Thrift:
    """When windows may be sent, and how much of a day is left.

    Args:
        cap_bytes: Of one day, both ways; None for no cap.
        keepalive_s: As in `keepalive_s`: the pings of the rest of a day are kept for it.
    """

    def __init__(self, cap_bytes: float | None = None, keepalive_s: int = 30) -> None:
        self._cap, self._keepalive_s = cap_bytes, keepalive_s
        self.rhythm = Rhythm()
        self._sent_s: float | None = None

    @property
    def waits(self) -> bool:
        """Whether windows may have to wait, for one another or for tomorrow."""
        return self.rhythm.send_s > 0 or self._cap is not None

    def due_s(self, now_s: float) -> float:
        """When windows may be sent: now, or later."""
        return now_s if self._sent_s is None else max(now_s, self._sent_s + self.rhythm.send_s)

    def sent(self, now_s: float) -> None:
        """All that waited was sent."""
        self._sent_s = now_s

    def hurry(self) -> None:
        """What waits may be sent now."""
        self._sent_s = None

    def room(self, spent: int, wall_s: float, *, urgent: bool) -> float:
        """Bytes that a message may have.

        Args:
            spent: Today's bytes so far, but for the reference.
            wall_s: Seconds since 1970.
            urgent: An event: it may use what is kept for events.
        """
        if self._cap is None:
            return float("inf")
        pings = PING_BYTES * (DAY_S - wall_s % DAY_S) / self._keepalive_s
        return self._cap - spent - pings - MESSAGE_BYTES - (0 if urgent else self._cap / 10)

    @property
    def largest(self) -> float:
        """What a message may have at the beginning of a day; a larger one never goes."""
        return self.room(0, 0.0, urgent=False)


def _window_bytes(bins: Bins, *, moments: bool) -> float:
    """What a window is reckoned to take when it is packed with its neighbours."""
    sizes = [feature.size for feature in bins.features]
    numeric = sum(feature.categories is None for feature in bins.features)
    counted = sum(sizes) + bins.score_size + len(bins.classes)
    return _RECORD_BYTES + _BIN_BYTES * counted + _MOMENTS_BYTES * numeric * moments
