from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from copy import copy
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit_contracts.slots import Plan
from edgekit_runtime import observe
from edgekit_runtime.model import Model
from edgekit_runtime.observe import Observer
from edgekit_runtime.oversight.automation import Oversight
from edgekit_runtime.ring import WAITING
from edgekit_runtime.route import Member
from edgekit_runtime.served import Lineup, Served, Trial
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.message import Request
from edgekit_runtime.strategies.shadow import Shadow
from edgekit_runtime.strategies.waiting import Waiting
from tests.runtime.numeric_models import KINDS, bins_of, engine_of, rows


class Service:
    """One bundle behind the application, asked over the protocol."""

    def __init__(self, kind: str = "float64", *, version: str = "1.0", abstain_below: float | None = None) -> None:
        engine = copy(engine_of(kind))
        monitoring = msgspec.structs.replace(engine.manifest.monitoring, abstain_below=abstain_below)
        self.manifest = msgspec.structs.replace(engine.manifest, version=version, monitoring=monitoring)
        engine.manifest = self.manifest
        self.observer = Observer(self.manifest, bins_of(engine))
        self.member = Member(engine, self.observer, Oversight(self.manifest))
        self.member.single.learn(engine, engine.encode_tensors({"numbers": rows(1)}))
        self.served = Served(Lineup(self.member))
        self.app = App({"tiny": self.served}, dict)

    def answer(self, body: bytes, headers: dict[bytes, bytes]) -> Any:
        return self.app.answer(Request("POST", b"/v2/models/tiny/infer", headers, body, time.perf_counter()))

    def ask(self, row: Any, **more: Any) -> tuple[int, Any]:
        tensor = {"name": "numbers", "shape": [1, 3], "datatype": "FP64", "data": list(row)}
        body = json.dumps({"inputs": [tensor], **more}).encode()
        response = self.answer(body, {})
        return response.status, json.loads(response.body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_comes_alone_has_the_answer_of_the_usual_way_to_the_byte_and_is_counted_like_it(kind: str) -> None:
    service, usual = Service(kind), Service(kind)
    usual.member.single.close()
    names = [{"name": output.name} for output in service.manifest.outputs]
    service.ask(rows(1)[0])
    usual.ask(rows(1)[0])
    assert (service.member.single.ready, usual.member.single.ready) == (True, False)
    row, *others = rows(WAITING + 40, seed=1).tolist()
    for one in (row, *others):
        assert service.ask(one) == usual.ask(one)
    assert service.ask(row, outputs=names, id="7") == usual.ask(row, outputs=names, id="7")
    assert service.ask(row, outputs=[{"name": "none"}]) == usual.ask(row, outputs=[{"name": "none"}])
    # A missing value: a transformation's answer, and no answer of the others.
    assert service.ask([0.5, None, 1]) == usual.ask([0.5, None, 1])
    seen, right = service.observer.close(), usual.observer.close()
    assert (seen.n, seen.body.software.calls) == (right.n, right.body.software.calls)
    assert seen.n >= 1 + WAITING + 40
    assert (seen.counts.features, seen.counts.scores) == (right.counts.features, right.counts.scores)
    assert seen.counts.classes == right.counts.classes
    moments, expected = (np.frombuffer(one.body.moments, "<f4") for one in (seen, right))
    np.testing.assert_allclose(moments, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16"])
def test_a_row_in_bytes_has_the_answer_of_the_usual_way_to_the_byte(kind: str, datatype: str) -> None:
    service, usual = Service(kind), Service(kind)
    usual.member.single.close()
    dtype = {"FP64": "<f8", "FP32": "<f4", "FP16": "<f2"}[datatype]
    named = [{"name": output.name, "parameters": {"binary_data": True}} for output in service.manifest.outputs]
    for at, row in enumerate(rows(6)):
        data = row.astype(dtype).tobytes() + b"?" * (at == 5)
        size = {"binary_data_size": 3 * np.dtype(dtype).itemsize}
        tensor = {"name": "numbers", "shape": [1, 3], "datatype": datatype, "parameters": size}
        more = {"outputs": named} if at % 2 else {"parameters": {"binary_data_output": at > 1}}
        head = json.dumps({"inputs": [tensor], **more}).encode()
        headers = {b"inference-header-content-length": b"%d" % len(head)}
        answer = service.answer(head + data, headers)
        assert answer == usual.answer(head + data, headers)
        assert answer.status == (400 if at == 5 else 200)
    assert service.member.single.ready
    assert service.observer.close().n == usual.observer.close().n == 5


def test_what_is_wrong_with_a_row_is_said_as_in_the_usual_way_and_counted_as_refused() -> None:
    service, usual = Service(), Service()
    service.ask([1, 2, 3])
    service.observer.close()
    for bad in ([None, 1, 1], [1e300, 1, 1], ["x", 1, 1], [1, 1], [10**400, 1, 1], [True, 1, 1], []):
        assert service.ask(bad) == usual.ask(bad)
    assert service.observer.close().body.software.rejected == usual.observer.close().body.software.rejected == 7
    assert service.ask([1, 2, 3])[0] == 200


def test_a_request_that_comes_twice_is_counted_as_resent() -> None:
    service = Service()
    for row in (*rows(3), *rows(3)):
        service.ask(row)
    window = service.observer.close()
    assert (window.body.software.calls, window.counts.resent) == (6, 3)


def test_a_doubtful_row_is_marked_and_the_others_are_not() -> None:
    service = Service(abstain_below=0.8)
    service.ask([9, 9, 9])
    marked = []
    for row in rows(200):
        status, answer = service.ask(row)
        confidence = max(next(one["data"] for one in answer["outputs"] if one["name"] == "probabilities"))
        assert (status, answer["parameters"]["edgekit_abstain"]) == (200, confidence < 0.8)
        marked.append(confidence < 0.8)
    window = service.observer.close()
    assert 0 < sum(marked) < 200
    assert (window.n, window.counts.abstained) == (201, sum(marked))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shadow_is_shown_a_row_that_comes_alone_as_a_row_of_a_request(kind: str) -> None:
    service = Service(kind)
    engine, alone, together = service.member.engine, Waiting(service.manifest), Waiting(service.manifest)
    given = engine.encode_tensors({"numbers": rows(5)})
    said = engine.run(given)
    assert together.put(given, said, 5) == 5
    for at, row in enumerate(rows(5)):
        held = service.member.single.hold(row, 0)
        assert held is not None
        assert held[0] == said.row(at)
        assert alone.put_row(row, held[0])
    (found, answers), (right, expected) = alone.part(0, 5), together.part(0, 5)
    np.testing.assert_array_equal(np.asarray(found.numbers), np.asarray(right.numbers))
    for one, other in ((answers.labels, expected.labels), (answers.values, expected.values)):
        assert (one is None) == (other is None)
        assert one is None or other is None or (one.tolist(), one.dtype) == (other.tolist(), other.dtype)


def test_a_shadow_sees_every_row_and_its_end_lets_rows_go_the_short_way_again() -> None:
    service, other = Service(), Service(version="2.0")
    service.ask([1, 2, 3])
    shadow = Shadow(service.manifest, other.member, Plan(cpu_share=1.0))
    shadow.start()
    service.served.stage(Trial(other.member, Plan(strategy="shadow"), shadow))
    for row in rows(50):
        service.ask(row)
    service.served.drop()
    shadow.stop()
    assert shadow.counts.rows + shadow.counts.skipped == 50
    assert service.member.single.ready
    service.ask([1, 2, 3])
    assert service.observer.close().n == 52


@pytest.mark.parametrize("kind", ["float64", "float32", "text", "bool", "regression", "huge"])
def test_rows_of_several_threads_and_of_batches_between_are_counted_once_while_windows_close(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "BLOCK_NUMBERS", 23 * 50)  # blocks of 50 rows
    engine, plain = engine_of(kind), Observer(engine_of(kind).manifest, bins_of(engine_of(kind)))
    model = Model(engine, Observer(engine.manifest, bins_of(engine)))
    assert model.observer is not None
    assert model.observer.block_rows == 50
    parts = [rows(500, seed) for seed in range(4)]

    def work(part: Any) -> None:
        for at, row in enumerate(part):
            model.predict(row if at % 7 else row[None])

    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    windows = []
    while any(thread.is_alive() for thread in threads):
        windows.append(model.observer.close())
        time.sleep(0.001)
    windows.append(model.observer.close())
    together = Model(engine, plain)
    together.predict(np.concatenate(parts))
    right = plain.close()
    assert sum(window.n for window in windows) == sum(window.body.software.calls for window in windows) == right.n
    for name in ("features", "classes", "scores"):
        found = sum(flat(getattr(window.counts, name)) for window in windows)
        np.testing.assert_array_equal(found, flat(getattr(right.counts, name)))


def flat(counts: Any) -> Any:
    """Numbers of a window, in one array."""
    return np.array(
        [[*one.bins, one.null, one.invalid, one.out_of_range] if hasattr(one, "bins") else one for one in counts]
    )


def test_a_ring_that_is_closed_has_counted_its_rows_and_holds_no_memory() -> None:
    service = Service()
    for row in rows(WAITING + 5):
        service.ask(row)
    ring = weakref.ref(service.member.single._ring)
    gc.disable()
    try:
        service.member.single.close()
        assert ring() is None
    finally:
        gc.enable()
    assert service.ask([1, 2, 3])[0] == 200
    assert not service.member.single.ready
    assert service.observer.close().n == WAITING + 6
