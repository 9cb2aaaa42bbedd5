"""A `Link` keeps one connection to a broker: it connects, listens and connects anew.

With `protocol = "auto"` MQTT 5 is tried first. A broker that knows 3.1.1 alone refuses that (amqtt, aedes, NATS),
closes the connection (RabbitMQ 3.10) or says nothing: then it is asked in 3.1.1 at once, and from then on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from edgekit_runtime.broker import Broker
from edgekit_runtime.dialect import Dialect
from edgekit_runtime.mqtt.conversation import Conversation, Outcome
from edgekit_runtime.mqtt.messages import Publication, Receipt, Received
from edgekit_runtime.mqtt.patience import BRIEF_S, CONTESTED_CONNECTIONS, Timing, full_jitter
from edgekit_runtime.packets import write_pubacks

if TYPE_CHECKING:
    from edgekit_runtime.connection import Connection, Meter

log = logging.getLogger(__name__)


class Link:
    """Keeps one connection to a broker on a thread of its own.

    Callbacks run on that thread and must return soon: what takes time belongs to another thread.

    Args:
        broker: Where to connect. Of several places it begins with any, so that a fleet spreads over them, and goes
            on to the next whenever an attempt fails or a connection ends.
        client_id: What we call ourselves: a second connection of the same name (and key, where we show a certificate)
            replaces the first.
        will: Makes the last will, at each connection.
        subscriptions: Topic filters at first, subscribed before `on_up` is called.
        unassured: Those that are heard at QoS 0: a message that is lost does no harm. The others at QoS 1.
        on_up: Connected and subscribed.
        on_message: A message came.
        on_down: The connection was lost or could not be made, and why.
        on_room: The broker took a message over.
        on_refused: The broker forbids a subscription or, in MQTT 5, a message; once a connection for each reason.
        meter: Takes the bytes that were sent and received.
        by_hand: A message counts as taken over only with `acknowledge`, not when `on_message` returns: the broker holds
            back what is beyond its limit on messages under way.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        will: Callable[[], Publication | None],
        subscriptions: Sequence[str],
        unassured: Collection[str] = (),
        on_up: Callable[[], None],
        on_message: Callable[[Received], None],
        on_down: Callable[[str], None],
        on_room: Callable[[], None] | None = None,
        on_refused: Callable[[str], None] = lambda reason: None,
        meter: Meter = lambda sent, received: None,
        timing: Timing | None = None,
        by_hand: bool = False,
    ) -> None:
        self.broker, self.client_id = broker, client_id
        self._identifier: str | None = None
        self._will, self._subscriptions, self._unassured = will, tuple(subscriptions), unassured
        self._on_up, self._on_message, self._on_down, self._on_room = on_up, on_message, on_down, on_room
        self._on_refused, self._meter = on_refused, meter
        self._timing, self._by_hand = timing or Timing(), by_hand
        self._brief = 0
        self._lock = threading.Lock()
        self._standing: Conversation | None = None
        self._attempt: Conversation | None = None  # stands, or is being set up
        self._untaken: tuple[Publication, ...] = ()
        self._handing_over = 0
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._refusal = ""
        self._spoken: dict[Broker, Literal[4, 5]] = {}  # found out
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{client_id}", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether messages can be published now."""
        return self._standing is not None

    @property
    def _client(self) -> Connection | None:
        standing = self._standing
        return None if standing is None else standing.client

    @property
    def dialect(self) -> Dialect | None:
        """What the broker was found to speak; None while there is no connection."""
        standing = self._standing
        return None if standing is None else standing.dialect

    def start(self) -> None:
        """Starts connecting, for ever, until `stop`."""
        self._thread.start()

    def wait_first(self, timeout_s: float) -> str | None:
        """Waits for the outcome of the first attempt at each place: None when connected, else the reason why not.

        Args:
            timeout_s: For each place.
        """
        if not self._settled.wait(timeout_s * len(self.broker.places)):
            return f"no answer within {timeout_s:g} s"
        return None if self.connected else self._refusal or "connection lost"

    def publish(self, publication: Publication, qos: int = 1) -> bool:
        """Hands a message to the connection; False when there is none, and then nothing was queued."""
        with self._lock:
            standing = self._standing
            # What comes after the farewell would take it back: a birth, for one.
            if standing is None or self._stopping.is_set():
                return False
            self._handing_over += 1
        try:
            # Without the lock: paho may wait here until a callback returns, and a callback may want the lock.
            return standing.publish(publication, qos)
        finally:
            with self._lock:
                self._handing_over -= 1

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Tells the broker that these messages were taken over; it forgets them, and sends further ones.

        A receipt of an earlier connection is let go: what it stood for means nothing to the broker any more.
        """
        client = self._client
        if client is not None:
            client.say(write_pubacks([identifier for connection, identifier in receipts if connection is client]))

    def tell(self, publications: Iterable[Publication]) -> None:
        """Hands messages over at QoS 0, all at once; what there is no connection for is let go."""
        standing = self._standing
        if standing is not None and not self._stopping.is_set():
            standing.tell(publications)

    @property
    def outstanding(self) -> int:
        """Messages of this connection that the broker has not taken over yet."""
        standing = self._standing
        return 0 if standing is None else len(standing.untaken)

    def listen(self, subscriptions: Iterable[str]) -> None:
        """Hears these topic filters from now on, instead of those before."""
        with self._lock:
            standing, before = self._standing, self._subscriptions
            after = self._subscriptions = tuple(subscriptions)
        if standing is not None:  # without the lock, as when a message is handed over
            standing.subscribe([one for one in after if one not in before])
            standing.unsubscribe([one for one in before if one not in after])

    def ask_again(self, topic: str) -> None:
        """Has the broker send what is retained under one of the topic filters once more."""
        standing = self._standing
        if standing is not None:  # without the lock, as when a message is handed over
            standing.subscribe([topic])

    @property
    def untaken(self) -> tuple[Publication, ...]:
        """What the broker had not taken over when the last connection ended."""
        return self._untaken

    @property
    def contested(self) -> bool:
        """Whether connection after connection ends soon: two of one name take it from each other without end."""
        return self._brief >= CONTESTED_CONNECTIONS

    def stop(self, farewell: Publication | None = None, timeout_s: float = 5.0) -> None:
        """Publishes a farewell, waits until the broker has it, and disconnects; an unfinished connection is let go."""
        end = time.monotonic() + timeout_s
        self._stopping.set()
        while self._handing_over and time.monotonic() < end:
            time.sleep(0.001)
        standing = self._standing
        said = standing is not None and farewell is not None and standing.publish(farewell, 1)
        while said and self.outstanding and time.monotonic() < end:
            time.sleep(0.005)
        self.renew()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, end - time.monotonic()) + self._timing.connect_timeout_s)

    def renew(self) -> None:
        """Ends the connection; unless it stops, another one with the will of that time takes its place."""
        with self._lock:
            attempt = self._attempt
        if attempt is not None:
            attempt.disconnect()

    def _run(self) -> None:
        places = self.broker.places
        at, attempt = random.randrange(len(places)), 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            reason, was_up = self._connect_once(places[at])
            self._brief = self._brief + 1 if was_up and time.monotonic() - began_s < BRIEF_S else 0
            at = (at + 1) % len(places)
            attempt = 0 if was_up else attempt + 1
            self._refusal = reason
            if not self._settled.is_set() and attempt < len(places):
                continue  # the first round goes without a wait: that one place is down must not hold up a start
            self._settled.set()
            if self._stopping.is_set():
                return
            self._call(self._on_down, reason)
            wait = full_jitter(attempt, self._timing.reconnect_first_s, self._timing.reconnect_cap_s)
            self._stopping.wait(wait)

    def _connect_once(self, place: Broker) -> tuple[str, bool]:
        """Lives through one connection; returns why it ended, and whether it ever stood."""
        if place.protocol != "auto":
            return self._live(place, place.protocol)[:2]
        known = self._spoken.get(place)
        protocol: Literal[4, 5] = known or 5
        reason, was_up, answered = self._live(place, protocol, trial=known is None)
        if known is None and answered is False and not self._stopping.is_set():
            protocol = 4
            reason, was_up, answered = self._live(place, protocol)
        if answered:
            self._spoken[place] = protocol
        elif answered is False:
            self._spoken.pop(place, None)
        return reason, was_up

    def _live(self, place: Broker, protocol: Literal[4, 5], *, trial: bool = False) -> Outcome:
        """One connection in one version of MQTT."""
        attempt = Conversation(
            place,
            protocol,
            self._identify,
            stopping=self._stopping,
            subscriptions=lambda: self._subscriptions,
            unassured=self._unassured,
            on_up=self._stands,
            on_message=partial(self._call, self._on_message),
            on_refused=partial(self._call, self._on_refused),
            on_room=self._on_room,
            timing=self._timing,
            meter=self._meter,
            by_hand=self._by_hand,
        )
        with self._lock:
            self._attempt = attempt
        try:
            return attempt.live(self._will, trial=trial)
        finally:
            with self._lock:
                attempt.close()
                self._standing = self._attempt = None
                self._untaken = attempt.untaken

    def _identify(self) -> str:
        """The same as long as we live, also with another key: else our own cut connection would outlive the new one."""
        if self._identifier is None:
            self._identifier = self.broker.client_id(self.client_id)
        return self._identifier

    def _stands(self, attempt: Conversation) -> None:
        with self._lock:
            attempt.subscribe(self._subscriptions)
            self._standing = attempt
        self._call(self._on_up)
        self._settled.set()

    def _call(self, callback: Callable[..., None], *values: object) -> None:
        try:
            callback(*values)
        except Exception:
            log.exception("a callback of the connection to %s failed", self.broker)
