"""What is sent now of what waits in the outbox, and what had better wait, be added up or be given up."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Container
from typing import Final

from edgekit_contracts import limits, topics
from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.telemetry import decode_envelope, pack_message
from edgekit_runtime.flight import Flight, Packet, packets
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.mqtt import Link, Publication
from edgekit_runtime.outbox import IN_FLIGHT_MAX, Outbox, Waiting
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.thrift import DAILY_CAP, DAY_S, MESSAGE_BYTES, Thrift

log = logging.getLogger(__name__)

MESSAGES_AT_BROKER_MAX: Final = 32
"""Retransmission must not pile up copies behind a slow line."""
EVENTS_BEYOND: Final = 64
"""Events that have a place of their own beside the others in flight."""
KEYS_AT_ONCE: Final = 64
"""Records that get their keys together, in one commit."""


class Dispatch:
    """Sends from one outbox over one connection, on the sender's thread.

    Args:
        outbox: What waits.
        link: The connection.
        flight: What is on its way, and when it is sent again.
        ledger: Counts the bytes.
        thrift: When windows may be sent, and how much of a day's bytes is left.
        pace: Bytes of what has piled up that may be sent; None for all of it at once. Events do not wait for it.
        wake: Asks for another round.
    """

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        *,
        flight: Flight,
        ledger: Ledger,
        thrift: Thrift,
        pace: TokenBucket | None,
        wake: Callable[[], None],
    ) -> None:
        self._outbox, self._link, self._flight = outbox, link, flight
        self._ledger, self._thrift, self._wake = ledger, thrift, wake
        self._pace, self._appended = pace, outbox.appended_bytes
        self._resume_s: float | None = None  # when the pace allows more
        self._windows_s: float | None = None  # when windows that wait may be sent
        self._gathered = -1  # records that had been produced when those that wait were added up
        self._handed: deque[tuple[Publication, Packet]] = deque(maxlen=4 * MESSAGES_AT_BROKER_MAX)
        self._held_room = 0.0  # room below which windows wait
        self.capped = False
        """Whether windows wait for tomorrow, because today's bytes are used up."""

    def due_s(self) -> float | None:
        """When there is something to do next; None: when there are new records."""
        return min(filter(None, (self._flight.next_due_s(), self._resume_s, self._windows_s)), default=None)

    def take_back(self, untaken: Container[Publication]) -> list[int]:
        """Which records these messages held; after that the connection is over. On the link's thread."""
        ids = [one for sent, packet in tuple(self._handed) if sent in untaken for one in packet.ids]
        self._handed.clear()
        return ids

    def send(self, *, packing: bool) -> None:
        """Sends what is due; where the broker has room for more and the pace allows it, further records get keys.

        Args:
            packing: Whether messages are packed: all who may read them can.
        """
        dialect, outbox, flight = self._link.dialect, self._outbox, self._flight
        if dialect is None:
            return
        room = min(MESSAGES_AT_BROKER_MAX, dialect.at_once) - self._link.outstanding
        largest = dialect.payload_max(str(topics.Up(outbox.device)))
        target = limits.MESSAGE_TARGET_BYTES if largest is None else min(largest - 1, limits.MESSAGE_TARGET_BYTES)
        target = int(min(target, max(1.0, self._thrift.largest)))
        ready = self._gather()
        while True:
            paced = self._is_paced()
            due = flight.select(outbox.pending(IN_FLIGHT_MAX + EVENTS_BEYOND), time.monotonic())
            for packet in packets([one for one in due if self._can_travel(one, largest)], target, flight.together):
                if packet.lane == "w" and (paced := self._is_paced()):
                    continue
                payload = pack_message(packet.payload) if packing else packet.payload
                if not self._is_affordable(packet, payload):
                    continue
                if room <= 0 or not self._hand_over(packet, payload):
                    return
                room -= 1
            events, others = IN_FLIGHT_MAX + EVENTS_BEYOND - outbox.keyed, IN_FLIGHT_MAX - outbox.keyed
            some = (
                min(others, limits.MESSAGE_MAX_RECORDS if self._thrift.waits else KEYS_AT_ONCE)
                if ready and not paced and not self.capped
                else 0
            )
            if not outbox.give_keys(min(events, KEYS_AT_ONCE), some):
                break
        if ready and outbox.records == outbox.keyed:
            self._thrift.sent(time.monotonic())

    def _gather(self) -> bool:
        """Whether windows may be sent now; those that wait are added up."""
        now_s, waiting = time.monotonic(), self._outbox.records > self._outbox.keyed
        due_s = self._thrift.due_s(now_s)
        room = self._thrift.room(self._ledger.today, time.time(), urgent=False)
        self.capped = room < self._held_room
        if not self.capped:
            self._held_room = 0.0
        self._windows_s = due_s if waiting and due_s > now_s else None
        span_s = DAY_S if self.capped else self._thrift.rhythm.merge_s
        if span_s and (self.capped or due_s <= now_s) and self._gathered != (now := self._outbox.produced):
            self._outbox.condense(span_s)
            self._gathered = now
        return due_s <= now_s

    def _is_affordable(self, packet: Packet, payload: bytes) -> bool:
        """Whether today's bytes allow a message; the reference is no matter of them."""
        whole = sum(size for _, size in packet.streams)
        counted = sum(size for stream, size in packet.streams if stream != "reference")
        room = self._thrift.room(self._ledger.today, time.time(), urgent=packet.lane == "e")
        if not counted or len(payload) * counted <= room * whole:
            return True
        if packet.lane == "e":
            return False
        if len(packet.ids) == 1 and len(payload) > self._thrift.largest:
            log.error("record %d of %s is given up: it has %d bytes", packet.ids[0], self._outbox.device, len(payload))
            self._outbox.give_up(packet.ids[0], DAILY_CAP)
            self._wake()
            return False
        # Nor is what follows, until another day begins: it had better be added up.
        self.capped, self._held_room = True, room + MESSAGE_BYTES
        return False

    def _is_paced(self) -> bool:
        """Whether what has piled up must wait."""
        self._resume_s = None
        if self._pace is None:
            return False
        now_s, appended = time.monotonic(), self._outbox.appended_bytes
        self._pace.spend(self._appended - appended, now_s)  # what is produced brings its own passage
        self._appended = appended
        if (level := self._pace.available(now_s)) > 0:
            return False
        self._resume_s = now_s - level / self._pace.rate
        return True

    def _hand_over(self, packet: Packet, payload: bytes) -> bool:
        """Gives a message to the connection; False where there is none."""
        publication = Publication(str(topics.Up(self._outbox.device, packet.lane)), payload)
        self._handed.append((publication, packet))
        if not self._link.publish(publication):
            return False
        self._ledger.carried(len(payload), *packet.streams)
        now_s = time.monotonic()
        if self._pace is not None:
            self._pace.spend(len(payload), now_s)
        self._flight.sent(packet, now_s)
        return True

    def _can_travel(self, record: Waiting, largest: int | None) -> bool:
        """Gives up a record that would be refused for ever, and its neighbours with it.

        The disk spoiled it, or it is larger than the broker takes: `largest` bytes of payload, or what others show.
        """
        if largest is not None and len(record.data) >= largest:
            error, reason = f"it has {len(record.data)} bytes; the broker takes {largest - 1}", "above broker's limit"
        elif self._flight.is_hopeless(record):
            error, reason = f"it has {len(record.data)} bytes and does not pass the broker", "above broker's limit"
        else:
            try:
                decode_envelope(record.data)
            except EdgekitError as fault:
                error, reason = str(fault), "unreadable"
            else:
                return True
        log.error("record %d of %s is given up: %s", record.id, self._outbox.device, error)
        self._outbox.give_up(record.id, reason)
        self._wake()
        return False
