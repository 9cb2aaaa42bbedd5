from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgekit_contracts import limits, topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import BrokerUnreachable, MissingFile, StorageFault, UsageError
from edgekit_contracts.state import Host, Running, Status, decode_status
from edgekit_contracts.telemetry import Ack, Event, Kind, decode_message, encode
from edgekit_runtime.broker import Broker, read_password
from edgekit_runtime.flight import Flight, Packet, packets
from edgekit_runtime.mqtt import Link, Publication, Received, full_jitter, probe
from edgekit_runtime.outbox import IN_FLIGHT_MAX, Outbox, Waiting
from edgekit_runtime.thrift import Thrift
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, Mosquitto, ScriptedBroker, free_port, linked, wait_until
from tests.telemetry_samples import append_window

PUMP_1_SECRET = (
    # "secret", as mosquitto_passwd writes it (PBKDF2, SHA-512, 101 rounds).
    "$7$101$ZWRnZWtpdC10ZXN0$eO7jQ1NluZTeA776ih/4I/rwd6H6OaZ3aQ8xGc92uQ4oKduRoJOqd99NvSWl3NMHG5SjVbF9sTE0bELQ+dA0Jg=="
)


class Centre:
    """A collector's place on the broker, which answers only when the test says so."""

    def __init__(self, broker: Broker, name: str = "centre") -> None:
        self.name = name
        self.accepts: tuple[str, ...] = ()
        self.heard: list[tuple[str, bytes]] = []
        self.ready = threading.Event()
        self.link = Link(
            broker,
            f"test-{name}",
            will=lambda: self._presence(False),
            subscriptions=(topics.ALL_UP, topics.ALL_STATUS),
            on_up=self.ready.set,
            on_message=lambda received: self.heard.append((received.topic, received.payload)),
            on_down=lambda reason: None,
            timing=QUICK,
        )

    def _presence(self, alive: bool) -> Publication:
        host = Host(collector=self.name, alive=alive, accepts=self.accepts)
        return Publication(topics.host(self.name), encode_json(host), retain=True)

    def say_alive(self, alive: bool) -> None:
        assert self.link.publish(self._presence(alive))

    def acknowledge(self, device: str, ack: Ack) -> None:
        assert self.link.publish(Publication(topics.ack(device), encode(ack)))

    def sequences(self) -> list[int]:
        return [e.sequence for topic, data in list(self.heard) if topics.Up.parse(topic) for e in decode_message(data)]

    def statuses(self) -> list[Status]:
        return [decode_status(data) for topic, data in list(self.heard) if topics.status_device(topic)]


@contextmanager
def centre_of(broker: Broker) -> Iterator[Centre]:
    centre = Centre(broker)
    centre.link.start()
    try:
        assert centre.ready.wait(30)
        yield centre
    finally:
        centre.link.stop()


@contextmanager
def running(uplink: Uplink) -> Iterator[Uplink]:
    uplink.start()
    try:
        yield uplink
    finally:
        uplink.stop()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db", "pump-1") as opened:
        yield opened


def patient(outbox: Outbox, broker: Broker, birth: Status | Callable[[], Status] | None = None) -> Uplink:
    return Uplink(broker, outbox, birth, timing=QUICK, flight=Flight(first_s=0.2, cap_s=0.4))


# --- values and a clock ---


def packet(*ids: int, size: int = 1) -> Packet:
    return Packet("w", ids, bytes(size))


def test_what_is_on_its_way_is_not_sent_again_before_its_time() -> None:
    flight = Flight(first_s=2.0, cap_s=60.0, draw=lambda: 0.0)
    pending = [Waiting(1, 0, b"a"), Waiting(2, 0, b"b")]
    assert flight.select(pending, 0.0) == pending
    flight.sent(packet(1), 0.0)
    assert flight.select(pending, 1.9) == pending[1:]
    assert flight.next_due_s() == 2.0
    assert flight.select(pending, 2.0) == pending


def test_the_wait_before_sending_again_doubles_up_to_its_cap_and_is_jittered() -> None:
    flight, now, waits = Flight(first_s=2.0, cap_s=60.0, draw=lambda: 0.5), 0.0, []
    for _ in range(7):
        flight.sent(packet(1), now)
        due = flight.next_due_s()
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits == [2.5, 5.0, 10.0, 20.0, 40.0, 75.0, 75.0]


