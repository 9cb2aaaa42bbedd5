"""Requests that are wrong in every way we know, from a seed; each with the statuses that are right for it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.serving import INFER, request

BAD: Final = frozenset({400})
End = Literal["read", "shut", "reset"]
"""What the client does when it has sent all: read the answer; say that it sends no more; break the connection off."""


@dataclass(frozen=True)
class Attack:
    """One client that does wrong."""

    kind: str
    data: bytes
    statuses: frozenset[int]
    """Right answers; empty where none can arrive."""
    end: End = "read"


def infer(body: bytes, *lines: str) -> bytes:
    return request("/v2/models/tiny/infer", body, *lines)


def changed(chance: random.Random) -> Any:
    """A good request's JSON with one thing in it that is wrong."""
    value = json.loads(INFER)
    tensor = chance.choice(value["inputs"][:2])  # a number's
    wrong: list[Callable[[], Any]] = [
        lambda: tensor.update(data=[chance.choice(["x", True, {}, [[]], "1"])]),
        lambda: tensor.update(data=chance.choice([None, 1, "1", {}, [[1], [2]]])),
        lambda: tensor.update(data=[1.0] * chance.choice([0, 2, 50])),
        lambda: tensor.update(shape=chance.choice([[], [2], [1, 1, 1], [-1], [0], ["1"], 1, [1.5]])),
        lambda: tensor.update(
            datatype=chance.choice(["FP128", "", 64, None, "BYTES", "BOOL", "UINT8"]), data=["\u2400"]
        ),
        lambda: tensor.update(name=chance.choice(["", "numbers", "\u0000", "x" * 5000, 7, None])),
        lambda: tensor.update(parameters={"binary_data_size": chance.choice([8, -1, 2**63, "8", True])}),
        lambda: tensor.pop(chance.choice(["name", "shape", "datatype", "data"])),
        lambda: value["inputs"].pop(),
        lambda: value["inputs"].append(chance.choice(value["inputs"])),
        lambda: value.update(inputs=chance.choice([[], {}, None, 1, "x", [None], [[]]])),
        lambda: value.update(outputs=[{"name": chance.choice(["x", "", "label\u0000"])}]),
        lambda: value.update(outputs=[{"name": "label"}] * chance.choice([2, 500])),
        lambda: value.update(id=chance.choice([1, {}, [], True])),
        lambda: value.update(parameters=chance.choice([1, [], "x"])),
    ]
    chance.choice(wrong)()
    return value


def bad_json(chance: random.Random) -> Attack:
    bodies: list[Callable[[], bytes]] = [
        lambda: INFER[: chance.randrange(len(INFER) - 1)],
        lambda: chance.randbytes(chance.randrange(1, 2000)),
        lambda: b"[" * chance.randrange(1, 60_000),
        lambda: INFER.replace(b"20", chance.choice([b"NaN", b"1e999", b"+1", b"01", b"0x1", b"1" * 500, b"\xff"])),
        lambda: INFER + chance.choice([b"}", b"x", INFER]),
        lambda: INFER.replace(b"age", b"\xc3\x28"),
        lambda: b'{"inputs":' + b'[{"a":' * chance.randrange(50, 5000),
    ]
    return Attack("bad JSON", infer(chance.choice(bodies)()), BAD)


def wrong_content(chance: random.Random) -> Attack:
    return Attack("wrong shapes and types", infer(json.dumps(changed(chance)).encode()), BAD)


def wrong_bytes(chance: random.Random) -> Attack:
    size = chance.choice(
        ["x", "-1", "999999", "1e2", "0x10", "", str(len(INFER) + 1), str(chance.randrange(len(INFER) - 1))]
    )
    return Attack("binary that does not add up", infer(INFER, f"Inference-Header-Content-Length: {size}"), BAD)


def wrong_place(chance: random.Random) -> Attack:
    status, data = chance.choice(
        [
            (404, request("/" + "x" * chance.randrange(1, 3000))),
            (404, request("/v2/models/%00/infer", INFER)),
            (404, request("/v2/models/tiny/versions/9/infer", INFER)),
            (404, request("/v2/models/../../etc/passwd")),
            (405, request("/v2/models/tiny/infer")),
            (405, request("/v2", method=chance.choice(["DELETE", "PUT", "OPTIONS", "TRACE", "PATCH"]))),
            (415, infer(INFER, "Content-Type: text/xml")),
            (415, infer(INFER, "Content-Encoding: gzip")),
            (417, infer(INFER, "Expect: more")),
            (501, request("/v2", method="CONNECT")),
            (505, b"GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n"),
        ]
    )
    return Attack("wrong place, method or type", data, frozenset({status}))


