"""One MQTT connection that is kept: a `Link` connects, listens and connects anew.

The device's uplink and the collector both stand on this. Three facts of paho-mqtt 2.2 shape it (telemetry facts,
2.4): `publish` while disconnected fills memory and is lost with the process, so a `Link` publishes only while
connected; after a reconnect paho sends again whatever it held, so each connection gets a client of its own; its
reconnect delay has no jitter, so the loop here draws its own.

With `protocol = "auto"` MQTT 5 is tried first. A broker that knows 3.1.1 alone refuses that (amqtt, aedes, NATS),
closes the connection (RabbitMQ 3.10) or says nothing: then it is asked in 3.1.1 at once, and from then on.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from edgekit_contracts.errors import BrokerUnreachable, StorageFault
from edgekit_runtime.broker import Broker
from edgekit_runtime.dialect import UNSUPPORTED, Dialect, read_dialect
from edgekit_runtime.tls import client_context, explain

if TYPE_CHECKING:
    import paho.mqtt.client as paho

    from edgekit_runtime.connection import Connection, Meter

log = logging.getLogger(__name__)

_LOG_ERROR: Final = 8  # paho.mqtt.enums.LogLevel.MQTT_LOG_ERR
RESUBSCRIBE_CAP_S: Final = 3600.0


class Publication(msgspec.Struct, frozen=True):
    """A message to publish at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None
    """MQTT 5: the request that this answers, in the requester's own words."""


class Receipt(NamedTuple):
    """By which a message is acknowledged to the broker, on the connection that it came on and on no other."""

    connection: Connection
    identifier: int


class Received(msgspec.Struct, frozen=True):
    """A message that came."""

    topic: str
    payload: bytes
    retained: bool = False
    """It stood at the broker before we subscribed."""
    response_topic: str | None = None
    correlation: bytes | None = None
    """MQTT 5: where the answer is to go, and what is to be said with it."""
    receipt: Receipt | None = None
    """Where messages are acknowledged by hand: for `Link.acknowledge`."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a connection is, in seconds."""

    reconnect_first_s: float = 1.0
    reconnect_cap_s: float = 60.0
    connect_timeout_s: float = 10.0
    probe_s: float = 3.0
    """Of silence, after which a broker that is asked in MQTT 5 is taken for one of 3.1.1."""
    keepalive_s: int = 30
    resubscribe_s: float = 10.0
    """After which a refused subscription is tried again, then twice as long and so on, up to an hour."""


