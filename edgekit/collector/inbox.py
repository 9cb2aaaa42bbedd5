"""What has come and waits for the worker: bounded in messages and bytes, and of each device only the latest status.

One thread puts, one takes. Telemetry beyond the bounds is let go: its device sends it again. A status is retained and
comes once, so it is never let go.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Final

from edgekit.collector.ingest import Message
from edgekit_contracts import limits, topics

BATCH_MESSAGES: Final = 2000
BATCH_BYTES: Final = 4 * limits.MIB
"""What one transaction takes, when more waits: windows of one device lie side by side, so a second one costs little;
4 MiB take about a tenth of a second."""
BATCH_SECONDS: Final = 0.02
QUIET_SECONDS: Final = 0.002
"""A batch ends early when nothing comes for so long. With the broker's default of 20 messages under way that is after
these 20, for it sends no more before they are acknowledged."""
QUEUE_MESSAGES: Final = 20_000
QUEUE_BYTES: Final = 64 * limits.MIB

_UP: Final = f"{topics.ROOT}/up/"


class Inbox:
    """A queue of messages.

    Args:
        max_bytes: Of topics and payloads.
    """

    def __init__(self, max_bytes: int = QUEUE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._queue: queue.SimpleQueue[Message | str | None] = queue.SimpleQueue()
        self._statuses: dict[str, Message] = {}  # the latest of a device whose name stands in the queue in its place
        self._lock = threading.Lock()  # the statuses
        self._put_bytes = self._taken_bytes = 0  # each written by one thread

    @property
    def bytes(self) -> int:
        """Of telemetry that waits."""
        return self._put_bytes - self._taken_bytes

    def put(self, message: Message) -> Message | None:
        """Takes a message in; returns the one that is let go for it, if any: itself, or an older status."""
        device = None if message.topic.startswith(_UP) else topics.status_device(message.topic)
        size = _size(message)
        full = self._queue.qsize() >= QUEUE_MESSAGES or self.bytes + size > self._max_bytes
        if device is not None:
            with self._lock:
                older = self._statuses.get(device)
                if older is not None or full:
                    self._statuses[device] = message
            if older is None and full:
                self._queue.put(device)
            if older is not None or full:
                return older
        elif full:
            return message
        self._put_bytes += size
        self._queue.put(message)
        return None

    def close(self) -> None:
        """Nothing comes any more."""
        self._queue.put(None)

    def take(self, *, wait: bool = True) -> tuple[list[Message], bool]:
        """The next batch, and whether there will be another; waits for its first message, or may be empty."""
        try:
            found = [self._queue.get(block=wait)]
        except queue.Empty:
            return [], True
        end, size = time.monotonic() + BATCH_SECONDS, 0
        while (last := found[-1]) is not None and len(found) < BATCH_MESSAGES and size < BATCH_BYTES:
            size += 0 if isinstance(last, str) else _size(last)
            try:
                found.append(self._queue.get_nowait())
            except queue.Empty:
                left = end - time.monotonic()
                try:
                    found.append(self._queue.get(timeout=max(0.0, min(left, QUIET_SECONDS))))
                except queue.Empty:
                    break
        more = found[-1] is not None
        batch: list[Message] = []
        for one in found:
            if isinstance(one, str):
                with self._lock:
                    batch.append(self._statuses.pop(one))
            elif one is not None:
                self._taken_bytes += _size(one)
                batch.append(one)
        return batch, more


def _size(message: Message) -> int:
    return len(message.topic) + len(message.payload)
