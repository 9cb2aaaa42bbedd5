"""Which bundle of each model answers on a device: what a person commanded, kept over a restart in `slots.json`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.names import ModelName, Sha256, Version

FORMAT: Final = "edgekit-slots/1.0"


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle; its file is named by its hash."""

    version: Version
    sha256: Sha256


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a candidate is tried."""

    strategy: Literal["shadow", "canary", "blue-green"] = "shadow"
    """It sees the requests and is not heard; it answers a share of the keys; it waits to be activated."""
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """Of the keys, for a canary."""
    salt: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Draws a canary's keys; by default the bundle's hash, so that every device draws the same ones."""
    cpu_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    """Of one processor, for a shadow."""
    p99_growth: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    """By how much a shadow may lengthen the live model's 99th percentile before it works less."""
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    """Two values agree that differ by no more, relative to max(1, |live|)."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that is tried beside the live one."""

    slot: Slot
    plan: Plan


class ModelSlots(msgspec.Struct, frozen=True, kw_only=True):
    """The bundles of one model."""

    model: ModelName
    configured: Sha256
    """Of what the device's settings said of this model then: where they say otherwise now, they win."""
    live: Slot
    candidate: Candidate | None = None
    former: Slot | None = None


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    format: str = FORMAT
    models: tuple[ModelSlots, ...] = ()


def decode_slots(data: bytes) -> Slots:
    """Reads `slots.json`.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`.
    """
    return decode_json(data, Slots, what="slots", limit=limits.STATE_MAX_BYTES, format=FORMAT)
