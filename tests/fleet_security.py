"""A fleet whose members have certificates of edgekit's own authority, and a client that a test can make misbehave."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import paho.mqtt.client as paho
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgekit.fleet import enrolment
from edgekit.fleet.authority import CERTIFICATE_NAME, Authority
from edgekit.fleet.broker_config import Plan, write_mosquitto
from edgekit_runtime.broker import Broker
from edgekit_runtime.identity import private_pem
from tests.brokers import Mosquitto, wait_until


def certify(authority: Authority, name: str, folder: Path, days: float = 1) -> Path:
    """Key and certificate of a name, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    issued = enrolment.issue(authority, name, key.public_key(), days, "here")
    path = folder / f"{name}-{issued.serial[:6]}.pem"
    path.write_bytes(private_pem(key) + issued.pem)
    path.chmod(0o600)
    return path


@contextmanager
def secured_mosquitto(authority: Authority, folder: Path, **asked: Any) -> Iterator[Mosquitto]:
    """A broker that runs on what `edgekit fleet broker-config` writes for a plan, in `folder`/broker."""
    out = folder / "broker"

    def configuration(port: int) -> str:
        plan = Plan(hosts=("localhost", "127.0.0.1"), folder=str(out), port=port, listen="127.0.0.1", **asked)
        write_mosquitto(authority, out, plan)
        return (out / "mosquitto.conf").read_text().replace("/var/lib/mosquitto/", f"{folder}/")

    broker = Mosquitto(folder, whole=configuration)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def address(broker: Mosquitto, authority: Authority, identity: Path | None) -> Broker:
    """The broker, as somebody with that key and certificate reaches it."""
    url = f"mqtts://127.0.0.1:{broker.port}"
    return Broker.parse(url, ca=authority.folder / CERTIFICATE_NAME, cert=identity, key=identity)


class Client:
    """An MQTT client without manners.

    Args:
        broker: Where.
        identity: Key and certificate that it shows; None: none.
        ca: What it trusts.
        client_id: What it calls itself.
        protocol: 4 is MQTT 3.1.1, whose broker does not say that it refuses a message.
    """

    def __init__(
        self, broker: Mosquitto, identity: Path | None, ca: Path, client_id: str = "", protocol: Literal[4, 5] = 5
    ) -> None:
        self.heard: list[str] = []
        self.connected: ReasonCode | None = None
        self.ended = False
        self._acks: dict[int, ReasonCode] = {}
        versions = {4: MQTTProtocolVersion.MQTTv311, 5: MQTTProtocolVersion.MQTTv5}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=versions[protocol], reconnect_on_failure=False
        )
        context = ssl.create_default_context(cafile=str(ca))
        if identity is not None:
            context.load_cert_chain(str(identity))
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = lambda _c, _u, message: self.heard.append(message.topic)
        self._port = broker.port

    def __enter__(self) -> Self:
        # With TLS 1.3 a client learns only from what it reads next that its certificate is refused.
        with contextlib.suppress(OSError):
            self._client.connect("127.0.0.1", self._port)
            self._client.loop_start()
            wait_until(lambda: self.connected is not None or self.ended, "an answer of the broker")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def let_in(self) -> bool:
        """Whether the broker lets it in."""
        return self.connected is not None and not self.connected.is_failure

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> str:
        """What the broker says of a message at QoS 1; "ended" where it ended the connection."""
        mid = self._client.publish(topic, payload, qos=1, retain=retain).mid
        wait_until(lambda: mid in self._acks or self.ended, "the broker's word")
        code = self._acks.get(mid)
        # MQTT 5 has a success of its own where nobody listens.
        return "ended" if code is None else str(code) if code.is_failure else "Success"

    def subscribe(self, topic: str) -> None:
        """Asks for a topic, and waits until the broker has heard it."""
        done: list[bool] = []
        self._client.on_subscribe = lambda *_: done.append(True)
        self._client.subscribe(topic, qos=1)
        wait_until(lambda: done, "the subscription")

    def _on_connect(self, _c: object, _u: object, _f: object, code: ReasonCode, _p: Properties | None) -> None:
        self.connected = code

    def _on_disconnect(self, _c: object, _u: object, _f: object, _code: ReasonCode, _p: Properties | None) -> None:
        self.ended = True

    def _on_publish(self, _c: object, _u: object, mid: int, code: ReasonCode, _p: Properties | None) -> None:
        self._acks[mid] = code
