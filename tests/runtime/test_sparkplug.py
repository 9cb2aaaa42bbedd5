"""The edge node on a real Mosquitto, read by a decoder that is not ours: npm's sparkplug-payload.

The identifiers in the comments are the assertions of the Sparkplug specification 3.0.0 that a line looks at.
"""

from __future__ import annotations

import base64
import itertools
import queue
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgekit_contracts.state import ModelNow, Now
from edgekit_runtime.broker import Broker
from edgekit_runtime.sparkplug.node import REBIRTH, EdgeNode
from edgekit_runtime.sparkplug.payload import BOOLEAN, Metric, asks_for, encode_payload
from tests import bundles
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.javascript import Asked, javascript, npm_packages
from tests.service import Service

NODE = "spBv1.0/edgekit/{}/pump-1"
DECODER = """
const payload = require("sparkplug-payload").get("spBv1.0");
function plain(value) {
    // 64-bit numbers are objects of their own there; metrics that are unknown, null.
    if (value !== null && typeof value === "object" && "low" in value) return Number(value);
    if (Array.isArray(value)) return value.map(plain);
    if (value !== null && typeof value === "object")
        return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]));
    return value;
}
function answer(question) {
    if (question.encode) return Buffer.from(payload.encodePayload(question.encode)).toString("base64");
    return plain(payload.decodePayload(Buffer.from(question.decode, "base64")));
}
"""


@pytest.fixture(scope="module")
def node_js() -> Iterator[Asked]:
    with javascript(npm_packages("sparkplug-payload@1.0.3"), DECODER) as asked:
        yield asked


class Heard(msgspec.Struct, frozen=True):
    """A message with what its decoder says."""

    kind: str
    qos: int
    retain: bool
    payload: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        return {one["name"]: one for one in self.payload["metrics"]}


class Host:
    """A host application: paho alone, and the decoder."""

    def __init__(self, broker: Broker, decode: Asked) -> None:
        self._decode = decode
        self._messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _u, message: self._messages.put(message)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe("spBv1.0/edgekit/+/pump-1", qos=1)
        # Subscribed: what is published now comes back.
        self._client.publish(NODE.format("ping"), b"", qos=1)
        assert self._messages.get(timeout=30).topic == NODE.format("ping")

    def message(self) -> Heard:
        while (message := self._messages.get(timeout=30)).topic.split("/")[2] == "NCMD":
            pass
        decoded = self._decode({"decode": base64.b64encode(message.payload).decode()})
        return Heard(message.topic.split("/")[2], message.qos, message.retain, decoded)

    def command(self, *metrics: dict[str, Any]) -> None:
        text = self._decode({"encode": {"timestamp": 1_800_000_000_000, "metrics": list(metrics)}})
        self.publish(NODE.format("NCMD"), base64.b64decode(text))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(30)

    @property
    def idle(self) -> bool:
        return self._messages.empty()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def host(mosquitto: Mosquitto, node_js: Asked) -> Iterator[Host]:
    opened = Host(mosquitto.broker, node_js)
    yield opened
    opened.close()


class Device:
    """An edge node whose readings the test sets."""

    def __init__(self) -> None:
        press = ModelNow(model="press", version="1.0", requests=7, latency_p50_ms=0.25, null_percent=None)
        self.now = Now(device="pump-1", at_ms=0, rss_mb=81.5, uptime_s=2**40, models=(press,))
        self.node: EdgeNode

    def set(self, **changes: Any) -> None:
        models = (msgspec.structs.replace(self.now.models[0], **changes),)
        self.now = msgspec.structs.replace(self.now, models=models)
        self.node.update()


@contextmanager
def running(broker: Broker, host: str | None = None) -> Iterator[Device]:
    device = Device()
    device.node = EdgeNode(broker, "pump-1", lambda: device.now, group="edgekit", host=host, timing=QUICK)
    device.node.start()
    try:
        yield device
    finally:
        device.node.stop()


def test_a_birth_says_everything_by_name(mosquitto: Mosquitto, host: Host) -> None:
    with running(mosquitto.broker):
        birth = host.message()
    # tck-id-topics-nbirth-topic, payloads-nbirth-qos, payloads-nbirth-retain
    assert (birth.kind, birth.qos, birth.retain) == ("NBIRTH", 0, False)
    # tck-id-payloads-sequence-num-zero-nbirth, payloads-nbirth-timestamp, payloads-name-birth-data-requirement
    assert birth.payload["seq"] == 0
    assert birth.payload["timestamp"] > 1_700_000_000_000
    assert all(one["timestamp"] == birth.payload["timestamp"] for one in birth.payload["metrics"])
    # tck-id-payloads-nbirth-bdseq, topics-nbirth-bdseq-increment ("start at zero")
    assert (birth.metrics["bdSeq"]["type"], birth.metrics["bdSeq"]["value"]) == ("Int64", 0)
    # tck-id-topics-nbirth-rebirth-metric, operational-behavior-data-commands-rebirth-name-aliases
    control = birth.metrics[REBIRTH]
    assert (control["type"], control["value"], "alias" in control) == ("Boolean", False, False)
    # tck-id-payloads-alias-birth-requirement, payloads-alias-uniqueness
    aliases = [one["alias"] for name, one in birth.metrics.items() if name != REBIRTH]
    assert len(set(aliases)) == len(aliases) == len(birth.metrics) - 1
    # tck-id-topics-nbirth-metrics: name, datatype and value
    said = {name: (one["type"], one["value"]) for name, one in birth.metrics.items()}
    assert said["press/Version"] == ("String", "1.0")
    assert said["press/Requests"] == ("UInt64", 7)
    assert said["press/Latency p50 ms"] == ("Double", 0.25)
    assert said["press/Null percent"] == ("Double", None)
    assert said["Memory MB"] == ("Double", 81.5)
    assert said["Uptime s"] == ("UInt64", 2**40)


