"""The collector as a service: MQTT on one side, the store on the other, acknowledgements only after the commit.

The network thread only queues, within bounds (`inbox`). The worker takes up to 2,000 messages or 20 ms worth, has them
read and stored in one transaction (`intake`), here or in a process of its own (`apart`), and then acknowledges: to the
broker each message, which sends further ones, and to the devices, one message for each. It never waits for a device:
what was not taken in is not acknowledged, and so it comes again.

Collectors of one PostgreSQL share the partitions of the fleet (`claims`): each listens to what it holds, and does not
store what it no longer does. Statuses are few: each stores all of them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

from edgekit.collector.alone import alone
from edgekit.collector.apart import Apart
from edgekit.collector.busy import WhenBusy
from edgekit.collector.claims import Claims, Terms, hold
from edgekit.collector.inbox import Inbox
from edgekit.collector.ingest import Message
from edgekit.collector.intake import Fault, Here, Intake, Taken
from edgekit.collector.keep import Keep
from edgekit.collector.postgres_address import is_address
from edgekit.collector.store import Store, open_database, open_store
from edgekit.collector.upkeep import Upkeep
from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import BrokerUnreachable
from edgekit_contracts.names import check_device
from edgekit_contracts.state import Host
from edgekit_contracts.telemetry import PACKED, Envelope, Event
from edgekit_runtime.broker import Broker
from edgekit_runtime.mqtt import Link, Publication, Receipt, Received, Timing

log = logging.getLogger(__name__)

PRESENCE_SECONDS: Final = 1.0
"""At most so often is a presence written anew that somebody else overwrites."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a collector has done since its start."""

    messages: int = 0
    stored: int = 0
    duplicates: int = 0
    let_go: int = 0
    """Messages that found the inbox full."""
    ahead: int = 0
    """Records, of those stored, with a clock from the future that claims to be synchronised: dated by their arrival."""
    refused: dict[str, int] = field(default_factory=dict)
    """By reason."""


