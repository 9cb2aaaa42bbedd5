"""Whether two starts of a device speak of the same time, as no single device can.

A device's service runs once at a time, and each start has an epoch of its own; so windows of two epochs do not
overlap. Where they do, two devices have one name, or an outbox was put back from an image: what had waited in it
without a key comes again under the new epoch, and is counted twice. No number that is stored tells these windows from
others (ADR-0039), their time does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edgekit.collector.archive import Archive
from edgekit.collector.blocks import StoredWindow

LOOK_BACK_MS: Final = 86_400_000
"""So far back at most: each window is read."""


def overlap(store: Archive, device: str, since_ms: int, now_ms: int) -> bool:
    """Whether windows of one model in two epochs cover the same time.

    Args:
        store: Where the collector stores.
        device: Its name.
        since_ms: Windows that begin before this are left out.
        now_ms: Milliseconds since 1970.

    Raises:
        StorageFault: The store cannot be read.
    """
    since_ms = max(since_ms, now_ms - LOOK_BACK_MS)
    return len(store.epochs(device, since_ms)) > 1 and any_overlap(store.windows(device, since_ms))


def any_overlap(windows: Iterable[StoredWindow]) -> bool:
    """Whether two windows of different epochs and of one model share more than half of the shorter one's time.

    Args:
        windows: Of one device, in order of time.
    """
    latest: dict[tuple[object, ...], dict[int, StoredWindow]] = {}  # of each epoch the one that ends last
    for one in windows:
        if one.at_ms == one.received_ms:
            continue  # dated by its arrival: when it was, nobody knows
        # A window that was made of several may span the time of one that was sent meanwhile: these are not compared.
        series = (one.bins_id, one.model, one.version, not one.window.software.calls, one.merged > 0)
        epochs = latest.setdefault(series, {})
        for epoch, other in epochs.items():
            shared_ms = min(_end(one), _end(other)) - one.at_ms
            if epoch != one.epoch and 2 * shared_ms > min(one.dt_ms, other.dt_ms):
                return True
        if one.epoch not in epochs or _end(one) > _end(epochs[one.epoch]):
            epochs[one.epoch] = one
    return False


def _end(window: StoredWindow) -> int:
    return window.at_ms + window.dt_ms
