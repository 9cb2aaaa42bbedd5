"""What a person should hear of: the events that a device tells, and alerts in JSON for people and other tools.

An event travels as a record (kind 1) through the outbox. `edgekit collect --alerts` publishes each that was stored,
and the alarms of the fleet's status, at `ek/1/alert/DEVICE`. They are not retained, and one may come twice: its `id`
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.names import DeviceName
from edgekit_contracts.telemetry import U64

ALERT_FORMAT: Final = "edgekit-alert/1.0"

Level = Literal["info", "warning", "error"]
EventName = Literal[
    "started",
    "stopped",
    "staged",
    "activated",
    "returned",
    "promoted",
    "dropped",
    "settings applied",
    "settings refused",
    "bundle refused",
    "self-test failed",
    "shadow stopped",
    "requests fail",
    "disk refuses",
    "records given up",
    "name shared",
]

LEVELS: Final[Mapping[str, Level]] = {
    "started": "info",
    "stopped": "info",
    "staged": "info",
    "activated": "info",
    "returned": "warning",
    "promoted": "info",
    "dropped": "info",
    "settings applied": "info",
    "settings refused": "warning",
    "bundle refused": "error",
    "self-test failed": "error",
    "shadow stopped": "warning",
    "requests fail": "error",
    "disk refuses": "error",
    "records given up": "warning",
    "name shared": "warning",
}
"""How grave an event is. The record does not say it: a name that is not here, of a newer device, is an `info`."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Published at `ek/1/alert/DEVICE`."""

    format: str = ALERT_FORMAT
    id: Annotated[str, msgspec.Meta(max_length=160)]
    """The same for the same alert, also where it comes twice."""
    device: DeviceName
    source: Literal["device", "centre"]
    """Who noticed: the device told an event, or the centre sees it in what is stored."""
    name: Annotated[str, msgspec.Meta(max_length=64)]
    """An event's name; of the centre `alarm`."""
    level: Level
    detail: Annotated[str, msgspec.Meta(max_length=1024)]
    at_ms: U64
    """When it happened, by the device's clock; when the centre saw it. Milliseconds since 1970."""
    over: bool = False
    """An alarm of the centre that does not stand any more."""


def decode_alert(data: bytes) -> Alert:
    """Reads an alert.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Alert, what="alert", limit=limits.STATE_MAX_BYTES, format=ALERT_FORMAT)
