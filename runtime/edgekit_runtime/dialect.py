"""Which MQTT a broker speaks, and what it allows: read from its answer to CONNECT.

MQTT 3.1.1 is enough for everything here. MQTT 5 adds that a broker says what it refuses (in 3.1.1 it takes over a
forbidden message, says "success" and drops it) and what it allows. Shared subscriptions are not asked for: four brokers
grant them and deliver nothing (telemetry facts, 2.6).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

UNSUPPORTED: Final = 0x84
"""CONNACK: "Unsupported Protocol Version". Source: MQTT 5.0, 3.2.2.2; paho makes it of the 1 that MQTT 3.1.1 has."""
PACKET_ROOM: Final = 64
"""Bytes of a PUBLISH beside topic and payload: fixed header, lengths, packet identifier, properties; generous."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker was found to speak."""

    protocol: Literal[4, 5]
    """4 is MQTT 3.1.1."""
    packet_max_bytes: int | None = None
    """Larger packets end the connection; None: it sets no limit, or cannot say (3.1.1)."""
    at_once: int = 65_535
    """Messages that it takes before it has acknowledged the first (Receive Maximum); more end the connection."""

    def __str__(self) -> str:
        if self.protocol == 4:
            return "MQTT 3.1.1"
        size = "any size" if self.packet_max_bytes is None else f"up to {self.packet_max_bytes} bytes"
        return f"MQTT 5 (packets of {size}, {self.at_once} at once)"

    def payload_max(self, topic: str) -> int | None:
        """Bytes of payload that fit into a message on a topic; None for no limit."""
        if self.packet_max_bytes is None:
            return None
        return self.packet_max_bytes - len(topic.encode()) - PACKET_ROOM


def read_dialect(protocol: Literal[4, 5], properties: Any) -> Dialect:
    """What a CONNACK says.

    Args:
        protocol: Of the connection.
        properties: paho's, of MQTT 5.

    Source: MQTT 5.0, 3.2.2.3.3 (Receive Maximum: 65,535 where it is absent) and 3.2.2.3.6 (Maximum Packet Size).
    """
    if protocol == 4:
        return Dialect(protocol=4)
    return Dialect(
        protocol=5,
        packet_max_bytes=getattr(properties, "MaximumPacketSize", None),
        at_once=getattr(properties, "ReceiveMaximum", 65_535),
    )
