"""What a shadow may cost: a share of one processor, and no delay of the answers that can be told from chance.

Pure values: they are told the time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

import msgspec

SLICE_S: Final = 1.0
WORK_SLICES: Final = 3
"""The shadow works so many slices of time, then rests for one, for comparison."""
SAMPLES_MIN: Final = 500
"""Latencies on either side before they are compared."""
SAMPLES_MAX: Final = 5_000
"""Latencies kept of a side."""
LEVEL_MIN: Final = 1 / 64
"""Of the permitted share: how far the brake goes before the shadow only tries now and then."""
TAIL: Final = 0.01
"""The tail that is watched: beyond the 99th percentile."""
SIGMAS: Final = 3.0
"""How far beyond chance the tail must have grown."""


class TokenBucket(msgspec.Struct):
    """Tokens that flow in at a rate, up to a depth; spending may leave a debt, which is paid off first.

    Source: J. Turner, "New directions in communications", IEEE Communications Magazine 24 (1986); RFC 2697 for the
    names.
    """

    rate: float
    """Tokens a second."""
    depth: float
    _level: float = 0.0
    _at_s: float = -math.inf

    def __post_init__(self) -> None:
        self._level = self.depth

    def available(self, now_s: float) -> float:
        """Tokens there are, negative where there is a debt."""
        if now_s > self._at_s:
            grown = self.rate * (now_s - self._at_s) if self._at_s > -math.inf else 0.0
            self._level, self._at_s = min(self.depth, self._level + grown), now_s
        return self._level

    def take(self, tokens: float, now_s: float) -> bool:
        """Takes tokens if all of them are there."""
        if self.available(now_s) < tokens:
            return False
        self._level -= tokens
        return True

    def spend(self, tokens: float, now_s: float) -> None:
        """Takes what was used already, though it may leave a debt."""
        self.available(now_s)
        self._level -= tokens


class Brake(msgspec.Struct):
    """Watches the live model's latency with the shadow at work and at rest, and says how much work is harmless.

    Work and rest take turns. Once enough requests of both were timed, those at work beyond `1 + allowed` times the
    resting 99th percentile are counted. Chance alone puts one in a hundred there; clearly more halve the level, else
    it grows by a quarter.

    Without the turns, a machine that slows down for other reasons would look like a shadow that costs too much.
    """

    allowed: float = 0.1
    """By how much the 99th percentile may grow."""
    level: float = 1.0
    """Of the permitted share of a processor."""
    _work: list[float] = []
    _rest: list[float] = []

    def is_at_work(self, now_s: float) -> bool:
        """Whether the shadow may work at this time at all."""
        return int(now_s / SLICE_S) % (WORK_SLICES + 1) < WORK_SLICES

    def note(self, latency_us: float, *, at_work: bool) -> None:
        """Takes note of one live answer."""
        side = self._work if at_work else self._rest
        if len(side) < SAMPLES_MAX:
            side.append(latency_us)

    def judge(self) -> None:
        """Sets the level anew where enough was seen; call it when a rest begins."""
        if min(len(self._work), len(self._rest)) < SAMPLES_MIN:
            return
        rest, rows = sorted(self._rest), len(self._work)
        limit = (1 + self.allowed) * rest[math.ceil((1 - TAIL) * len(rest)) - 1]
        beyond = rows - bisect_right(sorted(self._work), limit)
        # Both the tail and the percentile that it is held against are estimated: the variances add.
        chance = math.sqrt(TAIL * (1 - TAIL) * (1 / rows + 1 / len(rest)))
        harmful = beyond / rows > TAIL + SIGMAS * chance
        self.level = max(LEVEL_MIN, self.level / 2) if harmful else min(1.0, 1.25 * self.level)
        self._work, self._rest = [], []
