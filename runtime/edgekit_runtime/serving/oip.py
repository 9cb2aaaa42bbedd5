"""Open Inference Protocol v2: metadata, request and response, as pure functions of bytes.

A request names either the graph's own tensors (`numbers` [rows, columns], `text` [rows, columns]), which the metadata
lists with their columns, or one tensor for each feature ([rows] or [rows, 1]). In JSON, null is a missing value; in
bytes (`serving.binary`) NaN is, and for a text the manifest's `missing_text`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import BadInput
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.engine import Answers, Batch, Column, Engine
from edgekit_runtime.serving import binary

PLATFORM: Final = "onnx_onnxv1"
"""The protocol's name for an ONNX model."""

_DATATYPES: Final = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "text": "BYTES"}


class InferInput(msgspec.Struct, frozen=True):
    """One tensor of a request."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct, frozen=True):
    """One output that the client asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """The body of an inference request."""

    inputs: tuple[InferInput, ...]
    id: str | None = None
    outputs: tuple[RequestedOutput, ...] | None = None
    parameters: dict[str, Any] = {}


class TooManyRows(BadInput):
    """More rows in one request than the device is told to take."""

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__("", f"{rows} rows in one request", f"send at most {limit} rows")


def decode_request(
    body: bytes, header: bytes | None = None, *, limit: int = limits.REQUEST_MAX_BYTES
) -> tuple[InferRequest, memoryview]:
    """Reads a request's body: the request, and the tensors' bytes behind it.

    Args:
        body: The body.
        header: The value of `Inference-Header-Content-Length`, where the client sent it.
        limit: Bytes of JSON that are accepted.

    Raises:
        TooLarge, FormatError, BadInput: It is not a request of the protocol.
    """
    text, tensors = (body, memoryview(b"")) if header is None else binary.split(body, header)
    return decode_json(text, InferRequest, what="request", limit=limit), tensors


def batch_of(
    request: InferRequest, tensors: memoryview, engine: Engine, *, max_rows: int = limits.REQUEST_MAX_ROWS
) -> Batch:
    """The rows of a request.

    Args:
        request: The request.
        tensors: The bytes of its tensors without `data`.
        engine: The model.
        max_rows: More are refused before anything is made of them.

    Raises:
        TooManyRows: There are more.
        BadInput: They do not fit the model.
    """
    rows = max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=0)
    if rows > max_rows:
        raise TooManyRows(rows, max_rows)
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names):
        raise BadInput("", "two input tensors have the same name")
    found = _contents(request, tensors, engine.manifest.missing_text)
    if {tensor.name for tensor in engine.manifest.inputs} == set(names):
        return engine.encode_tensors({tensor.name: _matrix(tensor, found[tensor.name]) for tensor in request.inputs})
    return engine.encode({tensor.name: _column(tensor, found[tensor.name]) for tensor in request.inputs})


