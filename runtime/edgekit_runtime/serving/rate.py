"""So many requests a second on average, and a second's worth at once."""

from __future__ import annotations

import threading

from edgekit_runtime.strategies.budget import TokenBucket


class RequestRate:
    """Holds at most a second's worth of tokens, and at least one. Safe to use from several threads.

    Args:
        rate: Requests a second.
    """

    def __init__(self, rate: float) -> None:
        self._tokens = TokenBucket(rate, max(1.0, rate))
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Takes a token.

        Args:
            now: When the request began, in seconds. One that began before the last one counts as of the same time.

        Returns:
            0.0 where there was one; else the seconds until there is.
        """
        with self._lock:
            if self._tokens.take(1.0, now):
                return 0.0
            return (1.0 - self._tokens.available(now)) / self._tokens.rate
