from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from edgekit.collector import intake
from edgekit.collector.ingest import Accepted, Known, Message, Reading, read_batch
from edgekit.collector.service import Collector
from edgekit.collector.store import Ingested, Store, open_store
from edgekit.fleet.status import fleet_status
from edgekit_contracts import limits, topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import BrokerUnreachable, StorageFault, UsageError
from edgekit_contracts.state import Host, Status, decode_host
from edgekit_contracts.telemetry import Ack, Event, Kind, encode, encode_message
from edgekit_runtime.broker import Broker
from edgekit_runtime.flight import Flight
from edgekit_runtime.mqtt import Link, Publication, Receipt, Received
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, ScriptedBroker, free_port, linked, wait_until
from tests.postgres import Postgres
from tests.telemetry_samples import NOW_MS, append_reference, append_window, envelope, window

WINDOW, ROWS = window()


def collector(broker: Broker, folder: Path, name: str = "centre") -> Collector:
    # The samples are dated NOW_MS: the collector lives then.
    return Collector(broker, folder / "store.db", name, timing=QUICK, clock_ms=lambda: NOW_MS)


@contextmanager
def device(broker: Broker, folder: Path, name: str = "pump-1") -> Iterator[tuple[Outbox, Uplink]]:
    with Outbox(folder / f"{name}.db", name) as outbox:
        uplink = Uplink(broker, outbox, timing=QUICK, flight=Flight(first_s=0.2, cap_s=0.5))
        uplink.start()
        try:
            yield outbox, uplink
        finally:
            uplink.stop()


@contextmanager
def stranger(broker: Broker) -> Iterator[Link]:
    """Somebody who may publish anything, and hears where collectors stand."""
    heard: list[Received] = []
    with linked(broker, "stranger", (topics.ALL_HOSTS,), heard.append) as link:
        link.heard = heard  # type: ignore[attr-defined]
        yield link


def is_empty(outbox: Outbox) -> bool:
    return outbox.records == 0


def presences(link: Link) -> list[Host]:
    return [decode_host(one.payload) for one in list(link.heard)]  # type: ignore[attr-defined]


def produce(outbox: Outbox, uplink: Uplink, records: int) -> None:
    for _ in range(records):
        append_window(outbox)
    uplink.wake()


def sequences(store: Store, name: str = "pump-1") -> list[int]:
    return [sequence for _, sequence in sorted((one.epoch, one.sequence) for one in store.windows(name, 0))]


