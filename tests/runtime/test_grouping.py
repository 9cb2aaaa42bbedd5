"""Requests that arrive together, answered by one call where the settings ask for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from edgekit_contracts.errors import BadInput
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.route import Member
from tests import bundles
from tests.brokers import wait_until
from tests.serving import Client, Reply, Server, request, running

AGES = (20.0, 30.5, 40.0, 80.0, 55.0, 61.0)


class Session:
    """ONNX Runtime's, that notes how many rows each call has, waits in the first one, and refuses an age."""

    def __init__(self) -> None:
        self.engine = Engine(bundles.model(), bundles.manifest())
        self.calls: list[int] = []
        self.goes_on = threading.Event()
        self.refused: float | None = None
        self.fault: Exception = BadInput("age", "is none")

    def run(self, names: Sequence[str], feed: Mapping[str, Any], /) -> Sequence[Any]:
        self.calls.append(len(feed["numbers"]))
        if len(self.calls) == 1:
            assert self.goes_on.wait(20)
        if self.refused in feed["numbers"][:, 0]:
            raise self.fault
        return list(self.engine._run(list(names), dict(feed)))


@contextmanager
def grouping(group_rows: int) -> Iterator[tuple[Session, Member, Server]]:
    session = Session()
    engine = Engine(b"", bundles.manifest(), session=session)
    member = Member(engine, Observer(engine.manifest, bundles.reference().bins), group_rows=group_rows)
    with running(member) as server:
        yield session, member, server


def asked(age: float, number: int, **parameters: Any) -> bytes:
    inputs = [
        {"name": "numbers", "shape": [1, 2], "datatype": "FP64", "data": [age, 22.0]},
        {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": ["f"]},
    ]
    return request(body=json.dumps({"id": str(number), "inputs": inputs, "parameters": parameters}).encode())


def together(session: Session, server: Server, requests: Sequence[bytes]) -> list[Reply]:
    """The replies to the first request, and to the others, which all came while it was answered."""
    with ExitStack() as stack:
        clients: list[Client] = [stack.enter_context(server.connect()) for _ in requests]
        clients[0].send(requests[0])
        wait_until(lambda: session.calls == [1], "the first call")
        for client, one in zip(clients[1:], requests[1:], strict=True):
            client.send(one)
        session.goes_on.set()
        return [client.reply() for client in clients]


def label(age: float) -> str:
    (answers,) = bundles.answers({"age": [age], "bmi": [22.0], "sex": ["f"]}).tolist()
    return "yes" if answers[1] > answers[0] else "no"


@pytest.mark.parametrize(("group_rows", "calls"), [(16, [1, 5]), (2, [1, 2, 2, 1]), (1, [1] * 6)])
def test_what_a_turn_brings_is_answered_in_calls_of_as_many_rows_as_are_allowed(
    group_rows: int, calls: list[int]
) -> None:
    with grouping(group_rows) as (session, member, server):
        replies = together(session, server, [asked(age, at) for at, age in enumerate(AGES)])
        assert session.calls == calls
        for at, (age, reply) in enumerate(zip(AGES, replies, strict=True)):
            assert (reply.status, reply.json["id"]) == (200, str(at))
            assert reply.json["outputs"][0]["data"] == [label(age)]
            expected = bundles.answers({"age": [age], "bmi": [22.0], "sex": ["f"]}).ravel().tolist()
            assert reply.json["outputs"][1]["data"] == pytest.approx(expected)
        window = member.observer.close()
        assert (window.n, window.body.software.calls) == (6, 6)


@pytest.mark.parametrize(
    ("fault", "status", "sentence"),
    [(BadInput("age", "is none"), 400, "feature 'age': is none"), (RuntimeError("is lost"), 500, "is lost")],
)
def test_of_a_group_that_fails_each_is_answered_by_itself(fault: Exception, status: int, sentence: str) -> None:
    with grouping(16) as (session, member, server):
        session.refused, session.fault = AGES[3], fault
        replies = together(session, server, [asked(age, at) for at, age in enumerate(AGES)])
        assert session.calls == [1, 5, 1, 1, 1, 1, 1]
        assert [reply.status for reply in replies] == [200, 200, 200, status, 200, 200]
        assert sentence in replies[3].json["error"]
        software = member.observer.close().body.software
        assert (software.calls, software.rejected, software.failed) == (5, int(status == 400), int(status == 500))


def test_one_of_a_group_that_is_too_late_does_not_keep_the_others_from_their_answers() -> None:
    with grouping(16) as (session, _, server):
        requests = [asked(age, at) for at, age in enumerate(AGES)]
        requests[2] = asked(AGES[2], 2, timeout=1)
        replies = together(session, server, requests)
        assert [reply.status for reply in replies] == [200, 200, 504, 200, 200, 200]


def test_a_request_that_is_alone_does_not_wait_for_others() -> None:
    with grouping(16) as (session, _, server):
        session.goes_on.set()
        for at, age in enumerate(AGES):
            assert server.ask(asked(age, at)).json["outputs"][0]["data"] == [label(age)]
        assert session.calls == [1] * 6
