"""What is shown of the uplink."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgekit_runtime.ledger import Accounts

State = Literal["stopped", "connecting", "connected", "no collector"]


class UplinkState(msgspec.Struct, frozen=True, kw_only=True):
    """What the status endpoint shows."""

    state: State
    broker: str
    mqtt: str | None
    """What the broker was found to speak; None while there is no connection."""
    last_error: str | None
    outbox_records: int
    outbox_bytes: int
    in_flight: int
    acknowledged: int
    """Records that left the outbox since the start."""
    merged: int
    """Windows that were added into others since the start, for a budget or in an overfull outbox."""
    given_up: int
    """Records that gave way to gaps since the start."""
    ballast: bool
    """Whether room is kept for deleting on a full disk; not, when it was needed."""
    windows_s: float
    """Windows are added up to this length before they are sent; 0: they are not."""
    sends_s: float
    """And sent every so often; 0: at once."""
    capped: bool
    """Whether windows wait for tomorrow, because today's bytes are used up."""
    bytes: Accounts
