"""The binary tensor data extension of the Open Inference Protocol v2: numbers as they lie in memory, behind the JSON.

The header `Inference-Header-Content-Length` says how many bytes of the body are JSON. Behind them come the tensors
without `data`, in their order, each of `parameters.binary_data_size` bytes: little-endian elements in row-major order;
a BOOL is one byte; an element of BYTES is its length in four bytes, then its content. An answer has the same form.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md, "Binary Tensor Data Extension" (as in
triton-inference-server/server, docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_contracts.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER: Final = b"inference-header-content-length"
EXTENSION: Final = "binary_tensor_data"

_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}


def split(body: bytes, header: bytes) -> tuple[bytes, memoryview]:
    """The JSON and the tensors' bytes of a body.

    Args:
        body: All of it.
        header: The value of `Inference-Header-Content-Length`.

    Raises:
        BadInput: The header is no number of bytes of this body.
    """
    if not header.isdigit() or len(header) > 12 or int(header) > len(body):
        raise BadInput("", f"Inference-Header-Content-Length does not fit a body of {len(body)} bytes")
    return body[: int(header)], memoryview(body)[int(header) :]


def decode(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> NDArray[Any]:
    """One tensor; texts as objects of str.

    Raises:
        BadInput: The bytes are not a tensor of this type and shape.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        # An element has at least the four bytes of its length: a shape alone must not reserve memory.
        if min(shape, default=0) < 0 or 4 * count > len(data):
            raise BadInput(name, f"{len(data)} bytes do not fill the shape {list(shape)}")
        texts = np.empty(count, dtype=object)
        texts[:] = list(_texts(name, data, count))
        return texts.reshape(shape)
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise BadInput(name, f"datatype '{datatype[:32]}' is none of the protocol's")
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(data):
        raise BadInput(name, f"{len(data)} bytes do not fill the shape {list(shape)} of {datatype}")
    array = np.frombuffer(data, dtype=np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL" and array.size and array.max() > 1:
        raise BadInput(name, "a byte of a BOOL is neither 0 nor 1")
    return array.view(dtype).reshape(shape)


def encode(array: NDArray[Any], datatype: str) -> bytes:
    """The bytes of a tensor."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, dtype=_DTYPES[datatype]).tobytes()
    parts = []
    for text in array.ravel().tolist():
        content = str(text).encode()
        parts += [len(content).to_bytes(4, "little"), content]
    return b"".join(parts)


def _texts(name: str, data: memoryview, count: int) -> Iterator[str]:
    at = 0
    for _ in range(count):
        size = int.from_bytes(data[at : at + 4], "little")
        content = bytes(data[at + 4 : at + 4 + size])
        if len(data) < at + 4 or len(content) != size:
            raise BadInput(name, "its bytes end inside of a text")
        at += 4 + size
        try:
            yield content.decode()
        except UnicodeDecodeError as error:
            raise BadInput(name, "a text of it is not UTF-8") from error
    if at != len(data):
        raise BadInput(name, f"{len(data) - at} bytes are left behind its last text")
