"""What travels from a device to the centre: MessagePack arrays, fixed order, versioned.

A *record* is one envelope with a body. Its key is (device, epoch, sequence): storing it twice changes nothing. The
*epoch* is a random number of one start of the service, so neither a lost outbox nor one that was put back to an earlier
state can use a key for two records. A *message* is an array of 1 to 8 records, packed by zlib or as it is. Later
releases append fields to the arrays; readers ignore what they do not know.

All statistics are counts on the bins of the bundle's reference (`counts`) plus moments: merging is addition.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from math import isfinite
from typing import Annotated, Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.errors import FormatError, TooLarge, UnsupportedFormat
from edgekit_contracts.names import Count, DeviceName, ModelName, Version

ENVELOPE_VERSION: Final = 1
PACKED: Final = "zlib"
"""What a collector that reads packed messages says in its presence."""

U64 = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Unsigned, within what SQLite and MessagePack both hold as an integer."""
Rows = Annotated[int, msgspec.Meta(ge=0, le=limits.RECORD_MAX_ROWS)]
"""What a record can speak of: every sum over a fleet stays far below 63 bits."""


class Kind(IntEnum):
    """What a record's body is."""

    WINDOW = 0
    EVENT = 1
    GAP = 2
    LABELS = 3
    REFERENCE = 4


class Clock(IntEnum):
    """How far a device's wall clock can be trusted."""

    UNKNOWN = 0
    UNSYNCED = 1
    SYNCED = 2


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`[1, device, epoch, sequence, kind, t0, dt, clock, bins_id, n, body, merged]`."""

    version: int
    device: DeviceName
    epoch: U64
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    kind: Kind
    t0_ms: U64
    """Start, milliseconds since 1970 by the device's wall clock."""
    dt_ms: U64
    """Length by the device's monotonic clock."""
    clock: Clock
    bins_id: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    n: Rows
    """Rows that the record speaks of."""
    body: msgspec.Raw
    merged: Rows = 0
    """Windows that were added into this one: it stands for so many more."""