def full_jitter(attempt: int, first_s: float, cap_s: float, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait before connecting again: uniform in [first, min(cap, first * 2**attempt)].

    Args:
        attempt: 0 after the first failure.
        first_s: Shortest wait, so that a broker that drops every connection is not hammered.
        cap_s: Longest wait.
        draw: Uniform in [0, 1).

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter), with a floor.
    """
    ceiling = min(cap_s, first_s * 2.0 ** min(attempt + 1, 32))
    return first_s + draw() * max(0.0, ceiling - first_s)


class Link:
    """Keeps one connection to a broker on a thread of its own.

    Callbacks run on that thread and must return soon: what takes time belongs to another thread.

    Args:
        broker: Where to connect. Of several places it begins with any, so that a fleet spreads over them, and goes
            on to the next whenever an attempt fails or a connection ends.
        client_id: The MQTT client identifier: a second connection with the same one replaces the first.
        will: Makes the last will, at each connection.
        subscriptions: Topic filters at first, subscribed at QoS 1 before `on_up` is called.
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
        self._will, self._subscriptions = will, tuple(subscriptions)
        self._asked: dict[int | None, str] = {}  # of this connection: what each answer to a subscription is about
        self._on_up, self._on_message, self._on_down, self._on_room = on_up, on_message, on_down, on_room
        self._on_refused, self._meter = on_refused, meter
        self._timing, self._by_hand = timing or Timing(), by_hand
        self._lock = threading.Lock()
        self._client: Connection | None = None  # stands
        self._attempt: Connection | None = None  # stands, or is being set up
        self._outstanding: list[tuple[paho.MQTTMessageInfo, Publication]] = []
        self._untaken: tuple[Publication, ...] = ()
        self._handing_over = 0
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._refusal = ""
        self._dialect: Dialect | None = None  # of the connection that stands
        self._spoken: dict[Broker, Literal[4, 5]] = {}  # found out
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{client_id}", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether messages can be published now."""
        return self._client is not None

    @property
    def dialect(self) -> Dialect | None:
        """What the broker was found to speak; None while there is no connection."""
        return self._dialect

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
            client = self._client
            # What comes after the farewell would take it back: a birth, for one.
            if client is None or self._stopping.is_set():
                return False
            self._handing_over += 1
        try:
            return self._hand_over(client, publication, qos)
        finally:
            with self._lock:
                self._handing_over -= 1

    def _hand_over(self, client: paho.Client, publication: Publication, qos: int) -> bool:
        """Without the lock: paho may wait here until a callback returns, and a callback may want the lock."""
        properties = None
        if publication.correlation is not None:
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = publication.correlation
        info = client.publish(
            publication.topic, publication.payload, qos=qos, retain=publication.retain, properties=properties
        )
        if info.rc:  # MQTT_ERR_SUCCESS is 0
            return False
        with self._lock:
            if not qos or self._client is not client:
                return True
            self._outstanding = [*self._left(), (info, publication)]
            return True

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Tells the broker that these messages were taken over; it forgets them, and sends further ones.

        A receipt of an earlier connection is let go: what it stood for means nothing to the broker any more.
        """
        client = self._client
        for connection, identifier in receipts:
            if connection is client:
                connection.ack(identifier, 1)

    @property
    def outstanding(self) -> int:
        """Messages of this connection that the broker has not taken over yet."""
        with self._lock:
            self._outstanding = self._left()
            return len(self._outstanding)

    def listen(self, subscriptions: Iterable[str]) -> None:
        """Hears these topic filters from now on, instead of those before."""
        with self._lock:
            client, before = self._client, self._subscriptions
            after = self._subscriptions = tuple(subscriptions)
        if client is not None:  # without the lock, as when a message is handed over
            self._subscribe(client, [one for one in after if one not in before])
            for topic in before:
                if topic not in after:
                    client.unsubscribe(topic)

    def ask_again(self, topic: str) -> None:
        """Has the broker send what is retained under one of the topic filters once more."""
        client = self._client
        if client is not None:  # without the lock, as when a message is handed over
            self._subscribe(client, [topic])

    def _subscribe(self, client: paho.Client, topics: Iterable[str]) -> None:
        for topic in topics:
            self._asked[client.subscribe(topic, qos=1)[1]] = topic

    @property
    def untaken(self) -> tuple[Publication, ...]:
        """What the broker had not taken over when the last connection ended."""
        return self._untaken

    def _left(self) -> list[tuple[paho.MQTTMessageInfo, Publication]]:
        return [(info, publication) for info, publication in self._outstanding if not info.is_published()]

    def stop(self, farewell: Publication | None = None, timeout_s: float = 5.0) -> None:
        """Publishes a farewell, waits until the broker has it, and disconnects; an unfinished connection is let go."""
        end = time.monotonic() + timeout_s
        self._stopping.set()
        while self._handing_over and time.monotonic() < end:
            time.sleep(0.001)
        client = self._client
        said = client is not None and farewell is not None and self._hand_over(client, farewell, 1)
        while said and self.outstanding and time.monotonic() < end:
            time.sleep(0.005)
        self.renew()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, end - time.monotonic()) + self._timing.connect_timeout_s)

    def renew(self) -> None:
        """Ends the connection; unless it stops, another one with the will of that time takes its place."""
        with self._lock:
            client = self._attempt
        if client is not None:
            client.disconnect()

    def _run(self) -> None:
        places = self.broker.places
        at, attempt = random.randrange(len(places)), 0
        while not self._stopping.is_set():
            reason, was_up = self._connect_once(places[at])
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

    def _live(self, place: Broker, protocol: Literal[4, 5], *, trial: bool = False) -> tuple[str, bool, bool | None]:
        """One connection in one version of MQTT.

        Args:
            place: Where to.
            protocol: The version.
            trial: Whether the broker speaks it is not known yet: it is not waited for long.

        Returns:
            Why it ended, whether it ever stood, and whether the broker answered in this version; None: it was not
            reached.
        """
        ended: list[str] = []
        faults: list[str] = []  # what paho says of them only in its log
        was_up = answered = reached = False
        refusals: set[str] = set()
        again: set[str] = set()
        again_s, wait_s = math.inf, self._timing.resubscribe_s

        def refused(reason: str) -> None:
            # Once for each connection: a forbidden topic is refused for every message on it.
            if reason not in refusals:
                refusals.add(reason)
                self._call(self._on_refused, reason)

        def connected(_client: paho.Client, _user: object, _flags: object, code: Any, props: object) -> None:
            nonlocal was_up, answered
            answered = not (code.is_failure and code.value == UNSUPPORTED)
            if code.is_failure:
                ended.append(f"the broker refuses the connection: {code}")
                return
            if self._stopping.is_set():
                client.disconnect()
                return
            was_up = True
            with self._lock:
                self._asked, self._outstanding = {}, []
                self._subscribe(client, self._subscriptions)
                self._client, self._dialect = client, read_dialect(protocol, props)
            self._call(self._on_up)
            self._settled.set()

        def disconnected(_client: paho.Client, _user: object, _flags: object, code: Any, _props: object) -> None:
            ended.append(f"connection lost: {code}")

        def subscribed(_client: paho.Client, _user: object, mid: int, codes: Sequence[Any], _props: object) -> None:
            nonlocal again_s
            for code in codes:
                if code.is_failure:
                    topic = self._asked.get(mid)
                    refused(f"the broker refuses the subscription to {topic or 'a topic'}: {code}")
                    # A cluster that has just lost a node refuses what it grants a little later.
                    if topic is not None:
                        again.add(topic)
                        again_s = min(again_s, time.monotonic() + wait_s)

        def published(_client: paho.Client, _user: object, _mid: int, code: Any, _props: object) -> None:
            # Only MQTT 5 says so; and no lock of ours here, for paho holds its own.
            if code.is_failure:
                refused(f"the broker refuses a message: {code}")
            if self._on_room is not None:
                self._on_room()

        try:
            wanted = replace(place, protocol=protocol)
            client = open_client(wanted, self.client_id, self._will(), self._timing, self._meter, by_hand=self._by_hand)
            with self._lock:
                self._attempt = client
            client.on_connect = connected
            client.on_disconnect = disconnected
            client.on_message = lambda _c, _u, message: self._heard(client, message)
            client.on_subscribe = subscribed
            if protocol == 5 or self._on_room is not None:
                # paho makes two objects for each message that it tells of, QoS 0 included: half of what sending costs.
                client.on_publish = published
            client.on_log = lambda _c, _u, level, text: faults.append(text) if level == _LOG_ERROR else None
            client.connect(place.host, place.port, keepalive=self._timing.keepalive_s)
            reached = True
            if self._stopping.is_set():
                # While the address is looked up and answers, paho has nothing yet that it could disconnect.
                client.disconnect()
            end = time.monotonic() + self._timing.probe_s
            while trial and not (answered or ended):
                if not client.turn(0.1) or time.monotonic() > end:
                    client.disconnect()
                    break
            while client.turn():
                if time.monotonic() > again_s:
                    again_s, wait_s = math.inf, min(2 * wait_s, RESUBSCRIBE_CAP_S)
                    with self._lock:
                        self._subscribe(client, [one for one in self._subscriptions if one in again])
                    again.clear()
        except (OSError, ValueError, StorageFault) as error:
            ended.insert(0, str(error) or type(error).__name__)
        except Exception as error:
            # A fault of ours or of paho: said aloud, and the connection is made anew instead of dying silently.
            log.exception("the connection to %s failed", place)
            ended.insert(0, str(error))
        finally:
            with self._lock:
                if self._attempt is not None:
                    self._attempt.close()
                self._client = self._attempt = self._dialect = None
                self._untaken, self._outstanding = tuple(publication for _, publication in self._left()), []
        if place.tls and not answered and not self._stopping.is_set():
            ended.insert(0, explain((faults + ended + ["connection lost"])[0], place.cert))
        return (ended[0] if ended else "connection lost"), was_up, answered if reached else None

    def _heard(self, connection: Connection, message: paho.MQTTMessage) -> None:
        receipt = Receipt(connection, message.mid) if self._by_hand and message.qos else None
        properties = message.properties  # of MQTT 5 alone
        told = (None, None)
        if properties is not None:
            told = getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None)
        self._call(self._on_message, Received(message.topic, bytes(message.payload), message.retain, *told, receipt))

    def _call(self, callback: Callable[..., None], *values: object) -> None:
        try:
            callback(*values)
        except Exception:
            log.exception("a callback of the connection to %s failed", self.broker)


def open_client(
    broker: Broker,
    client_id: str,
    will: Publication | None,
    timing: Timing,
    meter: Meter,
    *,
    by_hand: bool = False,
) -> Connection:
    """A paho client with the broker's settings, not yet connected.

    Raises:
        StorageFault: A certificate or key file cannot be read.
    """
    # Imported by the first connection, on its own thread: with what it brings along it takes longer than a start may.
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    from edgekit_runtime.connection import Connection

    five = broker.protocol == 5
    client = Connection(
        meter,
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if five else True,
        protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=by_hand,
    )
    client.connect_timeout = timing.connect_timeout_s
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.tls:
        client.tls_set_context(client_context(broker.ca, broker.cert, broker.key))
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    return client


def probe(broker: Broker, timeout_s: float = 5.0) -> Dialect:
    """Connects once and disconnects: does a broker answer there, does it let us in, and what does it speak?

    Raises:
        BrokerUnreachable: No, and why.
    """
    return _once(broker, f"ek-probe-{secrets.token_hex(4)}", None, timeout_s)


def publish_once(broker: Broker, client_id: str, publication: Publication, timeout_s: float = 5.0) -> None:
    """Connects, publishes one message, waits until the broker has it, and disconnects.

    Raises:
        BrokerUnreachable: No broker took it.
    """
    _once(broker, client_id, publication, timeout_s)


def _once(broker: Broker, client_id: str, publication: Publication | None, timeout_s: float) -> Dialect:
    timing = Timing(connect_timeout_s=timeout_s)
    link = Link(
        broker,
        client_id,
        will=lambda: None,
        subscriptions=(),
        on_up=lambda: None,
        on_message=lambda received: None,
        on_down=lambda reason: None,
        timing=timing,
    )
    link.start()
    reason = link.wait_first(timeout_s + (timing.probe_s if broker.protocol == "auto" else 0.0))
    dialect = link.dialect
    link.stop(publication, timeout_s)
    if reason is not None or dialect is None:
        raise BrokerUnreachable(str(broker), reason or "connection lost")
    return dialect
