from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from edgekit_contracts.counts import decode_counts
from edgekit_contracts.errors import BadInput
from edgekit_contracts.limits import REQUEST_MAX_BYTES
from edgekit_runtime.config import Serve
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.oversight.automation import Oversight
from edgekit_runtime.route import Member
from edgekit_runtime.served import Lineup, Served
from edgekit_runtime.serving import binary
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.message import Request, Response
from tests import bundles


class Client:
    """Asks the application, without a socket."""

    def __init__(self, settings: Serve | None = None) -> None:
        self.observer = Observer(bundles.manifest(), bundles.reference().bins)
        served = Served(Lineup(Member(Engine(bundles.model(), bundles.manifest()), self.observer)))
        self.app = App({"tiny": served}, lambda: {"device": "d"}, settings)

    def answer(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        lines = {name.encode(): value.encode() for name, value in (headers or {}).items()}
        return self.app.answer(Request(method, path.encode(), lines, body, time.perf_counter()))

    def call(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, Any]:
        response = self.answer(method, path, body, headers)
        assert response.content_type == b"application/json"
        return response.status, json.loads(response.body)

    def binary(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        """Status, the JSON, and the bytes behind it."""
        response = self.answer("POST", path, body, headers)
        assert response.content_type == b"application/octet-stream"
        name, _, size = response.headers.removesuffix(b"\r\n").partition(b": ")
        assert name == binary.HEADER
        return response.status, json.loads(response.body[: int(size)]), response.body[int(size) :]

    def infer(self, inputs: Any, **more: Any) -> tuple[int, Any]:
        return self.call("POST", "/v2/models/tiny/infer", json.dumps({"inputs": inputs, **more}).encode())


@pytest.fixture
def client() -> Client:
    return Client()


def columns() -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [4], "datatype": "BYTES" if name == "sex" else "FP64", "data": column}
        for name, column in bundles.ROWS.items()
    ]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/1.0/ready", {"name": "tiny", "ready": True}),
        ("/edgekit/status", {"device": "d"}),
    ],
)
def test_the_protocol_s_paths_answer(client: Client, path: str, answer: Any) -> None:
    assert client.call("GET", path) == (200, answer)


def test_the_metadata_names_tensors_and_columns(client: Client) -> None:
    status, server = client.call("GET", "/v2")
    assert (status, server["name"]) == (200, "edgekit-runtime")
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1.0"):
        status, model = client.call("GET", path)
        assert status == 200
        assert model["inputs"] == [
            {
                "name": "numbers",
                "datatype": "FP64",
                "shape": [-1, 2],
                "parameters": {"columns": ["age", "bmi"], "units": {"age": "a"}},
            },
            {"name": "text", "datatype": "BYTES", "shape": [-1, 1], "parameters": {"columns": ["sex"]}},
        ]
        assert model["outputs"] == [
            {"name": "label", "datatype": "BYTES", "shape": [-1], "parameters": {"classes": ["no", "yes"]}},
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2], "parameters": {"classes": ["no", "yes"]}},
        ]


def test_features_and_tensors_flat_and_nested_give_the_same_answers(client: Client) -> None:
    numbers: list[list[Any]] = [[20, 22.0], [30.5, None], [40, 31.5], [80, 40.0]]
    text = {"name": "text", "shape": [4, 1], "datatype": "BYTES", "data": ["f", "m", None, "x"]}
    nested: list[dict[str, Any]] = [{"name": "numbers", "shape": [4, 2], "datatype": "FP64", "data": numbers}, text]
    flat = [{**nested[0], "data": [number for pair in numbers for number in pair]}, text]
    status, by_feature = client.infer(columns(), id="42")
    assert status == 200
    assert by_feature["id"] == "42"
    assert (by_feature["model_name"], by_feature["model_version"]) == ("tiny", "1.0")
    label, probabilities = by_feature["outputs"]
    assert (label["datatype"], label["shape"]) == ("BYTES", [4])
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP64", [4, 2])
    assert probabilities["data"] == pytest.approx(bundles.answers(bundles.ROWS).ravel().tolist())
    for inputs in (nested, flat):
        assert client.infer(inputs)[1]["outputs"] == by_feature["outputs"]