def test_records_reach_the_store_once_and_leave_the_outbox(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        produce(outbox, uplink, 40)
        outbox.append(Kind.EVENT, encode(Event("started", "")), t0_ms=NOW_MS)
        uplink.wake()
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert len(sequences(centre.store)) == 40
        assert (centre.store.count("event"), centre.counts.stored, centre.counts.refused) == (1, 43, {})
        wait_until(lambda: centre.store.devices()["pump-1"][0] is not None, "the birth is stored")


def test_a_killed_broker_loses_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        for _ in range(4):
            produce(outbox, uplink, 60)
            wait_until(lambda: centre.counts.messages > 0, "it flows")
            mosquitto.kill()
            produce(outbox, uplink, 20)
            mosquitto.start()
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert len(sequences(centre.store)) == 320
        assert centre.store.lost() == {}


def test_a_device_that_starts_before_its_broker_delivers_once_it_is_there(
    stopped_mosquitto: Mosquitto, tmp_path: Path
) -> None:
    with device(stopped_mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        produce(outbox, uplink, 300)
        wait_until(lambda: uplink.state.last_error, "it has tried")
        stopped_mosquitto.start()
        with collector(stopped_mosquitto.broker, tmp_path) as centre:
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
            assert len(sequences(centre.store)) == 300


def test_a_device_that_restarts_begins_an_epoch_of_its_own(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with collector(mosquitto.broker, tmp_path) as centre:
        for session in (1, 2, 3):
            with device(mosquitto.broker, tmp_path) as (outbox, uplink):
                if session == 1:
                    append_reference(outbox)
                produce(outbox, uplink, 5)
                wait_until(partial(is_empty, outbox), "all is acknowledged")

            def farewell(session: int = session) -> bool:
                status, _ = centre.store.devices()["pump-1"]
                return status is not None and status.dead and status.session == session

            wait_until(farewell, "its farewell is stored")
        assert len(sequences(centre.store)) == 15
        assert centre.store.count("cursor") == 3


def test_a_collector_that_restarts_gets_what_came_meanwhile(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        with collector(mosquitto.broker, tmp_path):
            produce(outbox, uplink, 10)
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
        wait_until(lambda: uplink.state.state == "no collector", "the device knows")
        produce(outbox, uplink, 10)
        with collector(mosquitto.broker, tmp_path) as centre:
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
            assert len(sequences(centre.store)) == 20


def test_an_outbox_that_is_put_back_and_counted_twice_is_an_alarm(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Outbox(tmp_path / "pump-1.db", "pump-1") as outbox:
        append_reference(outbox)
        for number in range(6):
            append_window(outbox, t0_ms=NOW_MS - 600_000 + 10_000 * number)
    image = (tmp_path / "pump-1.db").read_bytes()
    with collector(mosquitto.broker, tmp_path) as centre:
        with device(mosquitto.broker, tmp_path) as (outbox, _):
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
        (line,) = fleet_status(centre.store, NOW_MS)
        assert (line.rows, "shared" in line.alarm_kinds) == (6 * ROWS, False)
        (tmp_path / "pump-1.db").write_bytes(image)
        with device(mosquitto.broker, tmp_path) as (outbox, _):
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
        (line,) = fleet_status(centre.store, NOW_MS)
        assert (line.rows, "shared" in line.alarm_kinds) == (12 * ROWS, True)


def test_two_collectors_share_no_state_and_each_stores_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with (
        collector(mosquitto.broker, tmp_path) as one,
        collector(mosquitto.broker, tmp_path / "second", "other") as two,
        device(mosquitto.broker, tmp_path) as (outbox, uplink),
    ):
        append_reference(outbox)
        produce(outbox, uplink, 10)
        wait_until(lambda: one.store.count("window") == two.store.count("window") == 10, "both have them")


def test_garbage_and_lies_are_refused_and_counted_and_the_good_gets_through(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    up = str(topics.Up("pump-1"))
    theft = encode_message([encode(envelope(WINDOW, n=ROWS, device="pump-2"))])
    poison = encode_message([encode(envelope(WINDOW, n=ROWS + 1, epoch=99, bins_id=b"whatever", kind=Kind.GAP))])
    with stranger(mosquitto.broker) as link, collector(mosquitto.broker, tmp_path) as centre:
        wait_until(lambda: presences(link), "it listens")
        for topic, payload in (
            (up, b"\xff garbage"),
            (up, b"\x91" * (limits.MESSAGE_MAX_BYTES + 1)),
            (up, theft),
            (up, poison),
            ("ek/1/up/77/pump-1/w", theft),
            (topics.status("pump-1"), b"{"),
        ):
            assert link.publish(Publication(topic, payload))
        expected = {"garbage": 2, "too large": 1, "wrong device": 1, "body": 1, "wrong topic": 1}
        wait_until(lambda: centre.counts.refused == expected, f"refused {expected}")
        with device(mosquitto.broker, tmp_path) as (outbox, uplink):
            append_reference(outbox)
            produce(outbox, uplink, 3)
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert len(sequences(centre.store)) == 3
        assert centre.store.refused() == expected
        assert centre.store.highest("pump-2", 7) == 0


def test_a_poison_record_does_not_block_its_device(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        outbox.append(Kind.WINDOW, encode(Event("not", "a window")), n=5, t0_ms=NOW_MS)
        produce(outbox, uplink, 2)
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert len(sequences(centre.store)) == 2
        assert centre.counts.refused == {"body": 1}


def test_the_will_of_an_older_session_is_ignored(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with stranger(mosquitto.broker) as link, collector(mosquitto.broker, tmp_path) as centre:
        # It says so once it is subscribed: of retained messages from before it would read the last one only.
        wait_until(lambda: presences(link), "it listens")
        for session, dead in ((5, False), (4, True), (5, False)):
            status = encode_json(Status(device="pump-1", session=session, epoch=1, dead=dead))
            assert link.publish(Publication(topics.status("pump-1"), status, retain=True))
        wait_until(lambda: centre.counts.messages >= 3, "all three are read")
        status_now, _ = centre.store.devices()["pump-1"]
        assert status_now is not None
        assert (status_now.session, status_now.dead) == (5, False)


def test_presence_stands_retained_while_the_collector_lives(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with stranger(mosquitto.broker) as link:
        with collector(mosquitto.broker, tmp_path):
            wait_until(lambda: [host.alive for host in presences(link)] == [True], "alive")
        wait_until(lambda: [host.alive for host in presences(link)] == [True, False], "gone")


def test_a_collector_that_starts_again_blames_nobody_for_its_own_farewell(
    mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with collector(mosquitto.broker, tmp_path):
        pass
    caplog.set_level("INFO", "edgekit.collector")
    with collector(mosquitto.broker, tmp_path):
        wait_until(lambda: "its farewell stood there" in caplog.text, "it was read")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_two_collectors_of_one_name_are_told_to_have_two(
    mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with collector(mosquitto.broker, tmp_path / "one"), collector(mosquitto.broker, tmp_path / "two"):
        wait_until(lambda: "give it one of its own (--name)" in caplog.text, "they take it from each other")


def test_a_second_collector_of_one_name_and_file_is_refused_and_may_come_after_it(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    with collector(mosquitto.broker, tmp_path) as first:
        with pytest.raises(UsageError, match=r"a collector named 'centre' stores into .* already") as refused:
            collector(mosquitto.broker, tmp_path).start()
        assert "--name" in refused.value.next_step
        assert first.publish(Publication("a", b""))
        with collector(mosquitto.broker, tmp_path, "other"):
            pass
    with collector(mosquitto.broker, tmp_path):
        pass


def test_a_collector_whose_connection_breaks_is_missed_and_comes_back(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with stranger(mosquitto.broker) as link, collector(mosquitto.broker, tmp_path) as centre:
        wait_until(lambda: [host.alive for host in presences(link)] == [True], "alive")
        client = centre._link._client
        assert client is not None
        client.socket().shutdown(2)  # type: ignore[union-attr]
        # It may say so twice: its own will comes back to it as somebody else's word.
        wait_until(
            lambda: [host.alive for host in presences(link)][:3] == [True, False, True], "its will, and it again"
        )


def test_a_broker_that_does_not_answer_at_first_is_an_error(tmp_path: Path) -> None:
    centre = collector(Broker(host="127.0.0.1", port=free_port()), tmp_path)
    with pytest.raises(BrokerUnreachable, match="refused"):
        centre.start()


def test_a_store_that_cannot_be_opened_is_an_error(mosquitto: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("hello" * 1000)
    with pytest.raises(StorageFault):
        collector(mosquitto.broker, tmp_path).start()


def test_a_full_disk_stops_the_acknowledgements_and_passes(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(intake, "RETRY_SECONDS", 0.02)
    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        uplink.wake()
        wait_until(lambda: outbox.records == 0, "it works")
        with centre.store.database.reading() as db:
            ((pages,),) = db.rows("PRAGMA page_count")
            db.rows(f"PRAGMA max_page_count = {pages}")
        produce(outbox, uplink, 200)
        wait_until(lambda: "full" in str(centre.fault), "it says so")
        assert outbox.records > 0
        with centre.store.database.reading() as db:
            db.rows("PRAGMA max_page_count = 1000000")
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert centre.fault is None
        assert len(sequences(centre.store)) == 200
    assert sum("acknowledges nothing" in record.message for record in caplog.records) == 1


def test_a_killed_database_stops_the_acknowledgements_and_passes(
    mosquitto: Mosquitto, own_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "RETRY_SECONDS", 0.02)
    with (
        Collector(mosquitto.broker, own_postgres.url(), "centre", timing=QUICK, clock_ms=lambda: NOW_MS) as centre,
        device(mosquitto.broker, tmp_path) as (outbox, uplink),
    ):
        append_reference(outbox)
        for first in (0, 200):
            produce(outbox, uplink, 100)
            wait_until(lambda: centre.counts.stored > first, "it flows")  # noqa: B023
            own_postgres.kill()
            produce(outbox, uplink, 100)
            wait_until(lambda: centre.fault, "it says so")
            assert outbox.records > 0
            own_postgres.start()
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert centre.fault is None
        assert len(sequences(centre.store)) == 400
        assert centre.store.lost() == {}


def test_a_message_that_we_stumble_over_is_logged_and_stops_nothing(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbles(messages: list[Message], known: Known) -> list[Reading]:
        if any(message.payload == b"banana" for message in messages):
            raise ZeroDivisionError("banana")
        return read_batch(messages, known)

    monkeypatch.setattr(intake, "read_batch", stumbles)
    with collector(mosquitto.broker, tmp_path) as centre, stranger(mosquitto.broker) as link:
        assert link.publish(Publication(str(topics.Up("pump-1")), b"banana"))
        wait_until(lambda: centre.counts.refused == {"internal": 1}, "it is counted")
        with device(mosquitto.broker, tmp_path) as (outbox, uplink):
            append_reference(outbox)
            produce(outbox, uplink, 3)
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
    assert "ZeroDivisionError" in caplog.text


def test_whoever_fails_when_told_of_events_stops_nothing(
    mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stumbles(events: object) -> None:
        raise ZeroDivisionError("banana")

    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        centre.on_events = stumbles
        for _ in range(2):
            outbox.append(Kind.EVENT, encode(Event("started", "")), t0_ms=NOW_MS)
            uplink.wake()
            wait_until(lambda: outbox.records == 0, "it is acknowledged")
        assert centre.store.count("event") == 2
    assert caplog.text.count("not all is told of a batch") == 2


def test_nothing_is_acknowledged_before_it_is_committed(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    premature: list[str] = []
    given: list[Ack] = []
    taken_over: list[Receipt] = []
    tell, acknowledge = Link.tell, Link.acknowledge

    def committed() -> int:
        # Another connection sees only what is committed.
        with open_store(tmp_path / "store.db", create=False) as reader:
            return sum(reader.count(table) for table in ("part", "window", "device"))

    def told(self: Link, publications: Iterable[Publication]) -> None:
        acks = list(publications)
        for publication in acks:
            ack = msgspec.msgpack.decode(publication.payload, type=Ack)
            given.append(ack)
            premature.extend(["to the device"] * (committed() < ack.high))
        tell(self, acks)

    def acknowledged(self: Link, receipts: Iterable[Receipt]) -> None:
        taken = list(receipts)
        taken_over.extend(taken)
        # The collector hears its own presence, which it does not store.
        premature.extend(["to the broker"] * (committed() < len(taken_over) - 1))
        acknowledge(self, taken)

    monkeypatch.setattr(Link, "tell", told)
    monkeypatch.setattr(Link, "acknowledge", acknowledged)
    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        for _ in range(3):
            produce(outbox, uplink, 1)
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert centre.counts.stored == 5
    assert max(ack.high for ack in given) == 5
    assert len(taken_over) >= 4
    assert premature == []


def test_more_messages_flow_than_the_broker_has_under_way_at_a_time(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path, "max_inflight_messages 1\n")
    mosquitto.start()
    try:
        with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
            append_reference(outbox)
            for _ in range(5):
                produce(outbox, uplink, 3)
                wait_until(lambda: outbox.records == 0, "all is acknowledged")
            with stranger(mosquitto.broker) as link:
                # What is refused is acknowledged too, or nothing would come behind it.
                for _ in range(5):
                    assert link.publish(Publication(str(topics.Up("pump-1")), b"banana"))
                    assert link.publish(Publication(topics.status("pump-1"), b"banana"))
                wait_until(lambda: sum(centre.counts.refused.values()) == 10, "all of it is refused")
    finally:
        mosquitto.stop()


class Held:
    """A store that waits before it writes records."""

    def __init__(self) -> None:
        self.asked, self.until = threading.Event(), threading.Event()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    found, ingest = Held(), Store.ingest

    def waits(self: Store, batch: list[Reading]) -> Ingested:
        if any(isinstance(reading, Accepted) for reading in batch):
            found.asked.set()
            assert found.until.wait(60)
        return ingest(self, batch)

    monkeypatch.setattr(Store, "ingest", waits)
    return found


def test_a_connection_lost_with_acknowledgements_outstanding_loses_nothing(
    mosquitto: Mosquitto, tmp_path: Path, held: Held
) -> None:
    with collector(mosquitto.broker, tmp_path) as centre, device(mosquitto.broker, tmp_path) as (outbox, uplink):
        append_reference(outbox)
        produce(outbox, uplink, 20)
        wait_until(held.asked.is_set, "the store is asked")
        first = centre._link._client
        mosquitto.kill()
        wait_until(lambda: centre._link._client is None, "the connection is lost")
        mosquitto.start()
        wait_until(lambda: centre._link._client not in {None, first}, "there is another")
        held.until.set()
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert len(sequences(centre.store)) == 20


def test_a_collector_that_is_stopped_stores_and_acknowledges_what_has_come(
    mosquitto: Mosquitto, tmp_path: Path, held: Held
) -> None:
    with device(mosquitto.broker, tmp_path) as (outbox, uplink):
        with collector(mosquitto.broker, tmp_path) as centre:
            held.until = centre._stopping
            append_reference(outbox)
            uplink.wake()
            wait_until(held.asked.is_set, "the store is asked")
        wait_until(lambda: outbox.records == 0, "all is acknowledged")
        assert centre.counts.stored == 2


def test_after_a_fault_of_the_store_the_statuses_are_asked_for_again(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the broker may have dropped some, for it keeps only so many messages for us."""
    monkeypatch.setattr(intake, "RETRY_SECONDS", 0.02)
    ingest, full = Store.ingest, threading.Event()

    def faulty(self: Store, batch: list[Reading]) -> Ingested:
        if full.is_set():
            raise StorageFault("store.db", "disk full")
        return ingest(self, batch)

    monkeypatch.setattr(Store, "ingest", faulty)
    with collector(mosquitto.broker, tmp_path) as centre, stranger(mosquitto.broker) as link:
        status = Publication(topics.status("pump-1"), encode_json(Status(device="pump-1", session=4)), retain=True)
        assert link.publish(status)
        wait_until(lambda: centre.counts.messages == 1, "it is stored")
        full.set()
        assert link.publish(Publication(str(topics.Up("pump-1")), b"banana"))
        wait_until(lambda: centre.fault, "the disk is full")
        full.clear()
        wait_until(lambda: centre.counts.messages == 3, "the status is heard once more")
        assert centre.counts.refused == {"garbage": 1}


def test_a_subscription_that_the_broker_refuses_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedBroker(suback=0x80) as scripted, collector(scripted.broker, tmp_path):
        wait_until(lambda: "refuses the subscription to ek/1/up/+/+/+" in caplog.text, "it says so")


def test_an_outbox_that_ran_over_is_accounted_for_at_the_centre(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Outbox(tmp_path / "small.db", "pump-1", max_bytes=6000) as outbox:
        append_reference(outbox, parts=1)
        for _ in range(100):
            append_window(outbox)
        uplink = Uplink(mosquitto.broker, outbox, timing=QUICK)
        with collector(mosquitto.broker, tmp_path) as centre:
            uplink.start()
            wait_until(lambda: outbox.records == 0, "all is acknowledged")
            uplink.stop()
            stored, merged = centre.store.count("window"), outbox.merged
            assert stored + merged + 1 == outbox.produced == 101
            assert (merged > 0, centre.store.lost()) == (True, {})
            assert sum(one.n for one in centre.store.windows("pump-1", 0)) == 100 * 100
            assert centre.store.highest("pump-1", outbox.epoch) == stored + 1


@pytest.mark.parametrize("alive", [None, False])
def test_a_presence_that_somebody_else_overwrites_is_written_anew(
    mosquitto: Mosquitto, tmp_path: Path, alive: bool | None
) -> None:
    forged = b"garbage" if alive is None else encode_json(Host(collector="centre", alive=alive))
    with collector(mosquitto.broker, tmp_path), stranger(mosquitto.broker) as link:
        link.publish(Publication(topics.host("centre"), forged, retain=True))
        heard = link.heard  # type: ignore[attr-defined]
        wait_until(lambda: any(one.payload == forged for one in heard), "the forgery stands")
        with device(mosquitto.broker, tmp_path) as (outbox, uplink):
            append_reference(outbox)
            produce(outbox, uplink, 3)
            wait_until(lambda: is_empty(outbox), "the device heard that a collector lives")
