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
from edgekit_runtime.mqtt import Broker, Link, Publication, Received, Timing
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
    online: bool
    timestamp: int


class EdgeNode:
    """Publishes one device's scalars as Sparkplug B.

    Args:
        broker: Where to connect. That it is down is no error.
        device: The edge node's identifier.
        group: The group's.
        host: The primary host's; None waits for nobody.
        now: What there is to say.
        timing: Of the connection.
    """

    def __init__(
        self,
        broker: Broker,
        device: str,
        now: Callable[[], Now],
        *,
        group: str,
        host: str | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._now, self._host = now, host
        self._topic = f"spBv1.0/{group}/{{}}/{device}"
        self._state_topic = f"spBv1.0/STATE/{host}"
        self._lock = threading.RLock()
        # tck-id-topics-nbirth-bdseq-increment: from 0, one more with every CONNECT, 255 is followed by 0.
        self._bdseq, self._seq = -1, 0
        self._born: dict[str, Metric] | None = None  # by name, as they were last said
        self._host_said_ms = 0
        self._aliases: dict[str, int] = {}
        self._link = Link(
            broker,
            f"ek-{device}-sparkplug",
            will=self._will,
            # tck-id-message-flow-edge-node-ncmd-subscribe: QoS 1, before the birth.
            subscriptions=(self._topic.format("NCMD"), *([] if host is None else [self._state_topic])),
            on_up=self._on_up,
            on_message=self._on_message,
            on_down=self._on_down,
            on_refused=lambda reason: _log.error("sparkplug: %s", reason),
            timing=timing,
        )

    def start(self) -> None:
        """Starts connecting and returns at once."""
        self._link.start()

    def stop(self) -> None:
        """Dies in good order: an NDEATH before the DISCONNECT, where there was a birth."""
        # tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath
        with self._lock:
            death = None if self._born is None else self._death()
            self._born = None
        self._link.stop(death)

    def update(self) -> None:
        """Says what has changed since it was last said, or all of it where there is something new."""
        with self._lock:
            if self._born is None:
                return
            metrics = self._metrics()
            if metrics.keys() - self._born.keys():
                # tck-id-topics-nbirth-metrics: the birth names every metric that will ever be published.
                self._birth()
                return
            changed = [one for name, one in metrics.items() if one != self._born[name]]
            # A model that is gone is not known any more.
            changed += [
                msgspec.structs.replace(one, value=None)
                for name, one in self._born.items()
                if name not in metrics and one.value is not None
            ]
            if not changed:
                return
            self._seq = (self._seq + 1) % 256  # tck-id-payloads-sequence-num-incrementing
            data = encode_payload(changed, _now_ms(), seq=self._seq, named=False)
            # tck-id-payloads-ndata-qos, -retain: 0, false.
            if self._link.publish(Publication(self._topic.format("NDATA"), data), qos=0):
                self._born |= {one.name: one for one in changed}

    # --- the link's thread ---

    def _will(self) -> Publication:
        with self._lock:
            self._bdseq = (self._bdseq + 1) % 256
            return self._death()

    def _on_up(self) -> None:
        # tck-id-message-flow-edge-node-birth-publish-phid-wait: with a primary host, not before it is online.
        if self._host is None:
            with self._lock:
                self._birth()

    def _on_down(self, reason: str) -> None:
        with self._lock:
            self._born = None
        _log.info("sparkplug: %s", reason)

    def _on_message(self, received: Received) -> None:
        with self._lock:
            if received.topic == self._state_topic and self._host is not None:
                self._heed(received.payload)
            elif self._born is not None and asks_for(received.payload, REBIRTH):
                # tck-id-operational-behavior-data-commands-rebirth-action-1 to -3: at once, whole, with the same bdSeq.
                _log.info("sparkplug: a host asks for a rebirth")
                self._birth()

    def _heed(self, payload: bytes) -> None:
        """What the primary host says of itself."""
        try:
            if len(payload) > limits.STATE_MAX_BYTES:
                raise ValueError(f"{len(payload)} bytes")
            state = msgspec.json.decode(payload, type=_HostState)
        except ValueError as error:
            _log.warning("sparkplug: ignored a state of %s: %s", self._host, error)
            return
        # tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp: an older word does not count.
        if state.timestamp < self._host_said_ms:
            return
        self._host_said_ms = state.timestamp
        if state.online and self._born is None:
            self._birth()
        elif not state.online and self._born is not None:
            # tck-id-message-flow-edge-node-birth-publish-phid-offline: die, disconnect, and begin anew.
            self._link.publish(self._death())
            self._born = None
            self._link.renew()

    # --- with the lock ---

    def _birth(self) -> None:
        self._seq = 0  # tck-id-topics-nbirth-seq-num
        metrics = self._metrics()
        # tck-id-operational-behavior-data-commands-rebirth-name-aliases: the command has no alias.
        control = (Metric(BDSEQ, INT64, self._bdseq, alias=0), Metric(REBIRTH, BOOLEAN, False))
        data = encode_payload((*control, *metrics.values()), _now_ms(), seq=0, named=True)
        # tck-id-payloads-nbirth-qos, -retain: 0, false.
        if self._link.publish(Publication(self._topic.format("NBIRTH"), data), qos=0):
            self._born = metrics

    def _death(self) -> Publication:
        # tck-id-payloads-ndeath-seq: without a sequence number; -bdseq: with that of the birth.
        metrics = (Metric(BDSEQ, INT64, self._bdseq),)
        return Publication(self._topic.format("NDEATH"), encode_payload(metrics, _now_ms(), seq=None, named=True))

    def _metrics(self) -> dict[str, Metric]:
        """All scalars; each name has its alias for as long as this node lives."""
        now = self._now()
        said: list[tuple[str, int, Value]] = [
            (name, datatype, getattr(now, attribute)) for attribute, (name, datatype) in _DEVICE.items()
        ]
        for model, one in now.models.items():
            said += [
                (f"{model}/{name}", datatype, getattr(one, attribute)) for attribute, (name, datatype) in _MODEL.items()
            ]
        return {name: Metric(name, datatype, value, self._alias(name)) for name, datatype, value in said}

    def _alias(self, name: str) -> int:
        return self._aliases.setdefault(name, 1 + len(self._aliases))


def _now_ms() -> int:
    return max(0, round(time.time() * 1000))
