"""A request that a person is to look at, and where such requests wait."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from edgekit_contracts.manifest import ClassLabel

FILE: Final = "review.db"
"""In the state directory."""
Reason = Literal["abstain", "confirm"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits for a person, or was answered by one."""

    id: int = 0
    """Given by the queue."""
    model: str
    version: str
    at_ms: int
    reason: Reason
    request: str | None
    """The id that the client gave its request."""
    answer: ClassLabel
    """What the model said."""
    score: float | None
    """Its confidence."""
    fields: dict[str, float | str | None]
    """The features that may be kept."""
    label: ClassLabel | None = None
    """What a person said."""
    answered_ms: int | None = None