def test_what_mlserver_s_client_leaves_null_is_left_out(client: Client) -> None:
    inputs = [tensor | {"parameters": None} for tensor in columns()]
    asked = client.infer(inputs, id=None, parameters=None, outputs=[{"name": "label", "parameters": None}])
    assert asked == client.infer(columns(), outputs=[{"name": "label"}])
    assert asked[0] == 200
    status, answer = client.infer(columns(), parameters=[])
    assert (status, "at $.parameters: expected `object" in answer["error"]) == (400, True)


def test_the_unit_that_a_feature_s_tensor_says_is_checked(client: Client) -> None:
    tensors = columns()
    tensors[0]["parameters"] = {"unit": "a"}
    assert client.infer(tensors)[0] == 200
    tensors[0]["parameters"] = {"unit": "months"}
    sentence = "feature 'age': is in 'months', and the model takes a; convert it to a"
    assert client.infer(tensors) == (400, {"error": sentence})


def test_a_tensor_of_a_name_that_is_none_is_named(client: Client) -> None:
    tensor = {"name": "input-0", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}
    sentence = "the model has no tensor or feature 'input-0'; send numbers, text, or each feature"
    assert client.infer([tensor]) == (400, {"error": sentence})


def test_only_the_outputs_that_are_asked_for_come(client: Client) -> None:
    _, answer = client.infer(columns(), outputs=[{"name": "label"}])
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert client.infer(columns(), outputs=[{"name": "x"}]) == (
        400,
        {"error": "the model has no output 'x'; ask for label, probabilities"},
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": ["a", 1, 1, 1]}, "is no FP64"),
        ({"data": [1, 2, 3]}, "3 values do not fill the shape [4]"),
        ({"shape": [2, 2]}, "a feature's tensor has [rows] or [rows, 1]"),
        ({"datatype": "FP128"}, "datatype 'FP128' is none of the protocol's"),
        ({"name": "shoe"}, "the request lacks 'age'"),
        ({"name": "bmi"}, "two input tensors have the same name"),
        ({"data": [None, 1, 1, 1]}, "feature 'age': is missing"),
        ({"data": [[1], [2], 3, [4]], "shape": [4, 1]}, "not nested like its shape"),
        ({"data": [[1, 2], [3], [4], []], "shape": [4, 1]}, "not nested like its shape"),
        ({"datatype": "INT8", "data": [1, 2, 3, 300]}, "300 is no INT8"),
        ({"datatype": "UINT8", "data": [1, 2, 3.5, 4]}, "3.5 is no UINT8"),
        ({"datatype": "BOOL", "data": [1, 0, 1, 0]}, "1 is no BOOL"),
        ({"data": [True, 1, 1, 1]}, "true is no FP64"),
        ({"shape": [-4]}, "do not fill the shape [-4]"),
        ({"data": "abcd"}, "request is not valid at $.inputs[0].data"),
    ],
)
def test_a_wrong_request_is_400_with_the_reason(client: Client, change: dict[str, Any], sentence: str) -> None:
    inputs = columns()
    inputs[0] |= change
    status, answer = client.infer(inputs)
    assert status == 400
    assert sentence in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b'{"inputs": []}', b'{"inputs": 3}'])
def test_garbage_is_400_and_counted(client: Client, body: bytes) -> None:
    assert client.call("POST", "/v2/models/tiny/infer", body)[0] == 400
    assert client.observer.close().body.software.rejected == 1


def test_a_request_that_is_too_large_is_413_before_it_is_parsed(client: Client) -> None:
    assert client.call("POST", "/v2/models/tiny/infer", b" " * (REQUEST_MAX_BYTES + 1))[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/tiny/versions/9.9", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/tiny/infer", 405),
        ("POST", "/v2/health/live", 405),
    ],
)
def test_a_wrong_path_or_method_says_so(client: Client, method: str, path: str, status: int) -> None:
    found, answer = client.call(method, path)
    assert found == status
    assert answer["error"]


