"""What is accepted and what is refused: a pure function of a message and what is known.

The rules: the topic is matched exactly; its device is the device of every envelope; the size is limited before
anything is decoded; a sequence cannot jump far ahead; the body decodes, and its counts add up on the bins of its
reference. A wrong clock is no reason: such a record is dated by its arrival.

Records fare one by one: a poison record does not take its neighbours in the message with it. A refusal has a `key`
where device, epoch and sequence are beyond doubt: such a record is acknowledged, so that it is not sent for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from edgekit.collector.sums import sums_of
from edgekit_contracts import limits, topics
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.errors import EdgekitError, FormatError, TooLarge, UnsupportedFormat
from edgekit_contracts.reference import Bins
from edgekit_contracts.state import Status, decode_status
from edgekit_contracts.telemetry import (
    ENVELOPE_VERSION,
    U64,
    Envelope,
    Event,
    Gap,
    ReferencePart,
    Window,
    decode_body,
    decode_distances,
    decode_envelope,
    unpack_message,
)

HEAD_BYTES: Final = 4 * limits.KIB
"""Of a refused message or record, kept for a person to look at."""
RANGES_MAX: Final = 1024
"""Islands beyond the cursor that are remembered for one device; a device has 256 records in flight."""

Reason = Literal["wrong topic", "too large", "garbage", "newer version", "wrong device", "jump", "body", "internal"]


class Message(NamedTuple):
    """As it came from the broker."""

    topic: str
    payload: bytes
    """Whole, or the head of one that is too large."""
    received_ms: int
    cut_bytes: int = 0
    """Size of the payload that `payload` is only the head of."""

    @classmethod
    def received(cls, topic: str, payload: bytes, received_ms: int) -> Message:
        """Keeps what is worth keeping while the message waits: of one that will be refused as too large, its head."""
        if len(payload) <= _largest(topic):
            return cls(topic, payload, received_ms)
        return cls(topic, payload[:HEAD_BYTES], received_ms, len(payload))


class Key(NamedTuple):
    """What names a record."""

    device: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A record to store; a window in quarantine waits for its reference."""

    envelope: Envelope
    body: Window | Event | Gap | ReferencePart
    received_ms: int
    quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A message, or one of its records, that is not what it must be."""

    topic: str
    reason: Reason
    detail: str
    head: bytes
    received_ms: int
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Birth:
    """A device's birth or last will."""

    status: Status
    received_ms: int


Reading = Accepted | Refused | Birth


class Known(Protocol):
    """What the rules must know of what is stored."""

    def highest(self, device: str, epoch: int) -> int:
        """The highest sequence stored; 0 for none."""
        ...

    def bins(self, bins_id: bytes) -> Bins | None:
        """The bins of that name, or None while their reference is not complete."""
        ...


class _Head(msgspec.Struct, array_like=True):
    """What names a record, readable even where the rest of its envelope is wrong."""

    version: int
    device: str
    epoch: U64
    sequence: U64


def read(message: Message, known: Known) -> list[Reading]:
    """Reads one message of any topic; never raises for what is in it."""
    device, lane = topics.status_device(message.topic), topics.Up.parse(message.topic)
    if message.cut_bytes and (device or lane):
        return [_refused(message, "too large", str(TooLarge("message", message.cut_bytes, _largest(message.topic))))]
    if device is not None:
        return _read_status(message, device)
    if lane is None:
        return [_refused(message, "wrong topic", "no topic of edgekit, or the wrong partition")]
    try:
        array = unpack_message(message.payload)
        parts = decode_msgpack(array, list[msgspec.Raw], what="telemetry message", limit=limits.MESSAGE_MAX_BYTES)
    except TooLarge as error:
        return [_refused(message, "too large", str(error))]
    except EdgekitError as error:
        return [_refused(message, "garbage", str(error))]
    if not 1 <= len(parts) <= limits.MESSAGE_MAX_RECORDS:
        return [_refused(message, "garbage", f"{len(parts)} records in a message")]
    return [_read_record(message, lane.device, part, known) for part in parts]


