from __future__ import annotations

import threading

from edgekit.collector.inbox import BATCH_BYTES, BATCH_MESSAGES, Inbox
from edgekit.collector.ingest import Message
from edgekit_contracts import limits, topics

UP, STATUS = str(topics.Up("pump-1")), topics.status("pump-1")


def message(topic: str, payload: bytes) -> Message:
    return Message.received(topic, payload, 1)


def test_what_waits_is_bounded_and_of_each_device_the_latest_status_stays() -> None:
    inbox = Inbox(max_bytes=1000)
    early = message(STATUS, b"early")
    assert inbox.put(early) is None
    records = [message(UP, bytes(500)) for _ in range(5)]
    assert [inbox.put(one) for one in records] == [None, *records[1:]]
    assert inbox.bytes <= 1000
    let_go = []
    for number in range(100):
        for device in ("pump-1", "pump-2"):
            let_go.append(inbox.put(message(topics.status(device), b"%03d" % number + bytes(500))))
    # Each makes way for the next one of its device, and is given back to be acknowledged.
    assert [None if one is None else one.payload[:3] for one in let_go[:6]] == [
        None,
        None,
        b"000",
        b"000",
        b"001",
        b"001",
    ]
    batch, more = inbox.take()
    assert [(one.topic, one.payload[:5]) for one in batch] == [
        (STATUS, b"early"),
        (UP, bytes(5)),
        (STATUS, b"099\0\0"),
        (topics.status("pump-2"), b"099\0\0"),
    ]
    assert (more, inbox.bytes) == (True, 0)


def test_a_batch_is_bounded_and_what_is_left_comes_in_the_next() -> None:
    inbox = Inbox()
    for number in range(BATCH_MESSAGES + 3):
        assert inbox.put(message(UP, b"%d" % number)) is None
    inbox.close()
    first, more = inbox.take()
    rest, none = inbox.take()
    assert [int(one.payload) for one in first + rest] == list(range(BATCH_MESSAGES + 3))
    assert (len(first), more, none) == (BATCH_MESSAGES, True, False)


def test_a_batch_ends_with_the_message_that_makes_it_large() -> None:
    inbox = Inbox()
    for _ in range(5):
        inbox.put(message(UP, bytes(limits.STATE_MAX_BYTES)))
    for _ in range(BATCH_BYTES // limits.STATE_MAX_BYTES):
        inbox.put(message(UP, bytes(limits.STATE_MAX_BYTES)))
    first, _ = inbox.take()
    assert BATCH_BYTES <= sum(len(one.payload) for one in first) + len(first) * len(UP) < BATCH_BYTES * 1.1
    assert len(inbox.take()[0]) == BATCH_BYTES // limits.STATE_MAX_BYTES + 5 - len(first)


def test_whoever_waits_is_woken() -> None:
    inbox = Inbox()
    found: list[Message] = []
    waiting = threading.Thread(target=lambda: found.extend(inbox.take()[0]))
    waiting.start()
    inbox.put(message(UP, b"1"))
    waiting.join(30)
    assert [one.payload for one in found] == [b"1"]


def test_of_a_message_that_is_too_large_only_the_head_waits() -> None:
    inbox = Inbox()
    inbox.put(message(UP, bytes(5_000_000)))
    assert inbox.bytes < 5000