class Software(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The process in this window."""

    calls: Rows
    """Requests that were answered; latency is counted for each."""
    rejected: Rows
    """Requests refused for what was in them."""
    failed: Rows
    """Requests that failed in the runtime."""
    rss_kb: U64
    """Resident memory at the end."""
    cpu_ms: U64
    """Processor time used."""
    uptime_s: U64
    outbox_records: U64
    """Records that were waiting at the end."""


class Window(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The body of a WINDOW record.

    `counts` is a run of LEB128 varints: for each feature its bins, then null, invalid (infinite) and out_of_range; then
    the classes, the score bins, output nulls, abstained, re-sent requests, and the latency bins. Sums are checked:
    bins + null + invalid = n for each feature; classes + output nulls = n; score bins + output nulls = n.
    """

    model: ModelName
    model_version: Version
    counts: bytes
    moments: bytes
    """Little-endian float32 quadruples (mean, M2, minimum, maximum), one for each numeric feature; empty if private."""
    software: Software
    distances: bytes = b""
    """The rows by their distance from the reference: the 4 bytes of `Distance.name`, then a varint for each bin; or
    empty."""


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """The body of a GAP record: what the device gave up. It stands at sequence `last`."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    last: Annotated[int, msgspec.Meta(ge=1)]
    records: Count
    """Records that were dropped, those merged into them too; produced = stored + merged + records over all gaps."""
    rows: Count
    bytes: Count
    reason: Annotated[str, msgspec.Meta(max_length=64)]


class ReferencePart(msgspec.Struct, frozen=True, array_like=True):
    """The body of a REFERENCE record: one part of the bundle's reference.json, sent before the first window on it."""

    model: ModelName
    model_version: Version
    part: Count
    parts: Annotated[int, msgspec.Meta(ge=1, le=limits.REFERENCE_MAX_PARTS)]
    data: Annotated[bytes, msgspec.Meta(max_length=limits.REFERENCE_PART_BYTES)]


class Event(msgspec.Struct, frozen=True, array_like=True):
    """The body of an EVENT record."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    detail: Annotated[str, msgspec.Meta(max_length=1024)]


class Ack(msgspec.Struct, frozen=True, array_like=True):
    """The collector's word, given after its commit: everything of `epoch` up to `high`, and the ranges, is stored."""

    epoch: U64
    high: U64
    ranges: tuple[tuple[U64, U64], ...] = ()
    """Stored beyond `high`, as inclusive (first, last)."""


class Labels(msgspec.Struct, frozen=True, array_like=True):
    """The body of a LABELS record: what people said of a model's answers, all in all since the review queue was begun.

    Totals, so that the newest record of a device counts and none is missed. Only answers that waited for a person are
    in them: the doubtful ones, mostly.
    """

    model: ModelName
    model_version: Version
    reviewed: Annotated[int, msgspec.Meta(ge=1, le=limits.RECORD_MAX_ROWS)]
    """As the envelope's `n`."""
    wrong: Count
    """Where the person named another class; 0 for a model of numbers."""
    deviation: Annotated[float, msgspec.Meta(ge=0)]
    """Sum of |answer - label| for a model of numbers, else 0."""


Body = Window | Event | Gap | Labels | ReferencePart
_BODIES: Final[dict[Kind, type[Body]]] = {
    Kind.WINDOW: Window,
    Kind.EVENT: Event,
    Kind.LABELS: Labels,
    Kind.GAP: Gap,
    Kind.REFERENCE: ReferencePart,
}
_WINDOWS: Final = msgspec.msgpack.Decoder(Window)
_ENVELOPES: Final = msgspec.msgpack.Decoder(list[Envelope])
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_ENCODER: Final = msgspec.msgpack.Encoder()
_ZLIB: Final = b"\x78"
"""The first byte of every stream that `pack_message` writes: deflate, a window of 32 KiB."""


class _Version(msgspec.Struct, array_like=True):
    """The head that every version of the envelope begins with."""

    version: int


def encode(value: msgspec.Struct) -> bytes:
    """MessagePack of one value."""
    return _ENCODER.encode(value)


def encode_message(records: Iterable[bytes]) -> bytes:
    """Joins encoded envelopes to one message.

    Raises:
        ValueError: No record, or more than a message holds.
    """
    return _ENCODER.encode([msgspec.Raw(record) for record in _bounded(list(records))])


def pack_message(message: bytes) -> bytes:
    """The message as a zlib stream, or as it is where that is no longer.

    Of two strategies the shorter stream is taken: counts that differ little from bin to bin are shorter where zlib
    leaves out matches of a few bytes ("data produced by a filter", its manual says), empty ones and texts where not.

    Source: RFC 1950. No array of MessagePack begins like such a stream.
    """
    streams = [zlib.compressobj(strategy=strategy) for strategy in (zlib.Z_FILTERED, zlib.Z_DEFAULT_STRATEGY)]
    packed = min((stream.compress(message) + stream.flush() for stream in streams), key=len)
    return packed if len(packed) < len(message) else message


def unpack_message(payload: bytes) -> bytes:
    """The array of a message that may be packed; nothing is unpacked beyond a message's limit.

    Raises:
        TooLarge: It is larger, packed or unpacked.
        FormatError: A stream that is damaged, cut short, or followed by something.
    """
    if payload[:1] != _ZLIB:
        return payload
    what, limit = "telemetry message", limits.MESSAGE_MAX_BYTES
    if len(payload) > limit:
        raise TooLarge(what, len(payload), limit)
    stream = zlib.decompressobj()
    try:
        message = stream.decompress(payload, limit + 1)
    except zlib.error as error:
        raise FormatError(what, "$", str(error)) from error
    if len(message) > limit:
        raise TooLarge(what, len(message), limit)
    if not stream.eof or stream.unused_data:
        raise FormatError(what, "$", "its zlib stream is cut short, or something follows it")
    return message


def decode_message(payload: bytes) -> list[Envelope]:
    """Reads a message, packed or not.

    Raises:
        TooLarge: The message is not decoded.
        FormatError: Not a list of 1 to 8 envelopes.
        UnsupportedFormat: An envelope of a newer version.
    """
    message = unpack_message(payload)
    if (envelopes := plain_envelopes(message)) is not None:
        return envelopes
    parts = decode_msgpack(message, list[msgspec.Raw], what="telemetry message", limit=limits.MESSAGE_MAX_BYTES)
    if not 1 <= len(parts) <= limits.MESSAGE_MAX_RECORDS:
        raise FormatError("telemetry message", "$", f"{len(parts)} records; 1 to {limits.MESSAGE_MAX_RECORDS} allowed")
    return [decode_envelope(part) for part in parts]


def plain_envelopes(message: bytes) -> list[Envelope] | None:
    """The envelopes of a message that is not packed, read in one step; None where something is wrong with one."""
    if len(message) > limits.MESSAGE_MAX_BYTES:
        return None
    try:
        envelopes = _ENVELOPES.decode(message)
    except _UNREADABLE:
        return None
    whole = 1 <= len(envelopes) <= limits.MESSAGE_MAX_RECORDS
    return envelopes if whole and all(one.version == ENVELOPE_VERSION for one in envelopes) else None


def decode_envelope(data: bytes | msgspec.Raw) -> Envelope:
    """Reads one envelope; its body stays encoded.

    Raises:
        FormatError, UnsupportedFormat, TooLarge: As `decode_message`.
    """
    head = decode_msgpack(data, _Version, what="telemetry record", limit=limits.MESSAGE_MAX_BYTES)
    if head.version != ENVELOPE_VERSION:
        raise UnsupportedFormat("telemetry record", f"version {head.version}", f"version {ENVELOPE_VERSION}")
    return decode_msgpack(data, Envelope, what="telemetry record", limit=limits.MESSAGE_MAX_BYTES)


def decode_body(envelope: Envelope) -> Body:
    """Reads the body that the envelope's kind announces.

    Raises:
        FormatError: The body is not of that kind, or its numbers contradict one another.
    """
    if envelope.kind is Kind.WINDOW:
        try:
            return _WINDOWS.decode(envelope.body)
        except _UNREADABLE:
            pass  # what is wrong is said below
    if (kind := _BODIES.get(envelope.kind)) is None:
        raise FormatError("telemetry record", "$[4]", f"kind {envelope.kind.name} is not read by this release")
    body = decode_msgpack(envelope.body, kind, what="telemetry body", limit=limits.MESSAGE_MAX_BYTES)
    if isinstance(body, Gap) and not (body.first <= body.last == envelope.sequence):
        raise FormatError("telemetry body", "$[1]", "a gap stands at the last sequence it covers")
    if isinstance(body, Labels) and not (body.wrong <= body.reviewed == envelope.n and isfinite(body.deviation)):
        raise FormatError("telemetry body", "$[3]", f"{body.wrong} wrong of {body.reviewed}, {envelope.n} rows")
    if isinstance(body, ReferencePart) and body.part >= body.parts:
        raise FormatError("telemetry body", "$[2]", f"part {body.part} of {body.parts}")
    return body


def _bounded(records: Sequence[bytes]) -> Sequence[bytes]:
    if not 1 <= len(records) <= limits.MESSAGE_MAX_RECORDS:
        raise ValueError(f"{len(records)} records in a message; 1 to {limits.MESSAGE_MAX_RECORDS} allowed")
    return records
