"""What stands retained on the broker: a device's birth or last will, what it should run, and a collector's presence."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.names import BinsId, Count, DeviceName, ModelName, Sha256, Version
from edgekit_contracts.telemetry import U64

STATUS_FORMAT: Final = "edgekit-status/1.1"
WANT_FORMAT: Final = "edgekit-want/1.0"
NOW_FORMAT: Final = "edgekit-now/1.0"
HOST_FORMAT: Final = "edgekit-host/1.1"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a device serves."""

    model: ModelName
    version: Version
    bundle_sha256: Sha256
    bins_id: BinsId


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Retained at `ek/1/st/DEVICE`: the birth, and, with `dead`, the last will.

    A will of an older session than the last birth is ignored: it is the echo of a connection that was replaced.
    """

    format: str = STATUS_FORMAT
    device: DeviceName
    session: U64
    """Grows by one at each start of the device's service."""
    dead: bool = False
    epoch: U64 | None = None
    agent: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    """`edgekit-runtime VERSION`."""
    onnxruntime: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    running: tuple[Running, ...] = ()
    refused: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    """Why it runs nothing, or not what was wanted."""
    outbox_records: Count = 0
    started_ms: U64 = 0
    sends_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    """Since 1.1: windows are sent every so many seconds; 0: at once."""


class ModelNow(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's last window says in scalars; without one, all but its name is missing."""

    model: ModelName
    version: Version
    window_s: float | None = None
    """Its length in seconds."""
    requests: Count | None = None
    """That were answered."""
    rejected: Count | None = None
    """For what was in them."""
    failed: Count | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    """To one bin of the window's: up to 26 % off. None without requests."""
    null_percent: float | None = None
    """Of all features' values. None without rows, as the next two."""
    out_of_range_percent: float | None = None
    abstained_percent: float | None = None
    """Of the rows, those below the manifest's threshold."""


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """Retained at `ek/1/now/DEVICE`, where the device's settings say so: scalars for people and other tools."""

    format: str = NOW_FORMAT
    device: DeviceName
    at_ms: U64
    """By the device's clock, milliseconds since 1970."""
    rss_mb: float | None = None
    """Resident memory in 10^6 bytes."""
    cpu_percent: float | None = None
    """In the last window; 100 is one core."""
    uptime_s: Count | None = None
    outbox_records: Count | None = None
    """Records that wait for the centre."""
    models: tuple[ModelNow, ...]
    """Those that are live."""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """Retained at `ek/1/dn/DEVICE/want`: what the centre wants the device to run."""

    format: str = WANT_FORMAT
    revision: U64
    """Only a higher one than the last replaces it."""
    model: ModelName
    version: Version
    bundle_sha256: Sha256
    mode: Literal["replace", "shadow", "canary"] = "replace"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Retained at `ek/1/host/COLLECTOR`: devices hold their records while no collector is alive."""

    format: str = HOST_FORMAT
    collector: DeviceName
    alive: bool
    accepts: tuple[Annotated[str, msgspec.Meta(max_length=32)], ...] = ()
    """Since 1.1: forms of messages that it reads beside plain ones; `"zlib"` is `telemetry.pack_message`'s."""


def decode_status(data: bytes) -> Status:
    """Reads a status.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Status, what="device status", limit=limits.STATE_MAX_BYTES, format=STATUS_FORMAT)


def decode_now(data: bytes) -> Now:
    """Reads a device's scalars.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Now, what="device's scalars", limit=limits.STATE_MAX_BYTES, format=NOW_FORMAT)


def decode_host(data: bytes) -> Host:
    """Reads a collector's presence.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Host, what="collector's presence", limit=limits.STATE_MAX_BYTES, format=HOST_FORMAT)
