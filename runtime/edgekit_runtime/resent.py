"""Requests that come twice: a client that had no answer in time sends the same bytes again.

Kept are hashes, in memory, for a minute: neither the requests nor anything that outlives the process.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

RESENT_S: Final = 60.0
RESENT_REQUESTS: Final = 1024
"""Requests that are remembered at most; the oldest is forgotten first."""


class Resent:
    """The digests of the last minute's requests. Safe to use from several threads."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, float] = OrderedDict()
        self._lock = threading.Lock()

    def seen(self, request: bytes, now: float | None = None) -> bool:
        """Remembers an answered request, and says whether the same bytes were answered within the last minute.

        Args:
            request: Its bytes.
            now: The monotonic clock, in seconds; by default read here.
        """
        # Python's hash of bytes is SipHash with a key of this process: nobody outside can aim at a collision.
        digest, at = hash(request), time.monotonic() if now is None else now
        with self._lock:
            before = self._last.pop(digest, None)
            self._last[digest] = at
            if len(self._last) > RESENT_REQUESTS:
                self._last.popitem(last=False)
        return before is not None and at - before <= RESENT_S
