from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgekit_contracts import topics
from edgekit_contracts.counts import decode_counts
from edgekit_runtime.broker import Broker
from edgekit_runtime.config import Serve
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.route import Member
from edgekit_runtime.served import Lineup, Served
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.message import Request, Response
from edgekit_runtime.serving.mqtt import MqttServer
from tests import bundles
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.service import Service


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker"))
    broker.start()
    yield broker
    broker.stop()


class Requester:
    """Somebody else's client: paho alone, in MQTT 3.1.1 or 5."""

    def __init__(self, broker: Broker, device: str, *, five: bool = False) -> None:
        self.device, self._five = device, five
        self._heard: queue.Queue[paho.MQTTMessage] = queue.Queue()
        subscribed = threading.Event()
        protocol = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_message = lambda _c, _u, message: self._heard.put(message)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        own = [f"ek/1/up/+/{device}/answer/+", f"ek/1/st/{device}", f"asked/{device}"]
        self._client.subscribe([(topic, 1) for topic in own])
        assert subscribed.wait(30)

    def __enter__(self) -> Requester:
        return self

    def meet(self) -> None:
        """Waits until the device listens: connected, it may not have subscribed yet."""
        for number in range(600):
            self.ask(json.dumps({"id": f"meet {number}"}).encode(), model="nobody")
            with contextlib.suppress(queue.Empty):
                while json.loads(self._heard.get(timeout=0.1).payload).get("id") != f"meet {number}":
                    pass
                return
        pytest.fail("the device does not listen")

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, payload: bytes, *, model: str = "tiny", retain: bool = False, **named: Any) -> None:
        """Publishes a request; `named` are properties of MQTT 5."""
        properties = None
        if named:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in named.items():
                setattr(properties, name, value)
        topic = str(topics.Infer(self.device, model))
        self._client.publish(topic, payload, qos=1, retain=retain, properties=properties).wait_for_publish(30)

    def forget(self, model: str = "tiny") -> None:
        """Clears a retained request."""
        self._client.publish(str(topics.Infer(self.device, model)), b"", qos=1, retain=True).wait_for_publish(30)

    def message(self) -> paho.MQTTMessage:
        return self._heard.get(timeout=60)

    def answer(self) -> Any:
        return json.loads(self.message().payload)

    @property
    def idle(self) -> bool:
        return self._heard.empty()


class Device:
    """The bundle, the application, and the server before it."""

    def __init__(self, broker: Broker, name: str, settings: Serve | None = None) -> None:
        self.observer = Observer(bundles.manifest(), bundles.reference().bins)
        served = Served(Lineup(Member(Engine(bundles.model(), bundles.manifest()), self.observer)))
        settings = settings or Serve()
        self.app = App({"tiny": served}, dict, settings)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        self.fails = False
        self.server = MqttServer(broker, name, self._answer, settings, timing=QUICK)

    def _answer(self, request: Request) -> Response:
        if b"/tiny/" in request.target:
            self.begun.release()
            assert self.gate.wait(60)
        if self.fails:
            self.fails = False
            raise RuntimeError("a fault of ours")
        return self.app.answer(request)


@contextmanager
def device(broker: Broker, name: str, settings: Serve | None = None) -> Iterator[Device]:
    made = Device(broker, name, settings)
    made.server.start()
    assert made.server._link.wait_first(30) is None
    try:
        yield made
    finally:
        made.gate.set()
        made.server.stop()


