"""One connection to a broker, in one version of MQTT, from its opening to its end."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from edgekit_contracts.errors import StorageFault
from edgekit_runtime.broker import Broker
from edgekit_runtime.dialect import UNSUPPORTED, Dialect, read_dialect
from edgekit_runtime.mqtt.messages import Publication, Receipt, Received
from edgekit_runtime.mqtt.patience import RESUBSCRIBE_CAP_S, Timing
from edgekit_runtime.packets import write_pubacks, write_publish

if TYPE_CHECKING:
    import paho.mqtt.client as paho

    from edgekit_runtime.connection import Connection, Meter
    from edgekit_runtime.packets import Delivery

log = logging.getLogger(__name__)

_WORDLESS: Final = "it ended the connection without an answer; it may speak TLS there (mqtts://), or no MQTT at all"
_LOG_ERROR: Final = 8  # paho.mqtt.enums.LogLevel.MQTT_LOG_ERR


class Outcome(NamedTuple):
    """How a conversation went."""

    reason: str
    """Why it ended."""
    was_up: bool
    """Whether it ever stood."""
    answered: bool | None
    """Whether the broker answered in this version of MQTT; None: it was not reached."""


class Conversation:
    """One connection. `live` lasts as long as it does; other threads may publish meanwhile.

    Args:
        place: Where to.
        protocol: The version: 4 is MQTT 3.1.1.
        client_id: Tells the MQTT client identifier.
        stopping: Set when no connection is wanted any more.
        subscriptions: Tells the topic filters that are to be heard now.
        unassured: Those that are heard at QoS 0; the others at QoS 1.
        on_up: Connected; subscribes.
        on_message: A message came.
        on_refused: The broker forbids a subscription or, in MQTT 5, a message; once for each reason.
        on_room: The broker took a message over.
        timing: How patient it is.
        meter: Takes the bytes that were sent and received.
        by_hand: A message counts as taken over only when its receipt is acknowledged.
    """

    def __init__(
        self,
        place: Broker,
        protocol: Literal[4, 5],
        client_id: Callable[[], str],
        *,
        stopping: threading.Event,
        subscriptions: Callable[[], Sequence[str]],
        unassured: Collection[str],
        on_up: Callable[[Conversation], None],
        on_message: Callable[[Received], None],
        on_refused: Callable[[str], None],
        on_room: Callable[[], None] | None,
        timing: Timing,
        meter: Meter,
        by_hand: bool,
    ) -> None:
        self._place, self._client_id = place, client_id
        self._protocol: Literal[4, 5] = protocol
        self._stopping, self._subscriptions, self._unassured = stopping, subscriptions, unassured
        self._on_up, self._on_message, self._on_refused, self._on_room = on_up, on_message, on_refused, on_room
        self._timing, self._meter, self._by_hand = timing, meter, by_hand
        self.client: Connection | None = None
        self.dialect: Dialect | None = None
        """What the broker was found to speak, once it has let us in."""
        self._lock = threading.Lock()
        self._outstanding: list[tuple[paho.MQTTMessageInfo, Publication]] = []
        self._was_up = self._answered = self._spoke = False
        self._ended: list[str] = []
        self._faults: list[str] = []  # what paho says of them only in its log
        self._refusals: set[str] = set()
        self._asked: dict[int | None, str] = {}  # what each answer to a subscription is about
        self._again: set[str] = set()
        self._again_s, self._wait_s = math.inf, timing.resubscribe_s

    def publish(self, publication: Publication, qos: int) -> bool:
        """Hands a message to paho, which may wait here until a callback returns; False when it does not take it."""
        if self.client is None:
            return False
        properties = None
        if publication.correlation is not None:
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = publication.correlation
        info = self.client.publish(
            publication.topic, publication.payload, qos=qos, retain=publication.retain, properties=properties
        )
        if info.rc:  # MQTT_ERR_SUCCESS is 0
            return False
        if qos:
            with self._lock:
                self._outstanding = [*self._left(), (info, publication)]
        return True

    def tell(self, publications: Iterable[Publication]) -> None:
        """Hands messages over at QoS 0, in MQTT 3.1.1 in one piece."""
        if self._protocol == 5 or self.client is None:
            for one in publications:
                self.publish(one, 0)
        else:
            packets = [write_publish(one.topic, one.payload, retain=one.retain) for one in publications]
            self.client.say(b"".join(packets))

    @property
    def untaken(self) -> tuple[Publication, ...]:
        """What the broker has not taken over yet."""
        with self._lock:
            self._outstanding = self._left()
            return tuple(publication for _, publication in self._outstanding)

    def _left(self) -> list[tuple[paho.MQTTMessageInfo, Publication]]:
        return [(info, publication) for info, publication in self._outstanding if not info.is_published()]

    def subscribe(self, topics: Iterable[str]) -> None:
        """Hears these topic filters too, and what is retained under them."""
        if self.client is not None:
            for topic in topics:
                self._asked[self.client.subscribe(topic, qos=int(topic not in self._unassured))[1]] = topic

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Hears these no more."""
        if self.client is not None:
            for topic in topics:
                self.client.unsubscribe(topic)

    def disconnect(self) -> None:
        """Has it end."""
        if self.client is not None:
            self.client.disconnect()

    def close(self) -> None:
        """Gives back what it needed; `live` has returned."""
        if self.client is not None:
            self.client.close()

    def live(self, will: Callable[[], Publication | None], *, trial: bool = False) -> Outcome:
        """Opens the connection, and lives through it.

        Args:
            will: Makes the last will.
            trial: Whether the broker speaks this version is not known yet: it is not waited for long.
        """
        place, reached = self._place, False
        try:
            client = self.client = self._open(will())
            client.connect(place.host, place.port, keepalive=self._timing.keepalive_s)
            reached = True
            if self._stopping.is_set():
                # While the address is looked up and answers, paho has nothing yet that it could disconnect.
                client.disconnect()
            end = time.monotonic() + self._timing.probe_s
            while trial and not (self._answered or self._ended):
                if not client.turn(0.1) or time.monotonic() > end:
                    client.disconnect()
                    break
            while client.turn():
                if time.monotonic() > self._again_s:
                    self._again_s, self._wait_s = math.inf, min(2 * self._wait_s, RESUBSCRIBE_CAP_S)
                    self.subscribe([one for one in self._subscriptions() if one in self._again])
                    self._again.clear()
        except (OSError, ValueError, StorageFault) as error:
            self._ended.insert(0, str(error) or type(error).__name__)
        except Exception as error:
            # A fault of ours or of paho: said aloud, and the connection is made anew instead of dying silently.
            log.exception("the connection to %s failed", place)
            self._ended.insert(0, str(error))
        if place.tls and not self._answered and not self._stopping.is_set():
            from edgekit_runtime.tls import explain

            self._ended.insert(0, explain((self._faults + self._ended + ["connection lost"])[0], place.cert))
        elif reached and not self._spoke and not self._stopping.is_set():
            self._ended.insert(0, _WORDLESS)
        reason = self._ended[0] if self._ended else "connection lost"
        return Outcome(reason, self._was_up, self._answered if reached else None)

    def _open(self, will: Publication | None) -> Connection:
        """A paho client with the broker's settings, not yet connected.

        Raises:
            StorageFault: A certificate or key file cannot be read.
        """
        # Imported by the first connection, on its own thread: with what it brings it takes longer than a start may.
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        from edgekit_runtime.connection import Connection

        broker, five = self._place, self._protocol == 5
        context = None
        if broker.tls:
            from edgekit_runtime.tls import client_context  # with OpenSSL: 5 MiB that others do without

            context = client_context(broker.ca, broker.cert, broker.key)
        client = Connection(
            self._meter,
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id(),
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=self._by_hand,
        )
        client.connect_timeout = self._timing.connect_timeout_s
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if context is not None:
            client.tls_set_context(context)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_message, client.on_subscribe = self._heard, self._subscribed
        if not five:
            client.on_delivery = self._delivered
        if five or self._on_room is not None:
            # paho makes two objects for each message that it tells of, QoS 0 included: half of what sending costs.
            client.on_publish = self._published
        client.on_log = lambda _c, _u, level, text: self._faults.append(text) if level == _LOG_ERROR else None
        return client

    # --- paho's callbacks, on the thread of `live` ---

    def _connected(self, client: paho.Client, _user: object, _flags: object, code: Any, properties: object) -> None:
        self._spoke = True
        self._answered = not (code.is_failure and code.value == UNSUPPORTED)
        if code.is_failure:
            self._ended.append(f"the broker refuses the connection: {code}")
        elif self._stopping.is_set():
            client.disconnect()
        else:
            self._was_up, self.dialect = True, read_dialect(self._protocol, properties)
            self._on_up(self)

    def _disconnected(self, _client: paho.Client, _user: object, _flags: object, code: Any, _props: object) -> None:
        self._ended.append(f"connection lost: {code}")

    def _subscribed(self, _client: paho.Client, _user: object, mid: int, codes: Sequence[Any], _props: object) -> None:
        for code in codes:
            if code.is_failure:
                topic = self._asked.get(mid)
                self._refused(f"the broker refuses the subscription to {topic or 'a topic'}: {code}")
                # A cluster that has just lost a node refuses what it grants a little later.
                if topic is not None:
                    self._again.add(topic)
                    self._again_s = min(self._again_s, time.monotonic() + self._wait_s)

    def _published(self, _client: paho.Client, _user: object, _mid: int, code: Any, _props: object) -> None:
        # Only MQTT 5 says so; and no lock of ours here, for paho holds its own.
        if code.is_failure:
            self._refused(f"the broker refuses a message: {code}")
        if self._on_room is not None:
            self._on_room()

    def _heard(self, client: paho.Client, _user: object, message: paho.MQTTMessage) -> None:
        receipt = Receipt(client, message.mid) if self._by_hand and message.qos else None
        properties = message.properties  # of MQTT 5 alone
        told = (None, None)
        if properties is not None:
            told = getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None)
        self._on_message(Received(message.topic, bytes(message.payload), message.retain, *told, receipt))

    def _delivered(self, found: Delivery) -> None:
        """As `_heard`, of a message that did not reach paho."""
        client, identifier = self.client, found.identifier
        assert client is not None
        receipt = Receipt(client, identifier) if self._by_hand and identifier is not None else None
        self._on_message(Received(found.topic, found.payload, found.retained, receipt=receipt))
        if identifier is not None and receipt is None:
            client.say(write_pubacks((identifier,)))

    def _refused(self, reason: str) -> None:
        # Once for each connection: a forbidden topic is refused for every message on it.
        if reason not in self._refusals:
            self._refusals.add(reason)
            self._on_refused(reason)
