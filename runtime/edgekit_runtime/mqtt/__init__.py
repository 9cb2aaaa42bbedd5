"""MQTT connections that are kept: the device's uplink and the collector both stand on a `Link`.

| module | does |
|---|---|
| `link` | connects, listens, and connects anew |
| `conversation` | one connection, from its opening to its end |
| `messages` | what goes out and what comes in |
| `patience` | how long is waited, and for what |
| `once` | a connection for one question or one message |

Three facts of paho-mqtt 2.2 shape it (telemetry facts, 2.4): `publish` while disconnected fills memory and is lost with
the process, so a `Link` publishes only while connected; after a reconnect paho sends again whatever it held, so each
connection gets a client of its own; its reconnect delay has no jitter, so `link` draws its own.
"""

from __future__ import annotations

from edgekit_runtime.mqtt.link import Link
from edgekit_runtime.mqtt.messages import Publication, Receipt, Received
from edgekit_runtime.mqtt.once import probe, publish_once
from edgekit_runtime.mqtt.patience import Timing, full_jitter

__all__ = ["Link", "Publication", "Receipt", "Received", "Timing", "full_jitter", "probe", "publish_once"]
