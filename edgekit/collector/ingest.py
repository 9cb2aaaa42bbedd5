"""What is accepted and what is refused: a pure function of messages and what is known.

The rules: the topic is matched exactly; its device is the device of every envelope; the size is limited before
anything is decoded; the body decodes, and its counts add up on the bins of its reference. That a sequence cannot jump
far ahead is for the cursor to say (`batch`). A wrong clock is no reason: such a record is dated by its arrival.

Records fare one by one: a poison record does not take its neighbours in the message with it. A refusal has a `key`
where device, epoch and sequence are beyond doubt: such a record is acknowledged, so that it is not sent for ever.

Nearly every message is right, so it is read as if all were (`plain`): a message is decoded at once, and windows are
checked by the block (`sums`). Only where something is wrong are records looked at one by one, to say what it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import msgspec

from edgekit.collector.plain import envelopes_from, remember, window_in
from edgekit.collector.sums import BLOCK, sums_of
from edgekit_contracts import limits, topics
from edgekit_contracts.counts import decode_distances
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.errors import EdgekitError, FormatError, TooLarge, UnsupportedFormat
from edgekit_contracts.reference import Bins
from edgekit_contracts.state import Status, decode_status
from edgekit_contracts.telemetry import (
    ENVELOPE_VERSION,
    U64,
    Body,
    Envelope,
    Gap,
    Window,
    decode_body,
    decode_envelope,
    unpack_message,
)

if TYPE_CHECKING:
    from edgekit_runtime.mqtt import Receipt

HEAD_BYTES: Final = 4 * limits.KIB
"""Of a refused message or record, kept for a person to look at."""

TOPIC_MAX: Final = 128
"""Characters of a topic that is looked at: the longest of ours has 76."""

_PARTS: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])

Reason = Literal["wrong topic", "too large", "garbage", "newer version", "wrong device", "jump", "body", "internal"]


class Message(NamedTuple):
    """As it came from the broker."""

    topic: str
    payload: bytes
    """Whole, or the head of one that is too large."""
    received_ms: int
    cut_bytes: int = 0
    """Size of the payload that `payload` is only the head of."""
    receipt: Receipt | None = None
    """By which it is acknowledged to the broker once it is stored."""

    @classmethod
    def received(cls, topic: str, payload: bytes, received_ms: int, receipt: Receipt | None = None) -> Message:
        """Keeps what is worth keeping while the message waits: of one that will be refused as too large, its head."""
        if len(payload) <= limits.STATE_MAX_BYTES or len(payload) <= _largest(topic):
            return cls(topic, payload, received_ms, 0, receipt)
        return cls(topic, payload[:HEAD_BYTES], received_ms, len(payload), receipt)


class Key(NamedTuple):
    """What names a record."""

    device: str
    epoch: int
    sequence: int

    @classmethod
    def of(cls, envelope: Envelope) -> Key:
        """The record's."""
        return cls(envelope.device, envelope.epoch, envelope.sequence)


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A record to store; a window in quarantine waits for its reference."""

    envelope: Envelope
    body: Body
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

    def bins(self, bins_id: bytes) -> Bins | None:
        """The bins of that name, or None while their reference is not complete."""
        ...


_Place = tuple[int, Message, int, Envelope, Window]
"""A window whose counts are still to be checked: its place among the readings, its message, which record of that."""


class _Head(msgspec.Struct, array_like=True):
    """What names a record, readable even where the rest of its envelope is wrong."""

    version: int
    device: str
    epoch: U64
    sequence: U64


def read(message: Message, known: Known) -> list[Reading]:
    """Reads one message of any topic; never raises for what is in it."""
    return read_batch((message,), known)


def read_batch(messages: Iterable[Message], known: Known) -> list[Reading]:
    """Reads messages of any topic, in order; never raises for what is in them."""
    reader = _Reader(known)
    for message in messages:
        reader.read(message)
    return reader.end()


def check_window(envelope: Envelope, window: Window, bins: Bins) -> None:
    """Checks a window's counts, moments and distances against the bins that it was counted on, and its calls too.

    Raises:
        FormatError: They do not fit.
    """
    sums = sums_of(envelope.bins_id, bins)
    if len(window.moments) not in {0, sums.moments_bytes}:
        numbers = sums.moments_bytes // 16
        raise FormatError("window", "$.moments", f"{len(window.moments)} bytes for {numbers} numeric features")
    if sums.check(window.counts, envelope.n, window.moments) != window.software.calls:
        raise FormatError("window", "$.counts.latency", f"counts do not add up to {window.software.calls} calls")
    decode_distances(window.distances, envelope.n)


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


@lru_cache(maxsize=1 << 16)
def _parsed(topic: str) -> str | None:
    lane = topics.Up.parse(topic)
    return None if lane is None else lane.device


def _up_device(topic: str) -> str | None:
    """The device of a topic for records, or None; a longer topic is none of ours, and not remembered."""
    return _parsed(topic) if len(topic) <= TOPIC_MAX else None


def _read_other(message: Message) -> list[Reading]:
    device = topics.status_device(message.topic)
    if device is None:
        return [_refused(message, "wrong topic", "no topic of edgekit, or the wrong partition")]
    return [_cut(message)] if message.cut_bytes else _read_status(message, device)


class _Reader:
    """Reads messages one after the other, and checks their windows together."""

    def __init__(self, known: Known) -> None:
        self._known, self._bins = known, dict[bytes, Bins | None]()
        self._found: list[Reading] = []
        self._unchecked: dict[bytes, list[_Place]] = {}

    def read(self, message: Message) -> None:
        device = _up_device(message.topic)
        if device is None:
            self._found += _read_other(message)
        else:
            self._read_records(message, device)

    def end(self) -> list[Reading]:
        """All readings, in the order of their messages."""
        for bins_id in self._unchecked:
            self._check(bins_id)
        return self._found

    def _read_records(self, message: Message, device: str) -> None:
        """The message's records, or one refusal of it as a whole."""
        if message.cut_bytes:
            self._found.append(_cut(message))
            return
        try:
            array = unpack_message(message.payload)
            envelopes = envelopes_from(array, device)
            if envelopes is not None:
                for record, envelope in enumerate(envelopes):
                    self._judge(message, record, envelope)
                return
            parts = decode_msgpack(array, list[msgspec.Raw], what="telemetry message", limit=limits.MESSAGE_MAX_BYTES)
        except TooLarge as error:
            self._found.append(_refused(message, "too large", str(error)))
            return
        except EdgekitError as error:
            self._found.append(_refused(message, "garbage", str(error)))
            return
        if not 1 <= len(parts) <= limits.MESSAGE_MAX_RECORDS:
            self._found.append(_refused(message, "garbage", f"{len(parts)} records in a message"))
            return
        for record, part in enumerate(parts):
            self._read_record(message, record, part, device)

    def _read_record(self, message: Message, record: int, data: msgspec.Raw, device: str) -> None:
        """A record of a message in which some envelope is not plainly right."""
        try:
            envelope = decode_envelope(data)
        except UnsupportedFormat as error:
            self._found.append(_refused(message, "newer version", str(error), bytes(data)))
        except EdgekitError as error:
            self._found.append(_refused(message, "garbage", str(error), bytes(data), _salvage(data, device)))
        else:
            if envelope.device == device:
                self._judge(message, record, envelope)
            else:
                detail = f"a record of {envelope.device} on the topic of {device}"
                self._found.append(_refused(message, "wrong device", detail, bytes(data)))

    def _judge(self, message: Message, record: int, envelope: Envelope) -> None:
        """A record whose envelope is read; a window on known bins waits until some are checked together."""
        window = window_in(envelope)
        if window is None:
            try:
                body = decode_body(envelope)
                if isinstance(body, Gap):
                    _check_gap(body)
            except EdgekitError as error:
                head = _head(message, record)
                self._found.append(_refused(message, "body", str(error), head, Key.of(envelope)))
                return
            if not isinstance(body, Window):
                self._found.append(Accepted(envelope, body, message.received_ms))
                return
            remember(body)
            window = window_in(envelope) or body
        bins_id = envelope.bins_id
        if self._bins_of(bins_id) is None:
            self._found.append(Accepted(envelope, window, message.received_ms, quarantined=True))
            return
        places = self._unchecked.setdefault(bins_id, [])
        places.append((len(self._found), message, record, envelope, window))
        self._found.append(Accepted(envelope, window, message.received_ms))
        if len(places) == BLOCK:
            self._check(bins_id)

    def _bins_of(self, bins_id: bytes) -> Bins | None:
        try:
            return self._bins[bins_id]
        except KeyError:
            bins = self._bins[bins_id] = self._known.bins(bins_id)
            return bins

    def _check(self, bins_id: bytes) -> None:
        """Checks what waits on these bins, and puts a refusal in the place of each window that is wrong."""
        places, bins = self._unchecked[bins_id], self._bins[bins_id]
        assert bins is not None
        windows, rows = [place[4] for place in places], [place[3].n for place in places]
        right = sums_of(bins_id, bins).right(windows, rows)
        for (at, message, record, envelope, window), plain in zip(places, right, strict=True):
            if plain:
                continue
            try:
                check_window(envelope, window, bins)
            except EdgekitError as error:
                head = _head(message, record)
                self._found[at] = _refused(message, "body", str(error), head, Key.of(envelope))
        places.clear()


