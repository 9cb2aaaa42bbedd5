from __future__ import annotations

import random
import zlib

import msgspec
import pytest

from edgekit.collector.ingest import Accepted, Birth, Key, Message, Refused, read, read_batch
from edgekit_contracts import limits, topics
from edgekit_contracts.counts import encode_distances, encode_varints
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import Bins
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import (
    Envelope,
    Event,
    Gap,
    Kind,
    Labels,
    Software,
    Window,
    encode,
    encode_message,
    pack_message,
)
from tests.telemetry_samples import BINS, BINS_ID, NOW_MS, envelope, reference_parts, window


class Knows:
    """What a store would know."""

    def bins(self, bins_id: bytes) -> Bins | None:
        return BINS if bins_id == BINS_ID else None


UP = str(topics.Up("pump-1"))
WINDOW, ROWS = window()


def said(*records: Envelope | bytes, topic: str = UP) -> Message:
    data = [record if isinstance(record, bytes) else encode(record) for record in records]
    return Message(topic, encode_message(data), NOW_MS)


def refusal(message: Message, known: Knows | None = None) -> Refused:
    (found,) = read(message, known or Knows())
    assert isinstance(found, Refused)
    return found


def test_good_records_of_every_kind_are_accepted() -> None:
    gap = Gap(first=4, last=6, records=3, rows=300, bytes=900, reason="outbox full")
    records = [
        envelope(reference_parts()[0], sequence=1),
        envelope(WINDOW, sequence=2, n=ROWS),
        envelope(Event("started", ""), sequence=3),
        envelope(gap, sequence=6),
    ]
    found = read(said(*records), Knows())
    assert [type(item) for item in found] == [Accepted] * 4
    assert not any(isinstance(item, Accepted) and item.quarantined for item in found)


def test_a_packed_message_is_read_like_a_plain_one() -> None:
    plain = said(*(envelope(WINDOW, sequence=at, n=ROWS) for at in range(1, 9)))
    packed = plain._replace(payload=pack_message(plain.payload))
    assert len(packed.payload) < len(plain.payload) / 2
    assert read(packed, Knows()) == read(plain, Knows())


def test_a_message_that_would_not_become_smaller_is_not_packed() -> None:
    noise = random.Random(0).randbytes(200)
    assert pack_message(noise) == noise


PACKED = zlib.compress(said(envelope(WINDOW, n=ROWS)).payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (zlib.compress(bytes(64 * limits.MIB)), "too large"),
        (zlib.compress(bytes(limits.MESSAGE_MAX_BYTES + 1)), "too large"),
        (zlib.compress(bytes(limits.MESSAGE_MAX_BYTES)), "garbage"),
        (PACKED[:-5], "garbage"),
        (PACKED[:-1] + bytes([PACKED[-1] ^ 1]), "garbage"),
        (PACKED + b"\0", "garbage"),
        (PACKED + PACKED, "garbage"),
        (b"\x78", "garbage"),
        (zlib.compress(PACKED), "garbage"),
    ],
)
def test_a_bomb_or_a_damaged_stream_is_refused(payload: bytes, reason: str) -> None:
    assert refusal(Message.received(UP, payload, NOW_MS)).reason == reason


def test_a_window_on_unknown_bins_is_quarantined_not_refused() -> None:
    (found,) = read(said(envelope(WINDOW, n=ROWS, bins_id=b"unknown!")), Knows())
    assert isinstance(found, Accepted)
    assert found.quarantined


@pytest.mark.parametrize(
    "topic",
    [
        "ek/1/up/0/pump-1/w/../w",
        "ek/1/up/99/pump-1/w",
        "ek/1/up/pump-1/w",
        f"ek/1/up/{(topics.partition('pump-1') + 1) % 16}/pump-1/w",
        "ek/1/up/0/Pump/w",
        "ek/1/st/pump-1/more",
    ],
)
def test_topics_are_matched_exactly(topic: str) -> None:
    assert refusal(said(envelope(WINDOW, n=ROWS), topic=topic)).reason == "wrong topic"


def test_a_message_that_is_too_large_is_not_decoded() -> None:
    found = refusal(Message(UP, b"\x91" * (limits.MESSAGE_MAX_BYTES + 1), NOW_MS))
    assert (found.reason, found.key, len(found.head)) == ("too large", None, 4096)


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{}", encode(Event("a", "b"))[:3], b"\x90", b"\xdd\xff\xff\xff\xff", b"\x91" * 60_000]
)
def test_garbage_is_refused_and_cannot_be_acknowledged(payload: bytes) -> None:
    found = read(Message(UP, payload, NOW_MS), Knows())
    assert all(isinstance(item, Refused) and item.reason == "garbage" and item.key is None for item in found)
    assert len(found) == 1


