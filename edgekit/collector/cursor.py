"""Which records of a device's epoch have come: what decides whether one is new, known, or to be sent again later.

Rows of records are removed in time, so their keys cannot say whether a record that comes again was counted before. The
cursor can: it knows every sequence that was ever received, as ranges, and which of them were never received but given
up. Pure arithmetic; `store` keeps it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

from edgekit_contracts.telemetry import Gap

RANGES_MAX: Final = 1024
"""Islands beyond the cursor that are remembered for one epoch; a device has 256 records in flight."""
RECENT_MAX: Final = 5
"""Windows whose lengths are remembered."""

Range = tuple[int, int]
"""Inclusive: first and last."""


class Taken(Enum):
    """What became of a record."""

    NEW = "new"
    KNOWN = "known"
    LATE = "late"
    """New, though it had been given up: a copy was still on its way."""
    BEYOND = "beyond"
    """Not taken: it would be an island too many. Unacknowledged, it comes again when those before it have come."""


class Spans:
    """A set of positive integers, as ranges that stand apart.

    Args:
        ranges: In order and apart.
    """

    __slots__ = ("_first", "_last")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        pairs = list(ranges)
        self._first, self._last = [first for first, _ in pairs], [last for _, last in pairs]

    def __iter__(self) -> Iterator[Range]:
        return zip(self._first, self._last, strict=True)

    def __len__(self) -> int:
        """Of the ranges."""
        return len(self._first)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    @property
    def lowest(self) -> Range:
        """The first range."""
        return self._first[0], self._last[0]

    @property
    def highest(self) -> int:
        """The highest number in it."""
        return self._last[-1]

    def add(self, first: int, last: int) -> None:
        """Adds a range, joined with those that touch it."""
        start, end = bisect_left(self._last, first - 1), bisect_right(self._first, last + 1)
        if start < end:
            first, last = min(first, self._first[start]), max(last, self._last[end - 1])
        self._first[start:end], self._last[start:end] = [first], [last]

    def extend(self, number: int) -> bool:
        """Adds a number where it is the next one after all others; says whether it is."""
        if number != self._last[-1] + 1:
            return False
        self._last[-1] = number
        return True

    def discard(self, number: int) -> None:
        """Takes one number out."""
        at = bisect_right(self._first, number) - 1
        if at >= 0 and number <= self._last[at]:
            first, last = self._first[at], self._last[at]
            left = [(first, number - 1)] if first < number else []
            left += [(number + 1, last)] if number < last else []
            self._first[at : at + 1], self._last[at : at + 1] = [a for a, _ in left], [b for _, b in left]

    def keep_last(self, ranges: int) -> None:
        """Forgets the lowest ranges beyond so many."""
        del self._first[:-ranges], self._last[:-ranges]

    def within(self, first: int, last: int) -> list[Range]:
        """What of it lies in a range."""
        start, end = bisect_left(self._last, first), bisect_right(self._first, last)
        return [(max(first, self._first[at]), min(last, self._last[at])) for at in range(start, end)]

    def holes(self, first: int, last: int) -> list[Range]:
        """What of a range is not in it."""
        found = []
        for start, end in self.within(first, last):
            if first < start:
                found.append((first, start - 1))
            first = end + 1
        return [*found, (first, last)] if first <= last else found


def size(ranges: Iterable[Range]) -> int:
    """How many numbers they hold."""
    return sum(last - first + 1 for first, last in ranges)


class Cursor:
    """What was received of a device's epoch, given-up records among it.

    Args:
        high: Everything up to here.
        ranges: And beyond, in order and apart.
        missing: What of all that was given up and has not come.
        lost: Records that were given up and have not come, by what the gaps say.
        recent: Of the last few windows: when each came, and its length, in milliseconds; the last one first.
    """

    __slots__ = ("_received", "lost", "missing", "recent")

    def __init__(
        self,
        high: int = 0,
        ranges: Iterable[Range] = (),
        missing: Iterable[Range] = (),
        lost: int = 0,
        recent: Iterable[tuple[int, int]] = (),
    ) -> None:
        # Sequences begin at 1: a range that holds 0 is what `high` speaks of.
        self._received = Spans([(0, high), *ranges])
        self.missing, self.lost, self.recent = Spans(missing), lost, tuple(recent)

    @property
    def high(self) -> int:
        """Everything up to here was received."""
        return self._received.lowest[1]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Received beyond `high`."""
        return tuple(self._received)[1:] if len(self._received) > 1 else ()

    @property
    def highest(self) -> int:
        """The highest sequence received; 0 for none."""
        return self._received.highest

    def take(self, sequence: int) -> Taken:
        """Receives one record."""
        if self._received.extend(sequence):
            return Taken.NEW  # nearly always
        if sequence in self._received:
            if sequence not in self.missing:
                return Taken.KNOWN
            self.missing.discard(sequence)
            return Taken.LATE
        return Taken.NEW if self._receive(sequence, sequence) else Taken.BEYOND

    def give_up(self, gap: Gap) -> tuple[Taken, int, int]:
        """Receives a gap.

        Where it names fewer records than it spans, some of them live on in others, and which ones is not known: a copy
        of one of those that is still on its way must not be stored beside them. Where it names more, its one sequence
        was that of a window with others in it.

        Returns:
            What became of it, how many of its records are lost, and how many of its sequences had not come before.
        """
        span = (gap.first, gap.last)
        fresh = self._received.holes(*span)
        if not fresh:
            # All of it was here, or was given up before: nothing is lost by it.
            return Taken.KNOWN, 0, 0
        here = size([span]) - size(fresh) - size(self.missing.within(*span))
        if not self._receive(*span):
            return Taken.BEYOND, 0, 0
        if gap.records >= size([span]):
            for hole in fresh:
                self.missing.add(*hole)
            self.missing.keep_last(RANGES_MAX)
        return Taken.NEW, max(0, gap.records - here), size(fresh)

    def _receive(self, first: int, last: int) -> bool:
        received = self._received
        # Full, and an island of its own: it touches and swallows no other.
        if len(received) > RANGES_MAX and not received.within(first - 1, last + 1):
            return False
        received.add(first, last)
        return True


def merge_recent(several: Iterable[Iterable[tuple[int, int]]]) -> tuple[tuple[int, int], ...]:
    """The last few windows of several lists of them."""
    return tuple(sorted((one for some in several for one in some), reverse=True)[:RECENT_MAX])
