"""Open Inference Protocol v2: metadata and responses, as pure functions.

Source: Open Inference Protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from edgekit_contracts.errors import BadInput
from edgekit_contracts.manifest import Manifest, Output
from edgekit_runtime.engine import Answer, Answers
from edgekit_runtime.serving import binary
from edgekit_runtime.serving.decoding import InferRequest, RequestedOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLATFORM: Final = "onnx_onnxv1"
"""The protocol's name for an ONNX model."""

_DATATYPES: Final = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "text": "BYTES"}


class OutputTensor(msgspec.Struct, omit_defaults=True, gc=False):
    """One tensor of a response: its data, or how many of the bytes behind the JSON are its own."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any] | None = None
    parameters: Mapping[str, Any] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True, gc=False):
    """The body of a response."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    parameters: Mapping[str, Any]
    id: str | None = None


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
        BadInput: The client asks for an output that the model does not have, or twice for one.
    """
    datatypes, all_outputs = _outputs(manifest.outputs)
    asked = all_outputs if request.outputs is None else _asked(request.outputs, datatypes)
    every = request.parameters.get("binary_data_output", False)
    tensors: list[OutputTensor] = []
    behind: list[bytes] = []
    for one in asked:
        role, datatype = datatypes[one.name]
        array = _array(answers, role)
        if one.parameters.get("binary_data", every) is True:
            behind.append(binary.encode(array, datatype))
            size = {"binary_data_size": len(behind[-1])}
            tensors.append(OutputTensor(one.name, datatype, array.shape, parameters=size))
        else:
            tensors.append(OutputTensor(one.name, datatype, array.shape, array.ravel().tolist()))
    # "If specified this identifier must be returned in the response."
    text = _encode(InferResponse(manifest.name, manifest.version, tensors, parameters, request.id))
    return (b"".join([text, *behind]), len(text)) if behind else (text, None)


def encode_row(
    request: InferRequest, answer: Answer, manifest: Manifest, parameters: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """As `encode_response`, to one row."""
    said = {"label": (answer.label,), "probabilities": answer.probabilities, "value": answer.values}
    if request.outputs is not None or "binary_data_output" in request.parameters:
        label, *numbers = (np.array(one, object) if one else None for one in said.values())
        probabilities, values = (None if one is None else one.reshape(1, -1) for one in numbers)
        return encode_response(request, Answers(label, probabilities, values), manifest, parameters)
    tensors = []
    for name, (role, datatype) in _outputs(manifest.outputs)[0].items():
        data = said[role]
        tensors.append(OutputTensor(name, datatype, (1,) if role == "label" else (1, len(data)), data))
    return _encode(InferResponse(manifest.name, manifest.version, tensors, parameters, request.id)), None


def server_metadata(version: str) -> dict[str, Any]:
    """`GET /v2`."""
    return {"name": "edgekit-runtime", "version": version, "extensions": [binary.EXTENSION]}


def model_metadata(manifest: Manifest, versions: Sequence[str]) -> dict[str, Any]:
    """`GET /v2/models/NAME`: the graph's tensors.

    `parameters.columns` names an input's columns in order, and `parameters.units` their units where the owner gave
    some; `parameters.classes` are a model's classes, in the order of its probabilities.

    Args:
        manifest: Of the bundle that is asked about.
        versions: All that "may be explicitly requested".
    """
    widths = {"label": (), "probabilities": (len(manifest.classes),), "value": (-1,)}
    inputs: list[dict[str, Any]] = []
    for tensor in manifest.inputs:
        columns: dict[str, Any] = {"columns": list(tensor.features)}
        units = {one.name: one.unit for one in manifest.features if one.unit and one.name in tensor.features}
        if units:
            columns["units"] = units
        shape = [-1, len(tensor.features)]
        inputs.append(
            {"name": tensor.name, "datatype": _DATATYPES[tensor.dtype], "shape": shape, "parameters": columns}
        )
    outputs: list[dict[str, Any]] = []
    for output in manifest.outputs:
        shape = [-1, *widths[output.role]]
        outputs.append({"name": output.name, "datatype": _DATATYPES[output.dtype], "shape": shape})
        if output.role != "value" and manifest.classes:
            outputs[-1]["parameters"] = {"classes": list(manifest.classes)}
    return {
        "name": manifest.name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": inputs,
        "outputs": outputs,
    }


_encode: Final = msgspec.json.Encoder().encode


@lru_cache(maxsize=64)
def _outputs(outputs: tuple[Output, ...]) -> tuple[dict[str, tuple[str, str]], tuple[RequestedOutput, ...]]:
    """Name -> role and datatype, and what a client that names none asks for."""
    datatypes = {output.name: (str(output.role), _DATATYPES[output.dtype]) for output in outputs}
    return datatypes, tuple(RequestedOutput(name) for name in datatypes)


def _asked(outputs: tuple[RequestedOutput, ...], known: Mapping[str, tuple[str, str]]) -> tuple[RequestedOutput, ...]:
    names = [output.name for output in outputs]
    for name in names:
        if name not in known:
            raise BadInput("", f"the model has no output '{name[:64]}'", f"ask for {', '.join(known)}")
    if len(set(names)) != len(names):
        # Else a small request would have an answer of any size.
        raise BadInput("", "the request asks twice for one output", "ask for each output once")
    return outputs


def _array(answers: Answers, role: str) -> NDArray[Any]:
    array = answers.labels if role == "label" else answers.probabilities if role == "probabilities" else answers.values
    assert array is not None
    return array
