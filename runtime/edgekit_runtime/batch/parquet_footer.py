"""One Parquet footer out of the footers of its parts, which were files of their own.

Only offsets, counts and the list of row groups change; every other field is carried as it was read, known or not.

Source: Apache Thrift compact protocol (thrift/doc/specs/thrift-compact-protocol.md); FileMetaData, RowGroup,
ColumnChunk and ColumnMetaData of parquet-format/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MAGIC: Final = b"PAR1"
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

Struct = dict[int, tuple[int, Any]]
"""Field number -> (type, value), in ascending order."""


@dataclass(slots=True)
class _List:
    kind: int
    items: list[Any]


def footer_of(file: bytes | memoryview) -> tuple[memoryview, bytes]:
    """A whole Parquet file's pages, without the magic bytes at both ends, and its footer."""
    view = memoryview(file)
    length = int.from_bytes(view[-8:-4], "little")
    return view[len(MAGIC) : -8 - length], bytes(view[-8 - length : -8])


def merged(parts: Sequence[tuple[int, bytes]]) -> bytes:
    """The end of a file that holds the parts' pages one after the other: footer, its length, magic bytes.

    Args:
        parts: Where each one's pages begin in the file, and its footer.

    Raises:
        ValueError: The parts have different columns, or a footer is damaged.
    """
    whole: Struct = {}
    for start, footer in parts:
        found = _Source(footer).struct()
        for group in found[4][1].items:
            _move(group, start - len(MAGIC))
        if not whole:
            whole = found
            continue
        if found[2] != whole[2]:
            raise ValueError("the parts have different columns")
        whole[3] = (I64, whole[3][1] + found[3][1])
        whole[4][1].items.extend(found[4][1].items)
    for ordinal, group in enumerate(whole[4][1].items):
        if 7 in group and ordinal < 1 << 15:
            group[7] = (I16, ordinal)
        else:
            group.pop(7, None)
    data = _struct(whole)
    return data + len(data).to_bytes(4, "little") + MAGIC


def _move(group: Struct, by: int) -> None:
    """Shifts all that counts from the file's beginning."""
    _shift(group, (5,), by)  # RowGroup.file_offset
    for column in group[1][1].items:
        _shift(column, (2, 4, 6), by)  # file_offset, offset_index_offset, column_index_offset
        _shift(column[3][1], (9, 10, 11, 14), by)  # data, index and dictionary pages, bloom filter


def _shift(struct: Struct, fields: Sequence[int], by: int) -> None:
    for field in fields:
        if field in struct and struct[field][1] > 0:  # some writers say 0 for "nowhere"
            struct[field] = (I64, struct[field][1] + by)


class _Source:
    """Reads the compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> Struct:
        fields: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = (head & 15, self._value(head & 15))
        return fields

    def _value(self, kind: int, *, listed: bool = False) -> Any:
        if kind in {TRUE, FALSE}:
            return self._byte() == TRUE if listed else kind == TRUE
        if kind in {I16, I32, I64}:
            return self._signed()
        if kind == BINARY:
            return self._take(self._unsigned())
        if kind == STRUCT:
            return self.struct()
        if kind in {LIST, SET}:
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._unsigned()
            return _List(head & 15, [self._value(head & 15, listed=True) for _ in range(size)])
        if kind in {BYTE, DOUBLE}:
            return self._take(1 if kind == BYTE else 8)
        raise ValueError(f"a Parquet footer has a field of type {kind}")  # FileMetaData has no maps

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("a Parquet footer ends too early")
        self._at += size
        return taken

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)


def _struct(fields: Struct) -> bytes:
    out, last = bytearray(), 0
    for number, (kind, value) in sorted(fields.items()):
        kind = (TRUE if value else FALSE) if kind in {TRUE, FALSE} else kind
        step = number - last
        out += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _varint(_zigzag(number))
        if kind not in {TRUE, FALSE}:
            out += _written(kind, value)
        last = number
    return bytes(out + b"\0")


def _written(kind: int, value: Any) -> bytes:
    if kind in {TRUE, FALSE}:
        return bytes([TRUE if value else FALSE])
    if kind in {I16, I32, I64}:
        return _varint(_zigzag(value))
    if kind == BINARY:
        return _varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return _struct(value)
    if kind in {LIST, SET}:
        size = len(value.items)
        head = bytes([size << 4 | value.kind]) if size < 15 else bytes([0xF0 | value.kind]) + _varint(size)
        return head + b"".join(_written(value.kind, item) for item in value.items)
    return bytes(value)


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
