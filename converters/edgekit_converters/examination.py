"""A foreign ONNX file is looked at in a process of its own before anything else reads it.

Protobuf makes a hundred bytes of memory out of two of the file; a `Loop` may never end; a malformed graph may crash the
runtime. So a child process (`confined`) reads the file, checks it, loads it and runs one row of zeros. Only then does
this process read the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from edgekit_contracts import limits
from edgekit_contracts.errors import ConversionRefused, FormatError, NotAModel, TooLarge
from edgekit_converters.confined import SECONDS, confined, look
from edgekit_converters.faults import first_line
from edgekit_converters.foreign import complete
from edgekit_converters.nodes import operators

ELEMENTS_MAX: Final = 2**30
"""Of one tensor, for one row."""

DOMAINS: Final = frozenset({"ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators are in every onnxruntime; `com.microsoft` is its own."""

_SHAPELESS: Final = (onnx.shape_inference.InferenceError, ValueError, RuntimeError)
_NUMPY: Final = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


def examined(data: bytes, what: str, folder: Path | None, *, seconds: int = SECONDS) -> onnx.ModelProto:
    """Reads ONNX bytes that may come from anybody.

    Args:
        data: The file's bytes.
        what: The file's name, for the sentence.
        folder: Where its external data may lie; None: nowhere.
        seconds: Computing time of the child.

    Returns:
        The model, complete in itself: external data is in it, and its functions are unfolded.

    Raises:
        NotAModel: Not an ONNX file at all.
        FormatError: An ONNX file with a fault, or one that asks for too much memory or time.
        TooLarge: More bytes than a bundle may have.
    """
    if not data:
        raise NotAModel(f"{what}, which is empty,", "an ONNX file")
    if len(data) > limits.BUNDLE_MAX_BYTES:
        raise TooLarge(what, len(data), limits.BUNDLE_MAX_BYTES)
    confined(__name__, data, what, str(folder or ""), seconds=seconds)
    return complete(data, what, folder)


def _examine(data: bytes, what: str, folder: str) -> None:
    """In the child."""
    _look(complete(data, what, Path(folder) if folder else None), what)


def _look(model: onnx.ModelProto, what: str) -> None:
    foreign = next((name for name in operators(model) if name.rpartition(":")[0] not in DOMAINS), None)
    if foreign is not None:
        raise ConversionRefused(
            f"{what} (operator {foreign[:100]})",
            "it is of a library of its own, which no device has",
            "export the model with operators of the ONNX standard only",
        )
    try:
        known = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except _SHAPELESS:
        known = model  # onnxruntime has the last word
    try:
        onnx.checker.check_model(known)
    except onnx.checker.ValidationError as error:
        raise FormatError(what, "$.graph", first_line(error)) from error
    for info in (*known.graph.input, *known.graph.value_info, *known.graph.output):
        _check_shape(info, what)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises several unrelated classes
        raise FormatError(what, "$.graph", f"onnxruntime {ort.__version__} does not load it: {_why(error)}") from error
    try:
        session.run(None, {one.name: _zeros(one) for one in session.get_inputs()})
    except Exception as error:  # the same; a row of zeros may be no row for this model
        if "allocate" in str(error) or "bad_alloc" in str(error):
            raise FormatError(what, "$.graph", f"one row takes too much memory: {first_line(error)}") from error


def _check_shape(info: onnx.ValueInfoProto, what: str) -> None:
    elements = 1
    for dim in info.type.tensor_type.shape.dim:
        if dim.dim_value < 0 and dim.HasField("dim_value"):
            raise FormatError(what, f"$.graph[{info.name!r}]", f"a dimension is {dim.dim_value}")
        elements *= max(1, dim.dim_value)
    if elements > ELEMENTS_MAX:
        raise FormatError(
            what, f"$.graph[{info.name!r}]", f"a tensor of {elements:,} elements; at most {ELEMENTS_MAX:,} are read"
        )


def _zeros(info: Any) -> Any:
    shape = [one if isinstance(one, int) and one > 0 else 1 for one in info.shape]
    return np.full(shape, "") if info.type == "tensor(string)" else np.zeros(shape, dtype=_NUMPY[info.type])


def _why(error: Exception) -> str:
    return first_line(error).split("failed:", 1)[-1].removeprefix("This is an invalid model. ").strip()


if __name__ == "__main__":
    look(_examine)
