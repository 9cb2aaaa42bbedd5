from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.config import Serve
from edgekit_runtime.engine import Answers, Batch, Engine
from edgekit_runtime.ring import PLACES
from edgekit_runtime.serving import oip
from edgekit_runtime.serving.message import Request, Response
from tests.runtime.numeric_models import rows
from tests.runtime.test_serving import Client
from tests.runtime.test_single import Service
from tests.serving import INFER, request, running

LONG_AGO_S = 1000.0


def ask(client: Client, *, waited_s: float = 0.0, arriving_s: float = 0.0, **parameters: Any) -> Response:
    """Asks with a request that came in slowly, and was whole so long ago."""
    body = json.dumps({**json.loads(INFER), "parameters": parameters}).encode()
    whole = time.perf_counter() - waited_s
    return client.app.answer(
        Request("POST", b"/v2/models/tiny/infer", {}, body, whole - arriving_s, False, whole if arriving_s else None)
    )


def words(response: Response) -> str:
    return str(json.loads(response.body)["error"])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of a model had."""
    made: list[int] = []
    usual = Engine.run

    def run(engine: Engine, batch: Batch) -> Answers:
        made.append(batch.rows)
        return usual(engine, batch)

    monkeypatch.setattr(Engine, "run", run)
    return made


def test_a_request_that_waited_beyond_the_deadline_is_504_and_never_computed(runs: list[int]) -> None:
    client = Client(Serve(deadline_s=LONG_AGO_S / 2))
    late = ask(client, waited_s=LONG_AGO_S)
    assert (late.status, runs) == (504, [])
    assert words(late).startswith("no answer within 500 s: the request waited 1e+03 s; ask again")
    assert ask(client).status == 200
    window = client.observer.close()
    assert window is not None
    assert (window.n, window.body.software.calls, window.body.software.failed) == (1, 1, 1)
    metrics = client.answer("GET", "/metrics").body.decode()
    assert 'edgekit_requests_total{model="tiny",version="1.0",code="504"} 1.0' in metrics


def test_a_sender_s_own_slowness_is_not_held_against_the_answer() -> None:
    assert ask(Client(Serve(deadline_s=LONG_AGO_S / 2)), arriving_s=LONG_AGO_S).status == 200


def test_a_client_may_allow_less_and_not_more() -> None:
    free, bound = Client(), Client(Serve(deadline_s=LONG_AGO_S / 2))
    assert [ask(free, waited_s=LONG_AGO_S, timeout=given).status for given in (0, 10**15, 1)] == [200, 200, 504]
    assert [ask(bound, waited_s=LONG_AGO_S, timeout=given).status for given in (0, 10**15, 1)] == [504] * 3
    assert "within 1e-06 s" in words(ask(bound, timeout=1))


@pytest.mark.parametrize("given", [-1, 0.5, "1000", True, 10**40, 10**400])
def test_a_timeout_that_is_no_number_of_microseconds_is_400(given: object) -> None:
    refused = ask(Client(), timeout=given)
    assert (refused.status, "'timeout' is not a whole number of microseconds" in words(refused)) == (400, True)


def test_an_answer_that_the_model_took_too_long_for_is_504_and_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    client, usual = Client(Serve(deadline_s=1.0)), Engine.run

    def slow(engine: Engine, batch: Batch) -> Answers:
        end = time.perf_counter() + 1.0
        while time.perf_counter() <= end:
            time.sleep(0.05)
        return usual(engine, batch)

    monkeypatch.setattr(Engine, "run", slow)
    late = ask(client)
    assert (late.status, "no answer within 1 s: the answer took 1" in words(late)) == (504, True)
    window = client.observer.close()
    assert window is not None
    assert (window.n, window.body.software.failed) == (0, 1)


def test_rows_that_come_alone_too_late_are_not_counted_and_their_places_are_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, usual = Service(), oip.encode_row
    service.ask([1, 2, 3])
    assert service.member.single.ready

    def slow(*given: Any) -> tuple[bytes, int | None]:
        time.sleep(0.002)
        return usual(*given)

    monkeypatch.setattr(oip, "encode_row", slow)
    found = [service.ask(row, parameters={"timeout": 2000})[0] for row in rows(3 * PLACES).tolist()]
    assert found == [504] * (3 * PLACES)
    assert service.ask([1, 2, 3])[0] == 200
    window = service.observer.close()
    assert (window.n, window.body.software.failed) == (2, 3 * PLACES)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "socket"])
def test_behind_a_504_the_connection_goes_on(tmp_path: Path, unix: bool) -> None:
    hurried = json.dumps({**json.loads(INFER), "parameters": {"timeout": 1}}).encode()
    with running(socket=str(tmp_path / "s")) as server, server.connect(unix=unix) as client:
        client.send(request(body=hurried) + request(body=INFER))
        assert [client.reply().status, client.reply().status] == [504, 200]


def test_time_spent_on_other_connections_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, usual = threading.Semaphore(0), threading.Semaphore(0), Engine.run

    def gated(engine: Engine, batch: Batch) -> Answers:
        begun.release()
        assert go_on.acquire(timeout=60)
        return usual(engine, batch)

    monkeypatch.setattr(Engine, "run", gated)
    live = request("/v2/health/live")
    with running(deadline_s=0.2) as server, server.connect() as a, server.connect() as b, server.connect() as c:
        for client in (a, b, c):
            client.send(live)
            assert client.reply().status == 200
        a.send(request(body=INFER))
        assert begun.acquire(timeout=60)
        for client in (b, c):  # both lie in the system's buffers when the loop comes round
            client.send(request(body=INFER))
        go_on.release()
        assert begun.acquire(timeout=60)
        time.sleep(0.3)
        go_on.release()
        # One of them was computed, for nothing; the other was read only then, and not computed any more.
        found = sorted(str(client.reply().json["error"]) for client in (b, c))
        assert ["the answer took" in found[0], "the request waited" in found[1]] == [True, True]
        assert not begun.acquire(blocking=False)