def test_what_left_the_outbox_is_forgotten_and_a_lost_connection_forgets_all() -> None:
    flight = Flight()
    flight.sent(packet(1, 2, 3), 0.0)
    flight.select([Waiting(2, 0, b""), Waiting(3, 0, b"")], 0.0)
    assert len(flight) == 2
    flight.clear()
    assert flight.next_due_s() is None
    assert flight.select([Waiting(2, 0, b"")], 0.0) == [Waiting(2, 0, b"")]


def test_reconnection_waits_at_random_between_first_and_a_growing_ceiling() -> None:
    assert [full_jitter(k, 1.0, 60.0, lambda: 0.0) for k in range(8)] == [1.0] * 8
    ceilings = [full_jitter(k, 1.0, 60.0, lambda: 1.0) for k in range(8)]
    assert ceilings == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert full_jitter(10**6, 1.0, 60.0, lambda: 1.0) == 60.0


def test_messages_hold_up_to_eight_records_of_one_lane_within_the_target_size(outbox: Outbox) -> None:
    for _ in range(10):
        append_window(outbox)
    outbox.append(Kind.EVENT, encode(Event("a", "b")), t0_ms=1)
    for size in (29_000, 30_000, 100):
        outbox.append(Kind.WINDOW, encode(Event("a", "b" * size)), t0_ms=1)
    outbox.give_keys(14, 14)
    made = packets(outbox.pending())
    assert [(bundle.lane, bundle.ids) for bundle in made] == [
        ("e", (11,)),
        ("w", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("w", (9, 10, 12)),
        ("w", (13, 14)),
    ]
    assert all(len(bundle.payload) <= limits.MESSAGE_TARGET_BYTES + 16 for bundle in made)
    assert [e.sequence for bundle in made for e in decode_message(bundle.payload)] == list(range(1, 15))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://host", "mqtt://host:1883"),
        ("mqtts://host", "mqtts://host:8883"),
        ("mqtt://u:p%40ss@10.0.0.1:1999/", "mqtt://10.0.0.1:1999"),
        ("mqtt://[::1]:1883", "mqtt://[::1]:1883"),
        ("mqtts://u@a,b:1,[::2],c:9/", "mqtts://a:8883,b:1,[::2]:8883,c:9"),
    ],
)
def test_a_brokers_address_is_read_from_a_url(url: str, shown: str) -> None:
    assert str(Broker.parse(url)) == shown


def test_a_password_is_never_shown() -> None:
    broker = Broker.parse("mqtt://user:s%40cret@host")
    assert (broker.username, broker.password) == ("user", "s@cret")
    assert "cret" not in repr(broker) + str(broker)
    assert Broker.parse("mqtt://user:old@host", password="new").password == "new"
    with pytest.raises(UsageError) as refusal:
        Broker.parse("http://user:s3cret@host")
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "host",
        "mqtt://",
        "mqtt://host:x",
        "mqtt://host/path",
        "http://host",
        "mqtt://h?x=1",
        "",
        "mqtt://a,",
        "mqtt://a/,b",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a broker's address"):
        Broker.parse(url)


# --- a real broker ---


def test_birth_and_farewell_stand_retained_with_the_same_session(mosquitto: Mosquitto, outbox: Outbox) -> None:
    run = Running(model="diabetes", version="1.0.0", bundle_sha256="0" * 64, bins_id="0" * 16)
    born = Status(device="whatever", session=0, agent="edgekit-runtime 0", running=(run,))
    with running(patient(outbox, mosquitto.broker, lambda: born)), centre_of(mosquitto.broker) as centre:
        wait_until(centre.statuses, "the birth")
        (birth,) = centre.statuses()
        assert (birth.device, birth.session, birth.epoch, birth.dead) == ("pump-1", 1, outbox.epoch, False)
        assert birth.running == (run,)
    with centre_of(mosquitto.broker) as later:
        wait_until(later.statuses, "the farewell")
        assert [(status.session, status.dead) for status in later.statuses()] == [(1, True)]


