"""How patient a connection is: what it waits for, how long, and how long before it tries again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

RESUBSCRIBE_CAP_S: Final = 3600.0
BRIEF_S: Final = 10.0
CONTESTED_CONNECTIONS: Final = 3
"""So many connections in a row that stood and ended within `BRIEF_S`: somebody else may call himself as we do."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a connection is, in seconds."""

    reconnect_first_s: float = 1.0
    reconnect_cap_s: float = 60.0
    connect_timeout_s: float = 10.0
    probe_s: float = 3.0
    """Of silence, after which a broker that is asked in MQTT 5 is taken for one of 3.1.1."""
    keepalive_s: int = 30
    resubscribe_s: float = 10.0
    """After which a refused subscription is tried again, then twice as long and so on, up to `RESUBSCRIBE_CAP_S`."""


def full_jitter(attempt: int, first_s: float, cap_s: float, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait before connecting again: uniform in [first, min(cap, first * 2**attempt)].

    Args:
        attempt: 0 after the first failure.
        first_s: Shortest wait, so that a broker that drops every connection is not hammered.
        cap_s: Longest wait.
        draw: Uniform in [0, 1).

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter), with a floor.
    """
    ceiling = min(cap_s, first_s * 2.0 ** min(attempt + 1, 32))
    return first_s + draw() * max(0.0, ceiling - first_s)
