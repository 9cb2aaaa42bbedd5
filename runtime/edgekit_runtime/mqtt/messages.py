"""What goes out over a connection, and what comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    import paho.mqtt.client as paho


class Publication(msgspec.Struct, frozen=True):
    """A message to publish at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    correlation: bytes | None = None
    """MQTT 5: the request that this answers, in the requester's own words."""


class Receipt(NamedTuple):
    """By which a message is acknowledged to the broker, on the connection that it came on and on no other."""

    connection: paho.Client
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
