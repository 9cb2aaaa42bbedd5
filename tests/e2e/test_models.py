"""A real service whose bundles are exchanged, tried and commanded while clients ask it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_contracts.manifest import Monitoring, Privacy
from edgekit_runtime.__main__ import main
from tests import bundles
from tests.brokers import wait_until
from tests.service import Service

BODY = json.dumps(
    {
        "inputs": [
            {"name": n, "shape": [len(c)], "datatype": "BYTES" if n == "sex" else "FP64", "data": c}
            for n, c in bundles.ROWS.items()
        ]
    }
)
EXPECTED = {
    version: bundles.answers(bundles.ROWS, weights).ravel()
    for version, weights in (("1.0", bundles.WEIGHTS), ("2.0", bundles.OTHER_WEIGHTS))
}


@pytest.fixture
def made(tmp_path: Path) -> bundles.Made:
    return bundles.make(tmp_path)


@pytest.fixture
def other(tmp_path: Path, made: bundles.Made) -> str:
    return str(bundles.make(tmp_path, version="2.0", weights=bundles.OTHER_WEIGHTS, key=made.key).path)


@pytest.fixture
def service(tmp_path: Path, made: bundles.Made) -> Iterator[Service]:
    service = Service(tmp_path, made)
    yield service
    service.close()


def command(service: Service, name: str, body: object = None) -> tuple[int, Any]:
    return service.call("POST", f"/edgekit/models/tiny/{name}", {} if body is None else body, unix=True)


class Clients:
    """Ask without a pause, and look at every answer."""

    def __init__(self, service: Service, count: int) -> None:
        self.faults: list[str] = []
        self.versions: dict[str, int] = {}
        self._done = threading.Event()
        self._port = service.port
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._done.is_set():
            connection.request("POST", "/v2/models/tiny/infer", BODY)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200:
                self.faults.append(str(answer))
                continue
            version = answer["model_version"]
            self.versions[version] = self.versions.get(version, 0) + 1
            if not np.allclose(answer["outputs"][1]["data"], EXPECTED[version]):
                self.faults.append(f"{version} with another's values")
        connection.close()


def test_bundles_are_exchanged_under_clients_without_an_error_or_a_mixed_answer(service: Service, other: str) -> None:
    service.start()
    assert command(service, "stage", {"bundle": other, "strategy": "blue-green"})[0] == 200
    with Clients(service, 3) as clients:
        assert command(service, "activate")[0] == 200
        for _ in range(15):
            assert command(service, "return")[0] == 200
            time.sleep(0.02)
        # Anew from the file, too.
        for bundle in (other, str(service.directory / "tiny-1.0.edge"), other):
            if command(service, "stage", {"bundle": bundle})[0] == 200:
                assert command(service, "promote")[0] == 200
    assert not clients.faults
    assert set(clients.versions) == {"1.0", "2.0"}


def test_commands_are_taken_on_the_socket_alone(service: Service, other: str) -> None:
    service.start()
    status, answer = service.call("POST", "/edgekit/models/tiny/stage", {"bundle": other})
    assert (status, answer["error"]) == (
        403,
        "commands are taken on the Unix socket alone (serve.socket in device.toml)",
    )
    assert service.call("GET", "/edgekit/models/tiny/stage", unix=True)[0] == 405
    assert service.call("POST", "/edgekit/models/huge/stage", {}, unix=True)[0] == 404
    assert command(service, "explode")[0] == 404
    assert command(service, "stage", {"bundle": "/none.edge"})[0] == 400
    status, answer = command(service, "activate")
    assert (status, answer["error"]) == (409, "there is no candidate beside tiny 1.0; stage one first")
    assert service.infer()[0] == 200


def test_a_bundle_of_a_stranger_is_not_staged(service: Service, tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    foreign = bundles.make(tmp_path / "stranger", version="2.0")
    service.start()
    status, answer = command(service, "stage", {"bundle": str(foreign.path)})
    assert status == 409
    assert "the signature of tiny-2.0.edge is refused" in answer["error"]


def test_a_return_outlives_a_crash(service: Service, other: str) -> None:
    service.start()
    command(service, "stage", {"bundle": other})
    command(service, "activate")
    assert service.infer()[1]["model_version"] == "2.0"
    command(service, "return")
    service.close()
    service.start()
    found = service.call("GET", "/edgekit/status")[1]["models"][0]
    assert (found["live"]["version"], found["former"]["version"]) == ("1.0", "2.0")
    assert service.infer()[1]["model_version"] == "1.0"


def test_a_shadow_sees_the_requests_and_a_canary_answers_its_keys(service: Service, other: str) -> None:
    service.start()
    command(service, "stage", {"bundle": other, "strategy": "shadow"})
    with Clients(service, 1) as clients:
        wait_until(lambda: _shadow(service)["agreement"]["rows"] > 100, "the shadow")
    assert not clients.faults
    assert set(clients.versions) == {"1.0"}
    found = _shadow(service)
    assert found["failed_rows"] == 0
    assert 0 <= found["agreement"]["low"] <= found["agreement"]["share"] <= found["agreement"]["high"] <= 1
    command(service, "stage", {"bundle": other, "strategy": "canary", "share": 0.5})
    versions = {}
    for key in range(40):
        body = json.loads(BODY) | {"parameters": {"edgekit_key": f"patient-{key}"}}
        first, second = (service.call("POST", "/v2/models/tiny/infer", body)[1] for _ in range(2))
        assert first == second
        versions[key] = first["model_version"]
        assert first["parameters"]["edgekit_served_by"] == ("canary" if versions[key] == "2.0" else "live")
    assert 8 <= list(versions.values()).count("2.0") <= 32
    path = "/v2/models/tiny/versions/2.0/infer"
    assert service.call("POST", path, json.loads(BODY))[1]["model_version"] == "2.0"


def _shadow(service: Service) -> Any:
    return service.call("GET", "/edgekit/status")[1]["models"][0]["candidate"]["shadow"]


def run(service: Service, *arguments: str) -> tuple[int, str, str]:
    """A command beside the service: exit code and words."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*arguments, "--config", str(service.config)])
    return code, out.getvalue(), err.getvalue()