def encode_response(
    request: InferRequest, answers: Answers, manifest: Manifest, parameters: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The body of the response, with the outputs that were asked for, each in the form that was asked for.

    Args:
        request: The request.
        answers: To its rows.
        manifest: Of the bundle that gave them.
        parameters: What is said of the answer as a whole.

    Returns:
        The body, and how much of it is JSON where tensors follow.

    Raises:
        BadInput: The client asks for an output that the model does not have.
    """
    arrays: dict[str, NDArray[Any] | None] = {
        "label": answers.labels,
        "probabilities": answers.probabilities,
        "value": answers.values,
    }
    outputs = {output.name: output for output in manifest.outputs}
    asked = request.outputs if request.outputs is not None else tuple(RequestedOutput(name) for name in outputs)
    every = request.parameters.get("binary_data_output", False)
    tensors, behind = [], []
    for one in asked:
        if one.name not in outputs:
            raise BadInput("", f"the model has no output '{one.name[:64]}'", f"ask for {', '.join(outputs)}")
        array = arrays[outputs[one.name].role]
        assert array is not None
        datatype = _DATATYPES[outputs[one.name].dtype]
        tensor: dict[str, Any] = {"name": one.name, "datatype": datatype, "shape": list(array.shape)}
        if one.parameters.get("binary_data", every) is True:
            behind.append(binary.encode(array, datatype))
            tensor["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    response: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    response["parameters"] = parameters
    if request.id is not None:
        response["id"] = request.id
    text = msgspec.json.encode({**response, "outputs": tensors})
    return (b"".join([text, *behind]), len(text)) if behind else (text, None)


def server_metadata(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "edgekit-runtime", "version": version, "extensions": [binary.EXTENSION]}


def model_metadata(manifest: Manifest) -> dict[str, Any]:
    """`GET /v2/models/NAME`: the graph's tensors; `parameters.columns` names a tensor's columns in order."""
    widths = {"label": (), "probabilities": (len(manifest.classes),), "value": (-1,)}
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": [
            {
                "name": tensor.name,
                "datatype": _DATATYPES[tensor.dtype],
                "shape": [-1, len(tensor.features)],
                "parameters": {"columns": list(tensor.features)},
            }
            for tensor in manifest.inputs
        ],
        "outputs": [
            {"name": output.name, "datatype": _DATATYPES[output.dtype], "shape": [-1, *widths[output.role]]}
            for output in manifest.outputs
        ],
    }


def _contents(request: InferRequest, tensors: memoryview, missing: str) -> dict[str, list[Any] | NDArray[Any]]:
    """Each input's content: flat where it came as JSON, in its shape where it came as bytes."""
    found: dict[str, list[Any] | NDArray[Any]] = {}
    at = 0
    for tensor in request.inputs:
        size = tensor.parameters.get("binary_data_size")
        if (tensor.data is None) == (size is None):
            raise BadInput(tensor.name, "it needs either data or parameters.binary_data_size")
        if tensor.data is not None:
            found[tensor.name] = _values(tensor, tensor.data)
            continue
        if type(size) is not int or not 0 <= size <= len(tensors) - at:
            raise BadInput(tensor.name, "its binary_data_size does not fit the request's body")
        array = binary.decode(tensor.name, tensor.datatype, tensor.shape, tensors[at : at + size])
        if tensor.datatype == "BYTES":
            array[array == missing] = None
        found[tensor.name] = array
        at += size
    if at != len(tensors):
        raise BadInput("", f"{len(tensors) - at} bytes are left behind the last tensor")
    return found


def _values(tensor: InferInput, data: list[Any]) -> list[Any]:
    """The tensor's data, flat: the protocol allows nested and flattened arrays."""
    if data and isinstance(data[0], list):
        data = _flattened(tensor.name, data, tensor.shape)
    if min(tensor.shape, default=0) < 0 or len(data) != math.prod(tensor.shape):
        raise BadInput(tensor.name, f"{len(data)} values do not fill the shape {list(tensor.shape)}")
    fits = _FITS.get(tensor.datatype)
    if fits is None:
        raise BadInput(tensor.name, f"datatype '{tensor.datatype[:32]}' is none of the protocol's")
    for value in data:
        if value is not None and not fits(value):
            shown = msgspec.json.encode(value)[:40].decode(errors="replace")
            raise BadInput(tensor.name, f"{shown} is no {tensor.datatype}")
    return data


def _flattened(name: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Nested lists of exactly this shape, in one list."""
    for extent in shape[1:]:
        if not all(isinstance(part, list) and len(part) == extent for part in data):
            raise BadInput(name, f"the data is not nested like its shape {list(shape)}")
        data = list(chain.from_iterable(data))
    return data


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "BYTES": lambda value: isinstance(value, str),
    "BOOL": lambda value: isinstance(value, bool),
    **dict.fromkeys(("FP16", "FP32", "FP64"), lambda value: type(value) in (int, float)),
    **{f"INT{bits}": _integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integer(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
"""Datatype of the protocol -> whether a JSON value is one."""


def _column(tensor: InferInput, values: list[Any] | NDArray[Any]) -> Column:
    if not tensor.shape or len(tensor.shape) > 2 or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise BadInput(tensor.name, f"shape {list(tensor.shape)}; a feature's tensor has [rows] or [rows, 1]")
    return values.reshape(-1) if isinstance(values, np.ndarray) else values


def _matrix(tensor: InferInput, values: list[Any] | NDArray[Any]) -> NDArray[Any]:
    if len(tensor.shape) != 2:
        raise BadInput(tensor.name, f"shape {list(tensor.shape)}; expected [rows, columns]")
    if isinstance(values, np.ndarray):
        return values
    if tensor.datatype != "BYTES":
        try:
            return np.array(values, dtype=np.float64).reshape(tensor.shape)
        except (OverflowError, ValueError) as error:
            raise BadInput(tensor.name, "a value is not a 64-bit number") from error
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(tensor.shape)
