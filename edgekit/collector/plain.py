"""Records are read as if they were right, as nearly all are: what must hold stands in the types, and C asks it.

Whatever is not plainly right is None here, and the contract's own reader says what it is. Two patterns that it asks of
each window are not asked again: a device's name is that of the topic, and few models send many windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.telemetry import Envelope, Kind, Window

NAMES_MAX: Final = 4096
"""Models and versions that are remembered."""


class _Envelope(Envelope, frozen=True, array_like=True, gc=False):
    version: Literal[1]  # ENVELOPE_VERSION
    device: str


class _Window(Window, frozen=True, array_like=True, gc=False):
    model: str
    model_version: str


_ENVELOPES: Final[msgspec.msgpack.Decoder[list[_Envelope]]] = msgspec.msgpack.Decoder(
    Annotated[list[_Envelope], msgspec.Meta(min_length=1, max_length=limits.MESSAGE_MAX_RECORDS)]
)
_WINDOWS: Final = msgspec.msgpack.Decoder(_Window)
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

_names: set[tuple[str, str]] = set()


def envelopes_from(array: bytes, device: str) -> Sequence[Envelope] | None:
    """A message's envelopes, if all of them can be read and are of this device, whose name is one.

    Args:
        array: The message, unpacked.
        device: Of the message's topic.
    """
    if len(array) > limits.MESSAGE_MAX_BYTES:
        return None
    try:
        envelopes = _ENVELOPES.decode(array)
    except _UNREADABLE:
        return None
    for one in envelopes:
        if one.device != device:
            return None
    return envelopes


def window_in(envelope: Envelope) -> Window | None:
    """A window of a model that `remember` was told of."""
    if envelope.kind is not Kind.WINDOW:
        return None
    try:
        window = _WINDOWS.decode(envelope.body)
    except _UNREADABLE:
        return None
    return window if (window.model, window.model_version) in _names else None


def remember(window: Window) -> None:
    """Takes the model's name and version as such from now on: the contract's reader has read this window."""
    if len(_names) >= NAMES_MAX:
        _names.clear()
    _names.add((window.model, window.model_version))
