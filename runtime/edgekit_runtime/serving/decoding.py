"""From the bytes of an inference request to the rows of a model.

A request names either the graph's own tensors (`numbers` [rows, columns], `text` [rows, columns]), which the metadata
lists with their columns, or one tensor for each feature ([rows] or [rows, 1]), which may say its `unit`. In JSON, null
is a missing value; in bytes (`serving.binary`) NaN is, and for a text the manifest's `missing_text`.

Source: Open Inference Protocol, specification/protocol/inference_rest.md, "Inference Request JSON Object".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import BadInput, TooLarge
from edgekit_runtime.engine import Batch, Column, Engine
from edgekit_runtime.serving import binary

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scalar = bool | int | float | str | None


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


class _FlatInput(InferInput, frozen=True):
    data: list[Scalar] | None = None
    parameters: dict[str, Scalar] = {}


class _FlatOutput(RequestedOutput, frozen=True):
    parameters: dict[str, Scalar] = {}


class _FlatRequest(InferRequest, frozen=True):
    """A request whose data is flat, as nearly all are: by its type it cannot be nested, so its depth needs no check."""

    inputs: tuple[_FlatInput, ...]
    outputs: tuple[_FlatOutput, ...] | None = None
    parameters: dict[str, Scalar] = {}


def _without_null(found: InferInput | RequestedOutput | InferRequest) -> None:
    if found.parameters is None:
        msgspec.structs.force_setattr(found, "parameters", {})


class _NullableInput(InferInput, frozen=True):
    parameters: dict[str, Any] | None = {}  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _without_null(self)


class _NullableOutput(RequestedOutput, frozen=True):
    parameters: dict[str, Any] | None = {}  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _without_null(self)


class _NullableRequest(InferRequest, frozen=True):
    """Any other request; `parameters` may be null, as MLServer's client writes every field that it has."""

    inputs: tuple[_NullableInput, ...]
    outputs: tuple[_NullableOutput, ...] | None = None
    parameters: dict[str, Any] | None = {}  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _without_null(self)


class TooManyRows(BadInput):
    """More rows in one request than the device is told to take."""

    def __init__(self, rows: int, limit: int) -> None:
        super().__init__("", f"{rows} rows in one request", f"send at most {limit} rows")


_flat: Final = msgspec.json.Decoder(_FlatRequest)
_NOTHING: Final = memoryview(b"")


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
    text, tensors = (body, _NOTHING) if header is None else binary.split(body, header)
    if len(text) > limit:
        raise TooLarge("request", len(text), limit)
    try:
        return _flat.decode(text), tensors
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return decode_json(text, _NullableRequest, what="request", limit=limit), tensors


