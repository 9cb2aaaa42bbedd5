"""What we send and answer, against the objects of the Open Inference Protocol.

They are written down here as the protocol's text says them. With OPEN_INFERENCE_REST=open_inference_rest.yaml (from
kserve/open-inference-protocol, specification/protocol) the same documents are held against the published OpenAPI too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edgekit_runtime.serving import decoding
from tests.serving import INFER, Reply, Server, request, running

TEXT, INTEGERS = {"type": "string"}, {"type": "array", "items": {"type": "integer"}}
PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


DATA = many({"type": ["number", "string", "boolean", "array", "null"]})
TENSOR = {"name": TEXT, "shape": INTEGERS, "datatype": TEXT}
METADATA = closed(TENSOR, parameters={"type": "object"})
SCHEMAS = {
    "metadata_server_response": closed({"name": TEXT, "version": TEXT, "extensions": many(TEXT)}),
    "metadata_model_response": closed(
        {"name": TEXT, "platform": TEXT, "inputs": many(METADATA), "outputs": many(METADATA)}, versions=many(TEXT)
    ),
    "inference_request": closed(
        {"inputs": many(closed(TENSOR, data=DATA, parameters=PARAMETERS))},
        id=TEXT,
        parameters=PARAMETERS,
        outputs=many(closed({"name": TEXT}, parameters=PARAMETERS)),
    ),
    "inference_response": closed(
        {"model_name": TEXT, "outputs": many(closed(TENSOR | {"data": DATA}, parameters=PARAMETERS))},
        model_version=TEXT,
        id=TEXT,
        parameters=PARAMETERS,
    ),
    "inference_error_response": closed({"error": TEXT}),
}

Conforms = Callable[[str, Any], None]


def published(path: Path) -> dict[str, Any]:
    """The schemas of the OpenAPI document, under the names that it gives them."""
    yaml = pytest.importorskip("yaml")
    schemas: dict[str, Any] = yaml.safe_load(path.read_text())["components"]["schemas"]
    return schemas


@pytest.fixture(params=["the text", "the OpenAPI"])
def conforms(request: pytest.FixtureRequest) -> Conforms:
    schemas: dict[str, Any] = SCHEMAS
    if request.param == "the OpenAPI":
        if "OPEN_INFERENCE_REST" not in os.environ:
            pytest.skip("OPEN_INFERENCE_REST names no published OpenAPI")
        schemas = published(Path(os.environ["OPEN_INFERENCE_REST"]))

    def check(name: str, value: Any) -> None:
        root = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
        Draft202012Validator(root).validate(value)

    return check


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def infer(server: Server, *, path: str = "/v2/models/tiny/infer", **more: Any) -> Reply:
    return server.ask(request(path, json.dumps(json.loads(INFER) | more).encode()))


def test_metadata_is_what_the_protocol_says(server: Server, conforms: Conforms) -> None:
    for path in ("/v2", "/v2/"):
        reply = server.ask(request(path))
        assert reply.headers["content-type"] == "application/json"
        conforms("metadata_server_response", reply.json)
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/1.0"):
        reply = server.ask(request(path))
        conforms("metadata_model_response", reply.json)
        assert reply.json["versions"] == ["1.0"]


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/v2/models/tiny/versions/1.0/infer"])
def test_an_answer_is_what_the_protocol_says(server: Server, conforms: Conforms, path: str) -> None:
    more = {"id": "42", "parameters": {"a": "text", "b": 1.5, "c": True}, "outputs": [{"name": "probabilities"}]}
    conforms("inference_request", json.loads(INFER) | more)
    reply = infer(server, path=path, **more)
    assert reply.status == 200
    conforms("inference_response", reply.json)
    assert (reply.json["id"], reply.json["model_version"]) == ("42", "1.0")
    assert [output["name"] for output in reply.json["outputs"]] == ["probabilities"]
    conforms("inference_response", infer(server).json)
    assert "id" not in infer(server).json


@pytest.mark.parametrize(
    ("status", "path", "more"),
    [
        (404, "/v2/models/other/infer", {}),
        (404, "/v2/models/tiny/versions/2.0/infer", {}),
        (400, "/v2/models/tiny/infer", {"inputs": []}),
        (400, "/v2/models/tiny/infer", {"inputs": {}}),
        (400, "/v2/models/tiny/infer", {"outputs": [{"name": "other"}]}),
        (400, "/v2/models/tiny/infer", {"outputs": [{"name": "label"}] * 2}),
        (400, "/v2/models/tiny/infer", {"id": 42}),
    ],
)
def test_an_error_is_what_the_protocol_says(
    server: Server, conforms: Conforms, status: int, path: str, more: dict[str, Any]
) -> None:
    reply = infer(server, path=path, **more)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    conforms("inference_error_response", reply.json)


def test_outputs_come_in_the_order_in_which_they_were_asked_for(server: Server) -> None:
    for names in (["label", "probabilities"], ["probabilities", "label"], ["label"]):
        reply = infer(server, outputs=[{"name": name} for name in names])
        assert [output["name"] for output in reply.json["outputs"]] == names


def rows(data: list[Any], shape: list[int]) -> dict[str, Any]:
    return {"inputs": [{"name": "numbers", "shape": shape, "datatype": "FP64", "data": data}]}


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "1" * 400, "true", '"1"', "[1]", "{}"])
def test_what_is_no_number_is_refused_in_flat_and_in_nested_data(server: Server, number: str) -> None:
    for data in (f"[1, {number}]", f"[[1, {number}]]"):
        body = f'{{"inputs": [{{"name": "numbers", "shape": [1, 2], "datatype": "FP64", "data": {data}}}]}}'
        reply = server.ask(request("/v2/models/tiny/infer", body.encode()))
        assert reply.status == 400
        assert reply.json["error"]


def test_flat_and_nested_data_are_read_alike() -> None:
    numbers = [1, 2.5, -3, None, 1e308, 12345678901234567, 2**70, 0.1]
    flat, _ = decoding.decode_request(json.dumps(rows(numbers, [4, 2])).encode())
    nested, _ = decoding.decode_request(json.dumps(rows([numbers[i : i + 2] for i in range(0, 8, 2)], [4, 2])).encode())
    assert flat.inputs[0].data == numbers
    assert nested.inputs[0].data == [numbers[i : i + 2] for i in range(0, 8, 2)]


def test_nothing_is_nested_deeper_than_any_reader_can_bear(server: Server) -> None:
    for inside in ('"data": [{}]', '"data": [1], "parameters": {{"a": {}}}', '"data": [1], "other": {}'):
        tensor = inside.format("[" * 100_000 + "]" * 100_000)
        body = f'{{"inputs": [{{"name": "age", "shape": [1], "datatype": "FP64", {tensor}}}]}}'.encode()
        reply = server.ask(request("/v2/models/tiny/infer", body))
        assert reply.status == 400
    assert server.ask(request(body=INFER)).status == 200
