"""The three packets that a busy connection is made of, read and written at once; paho makes thirty calls for each.

Source: OASIS MQTT Version 3.1.1, sections 2.2.3 (remaining length), 3.3 (PUBLISH), 3.4 (PUBACK). A PUBACK of these two
bytes means success in MQTT 5 too (OASIS MQTT Version 5.0, section 3.4.2.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

PUBLISH: Final = 0x30
PUBACK: Final = b"\x40\x02"
_RETAIN, _QOS_1, _QOS_2 = 0x01, 0x02, 0x04
_LENGTH_BYTES: Final = 4


class Delivery(NamedTuple):
    """A message that came."""

    topic: str
    payload: bytes
    retained: bool
    identifier: int | None
    """By which it is acknowledged; None at QoS 0."""
    end: int
    """Where the next packet begins."""


def read_publish(data: bytes, at: int) -> Delivery | None:
    """Reads a PUBLISH of QoS 0 or 1 in MQTT 3.1.1.

    Args:
        data: What was received.
        at: Where a packet begins, within it.

    Returns:
        The message; None for any other packet, and for one that is not whole or not right.
    """
    first = data[at]
    if first & (0xF0 | _QOS_2) != PUBLISH:
        return None
    size, start = 0, at + 1
    for place, byte in enumerate(data[start : start + _LENGTH_BYTES]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            start += place + 1
            break
    else:
        return None
    end, topic = start + size, start + 2
    if end > len(data) or topic > end:
        return None
    body = topic_end = topic + int.from_bytes(data[start:topic], "big")
    identifier = None
    if first & _QOS_1:
        body += 2
        identifier = int.from_bytes(data[topic_end:body], "big")
    if topic_end == topic or body > end or identifier == 0:
        return None
    try:
        return Delivery(data[topic:topic_end].decode(), data[body:end], bool(first & _RETAIN), identifier, end)
    except UnicodeDecodeError:
        return None


def write_publish(topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    """A PUBLISH of QoS 0 in MQTT 3.1.1."""
    name = topic.encode()
    size = left = 2 + len(name) + len(payload)
    head = bytearray((PUBLISH | (_RETAIN if retain else 0),))
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    assert size < 1 << 7 * _LENGTH_BYTES
    return b"".join((head, len(name).to_bytes(2, "big"), name, payload))


def write_pubacks(identifiers: Iterable[int]) -> bytes:
    """A PUBACK for each."""
    return b"".join([PUBACK + identifier.to_bytes(2, "big") for identifier in identifiers])
