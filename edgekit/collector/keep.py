"""How long a store keeps what it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from edgekit_contracts.errors import UsageError

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

_SPAN: Final = re.compile(r"([1-9]\d{0,5})([hd])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """How long each is kept, in milliseconds; None is for ever."""

    windows: int | None = 90 * DAY_MS
    hours: int | None = 400 * DAY_MS
    days: int | None = None
    events: int | None = 400 * DAY_MS
    gaps: int | None = 400 * DAY_MS
    """The records; how many were lost is kept for ever."""
    refused: int | None = 90 * DAY_MS
    """The heads; how many were refused is kept for ever."""
    quarantine: int | None = 90 * DAY_MS
    """Windows whose reference has not come; they are counted as refused then."""

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {said(getattr(self, field.name))}" for field in fields(self))


def span_ms(text: str) -> int | None:
    """Reads `48h`, `90d` or `forever`.

    Raises:
        UsageError: Anything else, or less than a day.
    """
    if text == "forever":
        return None
    match = _SPAN.fullmatch(text)
    milliseconds = int(match[1]) * (HOUR_MS if match[2] == "h" else DAY_MS) if match else 0
    if milliseconds < DAY_MS:
        raise UsageError(f"'{text}' is no time to keep something", "write it as 48h, 90d or forever; at least a day")
    return milliseconds


def said(milliseconds: int | None) -> str:
    """A time as `span_ms` reads it."""
    if milliseconds is None:
        return "forever"
    return f"{milliseconds // DAY_MS}d" if milliseconds % DAY_MS == 0 else f"{milliseconds // HOUR_MS}h"
