"""The edge node: birth, data by exception, death, and rebirth when a host asks for it.

It has a connection of its own, because its will must be the NDEATH of its birth. What is published while there is no
connection is lost, as Sparkplug has it: this is a view of the device, never the record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.state import Now
from edgekit_runtime.broker import Broker
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.mqtt import Link, Publication, Received, Timing
from edgekit_runtime.sparkplug.payload import (
    BOOLEAN,
    DOUBLE,
    INT64,
    STRING,
    UINT64,
    Metric,
    Value,
    asks_for,
    encode_payload,
)

BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"

_DEVICE: Final = {
    "rss_mb": ("Memory MB", DOUBLE),
    "cpu_percent": ("CPU percent", DOUBLE),
    "uptime_s": ("Uptime s", UINT64),
    "outbox_records": ("Outbox records", UINT64),
}
_MODEL: Final = {
    "version": ("Version", STRING),
    "window_s": ("Window s", DOUBLE),
    "requests": ("Requests", UINT64),
    "rejected": ("Rejected", UINT64),
    "failed": ("Failed", UINT64),
    "latency_p50_ms": ("Latency p50 ms", DOUBLE),
    "latency_p99_ms": ("Latency p99 ms", DOUBLE),
    "null_percent": ("Null percent", DOUBLE),
    "out_of_range_percent": ("Out of range percent", DOUBLE),
    "abstained_percent": ("Abstained percent", DOUBLE),
}
"""Attribute of `state.ModelNow` -> its metric behind `MODEL/`, and its datatype."""

_log = logging.getLogger("edgekit.sparkplug")


class _HostState(msgspec.Struct, frozen=True):
    """The payload of `spBv1.0/STATE/HOST`."""

    online: bool
    timestamp: int


class EdgeNode:
    """Publishes one device's scalars as Sparkplug B.

    The link's thread and whoever calls `update` only note what is the matter; a thread of the node's own publishes.

    Args:
        broker: Where to connect. That it is down is no error.
        device: The edge node's identifier.
        now: What there is to say.
        ledger: Counts the bytes.
        affords: Whether a payload of so many bytes may still be sent today.
        group: The group's identifier.
        host: The primary host's; None waits for nobody.
        timing: Of the connection.
    """

    def __init__(
        self,
        broker: Broker,
        device: str,
        now: Callable[[], Now],
        ledger: Ledger | None = None,
        affords: Callable[[int], bool] = lambda size: True,
        *,
        group: str,
        host: str | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._now, self._ledger, self._affords = now, ledger or Ledger(), affords
        self._topic = f"spBv1.0/{group}/{{}}/{device}"
        self._state_topic = None if host is None else f"spBv1.0/STATE/{host}"
        # What is the matter; under the condition.
        self._condition = threading.Condition()
        # tck-id-topics-nbirth-bdseq-increment: from 0, one more with every CONNECT, 255 is followed by 0.
        self._bdseq = -1
        self._up: int | None = None  # the bdSeq of the connection that stands
        self._host = _HostState(online=host is None, timestamp=0)
        self._woken = self._rebirth = self._stopping = False
        # The node's own thread's.
        self._session: int | None = None  # the bdSeq that was last born, or waits for its host
        self._born: dict[str, Metric] | None = None  # by name, as they were last said
        self._seq = 0
        self._aliases: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="edgekit-sparkplug", daemon=True)
        self._link = Link(
            broker,
            f"ek-{device}-sparkplug",
            will=self._will,
            # tck-id-message-flow-edge-node-ncmd-subscribe: QoS 1, before the birth.
            subscriptions=(self._topic.format("NCMD"), *([] if self._state_topic is None else [self._state_topic])),
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=self._on_down,
            on_refused=lambda reason: _log.error("sparkplug: %s", reason),
            timing=timing,
            meter=self._ledger.wire,
        )

    def start(self) -> None:
        """Starts connecting and returns at once."""
        self._thread.start()
        self._link.start()

    def stop(self) -> None:
        """Dies in good order: an NDEATH before the DISCONNECT, where there was a birth."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()
        # tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath
        self._link.stop(None if self._born is None or self._session is None else self._death(self._session))

    def update(self) -> None:
        """There may be something new to say."""
        self._wake()

    def _wake(self) -> None:
        with self._condition:
            self._woken = True
            self._condition.notify()

    # --- the link's thread ---

    def _will(self) -> Publication:
        self._bdseq = (self._bdseq + 1) % 256
        return self._death(self._bdseq)

    def _on_up(self) -> None:
        with self._condition:
            self._up = self._bdseq
        self._wake()

    def _on_down(self, reason: str) -> None:
        with self._condition:
            self._up = None
        self._wake()
        _log.info("sparkplug: %s", reason)

    def _on_message(self, received: Received) -> None:
        if received.topic == self._state_topic:
            self._heed(received.payload)
        elif asks_for(received.payload, REBIRTH):
            with self._condition:
                self._rebirth = True
        self._wake()

    def _heed(self, payload: bytes) -> None:
        """What the primary host says of itself."""
        try:
            if len(payload) > limits.STATE_MAX_BYTES:
                raise ValueError(f"{len(payload)} bytes")
            state = msgspec.json.decode(payload, type=_HostState)
        except ValueError as error:
            _log.warning("sparkplug: ignored a state of the primary host: %s", error)
            return
        with self._condition:
            # tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp: an older word does not count.
            if state.timestamp >= self._host.timestamp:
                self._host = state

    # --- the node's own thread ---

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._woken or self._stopping)
                if self._stopping:
                    return
                up, online, rebirth = self._up, self._host.online, self._rebirth
                self._woken = self._rebirth = False
            try:
                self._act(up, online=online, rebirth=rebirth)
            except Exception:
                _log.exception("sparkplug: nothing is published")

    def _act(self, up: int | None, *, online: bool, rebirth: bool) -> None:
        if up != self._session:
            self._session, self._born = up, None
        if self._session is None:
            return
        if self._born is None:
            # tck-id-message-flow-edge-node-birth-publish-phid-wait: not before the primary host is online.
            if online:
                self._birth(self._session)
        elif not online:
            # tck-id-message-flow-edge-node-birth-publish-phid-offline: die, disconnect, and begin anew.
            self._link.publish(self._death(self._session))
            self._born = None
            self._link.renew()
        elif rebirth:
            # tck-id-operational-behavior-data-commands-rebirth-action-1 to -3: whole, with the same bdSeq.
            _log.info("sparkplug: a host asks for a rebirth")
            self._birth(self._session)
        else:
            self._say_changes(self._session, self._born)

    def _birth(self, bdseq: int) -> None:
        metrics = self._metrics()
        # tck-id-operational-behavior-data-commands-rebirth-name-aliases: the command has no alias.
        control = (Metric(BDSEQ, INT64, bdseq, alias=0), Metric(REBIRTH, BOOLEAN, False))
        # tck-id-payloads-sequence-num-zero-nbirth, payloads-nbirth-qos, payloads-nbirth-retain: 0, 0, false.
        data = encode_payload((*control, *metrics.values()), _now_ms(), seq=0, named=True)
        if self._publish("NBIRTH", data):
            self._seq, self._born = 0, metrics

    def _publish(self, kind: str, data: bytes) -> bool:
        topic = self._topic.format(kind)
        said = self._affords(len(data)) and self._link.publish(Publication(topic, data), qos=0)
        if said:
            self._ledger.carried(len(data), ("others", 1))
        return said

    def _death(self, bdseq: int) -> Publication:
        # tck-id-payloads-ndeath-seq: without a sequence number; -bdseq: with that of the birth.
        data = encode_payload([Metric(BDSEQ, INT64, bdseq)], _now_ms(), seq=None, named=True)
        return Publication(self._topic.format("NDEATH"), data)

    def _say_changes(self, bdseq: int, born: dict[str, Metric]) -> None:
        metrics = self._metrics()
        if metrics.keys() - born.keys():
            # tck-id-payloads-name-requirement, alias-birth-requirement: what is new is named in a birth.
            self._birth(bdseq)
            return
        changed = [one for name, one in metrics.items() if one != born[name]]
        # A model that is gone is not known any more.
        gone = [one for name, one in born.items() if name not in metrics and one.value is not None]
        changed += [msgspec.structs.replace(one, value=None) for one in gone]
        if not changed:
            return
        # tck-id-payloads-sequence-num-incrementing; -ndata-qos, -ndata-retain: 0, false.
        seq = (self._seq + 1) % 256
        data = encode_payload(changed, _now_ms(), seq=seq, named=False)
        if self._publish("NDATA", data):
            self._seq, self._born = seq, born | {one.name: one for one in changed}

    def _metrics(self) -> dict[str, Metric]:
        """All scalars; each name has its alias for as long as this node lives."""
        now = self._now()
        said: list[tuple[str, int, Value]] = [
            (name, datatype, getattr(now, attribute)) for attribute, (name, datatype) in _DEVICE.items()
        ]
        for one in now.models:
            said += [
                (f"{one.model}/{name}", datatype, getattr(one, attribute))
                for attribute, (name, datatype) in _MODEL.items()
            ]
        return {name: Metric(name, datatype, value, self._alias(name)) for name, datatype, value in said}

    def _alias(self, name: str) -> int:
        return self._aliases.setdefault(name, 1 + len(self._aliases))


def _now_ms() -> int:
    return max(0, round(time.time() * 1000))
