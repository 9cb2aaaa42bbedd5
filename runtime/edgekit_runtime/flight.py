"""What is on its way: which records, in which messages, when each is sent again, and which of them never pass.

Pure values: they are told the time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.telemetry import Kind, encode_message
from edgekit_runtime.ledger import Stream
from edgekit_runtime.outbox import Waiting

HOPELESS: Final = 12
"""Failures after which a record is given up that is larger than all that pass."""
HARMLESS_BYTES: Final = limits.KIB
"""No broker's limit is below this."""

_STREAMS: Final[dict[int, Stream]] = {
    Kind.WINDOW: "windows",
    Kind.LABELS: "labels",
    Kind.GAP: "gaps",
    Kind.REFERENCE: "reference",
}


class Packet(msgspec.Struct, frozen=True):
    """Records that travel in one message."""

    lane: Literal["w", "e"]
    ids: tuple[int, ...]
    payload: bytes
    streams: tuple[tuple[Stream, int], ...] = ()
    """Whose each record is, and its size."""


class _Sent(msgspec.Struct):
    attempt: int
    due_s: float
    bytes: int


class Flight(msgspec.Struct):
    """Which records are on their way, and when each is sent again. Pure: it is told the time.

    A record is sent again after `first_s * 2**attempt`, at most `cap_s`, lengthened by up to half so that a fleet that
    lost its collector does not come back in step.

    It also learns what does not pass: a broker may drop what is above its limit without a word, or end the connection
    each time. A record that fails goes after the others and in ever smaller messages, at last alone. It is hopeless
    when it has failed `HOPELESS` times and is larger than any message that passed.
    """

    first_s: float = 2.0
    cap_s: float = 60.0
    draw: Callable[[], float] = random.random
    _sent: dict[int, _Sent] = {}
    _failures: dict[int, int] = {}
    _passed: int = 0  # records
    _largest: int = HARMLESS_BYTES

    def __len__(self) -> int:
        return len(self._sent)

    def select(self, pending: Sequence[Waiting], now_s: float) -> list[Waiting]:
        """What to send of the pending records: those not on their way, and those overdue; what failed comes last.

        What is no longer pending (stored, or given up for a gap) is forgotten.
        """
        still = {waiting.id for waiting in pending}
        for number in self._sent.keys() - still:
            self._passed += 1
            self._largest = max(self._largest, self._sent.pop(number).bytes)
        self._failures = {number: count for number, count in self._failures.items() if number in still}
        due = [item for item in pending if (sent := self._sent.get(item.id)) is None or sent.due_s <= now_s]
        return sorted(due, key=lambda item: self._failures.get(item.id, 0))

    def sent(self, packet: Packet, now_s: float) -> None:
        """Notes that it was sent now."""
        for number in packet.ids:
            old = self._sent.get(number)
            if old is not None and self._passed:
                # It was overdue, though others pass.
                self._failures[number] = self._failures.get(number, 0) + 1
            attempt = 0 if old is None else old.attempt + 1
            delay = min(self.cap_s, self.first_s * 2.0 ** min(attempt, 32)) * (1.0 + self.draw() / 2)
            self._sent[number] = _Sent(attempt, now_s + delay, len(packet.payload))

    def clear(self, untaken: Iterable[int] = ()) -> None:
        """The connection or the collector was lost: nothing is on its way.

        Args:
            untaken: What the broker had not taken over when it was lost.
        """
        for number in untaken:
            self._failures[number] = self._failures.get(number, 0) + 1
        self._sent.clear()

    def together(self, number: int) -> int:
        """With how many records, itself among them, one may travel."""
        return max(1, limits.MESSAGE_MAX_RECORDS >> self._failures.get(number, 0))

    def is_hopeless(self, record: Waiting) -> bool:
        """Whether it will never pass."""
        return self._failures.get(record.id, 0) >= HOPELESS and len(record.data) > self._largest

    def next_due_s(self) -> float | None:
        """When the first record is overdue, or None."""
        return min((sent.due_s for sent in self._sent.values()), default=None)


def packets(
    records: Sequence[Waiting],
    target_bytes: int = limits.MESSAGE_TARGET_BYTES,
    together: Callable[[int], int] = lambda number: limits.MESSAGE_MAX_RECORDS,
) -> list[Packet]:
    """Groups records, in order, by lane, 1 to 8 for a message and up to the target size.

    Args:
        records: What is to be sent.
        target_bytes: A message becomes no larger, unless one record alone is.
        together: With how many a record may travel, itself among them.
    """
    made: list[Packet] = []
    run: list[Waiting] = []
    lane: Literal["w", "e"] = "w"
    for record in records:
        this: Literal["w", "e"] = "e" if record.kind == Kind.EVENT else "w"
        size = sum(len(other.data) for other in run) + len(record.data)
        full = any(len(run) >= together(one.id) for one in (*run, record)) or size > target_bytes
        if run and (this != lane or full):
            made.append(_packet(lane, run))
            run = []
        lane = this
        run.append(record)
    if run:
        made.append(_packet(lane, run))
    return made


def _packet(lane: Literal["w", "e"], run: Sequence[Waiting]) -> Packet:
    streams: tuple[tuple[Stream, int], ...] = tuple(
        (_STREAMS.get(record.kind, "events"), len(record.data)) for record in run
    )
    return Packet(lane, tuple(record.id for record in run), encode_message(record.data for record in run), streams)
