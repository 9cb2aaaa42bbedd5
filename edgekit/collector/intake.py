"""A batch is taken in: read, stored in one transaction, and reported, so that it can be acknowledged.

Where the store fails, the batch waits until it can be stored: unacknowledged, its devices still have it. A message that
we stumble over must stop neither the others nor whoever brings them: the batch is taken in message by message then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from edgekit.collector.claims import LeaseLost
from edgekit.collector.ingest import HEAD_BYTES, Accepted, Message, Reading, Refused, read_batch
from edgekit.collector.store import Store
from edgekit_contracts import topics
from edgekit_contracts.errors import StorageFault
from edgekit_contracts.telemetry import Envelope, Event, encode

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=True, kw_only=True):
    """What became of a batch, after its commit."""

    messages: int
    """That were taken in."""
    acks: tuple[tuple[str, bytes], ...] = ()
    """To send, as (device, `telemetry.Ack`)."""
    stored: int = 0
    duplicates: int = 0
    ahead: int = 0
    refused: dict[str, int] = {}
    events: tuple[tuple[Envelope, Event], ...] = ()
    lost: frozenset[int] = frozenset()
    """Partitions of the topic tree that another collector holds now: their messages come again, to that one."""


class Fault(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Nothing can be stored at present."""

    reason: str
    next_step: str

    @classmethod
    def of(cls, error: StorageFault) -> Fault:
        """The same."""
        return cls(str(error), error.next_step)


class Intake(Protocol):
    """Takes batches in, one after the other."""

    @property
    def depth(self) -> int:
        """Batches that may be under way: put, and not got."""
        ...

    def put(self, batch: Sequence[Message]) -> None:
        """Hands a batch over."""
        ...

    def get(self) -> Taken | None:
        """Waits for the first of those that are under way; None: it was given up, for there is an end to waiting."""
        ...

    def close(self) -> None:
        """No batch comes any more, nor is under way."""
        ...


class Here:
    """Takes in where it is called.

    Args:
        store: Where to.
        wait: Waits so many seconds; says whether the end has come.
        on_fault: Told each time that the store fails.
    """

    depth = 1

    def __init__(self, store: Store, *, wait: Callable[[float], bool], on_fault: Callable[[Fault], None]) -> None:
        self._store, self._wait, self._on_fault = store, wait, on_fault
        self._batch: Sequence[Message] = ()

    def put(self, batch: Sequence[Message]) -> None:
        """As `Intake`."""
        self._batch = batch

    def get(self) -> Taken | None:
        """As `Intake`."""
        return self.take_in(self._batch)

    def close(self) -> None:
        """As `Intake`."""

    def take_in(self, batch: Sequence[Message]) -> Taken | None:
        """Takes a batch in; None where the end came while the store failed."""
        try:
            return self._take_in(batch)
        except Exception:
            log.exception("a batch of %d messages failed; its messages are taken one by one", len(batch))
            return _added(map(self._take_in_alone, batch))

    def _take_in(self, batch: Sequence[Message]) -> Taken | None:
        lost: frozenset[int] = frozenset()
        while True:
            try:
                readings = read_batch(batch, self._store)
                return self._ingest(readings, len(batch), lost)
            except LeaseLost as gone:
                # Unknown to their devices: they come again, to whoever holds them now.
                left = [one for one in batch if topics.up_partition(one.topic) not in gone.partitions]
                if len(left) == len(batch):
                    raise
                batch, lost = left, lost | gone.partitions
            except StorageFault as fault:
                self._on_fault(Fault.of(fault))
                if self._wait(RETRY_SECONDS):
                    return None

    def _take_in_alone(self, message: Message) -> Taken | None:
        try:
            return self._take_in([message])
        except Exception as error:
            log.exception("a message on %s cannot be taken in", message.topic)
            detail = f"{type(error).__name__}: {error}"
            head = message.payload[:HEAD_BYTES]
            try:
                return self._ingest([Refused(message.topic[:256], "internal", detail, head, message.received_ms)], 1)
            except Exception:
                log.exception("nor can it be kept among the refused")
                return Taken(messages=1, refused={"internal": 1})

    def _ingest(self, readings: Sequence[Reading], messages: int, lost: frozenset[int] = frozenset()) -> Taken:
        done = self._store.ingest(readings)
        return Taken(
            messages=messages,
            acks=tuple([(device, encode(ack)) for device, ack in done.acks]),
            stored=done.stored,
            duplicates=done.duplicates,
            ahead=done.ahead,
            refused=done.refused,
            events=tuple(
                (one.envelope, one.body)
                for one in readings
                if isinstance(one, Accepted) and isinstance(one.body, Event)
            ),
            lost=lost,
        )


def _added(several: Iterable[Taken | None]) -> Taken | None:
    parts: list[Taken] = []
    for one in several:
        if one is None:
            return None
        parts.append(one)
    refused = sum((Counter(one.refused) for one in parts), Counter[str]())
    return Taken(
        messages=sum(one.messages for one in parts),
        acks=tuple(ack for one in parts for ack in one.acks),
        stored=sum(one.stored for one in parts),
        duplicates=sum(one.duplicates for one in parts),
        ahead=sum(one.ahead for one in parts),
        refused=dict(refused),
        events=tuple(event for one in parts for event in one.events),
        lost=frozenset[int]().union(*(one.lost for one in parts)),
    )
