"""The collector as a service: MQTT on one side, the store on the other, acknowledgements only after the commit.

The network thread only queues, within bounds (`inbox`). The worker takes up to 2,000 messages or 20 ms worth, reads and
ingests them in one transaction, and then acknowledges: to the broker each message, which sends further ones, and to the
devices, one message for each. It never waits for a device: what it could not take in is not acknowledged, and so it
comes again.

Collectors of one PostgreSQL share the partitions of the fleet (`claims`): each listens to what it holds, and does not
store what it no longer does. Statuses are few: each stores all of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from edgekit.collector.claims import Claims, LeaseLost, Terms
from edgekit.collector.inbox import Inbox
from edgekit.collector.ingest import HEAD_BYTES, Message, Reading, Refused, read_batch
from edgekit.collector.keep import Keep
from edgekit.collector.postgres import is_address
from edgekit.collector.store import Ingested, Store, open_database, open_store
from edgekit.collector.upkeep import Upkeep
from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import BrokerUnreachable, StorageFault
from edgekit_contracts.names import check_device
from edgekit_contracts.state import Host
from edgekit_contracts.telemetry import PACKED, Ack, encode
from edgekit_runtime.broker import Broker
from edgekit_runtime.mqtt import Link, Publication, Receipt, Received, Timing

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
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
    ) -> None:
        self.broker, self.name, self._where = broker, check_device(name), store
        self._timing, self._terms, self._clock_ms = timing or Timing(), terms, clock_ms
        self._inbox, self._topic = Inbox(), topics.host(name)
        self._messages = self._let_go = self._stored = self._duplicates = self._ahead = 0
        self._refused: Counter[str] = Counter()
        self._fault: str | None = None
        self._presence_said_s = float("-inf")
        self.on_stored: Callable[[Sequence[Reading]], None] = lambda readings: None
        """Told what a batch held, after its commit; must return soon, and not fail."""
        self.on_superseded: Callable[[], None] = lambda: None
        """Told that a collector of the same name, started while this one stood still, has taken its place."""
        self.superseded = False
        self._stopping = threading.Event()
        self._store: Store | None = None
        self._claims: Claims | None = None
        self._always = (topics.ALL_STATUS, self._topic)
        self._upkeep = Upkeep(lambda: open_store(self._where), partitions=lambda: self.held, keep=keep)
        self._worker = threading.Thread(target=self._work, name=f"collector-{name}", daemon=True)
        self._link = Link(
            broker,
            f"ek-collector-{name}",
            will=lambda: self._presence(alive=False),
            subscriptions=self._always if is_address(str(store)) else (topics.ALL_UP, *self._always),
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=lambda reason: log.warning("collector %s lost %s: %s", name, broker, reason),
            on_refused=lambda reason: log.error("collector %s: %s", name, reason),
            timing=self._timing,
            by_hand=True,
        )

    def start(self) -> None:
        """Opens the store and connects.

        Raises:
            StorageFault, UnsupportedFormat: The store cannot be used.
            UsageError: Another collector of this store has the name.
            BrokerUnreachable: The first connection failed; later losses are mended silently.
        """
        self._store = self._open()
        self._upkeep.start()
        self._link.start()
        self._worker.start()
        reason = self._link.wait_first(self._timing.connect_timeout_s + 5.0)
        if reason is not None:
            self.stop()
            raise BrokerUnreachable(str(self.broker), reason)

    def _open(self) -> Store:
        if not is_address(str(self._where)):
            return open_store(self._where)
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
        try:
            return open_store(self._where, fence=claims.fence)
        except BaseException:
            claims.stop()
            raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stores and acknowledges what has come, says that no collector is alive here, and disconnects."""
        self._stopping.set()
        self._inbox.close()
        if self._worker.ident is not None:
            self._worker.join()
        self._link.stop(self._presence(alive=False), timeout_s)
        self._upkeep.stop()
        if self._claims is not None:
            self._claims.stop()
        if self._store is not None:
            self._store.close()

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

    def _guard_presence(self, payload: bytes) -> None:
        """Says again that we are here where something else stands: devices hold their records while none is."""
        if payload == self._presence(alive=True).payload or self._stopping.is_set():
            return
        now = time.monotonic()
        if now - self._presence_said_s < PRESENCE_SECONDS:
            return
        self._presence_said_s = now
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
        more = True
        while more:
            batch, more = self._inbox.take()
            if not batch:
                continue
            try:
                self._ingest(batch)
            except Exception:
                # One message that we stumble over must stop neither the others nor the worker.
                log.exception("a batch of %d messages failed; its messages are taken one by one", len(batch))
                for message in batch:
                    self._ingest_alone(message)

    def _ingest(self, batch: list[Message]) -> None:
        while True:
            try:
                readings = read_batch(batch, self.store)
                done = self.store.ingest(readings)
            except LeaseLost as lost:
                # Unknown to their devices: they come again, to whoever holds them now.
                gone = [one for one in batch if topics.up_partition(one.topic) in lost.partitions]
                if not gone:
                    raise
                self._take_over(message.receipt for message in gone)
                batch = [one for one in batch if one not in gone]
            except StorageFault as fault:
                if self._fault is None:
                    log.error("the collector stores and acknowledges nothing: %s (%s)", fault, fault.next_step)
                self._fault = str(fault)
                if self._stopping.wait(RETRY_SECONDS):
                    # Unacknowledged: the devices still have it.
                    return
            else:
                break
        if self._fault is not None:
            log.warning("the collector stores again")
            self._fault = None
            # Meanwhile the broker may have dropped what it could not deliver; a status comes once, but it is retained.
            self._link.ask_again(topics.ALL_STATUS)
        self._messages += len(batch)
        self._take_over(message.receipt for message in batch)
        self._account(done)
        self.on_stored(readings)

    def _ingest_alone(self, message: Message) -> None:
        try:
            self._ingest([message])
        except Exception as error:
            log.exception("a message on %s cannot be taken in", message.topic)
            detail = f"{type(error).__name__}: {error}"
            self._messages += 1
            refused = Refused(
                message.topic[:256], "internal", detail, message.payload[:HEAD_BYTES], message.received_ms
            )
            try:
                self._account(self.store.ingest([refused]))
            except Exception:
                log.exception("nor can it be kept among the refused")
                self._refused["internal"] += 1
            self._take_over([message.receipt])

    def _account(self, done: Ingested) -> None:
        self._stored += done.stored
        self._duplicates += done.duplicates
        self._ahead += done.ahead
        self._refused += done.refused
        for device, ack in done.acks:
            self._acknowledge(device, ack)

    def _acknowledge(self, device: str, ack: Ack) -> None:
        # QoS 0: one that is lost is given again when the device sends its records again.
        self._link.publish(Publication(topics.ack(device), encode(ack)), qos=0)