def huge(chance: random.Random) -> Attack:
    rows = json.dumps({"inputs": [{"name": "age", "shape": [10**9], "datatype": "FP64", "data": [1]}]}).encode()
    statuses, data = chance.choice(
        [
            ({413}, request("/v2/models/tiny/infer", None, "Content-Length: 9000000000", method="POST")),
            (
                {413},
                request("/v2/models/tiny/infer", None, "Transfer-Encoding: chunked", method="POST")
                + b"ffffff\r\n"
                + b" " * 70_000,
            ),
            ({413}, infer(rows)),
            ({431}, request("/v2", None, "X: " + "y" * chance.randrange(20_000, 90_000))),
            ({431}, request("/v2", None, *["X: y"] * chance.randrange(4000, 9000))),
            ({414}, request("/" + "y" * chance.randrange(5000, 90_000))),
            ({400, 413}, infer(b" " * chance.randrange(40_000, 90_000))),
        ]
    )
    return Attack("huge", data, frozenset(statuses))


def smuggled(chance: random.Random) -> Attack:
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\n"
    hidden = request("/v2/models/tiny/infer", INFER)
    tail = chance.choice(
        [
            b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(hidden),
            b"Content-Length: 0,%d\r\n\r\n" % len(hidden),
            b"Content-Length: +0\r\n\r\n",
            b"Content-Length : 0\r\n\r\n",
            b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
            b"X: a\nContent-Length: 9\r\n\r\n",
            b"X: a\rContent-Length: 9\r\n\r\n",
            b"X: a\0b\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
            b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
            b"Host: b\r\nContent-Length: 0\r\n\r\n",
        ]
    )
    return Attack("smuggling", head + tail + hidden, frozenset({400, 501}))


def noise(chance: random.Random) -> Attack:
    return Attack("no HTTP at all", b"\x16\x03" + chance.randbytes(chance.randrange(1, 4000)), BAD)


def half_closed(chance: random.Random) -> Attack:
    whole = infer(INFER)
    return Attack("half-closed", whole[: chance.randrange(1, len(whole) - 1)], BAD, "shut")


def broken_off(chance: random.Random) -> Attack:
    whole = infer(INFER) * chance.randrange(1, 20)
    return Attack("broken off", whole[: chance.randrange(1, len(whole))], frozenset(), "reset")


def slow(chance: random.Random) -> Attack:
    whole = infer(INFER)
    return Attack("slow", whole[: chance.randrange(1, len(whole) - 1)], frozenset({408}))


QUICK: Final = (
    *(bad_json, wrong_content, wrong_content, wrong_bytes, wrong_place, huge),
    *(smuggled, smuggled, noise, half_closed, broken_off),
)


def attacks(count: int, *, seed: int, slow_share: float) -> Iterator[Attack]:
    """So many of them; a share is slow, and takes as long as the server allows a request."""
    chance = random.Random(seed)
    for _ in range(count):
        yield slow(chance) if chance.random() < slow_share else chance.choice(QUICK)(chance)


async def answer(port: int, attack: Attack) -> int | None:
    """The status of the first answer; None where the connection ended without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(attack.data)
        if attack.end == "shut":
            writer.write_eof()
        if attack.end == "reset":
            opened: socket.socket = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return None
        line = await asyncio.wait_for(reader.readline(), 60)
        return int(line.split(b" ")[1]) if line.startswith(b"HTTP/1.1 ") else None
    except ConnectionError:
        return None
    finally:
        writer.transport.abort()


async def assault(port: int, planned: Iterator[Attack], clients: int) -> list[str]:
    """Carries the attacks out, some at a time; what was answered wrongly, in words."""
    wrong: list[str] = []

    async def client() -> None:
        for attack in planned:
            status = await answer(port, attack)
            if attack.end != "reset" and status not in attack.statuses:
                wrong.append(f"{attack.kind}: {status} for {attack.data[:300]!r} ... {attack.data[-100:]!r}")

    await asyncio.gather(*(client() for _ in range(clients)))
    return wrong