def row_of(request: InferRequest, tensors: memoryview, engine: Engine) -> NDArray[np.float64] | None:
    """The numbers of a request as most are: one row of the graph's own tensor.

    Args:
        request: The request.
        tensors: The bytes of its tensors without `data`.
        engine: The model.

    Returns:
        [numeric features], in the tensor's order; None where `batch_of` is to say what the request is.
    """
    if len(request.inputs) != 1:
        return None
    tensor, encoder = request.inputs[0], engine.encoder
    shape, data, size = tensor.shape, tensor.data, tensor.parameters.get("binary_data_size")
    if shape != (1, len(encoder.numbers)) or encoder.tensors != {tensor.name} or tensor.datatype not in _FLOATS:
        return None
    if data is None:
        if type(size) is not int or size != len(tensors):
            return None
        row: NDArray[np.float64] = binary.decode(tensor.name, tensor.datatype, shape, tensors)[0].astype(np.float64)
        return row
    if size is not None or len(tensors) or len(data) != shape[1] or not _TYPES["FP64"].issuperset(map(type, data)):
        return None
    try:
        return np.array(data, dtype=np.float64)
    except OverflowError:
        return None


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
    found: dict[str, list[Any] | NDArray[Any]] = {}
    at = 0
    for tensor in request.inputs:
        name = tensor.name
        if name in found:
            raise BadInput("", "two input tensors have the same name")
        if tensor.shape and tensor.shape[0] > max_rows:
            raise TooManyRows(tensor.shape[0], max_rows)
        size = tensor.parameters.get("binary_data_size")
        if (tensor.data is None) == (size is None):
            raise BadInput(name, "it needs either data or parameters.binary_data_size")
        if tensor.data is not None:
            found[name] = _values(tensor, tensor.data)
            continue
        if type(size) is not int or not 0 <= size <= len(tensors) - at:
            raise BadInput(name, "its binary_data_size does not fit the request's body")
        array = binary.decode(name, tensor.datatype, tensor.shape, tensors[at : at + size])
        if tensor.datatype == "BYTES":
            array[array == engine.manifest.missing_text] = None
        found[name] = array
        at += size
    if at != len(tensors):
        raise BadInput("", f"{len(tensors) - at} bytes are left behind the last tensor")
    names, graph = found.keys(), engine.encoder.tensors
    # Who names some of the graph's tensors is told which one is lacking, but where these are a model's features too.
    if names == graph or (names < graph and names and names != engine.features.keys()):
        return engine.encode_tensors({tensor.name: _matrix(tensor, found[tensor.name]) for tensor in request.inputs})
    return engine.encode({tensor.name: _column(tensor, found[tensor.name], engine) for tensor in request.inputs})


def _values(tensor: InferInput, data: list[Any]) -> list[Any]:
    """The tensor's data, flat: the protocol allows nested and flattened arrays."""
    shape, datatype = tensor.shape, tensor.datatype
    if data and isinstance(data[0], list):
        data = _flattened(tensor.name, data, shape)
    if min(shape, default=0) < 0 or len(data) != math.prod(shape):
        raise BadInput(tensor.name, f"{len(data)} values do not fill the shape {list(shape)}")
    types = _TYPES.get(datatype)
    if types is not None and types.issuperset(map(type, data)):
        return data
    fits = _FITS.get(datatype)
    if fits is None:
        raise BadInput(tensor.name, f"datatype '{datatype[:32]}' is none of the protocol's")
    for value in data:
        if value is not None and not fits(value):
            shown = msgspec.json.encode(value)[:40].decode(errors="replace")
            raise BadInput(tensor.name, f"{shown} is no {datatype}")
    return data


def _flattened(name: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Nested lists of exactly this shape, in one list."""
    for extent in shape[1:]:
        if not all(isinstance(part, list) and len(part) == extent for part in data):
            raise BadInput(name, f"the data is not nested like its shape {list(shape)}")
        data = list(chain.from_iterable(data))
    return data


def _one_of(types: frozenset[type]) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_FLOATS: Final = ("FP16", "FP32", "FP64")
_TYPES: Final[Mapping[str, frozenset[type]]] = {
    "BYTES": frozenset({str, type(None)}),
    "BOOL": frozenset({bool, type(None)}),
    **dict.fromkeys(_FLOATS, frozenset({int, float, type(None)})),
}
"""Datatype of the protocol -> types of which every value is one."""
_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    **{name: _one_of(types) for name, types in _TYPES.items()},
    **{f"INT{bits}": _integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _integer(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
"""Datatype of the protocol -> whether a JSON value is one."""


def _column(tensor: InferInput, values: list[Any] | NDArray[Any], engine: Engine) -> Column:
    shape = tensor.shape
    if "unit" in tensor.parameters:
        engine.encoder.check_unit(tensor.name, tensor.parameters["unit"])
    if not shape or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        if tensor.name not in engine.features:
            known = ", ".join(sorted(engine.encoder.tensors))
            raise BadInput(
                "", f"the model has no tensor or feature '{tensor.name[:64]}'", f"send {known}, or each feature"
            )
        raise BadInput(tensor.name, f"shape {list(shape)}; a feature's tensor has [rows] or [rows, 1]")
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