NUMBERS = np.array([[20, 22.0], [30.5, np.nan], [40, 31.5], [80, 40.0]])
TEXT = ["f", "m", "\u2400", "x"]
IN_BYTES = b"".join(len(one.encode()).to_bytes(4, "little") + one.encode() for one in TEXT)


def binary_request(**more: Any) -> tuple[bytes, dict[str, str]]:
    """The rows of `columns`, numbers and text as bytes."""
    inputs = [
        {"name": "numbers", "shape": [4, 2], "datatype": "FP64", "parameters": {"binary_data_size": NUMBERS.nbytes}},
        {"name": "text", "shape": [4, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(IN_BYTES)}},
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + NUMBERS.tobytes() + IN_BYTES, {"inference-header-content-length": str(len(head))}


def test_binary_tensors_are_answered_like_json(client: Client) -> None:
    body, headers = binary_request()
    assert client.call("POST", "/v2/models/tiny/infer", body, headers) == client.infer(columns())


def test_binary_outputs_come_as_they_were_asked_for(client: Client) -> None:
    expected = client.infer(columns())[1]["outputs"]
    body, headers = binary_request(
        parameters={"binary_data_output": True},
        outputs=[{"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": False}}],
    )
    status, text, behind = client.binary("/v2/models/tiny/infer", body, headers)
    assert status == 200
    label, probabilities = text["outputs"]
    assert probabilities == expected[1]
    assert label["parameters"] == {"binary_data_size": len(behind)}
    assert "data" not in label
    labels = [one.encode() for one in expected[0]["data"]]
    assert behind == b"".join(len(one).to_bytes(4, "little") + one for one in labels)


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "FP32", "FP64", "INT8", "INT64", "UINT16", "BYTES"])
def test_what_is_written_in_binary_is_read_again(datatype: str) -> None:
    array = np.array(["", "ü"], dtype=object) if datatype == "BYTES" else np.array([0, 1])
    data = memoryview(binary.encode(array, datatype))
    found = binary.decode("x", datatype, (2, 1), data)
    assert found.shape == (2, 1)
    assert found.ravel().tolist() == array.tolist()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "sentence"),
    [
        ("FP64", (2,), b"12345678", "8 bytes do not fill the shape"),
        ("FP64", (-1,), b"", "0 bytes do not fill the shape"),
        ("FP64", (2**40,), b"", "0 bytes do not fill the shape"),
        ("BYTES", (2**40,), b"", "0 bytes do not fill the shape"),
        ("BYTES", (1,), b"\x05\0\0\0ab", "end inside of a text"),
        ("BYTES", (1,), b"\x01\0\0\0\xff", "not UTF-8"),
        ("BYTES", (1,), b"\0\0\0\0z", "1 bytes are left"),
        ("BOOL", (1,), b"\x02", "neither 0 nor 1"),
        ("BF16", (1,), b"ab", "none of the protocol's"),
    ],
)
def test_bytes_that_are_no_such_tensor_are_refused(
    datatype: str, shape: tuple[int, ...], data: bytes, sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        binary.decode("x", datatype, shape, memoryview(data))


@pytest.mark.parametrize(
    ("header", "change", "sentence"),
    [
        ("x", {}, "does not fit a body"),
        ("99999999999999", {}, "does not fit a body"),
        (None, {"binary_data_size": 7}, "7 bytes do not fill"),
        (None, {"binary_data_size": 10**9}, "does not fit the request's body"),
        (None, {"binary_data_size": True}, "does not fit the request's body"),
        (None, {}, "needs either data or"),
    ],
)
def test_a_binary_request_that_does_not_add_up_is_one_sentence(
    client: Client, header: str | None, change: dict[str, Any], sentence: str
) -> None:
    tensor = {"name": "numbers", "shape": [4, 2], "datatype": "FP64", "parameters": change}
    head = json.dumps({"inputs": [tensor]}).encode()
    sent = {"inference-header-content-length": header or str(len(head))}
    status, answer = client.call("POST", "/v2/models/tiny/infer", head + NUMBERS.tobytes(), sent)
    assert status == 400
    assert sentence in answer["error"]


def test_a_compressed_request_is_refused_by_name(client: Client) -> None:
    status, answer = client.call("POST", "/v2/models/tiny/infer", b"x", {"content-encoding": "gzip"})
    assert (status, answer["error"]) == (415, "this server takes requests without a content encoding")


def test_a_resent_request_is_answered_and_counted(client: Client) -> None:
    for _ in range(3):
        assert client.infer(columns())[0] == 200
    window = client.observer.close()
    assert decode_counts(window.body.counts, bundles.reference().bins, window.n).resent == 2


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("application/octet-stream", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/html", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
def test_a_type_that_is_no_request_is_refused_by_name(client: Client, kind: str, status: int) -> None:
    body = json.dumps({"inputs": columns()}).encode()
    found, answer = client.call("POST", "/v2/models/tiny/infer", body, {"content-type": kind})
    assert found == status
    assert status == 200 or kind.partition(";")[0] in answer["error"]


def test_more_rows_than_allowed_are_413_before_anything_is_made_of_them() -> None:
    client = Client(Serve(max_rows=3))
    status, answer = client.infer(columns())
    assert (status, answer["error"]) == (413, "4 rows in one request; send at most 3 rows")
    wide = {"name": "numbers", "shape": [10**12, 2], "datatype": "FP64", "data": []}
    assert client.infer([wide])[0] == 413


def test_more_requests_a_second_than_allowed_are_429_with_a_time_to_wait() -> None:
    client = Client(Serve(max_rate=3))
    body = json.dumps({"inputs": columns()}).encode()
    now = time.perf_counter()

    def ask(after_s: float) -> Response:
        return client.app.answer(Request("POST", b"/v2/models/tiny/infer", {}, body, now + after_s))

    # One of them began long before the others, and was slow to arrive.
    assert [ask(after_s).status for after_s in (0.0, -20.0, 0.0, 0.0)] == [200, 200, 200, 429]
    assert ask(0.1).headers == b"retry-after: 1\r\n"
    assert [ask(0.4).status for _ in range(2)] == [200, 429]
    assert client.call("GET", "/v2/health/ready")[0] == 200


def test_a_405_says_what_is_allowed(client: Client) -> None:
    assert client.answer("DELETE", "/v2/models/tiny").headers == b"allow: GET, HEAD\r\n"
    assert client.answer("GET", "/v2/models/tiny/infer").headers == b"allow: POST\r\n"


def test_a_server_that_ends_is_alive_but_not_ready(client: Client) -> None:
    client.app.traffic.draining = True
    assert client.call("GET", "/v2/health/ready") == (503, {"ready": False})
    assert client.call("GET", "/v2/models/tiny/ready") == (503, {"name": "tiny", "ready": False})
    assert client.call("GET", "/v2/health/live") == (200, {"live": True})
    assert client.infer(columns())[0] == 200


def test_an_answer_that_is_withheld_is_the_safe_one_and_null() -> None:
    manifest = bundles.manifest(automation="shadow")
    observer = Observer(manifest, bundles.reference().bins)
    member = Member(Engine(bundles.model(), manifest), observer, Oversight(manifest, safe="no"))
    app = App({"tiny": Served(Lineup(member))}, dict)
    body = json.dumps({"inputs": columns()}).encode()
    response = app.answer(Request("POST", b"/v2/models/tiny/infer", {}, body, time.perf_counter()))
    answer = json.loads(response.body)
    assert [output["data"] for output in answer["outputs"]] == [["no"] * 4, [None] * 8]
    assert (answer["parameters"]["edgekit_automation"], answer["parameters"]["edgekit_served_by"]) == ("shadow", "safe")
    assert observer.close().n == 4  # counted all the same
