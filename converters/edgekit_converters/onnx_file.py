"""Raw ONNX: a file from any exporter. Its original answers are those that onnxruntime gives with the file unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import ConversionRefused, DataMismatch, MissingFile
from edgekit_converters import onnx_inputs, onnx_outputs
from edgekit_converters.data import as_frame
from edgekit_converters.examination import examined
from edgekit_converters.faults import first_line
from edgekit_converters.interface import Interface, session_of
from edgekit_converters.network import Network, as_network, check_steady
from edgekit_converters.nodes import operators, serialize
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.target import Target

RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
SAMPLE_ROWS: Final = 256
"""Rows by which the outputs are known."""

_SUFFIX: Final = ".onnx"


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX model that was examined."""

    name: str
    model: onnx.ModelProto
    """Complete in itself, without functions."""

    @cached_property
    def session(self) -> ort.InferenceSession:
        """Of the unchanged file."""
        return session_of(serialize(self.model), self.name)

    @cached_property
    def zips(self) -> onnx_outputs.Zipped:
        """Its outputs that are maps."""
        return onnx_outputs.zipped(self.model)

    def run(self, feed: Mapping[str, NDArray[Any]], *, batch: int = 0) -> dict[str, Any]:
        """The outputs for some rows, maps as arrays.

        Args:
            feed: Input -> rows.
            batch: Rows that it takes a call, 0 for any number; the last call is filled with the last row.

        Raises:
            DataMismatch: onnxruntime fails on these rows.
            ConversionRefused: An output of a fixed batch has another first dimension.
        """
        rows = len(next(iter(feed.values())))
        if batch:
            at = np.minimum(np.arange(-(-rows // batch) * batch), rows - 1).reshape(-1, batch)
            calls: list[Any] = list(at)
        else:
            calls = [slice(None)]
        names = [output.name for output in self.session.get_outputs()]
        try:
            answers = [
                dict(
                    zip(names, self.session.run(names, {key: array[call] for key, array in feed.items()}), strict=True)
                )
                for call in calls
            ]
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise DataMismatch(f"onnxruntime fails with the file: {first_line(error)}") from error
        parts = [onnx_outputs.arrays(answer, self.zips) for answer in answers]
        if not batch:
            return parts[0]
        for key, array in parts[0].items():
            if np.shape(array)[:1] != (batch,):
                what = f"{self.name} (output '{key}')"
                raise ConversionRefused(
                    what, f"it gives {list(np.shape(array))} for {batch} rows", "make rows come first"
                )
        return {key: np.concatenate([one[key] for one in parts])[:rows] for key in parts[0]}


class OnnxConverter:
    """The converter of ONNX files."""

    framework: Final = "ONNX"
    supported: Final = "an .onnx file whose inputs are rows of numbers or texts"
    files: Final = "an .onnx file"
    ensures: Final = (
        "the file's own nodes, opset and constants, between the contract's inputs and outputs; complete in itself; "
        "loaded by the target's runtime; whatever has no place in the contract is refused"
    )

    def __init__(self) -> None:
        # id -> the object, so that the id stays its own, and what was found of it.
        self._files: dict[int, tuple[Any, OnnxFile]] = {}
        self._interfaces: dict[int, tuple[Any, Interface]] = {}

    def reads(self, path: Path, head: bytes) -> bool:
        """By its suffix: an ONNX file has no first bytes of its own."""
        return path.suffix.lower() == _SUFFIX

    def load(self, path: Path, *, trust: bool) -> OnnxFile:
        """Reads and examines a file; `trust` changes nothing, since no code is in it.

        Raises:
            MissingFile: It cannot be read.
            NotAModel, FormatError, ConversionRefused, TooLarge: As `examination.examined`.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MissingFile("model", str(path), (error.strerror or str(error)).lower()) from error
        return OnnxFile(path.name, examined(data, path.name, path.parent))

    def requires(self, model: Any) -> bool:
        """An `OnnxFile` or an `onnx.ModelProto`, or a `Network` of one."""
        return isinstance(as_network(model).model, OnnxFile | onnx.ModelProto)

    def describe(self, model: Any) -> str:
        """Such as `ONNX file of 7 nodes, opset 18, from pytorch`."""
        proto = self._file(as_network(model)).model
        maker = f", from {proto.producer_name[:40]}" if proto.producer_name else ""
        versions = ", ".join(sorted({f"{one.domain or 'ai.onnx'} {one.version}" for one in proto.opset_import}))
        return f"ONNX file of {len(proto.graph.node)} nodes, {versions}{maker}"

    def convert(self, model: Any, X: pd.DataFrame | NDArray[Any], target: Target) -> Conversion:
        """Puts the file between the contract's inputs and outputs; see `Converter.convert`.

        Raises:
            ConversionRefused: An input or output has no place, it is random, or the target does not load it.
            DataMismatch: The rows do not fit its inputs.
        """
        network, frame = as_network(model), as_frame(X)
        file = self._file(network)
        random = sorted(RANDOM & {one.rpartition(":")[2] for one in operators(file.model)})
        if random:
            raise ConversionRefused(file.name, f"it answers at random ({', '.join(random)})", "remove that step")
        interface = self._interface(network, frame)
        check_steady(lambda rows: self.answers(network, rows), frame, file.name)
        return interface.conversion(frame, target, lambda rows: self.answers(network, rows), ())

    def answers(self, model: Any, X: pd.DataFrame | NDArray[Any]) -> Answers:
        """What onnxruntime gives with the unchanged file; bare scores of classes as probabilities.

        Raises:
            DataMismatch: The rows do not fit, onnxruntime fails, or an answer is no number.
        """
        network, frame = as_network(model), as_frame(X)
        interface = self._interface(network, frame)
        feed = onnx_inputs.feed(frame, interface.places)
        return interface.ends.answers(self._file(network).run(feed, batch=interface.batch))

    def _file(self, network: Network) -> OnnxFile:
        given = network.model
        if isinstance(given, OnnxFile):
            return given
        if id(given) not in self._files:
            name = "the ONNX model"
            self._files[id(given)] = given, OnnxFile(name, examined(given.SerializeToString(), name, None))
        return self._files[id(given)][1]

    def _interface(self, network: Network, frame: pd.DataFrame) -> Interface:
        key = network.model if network.classes is None and network.shape is None else network
        if id(key) not in self._interfaces:
            file, sample = self._file(network), frame.head(SAMPLE_ROWS)
            places = onnx_inputs.places(file.model, file.name, frame, network.shape)
            found = file.run(onnx_inputs.feed(sample, places), batch=max(place.batch for place in places))
            self._interfaces[id(key)] = key, interface(file, places, found, len(sample), network)
        return self._interfaces[id(key)][1]


def interface(
    file: OnnxFile, places: tuple[onnx_inputs.Place, ...], found: dict[str, Any], rows: int, network: Network
) -> Interface:
    """The file's place in the contract.

    Args:
        file: The file.
        places: Of its inputs.
        found: Its answers to the sample rows.
        rows: Their number.
        network: The file, with what its user says of it.
    """
    ends = onnx_outputs.ends(file.model, file.name, found, rows, network.classes)
    elements = {
        name: onnx.TensorProto.STRING
        if found[name].dtype == object
        else onnx.helper.np_dtype_to_tensor_dtype(found[name].dtype)
        for name in ends.names
    }
    return Interface(name=file.name, model=file.model, places=places, ends=ends, elements=elements)