def test_nothing_is_sent_until_a_collector_is_alive_and_only_an_acknowledgement_empties_the_outbox(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    append_window(outbox)
    uplink = patient(outbox, mosquitto.broker)
    with centre_of(mosquitto.broker) as centre, running(uplink):
        wait_until(lambda: uplink.state.state == "no collector" and centre.statuses(), "it is connected")
        assert centre.sequences() == []
        centre.say_alive(True)
        wait_until(lambda: centre.sequences().count(1) >= 2, "it is sent, and, unacknowledged, sent again")
        assert (outbox.records, uplink.state.in_flight, uplink.state.state) == (1, 1, "connected")
        centre.acknowledge("pump-1", Ack(outbox.epoch, 1))
        wait_until(lambda: uplink.state.acknowledged == 1, "it left")
        assert outbox.records == 0
        append_window(outbox)
        uplink.wake()
        wait_until(lambda: 2 in centre.sequences(), "the next one follows at once")
        centre.say_alive(False)
        wait_until(lambda: uplink.state.state == "no collector", "it pauses")


def test_messages_are_packed_where_every_collector_that_is_alive_reads_them(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    def packed() -> list[bool]:
        return [data[:1] == b"\x78" for topic, data in list(centre.heard) if topics.Up.parse(topic)]

    append_window(outbox)
    with centre_of(mosquitto.broker) as centre, running(patient(outbox, mosquitto.broker)):
        old = Host(collector="old", alive=True)
        centre.link.publish(Publication(topics.host("old"), encode_json(old), retain=True))
        centre.accepts = ("zlib", "a later form")
        centre.say_alive(True)
        wait_until(lambda: len(packed()) > 2, "it is sent, and sent again")
        assert not any(packed())
        centre.link.publish(Publication(topics.host("old"), b"", retain=True))
        wait_until(lambda: any(packed()), "the old one has gone: what is sent again is packed")
        assert set(centre.sequences()) == {1}


def test_no_more_than_the_window_is_in_flight(mosquitto: Mosquitto, outbox: Outbox) -> None:
    for _ in range(IN_FLIGHT_MAX + 20):
        append_window(outbox)
    uplink = Uplink(mosquitto.broker, outbox, timing=QUICK)
    with centre_of(mosquitto.broker) as centre, running(uplink):
        centre.say_alive(True)
        wait_until(lambda: len(set(centre.sequences())) == IN_FLIGHT_MAX, "the window is full")
        assert max(centre.sequences()) == IN_FLIGHT_MAX
        centre.acknowledge("pump-1", Ack(outbox.epoch, 20))
        wait_until(lambda: max(centre.sequences()) == IN_FLIGHT_MAX + 20, "it moves on")


def test_two_devices_of_one_name_are_told_so(
    mosquitto: Mosquitto, outbox: Outbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Outbox(tmp_path / "copy.db", outbox.device) as copy,
        running(patient(outbox, mosquitto.broker)),
        running(patient(copy, mosquitto.broker)),
    ):
        wait_until(lambda: "perhaps another device has this name" in caplog.text, "they take it from each other")


def test_a_broker_that_is_down_is_no_error_and_is_logged_once(
    stopped_mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="edgekit_runtime.uplink")
    append_window(outbox)
    uplink = patient(outbox, stopped_mosquitto.broker)
    with running(uplink):
        wait_until(lambda: uplink.state.last_error, "it says why")
        assert "refused" in str(uplink.state.last_error)
        assert uplink.state.state == "connecting"
        stopped_mosquitto.start()
        with centre_of(stopped_mosquitto.broker) as centre:
            centre.say_alive(True)
            wait_until(lambda: 1 in centre.sequences(), "it is sent after all")
            assert uplink.state.last_error is None
    assert sum("Connection refused" in record.message for record in caplog.records) == 1


def test_a_killed_device_leaves_its_last_will(mosquitto: Mosquitto, outbox: Outbox) -> None:
    uplink = patient(outbox, mosquitto.broker)
    with centre_of(mosquitto.broker) as centre, running(uplink):
        wait_until(centre.statuses, "the birth")
        client = uplink._link._client
        assert client is not None
        client.socket().shutdown(2)  # type: ignore[union-attr]
        wait_until(lambda: any(status.dead for status in centre.statuses()), "the will")
        wait_until(lambda: not centre.statuses()[-1].dead, "it is born again")
        assert {status.session for status in centre.statuses()} == {outbox.session}


def test_a_collector_that_stood_there_already_is_not_taken_for_one_that_came_back(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    append_window(outbox)
    uplink = Uplink(mosquitto.broker, outbox, timing=QUICK, flight=Flight(first_s=60.0))
    with centre_of(mosquitto.broker) as centre, running(uplink):
        centre.say_alive(True)
        wait_until(lambda: 1 in centre.sequences(), "it sends")
        for retained, times in ((True, 1), (False, 2)):
            presence = encode_json(Host(collector=f"other-{times}", alive=True))
            uplink._on_message(Received(topics.host(f"other-{times}"), presence, retained))
            last = append_window(outbox)
            uplink.wake()
            wait_until(lambda sent=last: sent in centre.sequences(), "it sends on")  # type: ignore[misc]
            assert centre.sequences().count(1) == times


def test_garbage_from_the_broker_does_not_disturb_the_uplink(mosquitto: Mosquitto, outbox: Outbox) -> None:
    uplink = patient(outbox, mosquitto.broker)
    with centre_of(mosquitto.broker) as centre, running(uplink):
        wait_until(centre.statuses, "the birth")
        for topic in (topics.ack("pump-1"), topics.host("other")):
            assert centre.link.publish(Publication(topic, b"\xff garbage"))
        centre.say_alive(True)
        append_window(outbox)
        uplink.wake()
        wait_until(lambda: 1 in centre.sequences(), "it still sends")


def test_a_storage_fault_is_shown_and_passes(
    mosquitto: Mosquitto, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_window(outbox)
    uplink = patient(outbox, mosquitto.broker)

    def fails(most: int = 256) -> list[Waiting]:
        raise StorageFault("outbox.db", "disk I/O error")

    with monkeypatch.context() as broken, centre_of(mosquitto.broker) as centre:
        broken.setattr(outbox, "pending", fails)
        with running(uplink):
            centre.say_alive(True)
            wait_until(lambda: "I/O" in str(uplink.state.last_error), "it says so")
            broken.undo()
            wait_until(lambda: 1 in centre.sequences(), "it goes on")
            wait_until(lambda: uplink.state.last_error is None, "and says that it has passed")


def test_a_record_that_the_disk_spoiled_is_given_up_and_the_others_travel(
    mosquitto: Mosquitto, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        append_window(outbox)
    outbox.give_keys(0, 2)  # of the third it is seen when it gets its key
    outbox._records.db.execute("UPDATE record SET data = x'c1c1' WHERE id IN (2, 3)")
    with centre_of(mosquitto.broker) as centre, running(patient(outbox, mosquitto.broker)):
        centre.say_alive(True)
        wait_until(lambda: {1, 2, 3} <= set(centre.sequences()), "all are sent, two as gaps")
        kinds = {e.sequence: e.kind for t, data in centre.heard if topics.Up.parse(t) for e in decode_message(data)}
    assert kinds == {1: Kind.WINDOW, 2: Kind.GAP, 3: Kind.GAP}
    for number in (2, 3):
        assert sum(f"record {number} of pump-1 is given up" in record.message for record in caplog.records) == 1


def test_an_outbox_put_back_to_an_earlier_state_is_born_again_and_sends_what_waits(
    mosquitto: Mosquitto, outbox: Outbox
) -> None:
    append_window(outbox)
    old = outbox.epoch
    with centre_of(mosquitto.broker) as centre, running(patient(outbox, mosquitto.broker)) as uplink:
        centre.say_alive(True)
        wait_until(lambda: centre.sequences(), "it is sent under its old key")
        centre.acknowledge("pump-1", Ack(old, 7))
        wait_until(lambda: centre.statuses()[-1].epoch == outbox.epoch != old, "a birth of the new epoch")

        def epochs() -> set[int]:
            return {e.epoch for t, data in list(centre.heard) if topics.Up.parse(t) for e in decode_message(data)}

        wait_until(lambda: epochs() == {old, outbox.epoch}, "it is sent under its new key")
        centre.acknowledge("pump-1", Ack(outbox.epoch, 1))
        wait_until(lambda: uplink.state.acknowledged == 1, "it left")
        client = uplink._link._client
        assert client is not None
        client.socket().shutdown(2)  # type: ignore[union-attr]
        wait_until(lambda: [s.epoch for s in centre.statuses() if s.dead] == [outbox.epoch], "a will of the new epoch")


# --- a broker that does as it is told ---


def test_stopping_while_a_connection_is_set_up_ends_it_there(outbox: Outbox) -> None:
    with ScriptedBroker(connack=False) as scripted:
        uplink = patient(outbox, scripted.broker)
        uplink.start()
        wait_until(lambda: "CONNECT" in scripted.heard, "it asks to come in")
        uplink.stop()
        assert not uplink._link._thread.is_alive()
        wait_until(lambda: scripted.closed, "the connection is closed")
        assert set(scripted.heard) <= {"CONNECT", "DISCONNECT"}


def test_a_connection_that_stands_only_after_the_stop_says_nothing(outbox: Outbox) -> None:
    # The stop falls between the socket's connection and the broker's word, where paho has nothing to disconnect yet.
    with ScriptedBroker() as scripted:
        uplink = patient(outbox, scripted.broker)
        uplink._link._stopping.set()
        uplink._link._connect_once(scripted.broker)
        wait_until(lambda: scripted.closed, "the connection is closed")
        assert set(scripted.heard) <= {"CONNECT", "DISCONNECT"}
        assert uplink._link.publish(Publication("a", b"")) is False


def test_a_subscription_that_the_broker_refuses_is_shown(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedBroker(suback=0x80) as scripted, running(patient(outbox, scripted.broker)) as uplink:
        wait_until(lambda: "subscription to ek/1/" in str(uplink.state.last_error), "it says so")
    assert "the broker refuses the subscription to ek/1/dn/pump-1/ack" in caplog.text


def test_a_subscription_that_the_broker_refuses_is_tried_again(outbox: Outbox) -> None:
    # As a cluster does that has just lost a node: without the presence of a collector nothing would be sent for ever.
    timing = replace(QUICK, resubscribe_s=0.05)
    with ScriptedBroker(suback=0x80) as scripted, running(Uplink(scripted.broker, outbox, timing=timing)):
        wait_until(lambda: scripted.heard.count("SUBSCRIBE") >= 6, "both are asked for again")
        assert scripted.heard.count("CONNECT") == 1


def test_a_message_that_a_broker_of_mqtt_5_refuses_is_shown_once(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        ScriptedBroker(protocol=5, puback=0x87) as scripted,
        running(patient(outbox, scripted.broker)) as uplink,
    ):
        wait_until(lambda: "refuses a message: Not authorized" in str(uplink.state.last_error), "it says so")
        uplink.announce()
        wait_until(lambda: scripted.heard.count("PUBLISH") == 2, "another one is refused")
    assert sum("refuses a message" in record.message for record in caplog.records) == 1


def test_an_uplink_that_never_started_stops(outbox: Outbox) -> None:
    Uplink(Broker(host="127.0.0.1"), outbox).stop()


def test_certificates_that_cannot_be_read_are_said(mosquitto: Mosquitto, outbox: Outbox, tmp_path: Path) -> None:
    broker = Broker(host="127.0.0.1", port=mosquitto.port, tls=True, ca=tmp_path / "no.pem")
    uplink = Uplink(broker, outbox, timing=QUICK)
    with running(uplink):
        wait_until(lambda: "no.pem" in str(uplink.state.last_error), "it names the file")


def test_a_probe_tells_whether_a_broker_answers(mosquitto: Mosquitto) -> None:
    probe(mosquitto.broker)
    with pytest.raises(BrokerUnreachable, match="refused"):
        probe(Broker(host="127.0.0.1", port=free_port()))


def test_of_several_places_the_one_that_answers_is_found(mosquitto: Mosquitto) -> None:
    dead, living = free_port(), mosquitto.port
    for _ in range(3):  # it begins with any of them
        probe(Broker.parse(f"mqtt://127.0.0.1:{dead},127.0.0.1:{living}"))
    with pytest.raises(BrokerUnreachable, match=rf"127\.0\.0\.1:{dead},127\.0\.0\.2:{dead}: .*refused"):
        probe(Broker.parse(f"mqtt://127.0.0.1:{dead},127.0.0.2:{dead}"))


def test_a_lost_connection_is_made_anew_at_the_next_place(outbox: Outbox) -> None:
    with ScriptedBroker() as one, ScriptedBroker() as two:
        cluster = Broker.parse(f"mqtt://127.0.0.1:{one.broker.port},127.0.0.1:{two.broker.port}")
        with running(patient(outbox, cluster)) as uplink:
            wait_until(lambda: "SUBSCRIBE" in one.heard + two.heard, "it is connected")
            first, next_one = (one, two) if one.heard else (two, one)
            uplink._link.renew()
            wait_until(lambda: "SUBSCRIBE" in next_one.heard, "it is connected to the other one")
    assert first.heard.count("CONNECT") == 1


def test_a_connection_hears_what_it_is_told_to_and_so_does_the_next_one(mosquitto: Mosquitto) -> None:
    heard: list[str] = []
    ups: list[None] = []
    link = Link(
        mosquitto.broker,
        "listener",
        will=lambda: None,
        subscriptions=("a", "b"),
        on_up=lambda: ups.append(None),
        on_message=lambda received: heard.append(received.topic),
        on_down=lambda reason: None,
        timing=QUICK,
    )

    def say(*said: str) -> list[str]:
        heard.clear()
        wait_until(lambda: all(link.publish(Publication(topic, b"")) for topic in said), "all is said")
        wait_until(lambda: said[-1] in heard, "the last one is heard")
        return list(heard)

    link.start()
    try:
        assert link.wait_first(30) is None
        assert say("a", "c", "b") == ["a", "b"]
        link.listen(("b", "c"))
        assert say("a", "b", "c") == ["b", "c"]
        link.renew()
        wait_until(lambda: len(ups) > 1, "it is connected again")
        assert say("a", "b", "c") == ["b", "c"]
    finally:
        link.stop()


def test_a_broker_that_asks_for_a_password_is_told_it_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("pump-1:" + PUMP_1_SECRET + "\n")
    (tmp_path / "secret").write_text("secret\n")
    guarded = Mosquitto(tmp_path, f"password_file {tmp_path}/passwords\n", anonymous=False)
    guarded.start()
    try:
        url = f"mqtt://pump-1@127.0.0.1:{guarded.port}"
        probe(Broker.parse(url, password=read_password(tmp_path / "secret")))
        with pytest.raises(BrokerUnreachable, match=r"[Nn]ot authori"):
            probe(Broker.parse(url, password="wrong"))
    finally:
        guarded.stop()
    with pytest.raises(MissingFile):
        read_password(tmp_path / "missing")


def test_mqtt_5_where_the_broker_speaks_it(mosquitto: Mosquitto, outbox: Outbox) -> None:
    append_window(outbox)
    five = Broker(host="127.0.0.1", port=mosquitto.port, protocol=5)
    with centre_of(mosquitto.broker) as centre, running(patient(outbox, five)):
        centre.say_alive(True)
        wait_until(lambda: 1 in centre.sequences(), "it is sent")


def test_a_callback_that_publishes_and_a_thread_that_does_never_wait_for_each_other(mosquitto: Mosquitto) -> None:
    # paho holds a lock of its own while a callback runs, and wants it for a message of QoS 0 that another thread sends.
    answered: list[bytes] = []

    def answer(received: Received) -> None:
        answered.append(received.payload)
        link.publish(Publication("b", received.payload), qos=0)

    def send() -> None:
        for _ in range(3000):
            link.publish(Publication("a", b""), qos=0)

    with linked(mosquitto.broker, "echo", ("a",), answer) as link:
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        sender.join(60)
        assert not sender.is_alive()
        wait_until(lambda: answered, "it hears itself")


def test_what_other_tools_are_told_ends_with_the_day_s_bytes(mosquitto: Mosquitto, outbox: Outbox) -> None:
    uplink = Uplink(mosquitto.broker, outbox, timing=QUICK, thrift=Thrift(20_000, keepalive_s=900))
    with running(uplink):
        wait_until(lambda: uplink.state.state != "connecting", "it is connected")
        assert uplink.publish(Publication("a", bytes(5000)))
        assert not uplink.publish(Publication("a", bytes(18_000)))
        wait_until(lambda: uplink.state.bytes.today.streams["others"] == 5000, "it is counted")
        said = 1
        while uplink.publish(Publication("a", bytes(5000))):
            said += 1
            wait_until(lambda: uplink.state.bytes.today.sent > 5000 * said, "it is on the wire")  # noqa: B023
        assert said == 3
