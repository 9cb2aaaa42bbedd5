"""Windows as they lie in the store: a row is a *block*, windows of one device and hour that were stored together.

Where windows come side by side, several in a message or after an outage, a row costs its indexes once for all of them,
and is read with one call. A block belongs to one hour (UTC) by the time of its windows, so that whoever asks for whole
hours asks for whole blocks. A window stands in it as `[at_ms, received_ms, envelope]`, the envelope as the device sent
it (docs/formats/telemetry.md); later releases may append to either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from edgekit.collector.database import Row
from edgekit.collector.keep import HOUR_MS
from edgekit_contracts.errors import FormatError
from edgekit_contracts.telemetry import Envelope, Window
from edgekit_contracts.topics import partition

WINDOWS_MAX: Final = 16
"""In a block; twice as many make it hardly cheaper, and it is read as a whole."""

_encode: Final = msgspec.msgpack.Encoder().encode


class StoredWindow(NamedTuple):
    """A window as it is read back."""

    device: str
    epoch: int
    sequence: int
    at_ms: int
    dt_ms: int
    received_ms: int
    bins_id: bytes
    n: int
    model: str
    version: str
    window: Window
    merged: int = 0
    """Windows that the device had added into it."""


def in_time(window: StoredWindow) -> tuple[int, int, int]:
    """What orders a device's windows."""
    return (window.at_ms, window.sequence, window.epoch)


class Blocks:
    """Windows of one transaction, on their way into rows of `schema.WINDOW`.

    Args:
        day: On which they are stored, since 1970.
    """

    def __init__(self, day: int) -> None:
        self._day = day
        self._windows: dict[tuple[str, int], list[tuple[int, int, Envelope]]] = {}

    def add(self, envelope: Envelope, at_ms: int, received_ms: int) -> None:
        """Takes a window in."""
        place = (envelope.device, at_ms // HOUR_MS)
        found = self._windows.get(place)
        if found is None:
            found = self._windows[place] = []
        found.append((at_ms, received_ms, envelope))

    def rows(self) -> list[Row]:
        """All of them."""
        return [
            (partition(device), self._day, device, hour * HOUR_MS, len(some), _encode(some))
            for (device, hour), windows in self._windows.items()
            for some in (windows[start : start + WINDOWS_MAX] for start in range(0, len(windows), WINDOWS_MAX))
        ]


class _Body(Window, frozen=True, array_like=True, gc=False):
    """A window that was checked when it came: its names are not matched again."""

    model: str
    model_version: str


class _Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """As `Envelope`, likewise."""

    version: int
    device: str
    epoch: int
    sequence: int
    kind: int
    t0_ms: int
    dt_ms: int
    clock: int
    bins_id: bytes
    n: int
    body: _Body
    merged: int = 0


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    at_ms: int
    received_ms: int
    envelope: _Envelope


_DECODER: Final = msgspec.msgpack.Decoder(list[_Entry])


def windows_of(blocks: Iterable[bytes]) -> list[StoredWindow]:
    """The windows of blocks, in their order.

    Args:
        blocks: The column `records` of rows.

    Raises:
        FormatError: Somebody changed one in the database.
    """
    try:
        return [
            StoredWindow(
                sent.device,
                sent.epoch,
                sent.sequence,
                entry.at_ms,
                sent.dt_ms,
                entry.received_ms,
                sent.bins_id,
                sent.n,
                sent.body.model,
                sent.body.model_version,
                sent.body,
                sent.merged,
            )
            for block in blocks
            for entry in _DECODER.decode(block)
            for sent in (entry.envelope,)
        ]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError("block of windows", "$", str(error)) from error


def block_of(at_ms: int, received_ms: int, *envelope: Any) -> bytes:
    """A block of one window, whose envelope is given as a value for each field; the body is encoded."""
    *head, body, merged = envelope
    return _encode([(at_ms, received_ms, (*head, msgspec.Raw(body), merged))])
