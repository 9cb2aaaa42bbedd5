from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest

from edgekit_runtime.broker import Broker
from edgekit_runtime.connection import PIECE_BYTES, Connection
from edgekit_runtime.mqtt import Publication, Received, Timing
from edgekit_runtime.packets import write_pubacks
from tests.brokers import Mosquitto, linked, wait_until


def exchange(broker: Broker, messages: int = 1200) -> None:
    """Messages of all sizes, from several threads at once: each arrives whole, those of one thread in order."""
    dice = random.Random(3)
    sent = [[dice.randbytes(int(10 ** dice.uniform(0, 5.3))) for _ in range(messages // 4)] for _ in range(4)]
    heard: list[Received] = []
    with linked(broker, "reader", ("t/#",), heard.append), linked(broker, "writer", ("nothing",)) as writer:

        def publish(number: int) -> None:
            for payload in sent[number]:
                assert writer.publish(Publication(f"t/{number}", payload), qos=1)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(heard) == messages, "all of them came")
        wait_until(lambda: writer.outstanding == 0, "and are acknowledged")
    for number in range(4):
        assert [one.payload for one in heard if one.topic == f"t/{number}"] == sent[number]
    assert max(len(payload) for some in sent for payload in some) > PIECE_BYTES / 2


@pytest.fixture
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker"), "max_queued_messages 0\n")
    broker.start()
    yield broker.broker
    broker.stop()


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_burst_arrives_whole_and_in_order(roomy: Broker, protocol: Literal[4, 5]) -> None:
    exchange(replace(roomy, protocol=protocol), 800)


def test_messages_that_do_not_reach_paho_are_acknowledged_all_the_same(roomy: Broker) -> None:
    """There are more than the broker sends before it hears of those under way, which is 20."""
    broker, heard = replace(roomy, protocol=4), list[Received]()
    with linked(broker, "reader", ("t",), heard.append), linked(broker, "teller", ()) as teller:
        for number in range(100):
            assert teller.publish(Publication("t", str(number).encode()), qos=1)
        teller.tell(Publication("t", str(number).encode()) for number in range(100, 200))
        wait_until(lambda: len(heard) == 200, "all of them came")
    assert sorted(int(one.payload) for one in heard) == list(range(200))
    assert not any(one.receipt or one.retained for one in heard)


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_is_told_with_retain_stands_there_for_later(roomy: Broker, protocol: Literal[4, 5]) -> None:
    broker, heard = replace(roomy, protocol=protocol), list[Received]()
    with linked(broker, "teller", ()) as teller:
        teller.tell([Publication("kept", b"1", retain=True), Publication("kept/not", b"2")])
        # What comes after it has arrived, so it has too.
        teller.publish(Publication("end", b""), qos=1)
        wait_until(lambda: not teller.outstanding, "it has arrived")
    with linked(broker, "reader", ("kept/#",), heard.append):
        wait_until(lambda: heard, "it stands there")
    assert heard == [Received("kept", b"1", retained=True)]


def test_a_paho_that_reads_and_writes_for_itself_is_only_slower(roomy: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Connection, "_sock_recv")
    monkeypatch.delattr(Connection, "_sock_send")
    exchange(roomy, 200)


def test_a_small_message_does_not_wait_for_the_broker_to_confirm_the_one_before(roomy: Broker) -> None:
    with linked(roomy, "prompt", ()) as link:
        assert link._client is not None
        opened = link._client.socket()
        assert isinstance(opened, socket.socket)
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_whoever_wakes_the_loop_after_his_message_was_written_does_not_keep_others_from_it(roomy: Broker) -> None:
    with linked(roomy, "woken", ()) as link:
        connection = link._client
        assert connection is not None
        # The second half of what paho does to publish; meanwhile the loop has written it.
        connection._call_socket_register_write()
        wait_until(lambda: not connection._registered_write, "paho would wake the loop again")


def test_what_the_system_does_not_take_at_once_is_written_when_it_does() -> None:
    """To somebody who does not read for a while: far more than the buffers of a socket hold."""
    messages, payload = 100, bytes(250_000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        wanted: list[bytes] = []
        reading = threading.Event()

        def serve() -> None:
            with server.accept()[0] as opened:
                opened.recv(4096)
                opened.sendall(b"\x20\x02\x00\x00")  # CONNACK
                opened.recv(4096)
                opened.sendall(b"\x90\x03\x00\x01\x00")  # SUBACK
                assert reading.wait(60)
                data = bytearray()
                while more := opened.recv(1 << 20):
                    opened.sendall(b"\xd0\x00")  # PINGRESP, which one that ends may leave unread
                    data += more
                wanted.append(bytes(data))

        serving = threading.Thread(target=serve)
        serving.start()
        with linked(Broker(host="127.0.0.1", port=server.getsockname()[1]), "writer", ("x",)) as writer:
            for _ in range(messages):
                assert writer.publish(Publication("t", payload), qos=0)
            reading.set()
        serving.join(60)
    one = b"\x30" + bytes([0x80 | (250_003 & 0x7F), 0x80 | (250_003 >> 7 & 0x7F), 250_003 >> 14]) + b"\0\1t" + payload
    assert wanted == [one * messages + b"\xe0\x00"]


def test_a_message_is_acknowledged_on_the_connection_that_it_came_on_and_on_no_other(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: list[tuple[Connection, bytes]] = []
    monkeypatch.setattr(Connection, "say", lambda self, packets: acknowledged.append((self, packets)))
    heard: list[Received] = []
    with linked(mosquitto.broker, "reader", ("t/#",), heard.append, by_hand=True) as reader:
        assert reader.publish(Publication("t/1", b"x"))
        wait_until(lambda: len(heard) == 1, "it came")
        first = reader._client
        reader.renew()
        wait_until(lambda: reader._client not in {None, first}, "there is another connection")
        assert reader.publish(Publication("t/1", b"x"))
        wait_until(lambda: len(heard) == 2, "the second came")
        receipts = [one.receipt for one in heard if one.receipt is not None]
        assert len(receipts) == len(heard)
        reader.acknowledge(receipts)
        assert acknowledged == [(reader._client, write_pubacks([receipts[-1].identifier]))]


def test_a_message_that_needs_no_acknowledgement_has_no_receipt(mosquitto: Mosquitto) -> None:
    heard: list[Received] = []
    with linked(mosquitto.broker, "reader", ("t/#",), heard.append, by_hand=True) as reader:
        assert reader.publish(Publication("t/1", b"x"), qos=0)
        wait_until(lambda: heard, "it came")
    assert heard[0].receipt is None


def test_a_connection_is_kept_while_nothing_is_said(mosquitto: Mosquitto) -> None:
    downs: list[str] = []
    with linked(mosquitto.broker, "quiet", ("t",), on_down=downs.append, timing=Timing(keepalive_s=1)) as one:
        first = one._client
        threading.Event().wait(2.2)
        assert one._client is first
        assert downs == []