def test_a_person_commands_from_the_shell(service: Service, other: str) -> None:
    code, _, err = run(service, "model", "activate")
    assert (code, "no service answers" in err) == (3, True)
    service.start()
    code, words, _ = run(service, "model", "show")
    assert (code, words.startswith("tiny (act)\n  live       1.0 ")) == (0, True)
    code, words, _ = run(service, "model", "stage", other, "--strategy", "canary", "--share", "0.25")
    assert (code, "canary, 25.0% of the keys" in words) == (0, True)
    code, words, _ = run(service, "model", "activate", "--json")
    assert (code, json.loads(words)["models"][0]["live"]["version"]) == (0, "2.0")
    assert run(service, "model", "return")[0] == 0
    assert service.infer()[1]["model_version"] == "1.0"
    code, _, err = run(service, "model", "drop")
    assert (code, "there is no candidate" in err) == (1, True)
    code, _, err = run(service, "model", "drop", "--model", "x")
    assert (code, "there is no model 'x'" in err) == (2, True)
    assert run(service, "model", "stage", "/none.edge")[0] == 2


def test_doubtful_answers_wait_for_a_person_who_answers_beside_the_service(tmp_path: Path) -> None:
    careful = bundles.make(
        tmp_path, monitoring=Monitoring(abstain_below=0.9), privacy=Privacy(raw_fields=("age",)), automation="advise"
    )
    service = Service(tmp_path, careful, broker="mqtt://127.0.0.1:1")  # nobody is there
    config = service.config.read_text().replace(f'bundle = "{careful.path}"\n', "")
    service.config.write_text(f'{config}[[models]]\nbundle = "{careful.path}"\nsafe_answer = "yes"\n')
    assert run(service, "review", "list")[:2] == (0, "")
    service.start()
    try:
        status, answer = service.call("POST", "/v2/models/tiny/infer", json.loads(BODY) | {"id": "part 7"})
        assert status == 200
        assert answer["outputs"][0]["data"] == ["yes", "no", "no", "no"]
        assert answer["parameters"] == {
            "edgekit_automation": "advise",
            "edgekit_abstain": True,
            "edgekit_abstain_rows": "0",
            "edgekit_served_by": "live",
        }
        wait_until(lambda: "said no" in run(service, "review", "list")[1], "the review queue")
        (item,) = json.loads(run(service, "review", "list", "--json")[1])["items"]
        assert (item["id"], item["fields"], item["request"]) == (1, {"age": 20.0}, "part 7")
        code, _, err = run(service, "review", "answer", "1", "perhaps")
        assert (code, "the model has no class 'perhaps'" in err, "Try:   use one of no, yes" in err) == (2, True, True)
        assert json.loads(run(service, "review", "answer", "1", "yes", "--json")[1])["item"]["label"] == "yes"
        assert run(service, "review", "list")[1] == ""
        assert run(service, "review", "export", "-o", str(tmp_path / "out.jsonl"))[0] == 0
        assert json.loads((tmp_path / "out.jsonl").read_text())["label"] == "yes"
        assert service.infer()[0] == 200
        assert service.stop() == 0
        assert "the centre does not hear of reviews" not in service.log
    finally:
        service.close()


def test_several_models_are_served_side_by_side(service: Service, made: bundles.Made, tmp_path: Path) -> None:
    pump = bundles.make(tmp_path, name="pump", version="7.0", weights=bundles.OTHER_WEIGHTS, key=made.key)
    config = service.config.read_text().replace(f'bundle = "{made.path}"\n', "")
    service.config.write_text(f'{config}[[models]]\nbundle = "{made.path}"\n[[models]]\nbundle = "{pump.path}"\n')
    service.start()
    assert "serving     tiny 1.0, pump 7.0 at " in service.log
    for name, weights in (("tiny", bundles.WEIGHTS), ("pump", bundles.OTHER_WEIGHTS)):
        status, answer = service.call("POST", f"/v2/models/{name}/infer", json.loads(BODY))
        assert (status, answer["model_name"]) == (200, name)
        np.testing.assert_allclose(answer["outputs"][1]["data"], bundles.answers(bundles.ROWS, weights).ravel())
