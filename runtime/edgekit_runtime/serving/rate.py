"""A token bucket: so many requests a second on average, and a second's worth at once."""

from __future__ import annotations

import threading


class TokenBucket:
    """Holds at most a second's worth of tokens, and at least one. Safe to use from several threads.

    Args:
        rate: Tokens a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, max(1.0, rate)
        self._tokens, self._at = self._most, 0.0
        self._lock = threading.Lock()

    def take(self, now: float) -> float:
        """Takes a token.

        Args:
            now: When the request began, in seconds. One that began before the last one counts as of the same time.

        Returns:
            0.0 where there was one; else the seconds until there is.
        """
        with self._lock:
            self._tokens = min(self._most, self._tokens + max(0.0, now - self._at) * self._rate)
            self._at = max(self._at, now)
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return 0.0
            return (1.0 - self._tokens) / self._rate
