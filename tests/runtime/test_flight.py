"""What passes a broker and what never does, and at what pace: values first, then a real Mosquitto."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit_contracts import limits, topics
from edgekit_contracts.telemetry import Ack, Event, Gap, Kind, decode_body, decode_message, encode
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import HOPELESS, Flight, Packet, packets
from edgekit_runtime.outbox import Outbox, Waiting
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, wait_until
from tests.runtime.test_uplink import Centre, centre_of, running
from tests.telemetry_samples import NOW_MS, append_window

SMALL, LARGE = Waiting(1, Kind.WINDOW, bytes(900)), Waiting(2, Kind.WINDOW, bytes(9000))


def packet(*waiting: Waiting) -> Packet:
    return Packet("w", tuple(one.id for one in waiting), b"".join(one.data for one in waiting))


def test_what_a_lost_connection_took_with_it_travels_in_smaller_messages_and_after_the_others() -> None:
    flight = Flight()
    pending = [Waiting(number, Kind.WINDOW, bytes(100)) for number in range(1, 17)]
    assert [len(one.ids) for one in packets(pending, together=flight.together)] == [8, 8]
    flight.sent(packet(*pending[:8]), 0.0)
    for expected in ([8, 4, 4], [8, 2, 2, 2, 2], [8, 1, 1, 1, 1, 1, 1, 1, 1]):
        flight.clear(range(1, 9))
        due = flight.select(pending, 0.0)
        assert [one.id for one in due] == [*range(9, 17), *range(1, 9)]
        assert [len(one.ids) for one in packets(due, together=flight.together)] == expected


def test_what_fails_again_and_again_is_hopeless_where_it_is_larger_than_all_that_passed() -> None:
    flight = Flight()
    for _ in range(HOPELESS):
        assert not flight.is_hopeless(LARGE)
        flight.clear([SMALL.id, LARGE.id])
    assert flight.is_hopeless(LARGE)
    assert not flight.is_hopeless(SMALL), "no broker's limit is below it"
    larger = Waiting(3, Kind.WINDOW, bytes(9001))
    flight.sent(packet(larger), 0.0)
    flight.select([SMALL, LARGE], 0.0)
    assert not flight.is_hopeless(LARGE), "a larger one passed"


def test_what_nobody_acknowledges_is_not_hopeless_while_nothing_passes() -> None:
    flight, now_s = Flight(draw=lambda: 0.0), 0.0
    for _ in range(2 * HOPELESS):
        flight.sent(packet(LARGE), now_s)
        now_s += 100.0
    assert not flight.is_hopeless(LARGE)
    flight.sent(packet(SMALL), now_s)
    flight.select([LARGE], now_s)  # the other one left
    for _ in range(HOPELESS):
        flight.sent(packet(LARGE), now_s)
        now_s += 100.0
    assert flight.is_hopeless(LARGE)


@contextmanager
def limited(folder: Path, setting: str) -> Iterator[Broker]:
    broker = Mosquitto(folder, f"{setting}\n")
    broker.start()
    try:
        yield Broker(host="127.0.0.1", port=broker.port, protocol=4)
    finally:
        broker.stop()


def acknowledge(centre: Centre, outbox: Outbox) -> None:
    """All that has come."""
    here = [one for topic, data in centre.heard if topics.Up.parse(topic) for one in decode_message(data)]
    for one in here:
        centre.acknowledge("pump-1", Ack(one.epoch, 0, ((one.sequence, one.sequence),)))


@pytest.mark.parametrize(
    "setting",
    [
        "max_packet_size 3000",  # it ends the connection
        "message_size_limit 3000",  # it takes the message over, and drops it
    ],
)
def test_on_mqtt_3_1_1_a_record_above_the_limit_is_set_aside_and_the_others_arrive(
    setting: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with limited(tmp_path, setting) as broker, Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for size in (500, 4000, 500, 500, 500, 500, 500, 500, 500):
            outbox.append(Kind.WINDOW, encode(Event("a", size * "x")), t0_ms=0)
        flight = Flight(first_s=0.02, cap_s=0.05)
        with centre_of(broker) as centre, running(Uplink(broker, outbox, timing=QUICK, flight=flight)):
            centre.say_alive(True)

            def is_empty() -> bool:
                acknowledge(centre, outbox)
                return outbox.records == 0

            wait_until(is_empty, "all but one arrive, and a gap")
            here = [one for topic, data in centre.heard if topics.Up.parse(topic) for one in decode_message(data)]
    gaps = [body for one in here if one.kind is Kind.GAP and isinstance(body := decode_body(one), Gap)]
    assert [(one.records, one.reason) for one in gaps][:1] == [(1, "above broker's limit")]
    assert {one.sequence for one in here} == set(range(1, 10))
    assert caplog.text.count("does not pass the broker") == 1


def test_what_has_piled_up_is_paced_and_what_is_produced_meanwhile_is_not(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for _ in range(200):
            append_window(outbox)
        (one, *_), backlog = outbox.waiting(), outbox.size
        depth = 5_000
        slow = TokenBucket(rate=1.0, depth=depth)  # a byte a second: for this test, nothing more than the depth
        uplink = Uplink(mosquitto.broker, outbox, timing=QUICK, flight=Flight(first_s=60.0), pace=slow)
        with centre_of(mosquitto.broker) as centre, running(uplink):
            centre.say_alive(True)
            wait_until(lambda: uplink._dispatch._resume_s, "it is paced")
            first = len(uplink._flight)
            wait_until(lambda: len(set(centre.sequences())) == first, "what was sent is here")
            assert depth <= first * backlog / 200 <= depth + 10 * limits.MESSAGE_MAX_RECORDS * backlog / 200
            assert outbox.keyed < 200, "what waits for its turn has no key, and can still be merged"
            # Events do not wait.
            outbox.append(Kind.EVENT, encode(Event("a", "b")), t0_ms=1)
            uplink.wake()
            wait_until(lambda: any("/e" in topic for topic, _ in centre.heard), "the event")
            fresh = [NOW_MS + 1 + number for number in range(60)]
            for t0_ms in fresh:
                append_window(outbox, t0_ms=t0_ms)
                uplink.wake()

            def dates() -> set[int]:
                return {e.t0_ms for t, data in list(centre.heard) if topics.Up.parse(t) for e in decode_message(data)}

            # The first of them pay for what was sent too much before.
            wait_until(lambda: set(fresh[:40]) <= dates(), "it does not wait behind what has piled up")
            assert len(set(centre.sequences())) < 200
        assert one.n == 100