def test_data_holds_what_changed_by_alias_and_counts_to_255(mosquitto: Mosquitto, host: Host) -> None:
    with running(mosquitto.broker) as device:
        aliases = {name: one["alias"] for name, one in host.message().metrics.items() if "alias" in one}
        device.set(requests=9, null_percent=1.5, latency_p50_ms=None)
        data = host.message()
        # tck-id-topics-ndata-topic, payloads-ndata-qos, payloads-ndata-retain, payloads-ndata-seq-inc
        assert (data.kind, data.qos, data.retain, data.payload["seq"]) == ("NDATA", 0, False, 1)
        # tck-id-payloads-alias-data-cmd-requirement: no names; operational-behavior-data-publish-nbirth-change
        assert not any("name" in one for one in data.payload["metrics"])
        assert {one["alias"]: one["value"] for one in data.payload["metrics"]} == {
            aliases["press/Requests"]: 9,
            aliases["press/Null percent"]: 1.5,
            aliases["press/Latency p50 ms"]: None,
        }
        device.set()  # nothing has changed: nothing is said
        sequences = []
        for requests in range(10, 270):
            device.set(requests=requests)
            sequences.append(host.message().payload["seq"])
        # tck-id-payloads-sequence-num-incrementing: 255 is followed by 0
        assert sequences == [*range(2, 256), *range(6)]


def test_what_the_day_cannot_afford_is_not_said_and_counts_as_not_said(mosquitto: Mosquitto, host: Host) -> None:
    device, affords = Device(), [False]
    device.node = EdgeNode(
        mosquitto.broker, "pump-1", lambda: device.now, None, lambda size: affords[0], group="edgekit", timing=QUICK
    )
    device.node.start()
    try:
        wait_until(lambda: device.node._session == 0, "it would be born")
        assert host.idle
        affords[0] = True
        device.node.update()
        assert host.message().kind == "NBIRTH"
        affords[0] = False
        device.set(requests=8)
        wait_until(lambda: not device.node._woken, "it has looked")
        affords[0] = True
        device.node.update()
        data = host.message()
        assert (data.payload["seq"], data.payload["metrics"][0]["value"]) == (1, 8)
    finally:
        device.node.stop()


def test_another_model_is_told_by_a_new_birth(mosquitto: Mosquitto, host: Host) -> None:
    with running(mosquitto.broker) as device:
        host.message()
        saw = ModelNow(model="saw", version="2.0")
        device.now = msgspec.structs.replace(device.now, models=(*device.now.models, saw))
        device.node.update()
        birth = host.message()
        assert (birth.kind, birth.payload["seq"]) == ("NBIRTH", 0)
        assert birth.metrics["saw/Version"]["value"] == "2.0"
        device.now = msgspec.structs.replace(device.now, models=(saw,))
        device.node.update()
        data = host.message()
        gone = {one["alias"] for name, one in birth.metrics.items() if name.startswith("press/")}
        assert {one["alias"] for one in data.payload["metrics"]} <= gone
        assert all(one["value"] is None for one in data.payload["metrics"])


def test_a_rebirth_is_whole_and_has_the_same_bdseq(mosquitto: Mosquitto, host: Host) -> None:
    with running(mosquitto.broker) as device:
        first = host.message()
        device.set(requests=8)
        host.message()
        host.command({"name": "Node Control/Other", "type": "Boolean", "value": True})
        host.command({"name": REBIRTH, "type": "Boolean", "value": False})
        host.publish(NODE.format("NCMD"), b"\xff no payload")
        host.command({"name": REBIRTH, "type": "Boolean", "value": True})
        # tck-id-operational-behavior-data-commands-rebirth-action-1 to -3, payloads-nbirth-bdseq-repeat
        again = host.message()
        assert (again.kind, again.payload["seq"]) == ("NBIRTH", 0)
        assert again.metrics.keys() == first.metrics.keys()
        assert again.metrics["bdSeq"]["value"] == 0
        assert again.metrics["press/Requests"]["value"] == 8
        device.set(requests=9)
        assert host.message().payload["seq"] == 1


