from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.packets import Delivery, read_publish, write_pubacks, write_publish

TOPICS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=100)
PAYLOADS = st.binary(max_size=300) | st.integers(0, 40_000).map(bytes)


def at_qos_1(packet: bytes, topic: str, identifier: int) -> bytes:
    """The same message with an identifier behind its topic, and so a new length."""
    place = next(at for at in range(1, 5) if packet[at] < 0x80) + 1
    end = place + 2 + len(topic.encode())
    body = packet[place:end] + identifier.to_bytes(2, "big") + packet[end:]
    head, left = bytearray((packet[0] | 0x02,)), len(body)
    while left > 0x7F:
        head.append(left % 128 + 128)
        left //= 128
    return bytes(head) + bytes((left,)) + body


@given(
    TOPICS, PAYLOADS, st.booleans(), st.none() | st.integers(1, 65_535), st.binary(max_size=9), st.binary(max_size=9)
)
def test_a_message_is_read_as_it_was_written_wherever_it_stands(
    topic: str, payload: bytes, retain: bool, identifier: int | None, before: bytes, after: bytes
) -> None:
    packet = write_publish(topic, payload, retain=retain)
    if identifier is not None:
        packet = at_qos_1(packet, topic, identifier)
    data = before + packet + after
    wanted = Delivery(topic, payload, retain, identifier, len(before) + len(packet))
    assert read_publish(data, len(before)) == wanted


@given(TOPICS, st.binary(max_size=200), st.data())
def test_one_that_is_not_whole_is_not_read(topic: str, payload: bytes, data: st.DataObject) -> None:
    packet = at_qos_1(write_publish(topic, payload), topic, 7)
    assert read_publish(packet[: data.draw(st.integers(1, len(packet) - 1))], 0) is None


@given(st.binary(min_size=1, max_size=40))
def test_whatever_stands_there_what_is_read_lies_within_it(data: bytes) -> None:
    found = read_publish(data, 0)
    assert found is None or 0 < found.end <= len(data)
    assert found is None or data[0] >> 4 == 3


@pytest.mark.parametrize(
    "packet",
    [
        b"\x34\x05\0\x01t\0\x07",  # QoS 2
        b"\x36\x05\0\x01t\0\x07",  # QoS 3
        b"\x32\x05\0\x01t\0\0",  # an identifier of 0
        b"\x32\x04\0\x01t\x07",  # half an identifier
        b"\x30\x02\0\0",  # no topic
        b"\x30\x03\0\x01\xff",  # a topic that is no UTF-8
        b"\x30\x03\0\x02t",  # a topic that is longer than the packet
        b"\x30\x80\x80\x80\x80\x01",  # a length of five bytes
        b"\x40\x02\0\x07",  # another packet
    ],
)
def test_what_is_no_right_message_of_qos_0_or_1_is_left_to_others(packet: bytes) -> None:
    assert read_publish(packet, 0) is None


def test_acknowledgements_are_four_bytes_each() -> None:
    assert write_pubacks([1, 0xABCD]) == b"\x40\x02\x00\x01\x40\x02\xab\xcd"