def test_a_record_of_another_device_is_refused_without_a_key_so_that_its_cursor_is_untouched() -> None:
    found = refusal(said(envelope(WINDOW, n=ROWS, device="pump-2")))
    assert (found.reason, found.key) == ("wrong device", None)


def test_a_newer_envelope_is_refused_without_a_key() -> None:
    found = refusal(said(msgspec.structs.replace(envelope(WINDOW, n=ROWS), version=2)))
    assert (found.reason, found.key) == ("newer version", None)


def test_a_record_from_the_future_is_kept() -> None:
    late = envelope(WINDOW, n=ROWS, sequence=3, t0_ms=NOW_MS + limits.CLOCK_MAX_FUTURE_MS + 1)
    (found,) = read(said(late), Knows())
    assert isinstance(found, Accepted)


@pytest.mark.parametrize(
    "lie",
    [
        window(latency=71, calls=2**62, software=Software(2**62, 0, 0, 0, 0, 0, 0))[0],
        window(software=Software(limits.RECORD_MAX_ROWS + 1, 0, 0, 0, 0, 0, 0))[0],
        window(software=Software(1, limits.RECORD_MAX_ROWS + 1, 0, 0, 0, 0, 0))[0],
        window(software=Software(1, 0, 2**63, 0, 0, 0, 0))[0],
        window(software=Software(1, 0, 0, 0, 2**63, 0, 0))[0],
        msgspec.structs.replace(window(calls=2)[0], software=Software(1, 0, 0, 0, 0, 0, 0)),
        window(out_of_range=ROWS + 1)[0],
        window(out_of_range=2**62)[0],
        window(abstained=ROWS + 1)[0],
        window(resent=2)[0],
    ],
)
def test_a_window_that_counts_more_than_there_was_is_refused(lie: Window) -> None:
    assert refusal(said(envelope(lie, n=ROWS))).reason == "body"
    honest = window(out_of_range=ROWS, abstained=ROWS, resent=1)[0]
    assert isinstance(read(said(envelope(honest, n=ROWS)), Knows())[0], Accepted)


def test_what_is_too_large_waits_as_its_head_and_is_refused_as_it_would_have_been() -> None:
    for topic, limit in ((UP, limits.MESSAGE_MAX_BYTES), (topics.status("pump-1"), limits.STATE_MAX_BYTES)):
        waiting = Message.received(topic, b"[" * (limit + 1), NOW_MS)
        assert len(waiting.payload) == 4096
        found = refusal(waiting)
        assert (found.reason, found.key, found.head) == ("too large", None, b"[" * 4096)
        assert f"{limit + 1:,} bytes" in found.detail
        assert Message.received(topic, b"[" * limit, NOW_MS) == Message(topic, b"[" * limit, NOW_MS)
    assert refusal(Message.received("ek/1/up/77/pump-1/w", b"[" * 100_000, NOW_MS)).reason == "wrong topic"


@pytest.mark.parametrize(
    "distances",
    [
        b"abc",
        encode_distances(b"name", ()),
        encode_distances(b"name", (ROWS,)),
        encode_distances(b"name", (ROWS, 1)),
        encode_distances(b"name", (*[0] * 64, ROWS)),
        encode_distances(b"name", (ROWS, 0)) + b"\x80",
    ],
)
def test_distances_that_are_not_those_of_the_rows_are_refused(distances: bytes) -> None:
    lie = msgspec.structs.replace(WINDOW, distances=distances)
    assert refusal(said(envelope(lie, n=ROWS))).reason == "body"
    truth = msgspec.structs.replace(WINDOW, distances=encode_distances(b"name", (0, ROWS)))
    assert isinstance(read(said(envelope(truth, n=ROWS)), Knows())[0], Accepted)


def test_moments_of_another_number_of_features_are_refused() -> None:
    odd = envelope(msgspec.structs.replace(WINDOW, moments=bytes(15)), n=ROWS)
    assert refusal(said(odd)).reason == "body"


