from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_runtime.serving.protocol import KNOWN_HEADS
from tests.brokers import wait_until
from tests.serving import INFER, Server, request, running

LIVE = request("/v2/health/live")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(max_head_bytes=4096, max_request_bytes=8192, request_timeout_s=5) as server:
        yield server


def chunked(*parts: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


def with_chunks(content: bytes, *lines: str) -> bytes:
    return request("/v2/models/tiny/infer", None, "Transfer-Encoding: chunked", *lines, method="POST") + content


def test_a_connection_is_kept_and_its_requests_are_answered_in_order(server: Server) -> None:
    with server.connect() as client:
        for _ in range(3):
            client.send(request(body=INFER))
            reply = client.reply()
            assert reply.status == 200
            assert "connection" not in reply.headers
        bodies = [json.dumps({"id": str(number), **json.loads(INFER)}).encode() for number in range(100)]
        client.send(b"".join(request(body=body) for body in bodies))
        assert [client.reply().json["id"] for _ in bodies] == [str(number) for number in range(100)]


def test_a_head_that_is_known_brings_its_own_body_every_time(server: Server) -> None:
    bodies = [json.dumps({"id": f"{number:03}", **json.loads(INFER)}).encode() for number in range(40)]
    whole = [request("/v2/models/tiny/infer", body) for body in bodies]
    halves = [part for one in whole for part in (one[: len(one) // 2], one[len(one) // 2 :])]
    inside = [part for one in whole for part in (one[:-1], one[-1:])]
    pairs = [whole[at] + whole[at + 1] for at in range(0, len(whole), 2)]
    for parts in (whole, halves, inside, pairs, [one + b"\r\n" for one in whole]):
        with server.connect() as client:
            for part in parts:
                client.send(part)
            assert [client.reply().json["id"] for _ in bodies] == [f"{number:03}" for number in range(40)]


def test_heads_that_differ_do_not_pile_up(server: Server) -> None:
    with server.connect() as client:
        for number in range(2 * KNOWN_HEADS + 1):
            client.send(request("/v2/health/live", None, f"X-Number: {number}") * (1 + number % 2))
            for _ in range(1 + number % 2):
                assert client.reply().json == {"live": True}


def test_a_request_may_come_byte_by_byte(server: Server) -> None:
    with server.connect() as client:
        for byte in request("/v2/models/tiny/infer", INFER) + LIVE:
            client.send(bytes([byte]))
        assert client.reply().json["model_name"] == "tiny"
        assert client.reply().json == {"live": True}


def test_a_body_in_chunks_is_put_together_and_its_trailers_mean_nothing(server: Server) -> None:
    whole = server.ask(request(body=INFER))
    trailer = b"Inference-Header-Content-Length: 3\r\n"
    with server.connect() as client:
        client.send(with_chunks(chunked(INFER[:7], INFER[7:], trailers=trailer)) + LIVE)
        assert client.reply() == whole
        assert client.reply().status == 200


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(server: Server) -> None:
    head, _, body = request("/v2/models/tiny/infer", INFER, "Expect: 100-Continue").partition(b"\r\n\r\n")
    with server.connect() as client:
        client.send(LIVE + head + b"\r\n\r\n")
        assert [client.reply().status, client.reply().status] == [200, 100]
        client.send(body)
        assert client.reply().status == 200
    too_long = request("/x", None, "Content-Length: 9000", "Expect: 100-continue", method="POST")
    assert server.ask(too_long).status == 413
    assert server.ask(request("/x", b"", "Expect: the-worst")).status == 417


def test_head_is_get_without_the_body(server: Server) -> None:
    got = server.ask(request("/v2"))
    with server.connect() as client:
        client.send(request("/v2", method="HEAD") + LIVE)
        head = client.reply(without_body=True)
        assert (head.status, head.headers, head.body) == (200, got.headers, b"")
        assert client.reply().json == {"live": True}


@pytest.mark.parametrize(
    ("version", "line", "kept"),
    [
        ("1.1", "Accept: */*", None),
        ("1.1", "Connection: close", "close"),
        ("1.0", "Accept: */*", "close"),
        ("1.0", "Connection: keep-alive", "keep-alive"),
    ],
)
def test_a_connection_lasts_as_long_as_its_client_says(
    server: Server, version: str, line: str, kept: str | None
) -> None:
    with server.connect() as client:
        client.send(request("/v2/health/live", None, line, version=version))
        assert client.reply().headers.get("connection") == kept
        if kept == "close":
            assert client.ended()
        else:
            client.send(LIVE)
            assert client.reply().status == 200


def test_an_offer_of_another_protocol_is_not_taken_up(server: Server) -> None:
    with server.connect() as client:
        client.send(request("/v2/models/tiny/infer", INFER, "Connection: Upgrade", "Upgrade: h2c") + LIVE)
        assert client.reply().json["model_name"] == "tiny"
        assert client.reply().json == {"live": True}
    with server.connect() as client:
        client.send(b"GET /v2 HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert client.reply().status == 200
        assert client.ended()
    with server.connect() as client:
        client.send(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + LIVE)
        assert client.reply().status == 501
        assert client.ended()


@pytest.mark.parametrize("target", ["http://device/v2/health/live", "/v2/health/live?x=1", "/v2/health/%6Cive"])
def test_a_target_may_be_written_in_several_ways(server: Server, target: str) -> None:
    assert server.ask(request(target)).json == {"live": True}


HEAD = b"POST /v2 HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n"),
        (400, HEAD + b"Content-Length: 0, 44\r\n\r\n"),
        (400, HEAD + b"Content-Length: +0\r\n\r\n"),
        (400, HEAD + b"Content-Length: -1\r\n\r\n"),
        (400, HEAD + b"Content-Length: 0x0\r\n\r\n"),
        (400, HEAD + b"Content-Length:\r\n\r\n"),
        (400, HEAD + b"Content-Length: 99999999999999999999\r\n\r\n"),
        (400, HEAD + b"Content-Length : 0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        (501, HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"X: a\r\n b\r\n\r\n"),
        (400, HEAD + b"X: a\nY: b\r\n\r\n"),
        (400, HEAD + b"X: a\rY: b\r\n\r\n"),
        (400, HEAD + b"X: a\0b\r\n\r\n"),
        (400, HEAD + b"X y: a\r\n\r\n"),
        (400, HEAD + b": a\r\n\r\n"),
        (400, HEAD + b"\n"),
        (400, b"POST /v2 HTTP/1.1\nHost: a\n\n"),
        (400, b"POST /v2 HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, b"POST /v2 HTTP/1.1\r\n\r\n"),
        (400, HEAD + b"Host: b\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
        (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (505, b"GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, b"GET /v2\r\n\r\n"),
    ],
)
def test_what_two_parsers_could_read_differently_ends_the_connection(server: Server, status: int, data: bytes) -> None:
    with server.connect() as client:
        client.send(LIVE + data + LIVE)
        assert client.reply().json == {"live": True}
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert reply.json["error"]
        assert client.ended()


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (431, request("/v2", None, "X: " + "y" * 5000)),
        (431, request("/v2", None, *["X: y"] * 1000)),
        (431, request("/v2", None, *["X: y"] * 256)),  # with the `Host` that is there already
        (431, b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 200_000),
        (414, request("/" + "y" * 5000)),
        (414, b"GET /" + b"y" * 200_000),
        (413, request("/v2", b" " * 9000)),
        (413, with_chunks(chunked(*[b" " * 900] * 10))),
        (413, with_chunks(chunked(b"{}", trailers=b"X: " + b"y" * 200_000))),
        (413, with_chunks(b"1;" + b"y" * 200_000)),
    ],
)
def test_every_part_of_a_request_has_a_bound(server: Server, status: int, data: bytes) -> None:
    with server.connect() as client:
        client.send(data)
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.ended()


def test_a_client_that_sends_no_more_still_gets_its_answer(server: Server) -> None:
    with server.connect() as client:
        client.send(request(body=INFER) * 50)
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.reply().status for _ in range(50)] == [200] * 50
        assert client.ended()
    for part in (LIVE[:10], request(body=INFER)[:-1]):
        with server.connect() as client:
            client.send(part)
            client.socket.shutdown(socket.SHUT_WR)
            reply = client.reply()
            assert (reply.status, reply.json["error"]) == (400, "the request ended before it was whole")
            assert client.ended()


def test_a_slow_request_is_408_and_an_idle_connection_is_closed() -> None:
    with (
        running(request_timeout_s=0.3, idle_timeout_s=0.3) as server,
        server.connect() as slow,
        server.connect() as idle,
    ):
        idle.send(LIVE)
        slow.send(LIVE + request(body=INFER)[:-1])
        assert idle.reply().status == 200
        assert [slow.reply().status, slow.reply().status] == [200, 408]
        assert slow.ended()
        assert idle.ended()


def test_a_client_that_does_not_read_is_not_read_from_and_harms_nobody() -> None:
    with running(request_timeout_s=1) as server, server.connect() as greedy:
        greedy.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            greedy.send(request("/metrics") * 2_000_000)
        assert server.ask(request(body=INFER)).status == 200
        wait_until(lambda: server.app.traffic.open == 0, "its end")
        # What the kernel holds for a client that does not read, and no more.
        assert server.app.traffic.responses[200] < 20_000


def test_more_connections_than_allowed_are_503() -> None:
    with running(max_connections=2) as server, server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.send(LIVE)
            assert client.reply().status == 200
        with server.connect() as third:
            reply = third.reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert third.ended()
        first.send(LIVE)
        assert first.reply().status == 200


def test_more_requests_under_way_than_allowed_are_503() -> None:
    with running(max_concurrent=1) as server, server.connect() as first:
        first.send(request(body=INFER)[:-1])
        wait_until(lambda: server.app.traffic.busy == 1, "the first request")
        reply = server.ask(request(body=INFER))
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        first.send(INFER[-1:])
        assert first.reply().status == 200
        assert server.ask(request(body=INFER)).status == 200


def test_the_unix_socket_speaks_the_same(tmp_path: Path) -> None:
    with running(port="off", socket=str(tmp_path / "s")) as server, server.connect(unix=True) as client:
        client.send(request(body=INFER) * 2)
        assert client.reply() == client.reply()


def test_a_drained_server_finishes_what_is_under_way_and_says_that_it_is_not_ready() -> None:
    with (
        running(drain_timeout_s=10) as server,
        server.connect() as idle,
        server.connect() as under_way,
        server.connect() as probe,
    ):
        for client in (idle, under_way, probe):
            client.send(LIVE)
            client.reply()
        under_way.send(request(body=INFER)[:-1])
        probe.send(request("/v2/health/ready")[:-1])
        wait_until(lambda: server.app.traffic.busy == 1, "the request under way")
        server.stop()
        assert idle.ended()
        with pytest.raises(ConnectionRefusedError):
            server.ask(LIVE)
        probe.send(b"\n")
        reply = probe.reply()
        assert (reply.status, reply.json, reply.headers["connection"]) == (503, {"ready": False}, "close")
        under_way.send(INFER[-1:])
        reply = under_way.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert under_way.ended()


def test_a_drain_ends_in_time_whatever_a_client_does() -> None:
    with running(drain_timeout_s=0.1) as server, server.connect() as client:
        client.send(request(body=INFER)[:-1])
        wait_until(lambda: server.app.traffic.busy == 1, "the request under way")
        server.stop()
        assert client.ended()
