"""A foreign ONNX file is looked at in a process of its own before anything else reads it.

Protobuf makes a hundred bytes of memory out of two of the file; a `Loop` may never end; a malformed graph may crash the
runtime. So a child process with bounds on memory, time and files reads the file, checks it, loads it and runs one row
of zeros. What it finds comes back as one sentence; that it dies is one too. Only then does this process read the file.

Source: setrlimit(2): RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from edgekit_contracts import limits
from edgekit_contracts.errors import ConversionRefused, EdgekitError, FormatError, NotAModel, TooLarge
from edgekit_converters.faults import first_line
from edgekit_converters.foreign import complete
from edgekit_converters.graph import operators

MEMORY_BYTES: Final = 4 * 1024 * limits.MIB
"""Address space of the child, beside `MEMORY_FACTOR` times the file."""
MEMORY_FACTOR: Final = 8
SECONDS: Final = 60
"""Of computing; loading and running one row of a model that fits a device takes a second or two."""
ELEMENTS_MAX: Final = 2**30
"""Of one tensor, for one row."""

DOMAINS: Final = frozenset({"ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators are in every onnxruntime; `com.microsoft` is its own."""

_REFUSALS: Final = (ConversionRefused, FormatError, NotAModel, TooLarge)
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
    memory = MEMORY_BYTES + MEMORY_FACTOR * len(data)
    # -P: a file 'onnx.py' in the current directory is not ours to run.
    command = [sys.executable, "-P", "-m", __name__, what, str(folder or ""), str(memory), str(seconds)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=10 * seconds, check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        done, answer = None, None
    if answer is None:
        raise FormatError(what, "$", _how_it_died(done.returncode if done is not None else None, memory, seconds))
    if answer:
        kind = next(one for one in _REFUSALS if one.__name__ == answer["error"])
        error = kind.__new__(kind)
        EdgekitError.__init__(error, answer["sentence"], answer["next_step"])
        raise error
    return complete(data, what, folder)


def _how_it_died(code: int | None, memory: int, seconds: int) -> str:
    if code is None or -code in {signal.SIGXCPU, signal.SIGKILL}:
        return f"to read it and answer one row takes more than {seconds} s"
    died = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
    return f"a process that reads it and answers one row does not survive it in {memory / 2**30:.0f} GiB ({died})"


def _main(what: str, folder: str, memory: str, seconds: str) -> dict[str, str]:
    """In the child: what is wrong, as an error's class and sentences; empty where nothing is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    error: EdgekitError
    try:
        _look(complete(sys.stdin.buffer.read(), what, Path(folder) if folder else None), what)
        return {}
    except _REFUSALS as found:
        error = found
    except MemoryError:
        error = FormatError(what, "$", f"reading it takes more than {int(memory) / 2**30:.0f} GiB of memory")
    return {"error": type(error).__name__, "sentence": error.sentence, "next_step": error.next_step}


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
    print(json.dumps(_main(*sys.argv[1:])))