def test_a_node_that_is_cut_off_dies_by_its_will_and_is_born_anew(mosquitto: Mosquitto, host: Host) -> None:
    with running(mosquitto.broker):
        host.message()
        # A second client of the same name: the broker drops the first without a word from it.
        rival = paho.Client(CallbackAPIVersion.VERSION2, client_id="ek-pump-1-sparkplug")
        rival.connect(mosquitto.broker.host, mosquitto.broker.port)
        rival.loop_start()
        death = host.message()
        rival.disconnect()
        rival.loop_stop()
        # tck-id-payloads-ndeath-will-message, -qos, -retain, payloads-ndeath-seq, payloads-ndeath-bdseq
        assert (death.kind, death.qos, death.retain) == ("NDEATH", 1, False)
        assert "seq" not in death.payload
        assert {one["name"]: one["value"] for one in death.payload["metrics"]} == {"bdSeq": 0}
        birth = next(one for one in iter(host.message, None) if one.kind == "NBIRTH")
        # tck-id-topics-nbirth-bdseq-increment
        assert birth.metrics["bdSeq"]["value"] >= 1
        assert birth.payload["seq"] == 0


def test_a_node_that_stops_says_its_death_first(mosquitto: Mosquitto, host: Host) -> None:
    with running(mosquitto.broker):
        host.message()
    # tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311: the broker gives out no will after a DISCONNECT
    death = host.message()
    assert (death.kind, "seq" in death.payload, death.metrics["bdSeq"]["value"]) == ("NDEATH", False, 0)
    assert host.idle


def test_a_node_is_born_when_its_primary_host_is_online(mosquitto: Mosquitto, host: Host) -> None:
    def state(online: bool, timestamp: int) -> None:
        host.publish(
            "spBv1.0/STATE/scada", b'{"online": %s, "timestamp": %d}' % (str(online).lower().encode(), timestamp)
        )

    with running(mosquitto.broker, host="scada") as device:
        # tck-id-message-flow-edge-node-birth-publish-phid-wait, -online
        wait_until(lambda: device.node._link.connected, "it is connected")
        state(False, 1000)
        host.publish("spBv1.0/STATE/scada", b"ONLINE")  # as Sparkplug 2 had it
        wait_until(lambda: device.node._host.timestamp == 1000, "it has heard that")
        assert host.idle
        state(True, 2000)
        birth = host.message()
        assert birth.kind == "NBIRTH"
        # tck-id-operational-behavior-edge-node-termination-host-offline-timestamp: an older word
        state(False, 1999)
        device.set(requests=8)
        assert host.message().kind == "NDATA"
        # tck-id-message-flow-edge-node-birth-publish-phid-offline
        state(False, 3000)
        death = host.message()
        assert (death.kind, death.metrics["bdSeq"]["value"]) == ("NDEATH", birth.metrics["bdSeq"]["value"])
        wait_until(lambda: device.node._session == device.node._bdseq == 1, "it is connected anew")
        device.set(requests=9)
        assert host.idle
        state(True, 4000)
        again = host.message()
        assert (again.kind, again.metrics["bdSeq"]["value"]) == ("NBIRTH", death.metrics["bdSeq"]["value"] + 1)


def test_commands_that_are_none_ask_for_nothing() -> None:
    whole = encode_payload([Metric(REBIRTH, BOOLEAN, True)], 1, seq=None, named=True)
    assert asks_for(whole, REBIRTH)
    assert not asks_for(whole, "Node Control/Reboot")
    assert not any(asks_for(whole[:size], REBIRTH) for size in range(len(whole)))
    assert not asks_for(whole + 20_000 * b"\0\0", REBIRTH)
    draw = random.Random(5)
    for size in itertools.chain.from_iterable(itertools.repeat(range(64), 50)):
        asks_for(draw.randbytes(size), REBIRTH)


def test_the_service_is_an_edge_node_where_the_settings_say_so(
    mosquitto: Mosquitto, host: Host, tmp_path: Path
) -> None:
    service = Service(
        tmp_path,
        bundles.make(tmp_path),
        broker=str(mosquitto.broker),
        device="pump-1",
        telemetry="sparkplug = true",
    )
    service.start()
    try:
        birth = host.message()
        assert (birth.kind, birth.metrics["tiny/Version"]["value"]) == ("NBIRTH", "1.0")
        assert birth.metrics["tiny/Requests"]["type"] == "UInt64"
        assert service.infer()[0] == 200
        requests = birth.metrics["tiny/Requests"]["alias"]
        data = iter(host.message, None)
        wait_until(lambda: any(m["alias"] == requests and m["value"] == 1 for m in next(data).payload["metrics"]), "it")
    finally:
        service.stop()
        service.close()
    assert any(one.kind == "NDEATH" for one in iter(host.message, None))
