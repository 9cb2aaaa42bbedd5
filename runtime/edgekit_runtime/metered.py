"""paho's client, which tells how many bytes go over its connection.

Imported with paho, by the first connection. What is counted is MQTT: inside TLS, where there is TLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho

Meter = Callable[[int, int], None]
"""Takes bytes sent and bytes received."""


class MeteredClient(paho.Client):
    """A client with a meter.

    paho has no public place for it; a test holds the sums against the broker's own.

    Args:
        meter: Called for each piece that went out or came in, on the thread that sent or read it.
        arguments: paho's.
        named: paho's.
    """

    def __init__(self, meter: Meter, *arguments: Any, **named: Any) -> None:
        self._meter = meter
        super().__init__(*arguments, **named)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        sent = super()._sock_send(buf)
        self._meter(sent, 0)
        return sent

    def _sock_recv(self, bufsize: int) -> bytes:
        data = super()._sock_recv(bufsize)
        self._meter(0, len(data))
        return data
