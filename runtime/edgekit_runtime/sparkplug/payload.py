"""The Sparkplug B payload, as far as an edge node of scalars needs it: written, and read for one command.

Source: Sparkplug 3.0.0, 6.4, "Google Protocol Buffer Schema": Payload (timestamp = 1, metrics = 2, seq = 3), Metric
(name = 1, alias = 2, timestamp = 3, datatype = 4, is_null = 7, long_value = 11, double_value = 13, boolean_value = 14,
string_value = 15). Encoding: Protocol Buffers, "Encoding", wire types 0 (varint), 1 (8 bytes), 2 (length).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.counts import encode_varints

INT64: Final = 4
UINT64: Final = 8
DOUBLE: Final = 10
BOOLEAN: Final = 11
STRING: Final = 12

Value = int | float | bool | str | None


class Metric(msgspec.Struct, frozen=True):
    """A metric with its value; None is a value that is not known (`is_null`)."""

    name: str
    datatype: int
    value: Value
    alias: int | None = None


def encode_payload(metrics: Iterable[Metric], at_ms: int, *, seq: int | None, named: bool) -> bytes:
    """One payload.

    Args:
        metrics: What is said.
        at_ms: Milliseconds since 1970, of the payload and of every metric.
        seq: 0 to 255; None in an NDEATH.
        named: With names beside the aliases, or (tck-id-payloads-alias-data-cmd-requirement) the aliases alone.
    """
    body = _varint(1, at_ms) + b"".join(_text(2, _metric(one, at_ms, named=named)) for one in metrics)
    return body if seq is None else body + _varint(3, seq)


def _metric(metric: Metric, at_ms: int, *, named: bool) -> bytes:
    # The datatype goes with data too: "SHOULD NOT" (tck-id-payloads-metric-datatype-not-req), but decoders in use, such
    # as npm's sparkplug-payload, cannot read a metric without it. It costs two bytes.
    head = _text(1, metric.name.encode()) if named or metric.alias is None else b""
    head += b"" if metric.alias is None else _varint(2, metric.alias)
    head += _varint(3, at_ms) + _varint(4, metric.datatype)
    value = metric.value
    if value is None:
        return head + _varint(7, 1)
    if metric.datatype == DOUBLE:
        return head + bytes([13 << 3 | 1]) + struct.pack("<d", value)
    if isinstance(value, str):
        return head + _text(15, value.encode())
    return head + _varint(14 if metric.datatype == BOOLEAN else 11, int(value))


def _varint(field: int, value: int) -> bytes:
    return encode_varints((field << 3, value))


def _text(field: int, data: bytes) -> bytes:
    return encode_varints((field << 3 | 2, len(data))) + data


def asks_for(payload: bytes, name: str) -> bool:
    """Whether a command sets the Boolean metric of this name; what is no payload asks for nothing."""
    if len(payload) > limits.STATE_MAX_BYTES:
        return False
    try:
        for field, value in _fields(payload):
            if field == 2 and isinstance(value, bytes):
                metric = dict(_fields(value))
                if metric.get(1) == name.encode() and metric.get(14) == 1:
                    return True
    except (IndexError, ValueError):
        return False
    return False


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value, in order.

    Raises:
        IndexError, ValueError: It is none.
    """
    at = 0

    def number() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            octet = data[at]
            at += 1
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                return value
        raise ValueError("a varint of more than 10 bytes")

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 2: number() if kind == 2 else 0, 5: 4}.get(kind)
        if size is None or at + size > len(data):
            raise ValueError("cut short, or a wire type that is not in use")
        yield key >> 3, data[at : at + size]
        at += size