def _check_gap(gap: Gap) -> None:
    """One of a single sequence may stand for several records: those that had been merged into the one it had."""
    span = gap.last - gap.first + 1
    most = limits.RECORD_MAX_ROWS if span == 1 else span
    if gap.records > most or max(gap.rows, gap.bytes) >= 2**63:
        raise FormatError("telemetry body", "$", "a gap of more records than it has sequences")


def _head(message: Message, place: int) -> bytes:
    """The bytes of one record of a message that was read."""
    return bytes(_PARTS.decode(unpack_message(message.payload))[place])


def _salvage(data: msgspec.Raw, device: str) -> Key | None:
    """The key of a record whose envelope is wrong further on."""
    try:
        head = decode_msgpack(data, _Head, what="telemetry record", limit=limits.MESSAGE_MAX_BYTES)
    except EdgekitError:
        return None
    if head.version != ENVELOPE_VERSION or head.device != device or not head.sequence:
        return None
    return Key(device, head.epoch, head.sequence)


def _cut(message: Message) -> Refused:
    return _refused(message, "too large", str(TooLarge("message", message.cut_bytes, _largest(message.topic))))


def _refused(
    message: Message, reason: Reason, detail: str, head: bytes | None = None, key: Key | None = None
) -> Refused:
    kept = (message.payload if head is None else head)[:HEAD_BYTES]
    return Refused(message.topic[:256], reason, detail, kept, message.received_ms, key)
