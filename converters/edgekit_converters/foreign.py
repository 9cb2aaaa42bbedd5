"""An ONNX file from elsewhere, made complete in itself: tensors as long as they say, no external data, no functions.

Source: onnx/onnx.proto (TensorProto: "When this raw_data field is used to store tensor value, elements MUST be stored
in as fixed-width, little-endian order"); onnx/docs/ExternalData.md ("location (required) - file path relative to the
filesystem directory where the ONNX protobuf model was stored. Up-directory path components such as .. are disallowed").
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import onnx
import onnx.inliner
from onnx import TensorProto

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError, NotAModel, TooLarge
from edgekit_converters.faults import first_line

NODES_MAX: Final = 1_000_000
"""Of a model whose functions are unfolded."""

_BITS: Final[Mapping[int, int]] = {
    TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4, TensorProto.INT2: 2, TensorProto.UINT2: 2,
}  # fmt: skip
"""Element types of less than a byte; the others have NumPy's size."""
_WIDE: Final[Mapping[int, int]] = {TensorProto.COMPLEX64: 2, TensorProto.COMPLEX128: 2}
"""Numbers that one element takes in the typed field."""


def complete(data: bytes, what: str, folder: Path | None) -> onnx.ModelProto:
    """Parses ONNX bytes, checks every tensor, reads external data in, unfolds functions.

    Args:
        data: The file's bytes.
        what: The file's name, for the sentence.
        folder: Where its external data may lie; None: nowhere.

    Raises:
        NotAModel: Not ONNX.
        FormatError: A tensor is not what it says, external data lies elsewhere, or functions call themselves.
        TooLarge: With its external data, more bytes than a bundle may have.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError, whose module has no types
        raise NotAModel(f"{what}, which is truncated, nested too deeply, or no ONNX file,", "an ONNX file") from error
    # Other formats and plain text may parse, as fields that nobody knows.
    if not model.ir_version or not model.graph.node:
        raise NotAModel(f"{what}, in which there is no ONNX graph,", "an ONNX file")
    room = limits.BUNDLE_MAX_BYTES - len(data)
    for path, tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            room -= _read_external(tensor, what, path, folder, room)
        _check_tensor(tensor, what, path)
    _refuse_endless(model, what)
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except Exception as error:  # the inliner raises several unrelated classes
            raise FormatError(what, "$.functions", first_line(error)) from error
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every tensor, wherever it is, with the way to it."""
    graphs: list[tuple[str, Any]] = [("$.graph", model.graph)]
    graphs += [(f"$.functions[{one.name!r}]", one) for one in model.functions]
    while graphs:
        path, graph = graphs.pop()
        for tensor in getattr(graph, "initializer", ()):
            yield f"{path}.initializer[{tensor.name!r}]", tensor
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield f"{path}.sparse_initializer[{sparse.values.name!r}]", sparse.values
            yield f"{path}.sparse_initializer[{sparse.values.name!r}].indices", sparse.indices
        for place, node in enumerate(graph.node):
            for attribute in node.attribute:
                at = f"{path}.node[{place}].{attribute.name}"
                if attribute.HasField("t"):
                    yield at, attribute.t
                if attribute.HasField("sparse_tensor"):
                    yield at, attribute.sparse_tensor.values
                    yield at, attribute.sparse_tensor.indices
                for tensor in attribute.tensors:
                    yield at, tensor
                if attribute.HasField("g"):
                    graphs.append((at, attribute.g))
                graphs += [(at, inner) for inner in attribute.graphs]


def _read_external(tensor: onnx.TensorProto, what: str, path: str, folder: Path | None, room: int) -> int:
    """Replaces a reference by what it refers to; gives its size in bytes."""
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    parts = PurePosixPath(location).parts
    if folder is None or not parts or "\0" in location or "\\" in location or location[:1] == "/" or ".." in parts:
        raise FormatError(what, path, f"its data lies outside of the model's folder ({location[:100]!r})")
    try:
        offset, length = int(facts.get("offset") or 0), int(facts.get("length") or -1)
        content = _regular_file(folder, parts, offset, length, room)
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or str(error)
        raise FormatError(what, path, f"its data in {location[:100]!r} cannot be read ({fault})") from error
    if len(content) > room:
        raise TooLarge(what, limits.BUNDLE_MAX_BYTES - room + len(content), limits.BUNDLE_MAX_BYTES)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = content
    return len(content)


def _regular_file(folder: Path, parts: tuple[str, ...], offset: int, length: int, room: int) -> bytes:
    """A part of a file below `folder`, on the way to which no link is followed; at most `room` + 1 bytes."""
    if offset < 0 or length < -1:
        raise ValueError("its offset or length is negative")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        rest = status.st_size - offset
        if rest < max(length, 0):
            raise ValueError(f"it has {status.st_size:,} bytes, and {offset + length:,} are asked for")
        stream.seek(offset)
        return stream.read(min(rest if length < 0 else length, room + 1))


def _check_tensor(tensor: onnx.TensorProto, what: str, path: str) -> None:
    if any(dim < 0 for dim in tensor.dims):
        raise FormatError(what, path, f"a dimension is negative: {list(tensor.dims)}")
    elements = math.prod(tensor.dims)
    kind = tensor.data_type
    if kind not in TensorProto.DataType.values() or kind == TensorProto.UNDEFINED:
        raise FormatError(what, path, f"its type is {kind}")
    bits = _BITS.get(kind, 8)
    if tensor.HasField("raw_data"):
        if kind == TensorProto.STRING:
            raise FormatError(what, path, "texts cannot be raw data")
        size = bits if kind in _BITS else 8 * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
        found, expected, unit = len(tensor.raw_data), -(-elements * size // 8), "bytes"
    else:
        field = onnx.helper.tensor_dtype_to_field(kind)
        found, unit = len(getattr(tensor, field)), "numbers"
        expected = -(-elements * bits // 8) if kind in _BITS else elements * _WIDE.get(kind, 1)
    if found != expected:
        raise FormatError(what, path, f"it has {found:,} {unit}, and its shape {list(tensor.dims)} needs {expected:,}")


def _refuse_endless(model: onnx.ModelProto, what: str) -> None:
    """Functions that call themselves, over others too, or that unfold to more nodes than any model has."""
    calls = {(one.domain, one.name): list(_calls(one.node)) for one in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    while len(sizes) < len(calls):
        ready = [name for name in calls.keys() - sizes.keys() if not calls.keys() & (set(calls[name]) - sizes.keys())]
        if not ready:
            name = min(calls.keys() - sizes.keys())[1]
            raise FormatError(what, "$.functions", f"the function '{name[:100]}' calls itself")
        sizes |= {name: sum(sizes.get(called, 1) for called in calls[name]) for name in ready}
    nodes = sum(sizes.get(called, 1) for called in _calls(model.graph.node))
    if nodes > NODES_MAX:
        raise FormatError(what, "$.functions", f"unfolded, they are {nodes:,} nodes; at most {NODES_MAX:,} are read")


def _calls(nodes: Any) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _calls(graph.node)