class Collector:
    """Stores what devices send and says so to them.

    Args:
        broker: Where to connect.
        store: As `open_store`; made where it is missing.
        name: Names the collector's presence and its MQTT client: two collectors of one broker need two names.
        timing: Of the connection.
        terms: Of the leases, where the store is shared.
        clock_ms: Milliseconds since 1970, for what is received.
        keep: How long the store keeps what it holds.
        processes: 2: one of its own takes batches in; None: once that takes a good part of a core, if there is another.
    """

    def __init__(
        self,
        broker: Broker,
        store: Path | str,
        name: str = "collector",
        *,
        timing: Timing | None = None,
        terms: Terms | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        keep: Keep | None = None,
        processes: int | None = 1,
    ) -> None:
        self.broker, self.name, self._where = broker, check_device(name), store
        self._timing, self._terms, self._clock_ms = timing or Timing(), terms, clock_ms
        self._processes = processes or (None if len(os.sched_getaffinity(0)) > 1 else 1)
        self._inbox, self._topic = Inbox(), topics.host(name)
        self._messages = self._let_go = self._stored = self._duplicates = self._ahead = 0
        self._refused: Counter[str] = Counter()
        self._fault: str | None = None
        self._presence_said_s = float("-inf")
        self.on_events: Callable[[Sequence[tuple[Envelope, Event]]], None] = lambda events: None
        """Told which events a batch held, after its commit; must return soon, and not fail."""
        self.on_superseded: Callable[[], None] = lambda: None
        """Told that a collector of the same name, started while this one stood still, has taken its place."""
        self.superseded = False
        self._stopping = threading.Event()
        self._store: Store | None = None
        self._intake: Intake | None = None
        self._claims: Claims | None = None
        self._alone = ExitStack()
        self._always = (topics.ALL_STATUS, self._topic)
        self._upkeep = Upkeep(self._where, partitions=lambda: self.held, keep=keep)
        self._worker = threading.Thread(target=self._work, name=f"collector-{name}", daemon=True)
        self._link = Link(
            broker,
            f"ek-collector-{name}",
            will=lambda: self._presence(alive=False),
            subscriptions=self._always if is_address(str(store)) else (topics.ALL_UP, *self._always),
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=self._on_down,
            on_refused=lambda reason: log.error("collector %s: %s", name, reason),
            timing=self._timing,
            by_hand=True,
        )

    def start(self) -> None:
        """Opens the store and connects.

        Raises:
            EnvironmentFault, UnsupportedFormat: The store cannot be used.
            UsageError: Another collector of this store has the name.
            BrokerUnreachable: The first connection failed; later losses are mended silently.
        """
        instance = self._share()
        try:
            fence = None if instance is None else partial(hold, instance=instance)
            self._store = open_store(self._where, fence=fence)
            if instance is None:
                self._alone.enter_context(alone(Path(self._where), self.name))
            self._intake = self._begin(self._store, instance)
        except BaseException:
            self._end()
            raise
        self._upkeep.start()
        self._link.start()
        self._worker.start()
        reason = self._link.wait_first(self._timing.connect_timeout_s + 5.0)
        if reason is not None:
            self.stop()
            raise BrokerUnreachable(str(self.broker), reason)

    def _share(self) -> int | None:
        """By which the leases are held; None where the store is this collector's alone."""
        if not is_address(str(self._where)):
            return None
        claims = Claims(
            open_database(self._where),
            self.name,
            connected=lambda: self._link.connected,
            on_change=self._listen,
            on_superseded=self._step_aside,
            terms=self._terms,
        )
        claims.start()
        self._claims = claims
        return claims.instance

    def _begin(self, store: Store, instance: int | None) -> Intake:
        wait, on_fault = self._stopping.wait, self._say_fault
        apart = partial(Apart, self._where, instance, wait=wait, on_fault=on_fault)
        if self._processes == 2:
            return apart()
        here = Here(store, wait=wait, on_fault=on_fault)
        return here if self._processes == 1 else WhenBusy(here, apart)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stores and acknowledges what has come, says that no collector is alive here, and disconnects."""
        self._stopping.set()
        self._inbox.close()
        if self._worker.ident is not None:
            self._worker.join()
        self._link.stop(self._presence(alive=False), timeout_s)
        self._upkeep.stop()
        self._end()

    def _end(self) -> None:
        if self._intake is not None:
            self._intake.close()
        if self._claims is not None:
            self._claims.stop()
        if self._store is not None:
            self._store.close()
        self._alone.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def publish(self, publication: Publication) -> bool:
        """Hands a message to the broker; False while there is no connection."""
        return self._link.publish(publication)

    @property
    def counts(self) -> Counts:
        """What was done since the start."""
        return Counts(self._messages, self._stored, self._duplicates, self._let_go, self._ahead, dict(self._refused))

    @property
    def fault(self) -> str | None:
        """Why nothing is stored at present, or None."""
        return self._fault

    @property
    def store(self) -> Store:
        """The open store, for reading."""
        if self._store is None:
            raise RuntimeError("the collector was not started")
        return self._store

    @property
    def held(self) -> frozenset[int]:
        """The partitions that it stores."""
        return frozenset(range(topics.PARTITIONS)) if self._claims is None else self._claims.held

    # --- the claims' thread ---

    def _listen(self, held: frozenset[int]) -> None:
        self._link.listen((*self._always, *map(topics.every_up, sorted(held))))

    def _step_aside(self) -> None:
        # Without a farewell: the presence is the other one's. Else both would take the connection from each other.
        self._link.stop()
        self.superseded = True
        self.on_superseded()

    # --- the link's thread ---

    def _on_up(self) -> None:
        log.info("collector %s is connected to %s", self.name, self.broker)
        self._link.publish(self._presence(alive=True))
        if self._claims is not None:
            self._claims.wake()

    def _on_down(self, reason: str) -> None:
        log.warning("collector %s lost %s: %s", self.name, self.broker, reason)
        if self._link.contested:
            log.warning(
                "collector %s: connection after connection ends at once: if another collector has the same name,"
                " give it one of its own (--name)",
                self.name,
            )

    def _guard_presence(self, payload: bytes) -> None:
        """Says again that we are here where something else stands: devices hold their records while none is."""
        if payload == self._presence(alive=True).payload or self._stopping.is_set():
            return
        now = time.monotonic()
        if now - self._presence_said_s < PRESENCE_SECONDS:
            return
        self._presence_said_s = now
        if payload == self._presence(alive=False).payload:
            log.info("collector %s: its farewell stood there; its presence is written anew", self.name)
        else:
            log.warning(
                "collector %s: somebody else wrote its presence (%d bytes); it is written anew", self.name, len(payload)
            )
        self._link.publish(self._presence(alive=True))

    def _on_message(self, received: Received) -> None:
        topic, receipt = received.topic, received.receipt
        if topic == self._topic:
            self._guard_presence(received.payload)
            self._take_over([receipt])
        elif not self._stopping.is_set():
            message = Message.received(topic, received.payload, self._clock_ms(), receipt)
            gone = self._inbox.put(message)
            if gone is not None:
                self._let_go += gone is message
                self._take_over([gone.receipt])

    def _take_over(self, receipts: Iterable[Receipt | None]) -> None:
        self._link.acknowledge(receipt for receipt in receipts if receipt is not None)

    def _presence(self, *, alive: bool) -> Publication:
        host = Host(collector=self.name, alive=alive, accepts=(PACKED,))
        return Publication(self._topic, encode_json(host), retain=True)

    # --- the worker's thread ---

    def _work(self) -> None:
        intake, more = self._intake, True
        assert intake is not None
        under_way: deque[list[Message]] = deque()
        while more or under_way:
            if more and len(under_way) < intake.depth:
                batch, more = self._inbox.take(wait=not under_way)
                if batch:
                    under_way.append(batch)
                    intake.put(batch)
                    continue
            if under_way:
                taken = intake.get()
                batch = under_way.popleft()
                try:
                    # None: unacknowledged, the devices still have it.
                    if taken is not None:
                        self._account(batch, taken)
                except Exception:
                    # Whoever is told of it must not stop the worker.
                    log.exception("not all is told of a batch of %d messages", len(batch))

    def _say_fault(self, fault: Fault) -> None:
        if self._fault is None:
            log.error("the collector stores and acknowledges nothing: %s (%s)", fault.reason, fault.next_step)
        self._fault = fault.reason

    def _account(self, batch: list[Message], taken: Taken) -> None:
        if self._fault is not None:
            log.warning("the collector stores again")
            self._fault = None
            # Meanwhile the broker may have dropped what it could not deliver; a status comes once, but it is retained.
            self._link.ask_again(topics.ALL_STATUS)
        if taken.lost and self._claims is not None:
            self._claims.wake()
        self._take_over(message.receipt for message in batch)
        self._messages += taken.messages
        self._stored += taken.stored
        self._duplicates += taken.duplicates
        self._ahead += taken.ahead
        self._refused.update(taken.refused)
        # At QoS 0: one that is lost is given again when the device sends its records again.
        self._link.tell([Publication(topics.ack(device), ack) for device, ack in taken.acks])
        if taken.events:
            self.on_events(taken.events)
