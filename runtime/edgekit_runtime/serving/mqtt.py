"""Inference over a broker: requests come on one topic, and their answers go out on another.

A request is what HTTP takes, in JSON, and is answered by the same `App`: the same limits, the same counts. It is
answered on a thread of its own, one after the other; the network's thread only puts it into a queue that is bounded.
Every request that was heard gets an answer or an error, and none is kept: what is sent while the device is away, or
lost with it, is asked again by whoever waits for it.

| requester speaks | it gets back | on |
|---|---|---|
| MQTT 3.1.1 | the request's `id` | `ek/1/up/P/DEVICE/answer/MODEL` |
| MQTT 5 | `id` and correlation data | the response topic that it names, else the same |
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import Full, Queue
from typing import Final, Literal

import msgspec

from edgekit_contracts import topics
from edgekit_runtime.broker import Broker
from edgekit_runtime.config import Serve
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.mqtt import Link, Publication, Received, Timing
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.serving.message import JSON, Request, Response, error

ANSWERS_AT_BROKER_MAX: Final = 32
"""Answers that the broker has not taken over; then the next request waits."""
REFUSALS_AT_BROKER_MAX: Final = 128
"""The same, where even a refusal is not sent any more."""

_log = logging.getLogger("edgekit.serving")


class Unanswered(msgspec.Struct, frozen=True, kw_only=True):
    """What comes in the place of an answer."""

    id: str | None
    """The request's, where it could be read."""
    status: int
    """As HTTP would say it: 4xx for a fault of the request; 429 and 503 to ask again later; 504 for a deadline that has
    passed; 500 for a fault of ours."""
    error: str
    """A sentence."""


class _Identified(msgspec.Struct, frozen=True):
    id: str | None = None


class _Asked(msgspec.Struct, frozen=True):
    received: Received
    infer: topics.Infer
    started: float


class MqttServer:
    """Answers the requests that a broker brings.

    Args:
        broker: Where it is. That it is down is no error: the link keeps trying.
        device: This device.
        answer: What answers: `App.answer`.
        settings: `max_request_bytes` and, for the requests that wait, `max_concurrent`.
        ledger: Counts the bytes.
        timing: Of the connection.
    """

    def __init__(
        self,
        broker: Broker,
        device: str,
        answer: Callable[[Request], Response],
        settings: Serve,
        *,
        ledger: Ledger | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._ledger = ledger or Ledger()
        self._device, self._answer, self._settings = device, answer, settings
        self._queue: Queue[_Asked | Literal["come round"] | None] = Queue(settings.max_concurrent)
        self._stopping, self._shown = False, ""
        self._room = threading.Event()
        self._link = Link(
            broker,
            f"ek-{device}-infer",
            will=lambda: None,
            subscriptions=(topics.every_infer(device),),
            on_up=lambda: self._show("taken"),
            on_message=self._on_message,
            on_down=lambda reason: self._show(f"not taken ({reason})"),
            on_room=self._room.set,
            on_refused=lambda reason: _log.error("requests from %s: %s", broker, reason),
            meter=self._ledger.wire,
            timing=timing,
        )
        self._thread = threading.Thread(target=self._work, name="edgekit-mqtt-infer", daemon=True)
        self.pulse = Pulse("inference over the broker", self._come_round)

    def start(self) -> None:
        """Starts both threads and returns at once."""
        self._thread.start()
        self._link.start()

    def reconnect(self) -> None:
        """Connects anew, with the certificate that is in the files now."""
        self._link.renew()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Refuses what still comes, answers what waits, and disconnects."""
        end = time.monotonic() + timeout_s
        self._stopping = True
        with contextlib.suppress(Full):
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, end - time.monotonic()))
        while self._link.outstanding and time.monotonic() < end:
            time.sleep(0.005)
        self._link.stop(timeout_s=max(0.0, end - time.monotonic()))

    # --- the link's thread ---

    def _on_message(self, received: Received) -> None:
        infer = topics.Infer.parse(received.topic)
        self._ledger.carried(len(received.payload), ("inference", 1))
        if infer is None or infer.device != self._device:
            return
        asked = _Asked(received, infer, time.perf_counter())
        if received.response_topic is not None and not _may_answer_at(received.response_topic):
            refusal = error(400, "the response topic has a wildcard or is one of edgekit's own; name another")
        elif received.retained:
            # It would come again, and be answered again, at each connection.
            refusal = error(400, "a retained request is not answered; publish it without retain")
        elif len(received.payload) > self._settings.max_request_bytes:
            refusal = error(413, f"a request of {len(received.payload)} bytes; send {self._settings.max_request_bytes}")
        elif self._stopping:
            refusal = error(503, "the service is stopping")
        else:
            try:
                self._queue.put_nowait(asked)
                return
            except Full:
                refusal = error(503, "more requests wait than this device is to keep; ask again")
        if self._link.outstanding < REFUSALS_AT_BROKER_MAX:
            self._publish(asked, refusal)

    def _show(self, state: str) -> None:
        """One line in the log for each change, not for each attempt."""
        if state != self._shown:
            self._shown = state
            _log.info("requests from %s are %s", self._link.broker, state)

    # --- the worker's thread ---

    def _work(self) -> None:
        while (asked := self._queue.get()) is not None:
            self.pulse.beat()
            if asked == "come round":
                continue
            while self._link.outstanding >= ANSWERS_AT_BROKER_MAX:
                self.pulse.beat()  # the broker is slow, and we are not stuck
                self._room.clear()
                self._room.wait(0.05)
            target = f"/v2/models/{asked.infer.model}/infer".encode()
            try:
                self._publish(asked, self._answer(Request("POST", target, {}, asked.received.payload, asked.started)))
            except Exception:
                # Whatever was in it, the next one is answered.
                _log.exception("a request on %s has no answer", asked.infer)

    # --- both ---

    def _come_round(self) -> None:
        with contextlib.suppress(Full):  # then it has work, and comes round with the next request
            self._queue.put_nowait("come round")

    def _publish(self, asked: _Asked, response: Response) -> None:
        received, body = asked.received, response.body
        if response.content_type != JSON:
            response = error(400, "tensors in bytes are for HTTP; ask for the outputs in JSON")
        if response.status != 200:
            sentence = msgspec.json.decode(response.body, type=dict[str, str])["error"]
            said = Unanswered(id=self._id(received.payload), status=response.status, error=sentence)
            body = msgspec.json.encode(said)
        named = received.response_topic
        topic = named if named is not None and _may_answer_at(named) else asked.infer.answer
        if self._link.publish(Publication(topic, body, correlation=received.correlation)):
            self._ledger.carried(len(body), ("inference", 1))

    def _id(self, payload: bytes) -> str | None:
        if len(payload) > self._settings.max_request_bytes:
            return None
        try:
            return msgspec.json.decode(payload, type=_Identified).id
        except (msgspec.MsgspecError, RecursionError):
            return None


def _may_answer_at(topic: str) -> bool:
    """Whether a requester may send us there: to no topic of this tree, or it could make us say what others believe."""
    ours = topic.split("/")[0] == topics.ROOT.split("/")[0]
    return bool(topic) and not ours and topic[0] != "$" and not set("+#\0") & set(topic)
