"""The uplink: the device's MQTT agent. It carries the outbox to the centre and hears what the centre stores.

A record leaves the outbox when the collector's `Ack` arrives, never before. What is on its way is known only to
`Flight`, a pure value; nothing is handed to paho while there is no connection, and at most 32 messages before the
broker has taken them over. While no collector's presence says that it is alive, nothing is sent: replay is paused.

Two threads: the link's (network) and the sender's (outbox, retransmission). Neither is the thread of a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from edgekit_contracts import limits, topics
from edgekit_contracts.decode import decode_msgpack, encode_json
from edgekit_contracts.errors import EdgekitError, StorageFault
from edgekit_contracts.state import Host, Status, decode_host
from edgekit_contracts.telemetry import PACKED, Ack, decode_envelope, pack_message
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import Flight, Packet, packets
from edgekit_runtime.ledger import Accounts, Ledger
from edgekit_runtime.mqtt import Link, Publication, Received, Timing
from edgekit_runtime.outbox import IN_FLIGHT_MAX, Outbox, Waiting
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.thrift import DAILY_CAP, DAY_S, MESSAGE_BYTES, Thrift

log = logging.getLogger(__name__)

MESSAGES_AT_BROKER_MAX: Final = 32
"""Retransmission must not pile up copies behind a slow line."""

EVENTS_BEYOND: Final = 64
"""Events that have a place of their own beside the others in flight."""
KEYS_AT_ONCE: Final = 64
"""Records that get their keys together, in one commit."""
REPLAY_BURST_BYTES: Final = 64 * limits.KIB
"""Of what has piled up is sent at once; the rest at the pace of `replay_kb_s`."""

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


class Uplink:
    """Carries one outbox to a broker.

    Args:
        broker: Where to connect. That it is down is no error: the uplink keeps trying.
        outbox: Stays open after `stop`; it belongs to the caller.
        birth: What the device runs, or what tells it at each birth. Device, session, epoch, `dead` and the outbox's
            fill are put in here.
        timing: Of the connection.
        flight: Of retransmission.
        ledger: Counts the bytes.
        thrift: When windows may be sent, and how much of a day's bytes is left.
        pace: Bytes of what has piled up that may be sent; None for all of it at once. Events do not wait for it.
    """

    def __init__(
        self,
        broker: Broker,
        outbox: Outbox,
        birth: Status | Callable[[], Status] | None = None,
        *,
        timing: Timing | None = None,
        flight: Flight | None = None,
        ledger: Ledger | None = None,
        thrift: Thrift | None = None,
        pace: TokenBucket | None = None,
    ) -> None:
        self._outbox = outbox
        self._pace, self._appended = pace, outbox.appended_bytes
        self._resume_s: float | None = None  # when the pace allows more
        self._windows_s: float | None = None  # when windows that wait may be sent
        self._gathered = -1  # records that had been produced when those that wait were added up
        self._handed: deque[tuple[Publication, Packet]] = deque(maxlen=4 * MESSAGES_AT_BROKER_MAX)
        self._untaken: list[int] = []
        self._birth_of = birth
        self._flight = Flight() if flight is None else flight  # an empty flight is false
        self._ledger, self._thrift = ledger or Ledger(), thrift or Thrift()
        self._capped, self._held_room = False, 0.0  # room below which windows wait
        self._condition = threading.Condition()
        self._acks: deque[Ack] = deque()
        self._hosts: dict[str, Host] = {}  # alive
        self._woken = self._up = self._stopping = self._restarted = False
        self._state: State = "stopped"
        self._last_error: str | None = None
        self._refusal: str | None = None  # of this connection, by the broker
        self._fault: str | None = None  # of the sender's last pass
        self._acknowledged = 0
        self._ack_topic = topics.ack(outbox.device)
        self._link = Link(
            broker,
            f"ek-{outbox.device}",
            will=lambda: self._publication(self._death()),
            subscriptions=(self._ack_topic, topics.ALL_HOSTS),
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=self._on_down,
            on_room=self.wake,
            on_refused=self._on_refused,
            meter=self._ledger.wire,
            timing=timing,
        )
        self._thread = threading.Thread(target=self._run, name=f"uplink-{outbox.device}", daemon=True)
        self.pulse = Pulse("the uplink", self.wake)
        self.on_up: Callable[[], None] = lambda: None
        """Called when it is connected, after the birth."""

    def start(self) -> None:
        """Starts both threads and returns at once."""
        self._show("connecting", None)
        self._thread.start()
        self._link.start()

    def wake(self) -> None:
        """There are new records."""
        with self._condition:
            self._woken = True
            self._condition.notify()

    def hurry(self) -> None:
        """Windows that wait for others may go now."""
        self._thrift.hurry()
        self.wake()

    def announce(self) -> None:
        """Publishes the birth again, after what the device runs has changed."""
        birth = self._publication(self._birth())
        if self._link.publish(birth):
            self._ledger.carried(len(birth.payload), ("births", 1))

    def reconnect(self) -> None:
        """Connects anew, with the certificate that is in the files now; what is on its way is sent again."""
        self._link.renew()

    def publish(self, publication: Publication, qos: int = 1) -> bool:
        """Hands a message of others to the connection; False while there is none, or the day's bytes are used up."""
        said = self.affords(len(publication.payload)) and self._link.publish(publication, qos)
        if said:
            self._ledger.carried(len(publication.payload), ("others", 1))
        return said

    def affords(self, size: int) -> bool:
        """Whether a payload of so many bytes, of what is not telemetry, fits into the rest of the day."""
        return self._thrift.room(self._ledger.today, time.time(), urgent=False) >= size + MESSAGE_BYTES

    def stop(self, timeout_s: float = 5.0) -> None:
        """Says farewell (a death of this session), disconnects and ends the threads; the outbox keeps what waits."""
        if self._state == "stopped":
            return
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout_s)
        self._outbox.live = False
        death = self._publication(self._death())
        if self._link.connected:
            self._ledger.carried(len(death.payload), ("births", 1))
        self._link.stop(death, timeout_s)
        self._ledger.save()
        self._show("stopped", None)

    @property
    def state(self) -> UplinkState:
        """How it stands."""
        return UplinkState(
            state=self._state,
            broker=str(self._link.broker),
            mqtt=None if (dialect := self._link.dialect) is None else str(dialect),
            last_error=self._fault or self._refusal or self._last_error,
            outbox_records=self._outbox.records,
            outbox_bytes=self._outbox.size,
            in_flight=len(self._flight),
            acknowledged=self._acknowledged,
            merged=self._outbox.merged,
            given_up=self._outbox.given_up,
            ballast=self._outbox.ballast.held,
            windows_s=self._thrift.rhythm.merge_s,
            sends_s=self._thrift.rhythm.send_s,
            capped=self._capped,
            bytes=self._ledger.accounts,
        )

    # --- the link's thread ---

    def _on_up(self) -> None:
        self._refusal = None
        with self._condition:
            self._hosts.clear()
            self._up = self._restarted = self._woken = True
            self._condition.notify()
        log.info("uplink of %s: %s speaks %s", self._outbox.device, self._link.broker, self._link.dialect)
        self._show("no collector", None)
        self.announce()
        self.on_up()

    def _on_down(self, reason: str) -> None:
        self._refusal = None
        untaken = self._link.untaken
        with self._condition:
            self._up = self._outbox.live = False
            self._hosts.clear()
            self._untaken += [one for sent, packet in tuple(self._handed) if sent in untaken for one in packet.ids]
            self._handed.clear()
        self._show("connecting", reason)

    def _on_refused(self, reason: str) -> None:
        self._refusal = reason
        log.error("uplink of %s: %s", self._outbox.device, reason)

    def _on_message(self, received: Received) -> None:
        topic, payload = received.topic, received.payload
        try:
            if topic == self._ack_topic:
                self._ledger.carried(len(payload), ("acknowledgements", 1))
                ack = decode_msgpack(payload, Ack, what="acknowledgement", limit=limits.MESSAGE_MAX_BYTES)
                with self._condition:
                    self._acks.append(ack)
                self.wake()
            elif collector := topics.host_collector(topic):
                self._ledger.carried(len(payload), ("presences", 1))
                # An empty payload clears a retained presence.
                host = decode_host(payload) if payload else None
                with self._condition:
                    if host is not None and host.alive:
                        # A collector that comes back may never have seen what was sent before; of several, those
                        # that stood there when we came have.
                        back = collector not in self._hosts and not received.retained
                        self._restarted = self._restarted or back
                        self._hosts[collector] = host
                    else:
                        self._hosts.pop(collector, None)
                    anyone = bool(self._hosts)
                self._show("connected" if anyone else "no collector", None)
                self.wake()
        except EdgekitError as error:
            log.warning("ignored a message on %s: %s", topic, error)

    # --- the sender's thread ---

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._stopping and not self._woken:
                    due = min(filter(None, (self._flight.next_due_s(), self._resume_s, self._windows_s)), default=None)
                    due = due if self._sending else None
                    # At least 50 ms: what is overdue may have to wait until the broker takes messages over.
                    self._condition.wait(None if due is None else max(0.05, due - time.monotonic()))
                if self._stopping:
                    return
                self.pulse.beat()
                self._woken = False
                acks = list(self._acks)
                self._acks.clear()
                if self._restarted or not self._sending:
                    self._flight.clear(self._untaken)
                    self._restarted, self._untaken = False, []
                sending = self._sending
                self._outbox.live = sending and not (self._thrift.waits or self._capped)
            self._ledger.save_in_time()
            try:
                epoch = self._outbox.epoch
                for ack in acks:
                    self._acknowledged += self._outbox.acknowledge(ack)
                if self._outbox.epoch != epoch:
                    # The birth and the will at the broker are of the old epoch.
                    self._link.renew()
                elif sending:
                    self._send()
                if acks or sending:
                    self._fault = None
            except StorageFault as fault:
                self._pause(str(fault), logging.WARNING)
            except Exception as error:
                self._pause(str(error) or type(error).__name__, logging.ERROR)

    def _pause(self, fault: str, level: int) -> None:
        if fault != self._fault:
            foreign = level == logging.ERROR
            log.log(level, "uplink of %s: %s; it tries again", self._outbox.device, fault, exc_info=foreign)
        self._fault = fault
        with self._condition:
            self._condition.wait_for(lambda: self._stopping, timeout=1.0)
            self._woken = True

    @property
    def _sending(self) -> bool:
        return self._up and bool(self._hosts)

    def _send(self) -> None:
        """Sends what is due; where the broker has room for more and the pace allows it, further records get keys."""
        dialect, outbox, flight = self._link.dialect, self._outbox, self._flight
        if dialect is None:
            return
        room = min(MESSAGES_AT_BROKER_MAX, dialect.at_once) - self._link.outstanding
        largest = dialect.payload_max(str(topics.Up(outbox.device)))
        target = limits.MESSAGE_TARGET_BYTES if largest is None else min(largest - 1, limits.MESSAGE_TARGET_BYTES)
        target = int(min(target, max(1.0, self._thrift.largest)))
        with self._condition:
            packing = all(PACKED in host.accepts for host in self._hosts.values())
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
                if ready and not paced and not self._capped
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
        self._capped = room < self._held_room
        if not self._capped:
            self._held_room = 0.0
        self._windows_s = due_s if waiting and due_s > now_s else None
        span_s = DAY_S if self._capped else self._thrift.rhythm.merge_s
        if span_s and (self._capped or due_s <= now_s) and self._gathered != (now := self._outbox.produced):
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
            self.wake()
            return False
        # Nor is what follows, until another day begins: it had better be added up.
        self._capped, self._held_room = True, room + MESSAGE_BYTES
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
        self.wake()
        return False

    # --- both ---

    def _birth(self) -> Status:
        made = self._birth_of() if callable(self._birth_of) else self._birth_of
        made = made or Status(device=self._outbox.device, session=0)
        return msgspec.structs.replace(
            made,
            device=self._outbox.device,
            session=self._outbox.session,
            epoch=self._outbox.epoch,
            dead=False,
            outbox_records=self._outbox.records,
            sends_s=self._thrift.rhythm.send_s,
        )

    def _death(self) -> Status:
        outbox = self._outbox
        return Status(device=outbox.device, session=outbox.session, epoch=outbox.epoch, dead=True)

    def _publication(self, status: Status) -> Publication:
        return Publication(topics.status(self._outbox.device), encode_json(status), retain=True)

    def _show(self, state: State, error: str | None) -> None:
        """Keeps the state for the status endpoint; one line in the log for each change, not for each attempt."""
        changed = state != self._state or (error is not None and error != self._last_error)
        self._state = state
        self._last_error = error or (self._last_error if state == "connecting" else None)
        if changed:
            level = logging.WARNING if error else logging.INFO
            log.log(level, "uplink of %s: %s%s", self._outbox.device, state, f" ({error})" if error else "")
