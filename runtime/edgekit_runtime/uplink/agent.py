"""Hears the centre, and has sent what is due.

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
from typing import Final

from edgekit_contracts import limits, topics
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.errors import EdgekitError, StorageFault
from edgekit_contracts.state import Host, Status, decode_host
from edgekit_contracts.telemetry import PACKED, Ack
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import Flight
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.mqtt import Link, Publication, Received, Timing
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.thrift import MESSAGE_BYTES, Thrift
from edgekit_runtime.uplink.births import birth, death
from edgekit_runtime.uplink.dispatch import Dispatch
from edgekit_runtime.uplink.state import State, UplinkState

log = logging.getLogger(__name__)

REPLAY_BURST_BYTES: Final = 64 * limits.KIB
"""Of what has piled up is sent at once; the rest at the pace of `replay_kb_s`."""


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
        self._untaken: list[int] = []
        self._birth_of = birth
        self._flight = Flight() if flight is None else flight  # an empty flight is false
        self._ledger, self._thrift = ledger or Ledger(), thrift or Thrift()
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
            will=lambda: death(self._outbox),
            subscriptions=(self._ack_topic, topics.ALL_HOSTS),
            # They are sent at QoS 0, and again for records that come again; NATS keeps state for more than that.
            unassured=(self._ack_topic,),
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=self._on_down,
            on_room=self.wake,
            on_refused=self._on_refused,
            meter=self._ledger.wire,
            timing=timing,
        )
        self._dispatch = Dispatch(
            outbox,
            self._link,
            flight=self._flight,
            ledger=self._ledger,
            thrift=self._thrift,
            pace=pace,
            wake=self.wake,
        )
        self._thread = threading.Thread(target=self._run, name=f"uplink-{outbox.device}", daemon=True)
        self.pulse = Pulse("the uplink", self.wake)
        self.on_up: Callable[[], None] = lambda: None
        """Called when it is connected, after the birth."""
        self.on_contested: Callable[[str], None] = lambda reason: None
        """Called each time that another device seems to have taken the connection."""

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
        made = self._birth_of() if callable(self._birth_of) else self._birth_of
        publication = birth(self._outbox, made, self._thrift.rhythm.send_s)
        if self._link.publish(publication):
            self._ledger.carried(len(publication.payload), ("births", 1))

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
        farewell = death(self._outbox)
        if self._link.connected:
            self._ledger.carried(len(farewell.payload), ("births", 1))
        self._link.stop(farewell, timeout_s)
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
            capped=self._dispatch.capped,
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
            self._untaken += self._dispatch.take_back(untaken)
        if self._link.contested:
            reason = "connection after connection ends at once; perhaps another device has this name"
            self.on_contested(reason)
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
                    due = self._dispatch.due_s() if self._sending else None
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
                sending, packing = self._sending, all(PACKED in host.accepts for host in self._hosts.values())
                self._outbox.live = sending and not (self._thrift.waits or self._dispatch.capped)
            self._ledger.save_in_time()
            try:
                epoch = self._outbox.epoch
                for ack in acks:
                    self._acknowledged += self._outbox.acknowledge(ack)
                if self._outbox.epoch != epoch:
                    # The birth and the will at the broker are of the old epoch.
                    self._link.renew()
                elif sending:
                    self._dispatch.send(packing=packing)
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

    def _show(self, state: State, error: str | None) -> None:
        """Keeps the state for the status endpoint; one line in the log for each change, not for each attempt."""
        changed = state != self._state or (error is not None and error != self._last_error)
        self._state = state
        self._last_error = error or (self._last_error if state == "connecting" else None)
        if changed:
            level = logging.WARNING if error else logging.INFO
            log.log(level, "uplink of %s: %s%s", self._outbox.device, state, f" ({error})" if error else "")
