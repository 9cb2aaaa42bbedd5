"""Open Inference Protocol v2: metadata, request and response, as pure functions of bytes.

A request names either the graph's own tensors (`numbers` [rows, columns], `text` [rows, columns]), which the metadata
lists with their columns, or one tensor for each feature ([rows] or [rows, 1]). In JSON, null is a missing value.
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

PLATFORM: Final = "onnx_onnxv1"
"""The protocol's name for an ONNX model."""

_DATATYPES: Final = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "text": "BYTES"}


class InferInput(msgspec.Struct, frozen=True):
    """One tensor of a request."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]


class RequestedOutput(msgspec.Struct, frozen=True):
    """One output that the client asks for."""

    name: str


class InferRequest(msgspec.Struct, frozen=True):
    """The body of an inference request."""

    inputs: tuple[InferInput, ...]
    id: str | None = None
    outputs: tuple[RequestedOutput, ...] | None = None


def decode_request(body: bytes) -> InferRequest:
    """Reads a request's body.

    Raises:
        TooLarge, FormatError: It is not a request of the protocol.
    """
    return decode_json(body, InferRequest, what="request", limit=limits.REQUEST_MAX_BYTES)


def batch_of(request: InferRequest, engine: Engine) -> Batch:
    """The rows of a request.

    Raises:
        BadInput: They do not fit the model.
    """
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names):
        raise BadInput("", "two input tensors have the same name")
    if {tensor.name for tensor in engine.manifest.inputs} == set(names):
        batch = engine.encode_tensors({tensor.name: _matrix(tensor) for tensor in request.inputs})
    else:
        batch = engine.encode({tensor.name: _column(tensor) for tensor in request.inputs})
    if batch.rows > limits.REQUEST_MAX_ROWS:
        raise BadInput("", f"{batch.rows} rows in one request", f"send at most {limits.REQUEST_MAX_ROWS} rows")
    return batch


def encode_response(request: InferRequest, answers: Answers, manifest: Manifest) -> bytes:
    """The body of the response, with the outputs that were asked for.

    Raises:
        BadInput: The client asks for an output that the model does not have.
    """
    arrays: dict[str, NDArray[Any] | None] = {
        "label": answers.labels,
        "probabilities": answers.probabilities,
        "value": answers.values,
    }
    outputs = {output.name: output for output in manifest.outputs}
    wanted = [output.name for output in request.outputs] if request.outputs is not None else list(outputs)
    for name in wanted:
        if name not in outputs:
            raise BadInput("", f"the model has no output '{name[:64]}'", f"ask for {', '.join(outputs)}")
    tensors = []
    for name in wanted:
        array = arrays[outputs[name].role]
        assert array is not None
        tensors.append(
            {
                "name": name,
                "datatype": _DATATYPES[outputs[name].dtype],
                "shape": list(array.shape),
                "data": array.ravel().tolist(),
            }
        )
    response: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request.id is not None:
        response["id"] = request.id
    return msgspec.json.encode({**response, "outputs": tensors})


def server_metadata(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "edgekit-runtime", "version": version, "extensions": []}


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


def _values(tensor: InferInput) -> list[Any]:
    """The tensor's data, flat: the protocol allows nested and flattened arrays."""
    data = tensor.data
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


def _column(tensor: InferInput) -> Column:
    if not tensor.shape or len(tensor.shape) > 2 or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
        raise BadInput(tensor.name, f"shape {list(tensor.shape)}; a feature's tensor has [rows] or [rows, 1]")
    return _values(tensor)


def _matrix(tensor: InferInput) -> NDArray[Any]:
    if len(tensor.shape) != 2:
        raise BadInput(tensor.name, f"shape {list(tensor.shape)}; expected [rows, columns]")
    values = _values(tensor)
    if tensor.datatype != "BYTES":
        try:
            return np.array(values, dtype=np.float64).reshape(tensor.shape)
        except (OverflowError, ValueError) as error:
            raise BadInput(tensor.name, "a value is not a 64-bit number") from error
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(tensor.shape)