@pytest.mark.parametrize(
    "poison",
    [
        envelope(WINDOW, n=ROWS + 1),
        envelope(WINDOW, n=ROWS, kind=Kind.GAP),
        envelope(WINDOW, n=ROWS, kind=Kind.LABELS),
        envelope(Labels("diabetes", "1.0.0", 3, 4, 0.0), n=3),
        envelope(Labels("diabetes", "1.0.0", 3, 1, 0.0), n=4),
        envelope(Labels("diabetes", "1.0.0", 3, 1, float("inf")), n=3),
        envelope(Labels("diabetes", "1.0.0", 3, 1, float("nan")), n=3),
        envelope(Labels("diabetes", "1.0.0", 3, 1, -1.0), n=3),
        envelope(msgspec.structs.replace(WINDOW, counts=WINDOW.counts[:-1]), n=ROWS),
        envelope(msgspec.structs.replace(WINDOW, counts=encode_varints([2**62] * 5)), n=ROWS),
        envelope(Gap(first=1, last=1, records=limits.RECORD_MAX_ROWS + 1, rows=0, bytes=0, reason="")),
        envelope(Gap(first=1, last=1, records=1, rows=2**63, bytes=0, reason="")),
        envelope(Gap(first=2, last=1, records=1, rows=0, bytes=0, reason="")),
    ],
)
def test_a_refused_body_keeps_its_key_so_that_it_cannot_block_its_device(poison: Envelope) -> None:
    found = refusal(said(poison))
    assert (found.reason, found.key) == ("body", Key("pump-1", 7, 1))


def test_a_wrong_envelope_whose_head_is_readable_keeps_its_key() -> None:
    broken = msgspec.msgpack.encode([1, "pump-1", 7, 9, 99])
    assert (refusal(said(broken)).reason, refusal(said(broken)).key) == ("garbage", Key("pump-1", 7, 9))
    assert refusal(said(msgspec.msgpack.encode([1, "pump-2", 7, 9, 99]))).key is None


def test_a_poison_record_does_not_take_its_neighbours_with_it() -> None:
    good, poison = envelope(WINDOW, n=ROWS, sequence=2), envelope(WINDOW, n=1, sequence=1)
    assert [type(item) for item in read(said(poison, good), Knows())] == [Refused, Accepted]


def test_a_status_is_read_and_its_device_must_be_its_topics() -> None:
    status = Status(device="pump-1", session=4)
    (found,) = read(Message(topics.status("pump-1"), encode_json(status), NOW_MS), Knows())
    assert found == Birth(status, NOW_MS)
    assert refusal(Message(topics.status("pump-2"), encode_json(status), NOW_MS)).reason == "wrong device"
    assert refusal(Message(topics.status("pump-1"), b"{", NOW_MS)).reason == "garbage"
    assert refusal(Message(topics.status("pump-1"), b"[" * 20_000, NOW_MS)).reason == "too large"
    newer = encode_json(msgspec.structs.replace(status, format="edgekit-status/2.0"))
    assert refusal(Message(topics.status("pump-1"), newer, NOW_MS)).reason == "newer version"
    assert read(Message(topics.status("pump-1"), b"", NOW_MS), Knows()) == []


def test_random_bytes_never_raise() -> None:
    generator = random.Random(1)
    whole = encode_message([encode(envelope(WINDOW, n=ROWS))])
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(generator.randrange(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        assert read(Message(UP, bytes(data), NOW_MS), Knows())


def test_a_batch_is_read_as_each_of_its_messages_alone() -> None:
    dice = random.Random(2)
    whole = [
        said(*(envelope(window((5 * i, 5, 5, 5))[0], sequence=k, n=5 * i + 15, t0_ms=NOW_MS + k) for k in range(1, i)))
        for i in range(2, 10)
    ]
    whole += [said(envelope(WINDOW, n=ROWS, bins_id=b"unknown!")), said(envelope(reference_parts()[0]))]
    whole += [Message(topics.status("pump-1"), encode_json(Status(device="pump-1", session=4)), NOW_MS)]
    batch = []
    for _ in range(1000):
        message = dice.choice(whole)
        data = bytearray(message.payload)
        for _ in range(dice.choice((0, 0, 1, 2))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        batch.append(Message(dice.choice((message.topic,) * 9 + ("ek/1/up/77/pump-1/w",)), bytes(data), NOW_MS))
    found = read_batch(batch, Knows())
    assert found == [reading for message in batch for reading in read(message, Knows())]
    refused = {item.reason for item in found if isinstance(item, Refused)}
    assert refused >= {"wrong topic", "garbage", "newer version", "wrong device", "body"}
    assert any(isinstance(item, Accepted) and item.quarantined for item in found)