def check_window(envelope: Envelope, window: Window, bins: Bins) -> None:
    """Checks a window's counts, moments and distances against the bins that it was counted on, and its calls too.

    Raises:
        FormatError: They do not fit.
    """
    numbers = sum(feature.categories is None for feature in bins.features)
    if len(window.moments) not in {0, 16 * numbers}:
        raise FormatError("window", "$.moments", f"{len(window.moments)} bytes for {numbers} numeric features")
    if sums_of(envelope.bins_id, bins).check(window.counts, envelope.n, window.moments) != window.software.calls:
        raise FormatError("window", "$.counts.latency", f"counts do not add up to {window.software.calls} calls")
    decode_distances(window.distances, envelope.n)


def advance(
    high: int, ranges: Iterable[tuple[int, int]], spans: Iterable[tuple[int, int]]
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Moves a cursor over what was received.

    Args:
        high: Everything up to here was received before.
        ranges: Received beyond `high`, as inclusive (first, last).
        spans: Received now.

    Returns:
        The new `high`, and the ranges beyond it, joined and in order; of too many, the lowest are kept, and what is
        forgotten is only sent again.
    """
    islands: list[tuple[int, int]] = []
    for first, last in sorted([*ranges, *spans]):
        if first <= high + 1:
            high = max(high, last)
        elif islands and first <= islands[-1][1] + 1:
            islands[-1] = (islands[-1][0], max(islands[-1][1], last))
        else:
            islands.append((first, last))
    return high, tuple(islands[:RANGES_MAX])


def _largest(topic: str) -> int:
    return limits.MESSAGE_MAX_BYTES if topics.status_device(topic) is None else limits.STATE_MAX_BYTES


def _read_status(message: Message, device: str) -> list[Reading]:
    if not message.payload:
        # An empty retained message only clears the last one.
        return []
    try:
        status = decode_status(message.payload)
    except TooLarge as error:
        return [_refused(message, "too large", str(error))]
    except UnsupportedFormat as error:
        return [_refused(message, "newer version", str(error))]
    except EdgekitError as error:
        return [_refused(message, "garbage", str(error))]
    if status.device != device:
        return [_refused(message, "wrong device", f"a status of {status.device} on the topic of {device}")]
    return [Birth(status, message.received_ms)]


def _read_record(message: Message, device: str, data: msgspec.Raw, known: Known) -> Reading:
    head = bytes(data)
    try:
        envelope = decode_envelope(data)
    except UnsupportedFormat as error:
        return _refused(message, "newer version", str(error), head)
    except EdgekitError as error:
        return _refused(message, "garbage", str(error), head, _salvage(data, device, known))
    if envelope.device != device:
        return _refused(message, "wrong device", f"a record of {envelope.device} on the topic of {device}", head)
    key = Key(device, envelope.epoch, envelope.sequence)
    ahead = envelope.sequence - known.highest(device, envelope.epoch)
    if ahead > limits.SEQUENCE_MAX_JUMP:
        # Not acknowledged: the cursor must not be led away by one wild number.
        return _refused(message, "jump", f"sequence {envelope.sequence} is {ahead} ahead", head)
    try:
        body = decode_body(envelope)
        if isinstance(body, Gap) and (body.records > body.last - body.first + 1 or max(body.rows, body.bytes) >= 2**63):
            return _refused(message, "body", "a gap of more records than it has sequences", head, key)
        quarantined = False
        if isinstance(body, Window):
            bins = known.bins(envelope.bins_id)
            quarantined = bins is None
            if bins is not None:
                check_window(envelope, body, bins)
    except EdgekitError as error:
        return _refused(message, "body", str(error), head, key)
    return Accepted(envelope, body, message.received_ms, quarantined)


def _salvage(data: msgspec.Raw, device: str, known: Known) -> Key | None:
    """The key of a record whose envelope is wrong further on."""
    try:
        head = decode_msgpack(data, _Head, what="telemetry record", limit=limits.MESSAGE_MAX_BYTES)
    except EdgekitError:
        return None
    near = 1 <= head.sequence <= known.highest(device, head.epoch) + limits.SEQUENCE_MAX_JUMP
    if head.version != ENVELOPE_VERSION or head.device != device or not near:
        return None
    return Key(device, head.epoch, head.sequence)


def _refused(
    message: Message, reason: Reason, detail: str, head: bytes | None = None, key: Key | None = None
) -> Refused:
    kept = (message.payload if head is None else head)[:HEAD_BYTES]
    return Refused(message.topic[:256], reason, detail, kept, message.received_ms, key)