def request(**more: Any) -> bytes:
    inputs = [
        {"name": name, "shape": [4], "datatype": "BYTES" if name == "sex" else "FP64", "data": column}
        for name, column in bundles.ROWS.items()
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


def correlation(message: paho.MQTTMessage) -> Any:
    return vars(message.properties)["CorrelationData"]


def probabilities(answer: Any) -> list[float]:
    (data,) = [output["data"] for output in answer["outputs"] if output["name"] == "probabilities"]
    return [float(value) for value in data]


RIGHT = pytest.approx(bundles.answers(bundles.ROWS).ravel().tolist())


def test_rows_in_on_one_topic_come_out_on_another_with_their_id(mosquitto: Mosquitto) -> None:
    with device(mosquitto.broker, "dev-a"), Requester(mosquitto.broker, "dev-a") as requester:
        requester.meet()
        for number in ("first", "second"):
            requester.ask(request(id=number))
        messages = [requester.message() for _ in range(2)]
        assert {message.topic for message in messages} == {f"ek/1/up/{topics.partition('dev-a')}/dev-a/answer/tiny"}
        answers = [json.loads(message.payload) for message in messages]
        assert [answer["id"] for answer in answers] == ["first", "second"]
        assert all(probabilities(answer) == RIGHT for answer in answers)
        assert answers[0]["model_version"] == "1.0"


def test_mqtt_5_names_the_topic_and_gets_its_correlation_back(mosquitto: Mosquitto) -> None:
    broker = Broker(host="127.0.0.1", port=mosquitto.port, protocol=5)
    with device(broker, "dev-b"), Requester(broker, "dev-b", five=True) as requester:
        requester.meet()
        requester.ask(request(), ResponseTopic="asked/dev-b", CorrelationData=b"\x00 7")
        found = requester.message()
        assert (found.topic, correlation(found)) == ("asked/dev-b", b"\x00 7")
        assert probabilities(json.loads(found.payload)) == RIGHT
        requester.ask(b"{", ResponseTopic="asked/dev-b", CorrelationData=b"8")
        found = requester.message()
        assert (found.topic, correlation(found)) == ("asked/dev-b", b"8")
        assert json.loads(found.payload)["status"] == 400


@pytest.mark.parametrize("topic", ["ek/1/st/dev-c", "ek/1/dn/dev-c/infer/tiny", "$SYS/x"])
def test_a_requester_cannot_make_the_device_speak_on_edgekit_s_topics(mosquitto: Mosquitto, topic: str) -> None:
    broker = Broker(host="127.0.0.1", port=mosquitto.port, protocol=5)
    with device(broker, "dev-c"), Requester(broker, "dev-c", five=True) as requester:
        requester.meet()
        requester.ask(request(id="x"), ResponseTopic=topic)
        found = requester.message()
        assert found.topic == topics.Infer("dev-c", "tiny").answer
        assert json.loads(found.payload)["id"] == "x"
        assert "the response topic" in json.loads(found.payload)["error"]


@pytest.mark.parametrize(
    ("payload", "model", "status", "sentence"),
    [
        (b"\xff\x00", "tiny", 400, "request is not valid"),
        (b"[" * 1000, "tiny", 400, "request is not valid"),
        (b"", "tiny", 400, "request is not valid"),
        (b'{"id": "x", "inputs": []}', "tiny", 400, "lacks 'age', 'bmi', 'sex'"),
        (request(id="x"), "other", 404, "there is no model 'other' here; ask for tiny 1.0"),
        (request(id="x", parameters={"filler": "x" * 2000}), "tiny", 413, "send 2048"),
        (
            request(id="x", outputs=[{"name": "probabilities", "parameters": {"binary_data": True}}]),
            "tiny",
            400,
            "JSON",
        ),
    ],
    ids=["bytes", "deep", "nothing", "no inputs", "no such model", "too large", "binary"],
)
def test_every_fault_is_answered_and_the_next_request_too(
    mosquitto: Mosquitto, payload: bytes, model: str, status: int, sentence: str
) -> None:
    settings = Serve(max_request_bytes=2048)
    with device(mosquitto.broker, "dev-d", settings), Requester(mosquitto.broker, "dev-d") as requester:
        requester.meet()
        requester.ask(payload, model=model)
        answer = requester.answer()
        assert answer["status"] == status
        assert sentence in answer["error"]
        assert answer["id"] == ("x" if b'"x"' in payload and status != 413 else None)
        requester.ask(request(id="good"))
        assert probabilities(requester.answer()) == RIGHT
        assert requester.idle


def test_a_fault_of_ours_does_not_end_the_answers(mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    with device(mosquitto.broker, "dev-k") as one, Requester(mosquitto.broker, "dev-k") as requester:
        requester.meet()
        one.fails = True
        for number in ("1", "2"):
            requester.ask(request(id=number))
        assert requester.answer()["id"] == "2"
        assert "a request on ek/1/dn/dev-k/infer/tiny has no answer" in caplog.text


def test_a_request_that_comes_twice_is_answered_twice_and_counted_as_sent_again(mosquitto: Mosquitto) -> None:
    with device(mosquitto.broker, "dev-e") as one, Requester(mosquitto.broker, "dev-e") as requester:
        requester.meet()
        for _ in range(2):
            requester.ask(request(id="7"))
        assert [requester.answer()["id"] for _ in range(2)] == ["7", "7"]
        one.server.stop()
        window = one.observer.close()
        assert window is not None
        assert decode_counts(window.body.counts, bundles.reference().bins, window.n).resent == 1
        assert window.body.software.calls == 2


def test_what_does_not_fit_into_the_queue_is_refused_at_once(mosquitto: Mosquitto) -> None:
    settings = Serve(max_concurrent=2)
    with device(mosquitto.broker, "dev-f", settings) as one, Requester(mosquitto.broker, "dev-f") as requester:
        requester.meet()
        one.gate.clear()
        requester.ask(request(id="0"))
        assert one.begun.acquire(timeout=60)  # it is under way, and out of the queue
        for number in range(1, 6):
            requester.ask(request(id=str(number)))
        refused = [requester.answer() for _ in range(3)]
        assert [(answer["id"], answer["status"]) for answer in refused] == [("3", 503), ("4", 503), ("5", 503)]
        one.gate.set()
        answered = [requester.answer() for _ in range(3)]
        assert [answer["id"] for answer in answered] == ["0", "1", "2"]
        assert all(probabilities(answer) == RIGHT for answer in answered)


def test_what_waited_in_the_queue_beyond_its_deadline_is_504(mosquitto: Mosquitto) -> None:
    with device(mosquitto.broker, "dev-l") as one, Requester(mosquitto.broker, "dev-l") as requester:
        requester.meet()
        one.gate.clear()
        requester.ask(request(id="patient"))
        assert one.begun.acquire(timeout=60)
        requester.ask(request(id="hurried", parameters={"timeout": 1000}))
        wait_until(lambda: one.server._queue.qsize() == 1, "it waits")
        time.sleep(0.001)
        one.gate.set()
        assert probabilities(requester.answer()) == RIGHT
        late = requester.answer()
        assert (late["id"], late["status"]) == ("hurried", 504)
        assert "no answer within 0.001 s: the request waited" in late["error"]


def test_a_retained_request_is_never_answered_with_rows(mosquitto: Mosquitto) -> None:
    with Requester(mosquitto.broker, "dev-g") as requester:
        requester.ask(request(id="kept"), retain=True)
        for _ in range(2):  # at every connection
            with device(mosquitto.broker, "dev-g"):
                answer = requester.answer()
                assert (answer["id"], answer["status"]) == ("kept", 400)
                assert "without retain" in answer["error"]
        requester.forget()


def test_requests_under_way_are_answered_before_the_device_leaves(mosquitto: Mosquitto) -> None:
    with device(mosquitto.broker, "dev-h") as one, Requester(mosquitto.broker, "dev-h") as requester:
        requester.meet()
        one.gate.clear()
        for number in range(3):
            requester.ask(request(id=str(number)))
        assert one.begun.acquire(timeout=60)
        wait_until(lambda: one.server._queue.qsize() == 2, "all requests have come")
        leaving = threading.Thread(target=one.server.stop)
        leaving.start()
        wait_until(lambda: one.server._stopping, "it leaves")
        requester.ask(request(id="late"))
        assert (late := requester.answer())["id"] == "late"
        assert late["status"] == 503
        one.gate.set()
        assert [requester.answer()["id"] for _ in range(3)] == ["0", "1", "2"]
        leaving.join(60)


def test_requests_are_taken_again_when_the_broker_is_back(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    broker.start()
    with device(broker.broker, "dev-i") as one:
        broker.kill()
        wait_until(lambda: not one.server._link.connected, "the connection is lost")
        broker.start()
        wait_until(lambda: one.server._link.connected, "it is back")
        with Requester(broker.broker, "dev-i") as requester:
            requester.meet()
            requester.ask(request())
            assert probabilities(requester.answer()) == RIGHT
    broker.stop()


def test_the_service_answers_over_its_broker_where_the_settings_say_so(mosquitto: Mosquitto, tmp_path: Path) -> None:
    service = Service(tmp_path, bundles.make(tmp_path / "made"), broker=str(mosquitto.broker), device="dev-j")
    service.config.write_text(service.config.read_text() + "infer = true\n")
    try:
        service.start()
        with Requester(mosquitto.broker, "dev-j") as requester:
            requester.meet()
            requester.ask(request(id="1"))
            assert probabilities(requester.answer()) == RIGHT
            assert service.infer()[0] == 200
        assert service.stop() == 0
    finally:
        service.close()


def test_the_worker_shows_that_it_goes_on_and_does_not_where_it_is_stuck(mosquitto: Mosquitto) -> None:
    with device(mosquitto.broker, "dev-p") as made, Requester(mosquitto.broker, "dev-p") as requester:
        pulse = made.server.pulse
        pulse.ask()
        wait_until(lambda: pulse.answered, "the idle worker")
        requester.meet()
        made.gate.clear()
        requester.ask(request())
        assert made.begun.acquire(timeout=60)  # it is inside of a request
        pulse.ask()
        assert not pulse.answered
        made.gate.set()
        wait_until(lambda: pulse.answered, "the worker goes on")
        assert probabilities(requester.answer()) == RIGHT
