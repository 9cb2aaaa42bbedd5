"""One Parquet footer out of the footers of its parts, which were files of their own.

Only offsets, counts and the list of row groups change; every other byte is copied as it was, known or not. A footer has
thousands of numbers: nothing is made of them but their way through.

Source: Apache Thrift compact protocol (thrift/doc/specs/thrift-compact-protocol.md); FileMetaData, RowGroup,
ColumnChunk and ColumnMetaData of parquet-format/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

MAGIC: Final = b"PAR1"
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
ORDINAL_MAX: Final = 32_767

Moves = Mapping[int, "Moves | None"]
"""Field number -> the moves inside it; None: it counts from the file's beginning."""
_COLUMN: Final[Moves] = {
    2: None,  # file_offset
    3: {9: None, 10: None, 11: None, 14: None},  # pages of data, index and dictionary; bloom filter
    4: None,  # offset_index_offset
    6: None,  # column_index_offset
}
_ORDINAL: Final = 7
_GROUP: Final[Moves] = {1: _COLUMN, 5: None, _ORDINAL: None}  # columns, file_offset


def footer_of(file: bytes | memoryview) -> tuple[memoryview, bytes]:
    """A whole Parquet file's pages, without the magic bytes at both ends, and its footer."""
    view = memoryview(file)
    length = int.from_bytes(view[-8:-4], "little")
    return view[len(MAGIC) : -8 - length], bytes(view[-8 - length : -8])


def merged(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """The end of a file that holds the parts' pages one after the other: footer, its length, magic bytes.

    Args:
        parts: Where each one's pages begin in the file, and its footer.

    Raises:
        ValueError: The parts have different columns, or a footer is damaged.
    """
    first: _Footer | None = None
    rows = count = 0
    groups = bytearray()
    for start, data in parts:
        try:
            found = _read(data)
            first = first or found
            if found.columns != first.columns:
                raise ValueError("the parts have different columns")
            at = found.groups_at
            for _ in range(found.groups):
                at = _move(data, at, start - len(MAGIC), _GROUP, groups, min(count, ORDINAL_MAX))
                count += 1
            rows += found.rows
        except IndexError as error:
            raise ValueError("a Parquet footer ends too early") from error
    assert first is not None
    size = bytes([count << 4 | STRUCT]) if count < 15 else bytes([0xF0 | STRUCT]) + _varint(count)
    footer = b"".join(
        [first.columns, bytes([1 << 4 | I64]), _zigzag(rows), bytes([1 << 4 | LIST]), size, groups, first.rest]
    )
    return footer + len(footer).to_bytes(4, "little") + MAGIC


class _Footer(NamedTuple):
    columns: bytes
    """The fields before num_rows: version and schema."""
    rows: int
    groups: int
    groups_at: int
    rest: bytes
    """The fields behind the row groups."""


def _read(data: bytes) -> _Footer:
    """Where the fields of a FileMetaData lie."""
    at = 0
    for number in (1, 2):
        at = _skip(data, _expect(data, at, number), data[at] & 15)
    columns = data[:at]
    rows, at = _signed(data, _expect(data, at, 3))
    kind, groups, groups_at = _items(data, _expect(data, at, 4))
    at = groups_at
    for _ in range(groups):
        at = _skip(data, at, kind)
    return _Footer(columns, rows, groups, groups_at, data[at:])


def _expect(data: bytes, at: int, number: int) -> int:
    """The place behind a field's head, where each field follows the one before."""
    if data[at] >> 4 != 1:
        raise ValueError(f"a Parquet footer lacks its field {number}")
    return at + 1


def _move(data: bytes, at: int, by: int, moves: Moves, out: bytearray, ordinal: int = 0) -> int:
    """Copies a struct to `out`, with what counts from the file's beginning moved; the place behind it."""
    number, copied = 0, at
    while head := data[at]:
        kind, at = head & 15, at + 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _signed(data, at)
        if number not in moves:
            at = _skip(data, at, kind)
            continue
        out += data[copied:at]
        inside = moves[number]
        if inside is None:
            value, at = _signed(data, at)
            # Some writers say 0 for "nowhere".
            out += _zigzag(ordinal if kind == I16 else value + by if value > 0 else value)
        elif kind == STRUCT:
            at = _move(data, at, by, inside, out)
        else:
            _, size, start = _items(data, at)
            out += data[at:start]
            at = start
            for _ in range(size):
                at = _move(data, at, by, inside, out)
        copied = at
    out += data[copied : at + 1]
    return at + 1


def _skip(data: bytes, at: int, kind: int, *, listed: bool = False) -> int:
    """The place behind a value."""
    if kind in {I16, I32, I64}:
        while data[at] > 127:
            at += 1
        return at + 1
    if kind == BINARY:
        size, at = _unsigned(data, at)
        return at + size
    if kind == STRUCT:
        while head := data[at]:
            at = _skip(data, at + 1 if head >> 4 else _signed(data, at + 1)[1], head & 15)
        return at + 1
    if kind in {LIST, SET}:
        kind, size, at = _items(data, at)
        for _ in range(size):
            at = _skip(data, at, kind, listed=True)
        return at
    if kind in {TRUE, FALSE}:  # the field's head holds the value, but in a list
        return at + listed
    if kind in {BYTE, DOUBLE}:
        return at + (1 if kind == BYTE else 8)
    raise ValueError(f"a Parquet footer has a field of type {kind}")  # FileMetaData has no maps


def _items(data: bytes, at: int) -> tuple[int, int, int]:
    """Type and number of a list's items, and where they begin."""
    head = data[at]
    if head >> 4 < 15:
        return head & 15, head >> 4, at + 1
    size, at = _unsigned(data, at + 1)
    return head & 15, size, at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) > 127:
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
    return value | byte << shift, at + 1


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
