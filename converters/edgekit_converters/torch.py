"""PyTorch: modules and exported programs, through `torch.export` and PyTorch's own ONNX exporter.

`torch.export` follows the module with symbolic rows and refuses what it cannot follow, such as a branch on a value; the
exporter that only records one run would write down that run's branch, so it is not used. The module answers in
evaluation mode, as it must (dropout drops, batch normalization counts, in training mode), and keeps its own mode.

Files: `.pt2` of `torch.export.save`, and pickled modules (`.pt`, `.pth`). Both may run code when they are loaded
(`torch.export.load` unpickles: "Never load data from an untrusted source"), so both need `trust`.

PyTorch is imported where a model of it is given, never before.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import (
    ConversionRefused,
    DataMismatch,
    EdgekitError,
    MissingExtra,
    NotAModel,
    UntrustedModel,
)
from edgekit_converters import onnx_inputs
from edgekit_converters.data import as_frame
from edgekit_converters.faults import first_line
from edgekit_converters.interface import Interface
from edgekit_converters.network import Network, as_network, check_steady, size_of
from edgekit_converters.onnx_file import SAMPLE_ROWS, OnnxFile, interface
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.target import WRITTEN, Target

EXAMPLE_ROWS: Final = 3
"""Rows that the module is followed with: one row could be taken for a constant."""

_SUFFIXES: Final = frozenset({".pt2", ".pt", ".pth"})


class UntrustedProgram(UntrustedModel):
    """A file of PyTorch, which may run code when it is loaded."""

    def __init__(self, path: str) -> None:
        EdgekitError.__init__(
            self,
            f"{path} is a PyTorch file, and loading it may run code that is in it",
            "pass --trust if you made the file yourself, or export the model to ONNX and give that",
        )


@dataclass(frozen=True, kw_only=True)
class _Followed:
    """A module that was followed into ONNX."""

    interface: Interface
    place: onnx_inputs.Place
    training: bool
    """It was given in training mode."""


class TorchConverter:
    """The converter of PyTorch."""

    framework: Final = "PyTorch"
    supported: Final = "a torch.nn.Module or an exported program that takes one tensor of rows"
    files: Final = "with --trust, a .pt2 file of torch.export.save"
    ensures: Final = (
        "the module in evaluation mode, in its own precision, rows first; the same answer to a row whatever the others "
        "are; what torch.export cannot follow is refused"
    )

    def __init__(self) -> None:
        # id -> the object, so that the id stays its own, and what was found of it.
        self._known: dict[int, tuple[Any, _Followed]] = {}

    def reads(self, path: Path, head: bytes) -> bool:
        """By its suffix: the files are zip archives, as others are."""
        return path.suffix.lower() in _SUFFIXES

    def load(self, path: Path, *, trust: bool) -> Any:
        """Reads an exported program or a pickled module.

        Raises:
            UntrustedModel: Without `trust`.
            NotAModel: Damaged; TorchScript; or weights without their module.
            MissingExtra: PyTorch is not installed.
        """
        if not trust:
            raise UntrustedProgram(str(path))
        torch = _torch()
        try:
            with _quiet():
                if path.suffix.lower() == ".pt2":
                    return torch.export.load(io.BytesIO(path.read_bytes()))
                model = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:  # unpickling raises whatever the content causes
            raise NotAModel(f"{path}, which cannot be read ({first_line(error)}),", self.files) from error
        if isinstance(model, Mapping):
            raise NotAModel(
                f"{path}, which holds weights and no module,",
                f"{self.files}: load the weights into their module first, and export that",
            )
        return model

    def requires(self, model: Any) -> bool:
        """A `torch.nn.Module` or `torch.export.ExportedProgram`, or a `Network` of one."""
        torch: Any = sys.modules.get("torch")
        given = as_network(model).model
        return torch is not None and isinstance(given, torch.nn.Module | torch.export.ExportedProgram)

    def describe(self, model: Any) -> str:
        """Such as `PyTorch Sequential, 1,234 parameters`."""
        given = as_network(model).model
        weights = given.parameters() if hasattr(given, "parameters") else given.state_dict.values()
        return f"PyTorch {type(given).__name__}, {sum(one.numel() for one in weights):,} parameters"

    def convert(self, model: Any, X: pd.DataFrame | NDArray[Any], target: Target) -> Conversion:
        """Writes the module as ONNX; see `Converter.convert`.

        Raises:
            ConversionRefused: It cannot be followed, is random, or mixes rows; or its outputs have no place.
            DataMismatch: It does not answer the rows.
        """
        network, frame = as_network(model), as_frame(X)
        name = _name(network.model)

        def original(rows: pd.DataFrame) -> Answers:
            return self.answers(network, rows)

        followed = self._follow(network, frame)
        check_steady(original, frame, name)
        notes = ("it was in training mode: taken in evaluation mode",) if followed.training else ()
        return followed.interface.conversion(frame, target, original, notes)

    def answers(self, model: Any, X: pd.DataFrame | NDArray[Any]) -> Answers:
        """The module's own answers, in evaluation mode; bare scores of classes as probabilities.

        Raises:
            DataMismatch: The module raises an error for these rows, or an answer is no number.
        """
        network, frame = as_network(model), as_frame(X)
        followed = self._follow(network, frame)
        rows = onnx_inputs.feed(frame, [followed.place])[followed.place.name]
        names = [info.name for info in followed.interface.model.graph.output]
        return followed.interface.ends.answers(dict(zip(names, _ask(network.model, rows), strict=True)))

    def _follow(self, network: Network, frame: pd.DataFrame) -> _Followed:
        key = network.model if network.classes is None and network.shape is None else network
        if id(key) not in self._known:
            self._known[id(key)] = key, _follow(network, frame)
        return self._known[id(key)][1]


def _follow(network: Network, frame: pd.DataFrame) -> _Followed:
    """Finds what the module takes and gives, and writes it as ONNX."""
    given, name = network.model, _name(network.model)
    shape = network.shape or _own_shape(given) or (frame.shape[1],)
    if size_of(shape) != frame.shape[1]:
        raise DataMismatch(
            f"it has {frame.shape[1]} columns, and a row of the shape {list(shape)} takes {size_of(shape)}",
            "give the model's features only, name the target's column with --target, or correct the shape",
        )
    columns, sample = tuple(map(str, frame.columns)), frame.head(SAMPLE_ROWS)
    place, found = _first_answer(given, name, shape, columns, sample)
    rows = onnx_inputs.feed(sample, [place])[place.name]
    example = np.concatenate([rows] * EXAMPLE_ROWS)[:EXAMPLE_ROWS]
    model = _export(given, name, example)
    outputs = [info.name for info in model.graph.output]
    if len(outputs) != len(found) or [info.name for info in model.graph.input] != [place.name]:
        raise ConversionRefused(name, "the exported graph has other inputs or outputs", "report it")
    answers = dict(zip(outputs, found, strict=True))
    training = getattr(given, "training", False) and not _is_program(given)
    made = interface(OnnxFile(name, model), (place,), answers, len(sample), network)
    return _Followed(interface=made, place=place, training=training)


def _first_answer(
    given: Any, name: str, shape: tuple[int, ...], columns: tuple[str, ...], sample: pd.DataFrame
) -> tuple[onnx_inputs.Place, list[NDArray[Any]]]:
    """Asks in the module's own precision, and, where it refuses that, in whole numbers (an embedding reads places)."""
    torch = _torch()
    weights = given.parameters() if hasattr(given, "parameters") else given.state_dict.values()
    wide = any(one.dtype == torch.float64 for one in weights)
    fault = ""
    for element in (onnx.TensorProto.DOUBLE if wide else onnx.TensorProto.FLOAT, onnx.TensorProto.INT64):
        place = onnx_inputs.Place(name="x", element=element, shape=shape, columns=columns, batch=0)
        try:
            return place, _ask(given, onnx_inputs.feed(sample, [place])["x"])
        except DataMismatch as error:
            fault = fault or error.sentence.split(": ", 1)[-1]
    raise DataMismatch(f"{name} does not answer them: {fault}", "check the shape of a row, and its types")


def _ask(given: Any, rows: NDArray[Any]) -> list[NDArray[Any]]:
    """The module's outputs for some rows, in evaluation mode, flat and in order."""
    torch = _torch()
    module = given.module() if _is_program(given) else given
    weight = next(iter(module.parameters()), None)
    try:
        with _evaluating(module), torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = module(torch.from_numpy(rows).to("cpu" if weight is None else weight.device))
        flat, _ = torch.utils._pytree.tree_flatten(answer)
        return [one.detach().cpu().numpy() for one in flat]
    except Exception as error:  # a module raises whatever it likes
        raise DataMismatch(f"the original model does not answer these rows: {first_line(error)}") from error


def _export(given: Any, name: str, example: NDArray[Any]) -> onnx.ModelProto:
    torch = _torch()
    try:
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    except ImportError as error:
        raise MissingExtra("onnxscript", "edgekit-toolkit", "torch") from error
    try:
        with _quiet(), _evaluating(given):
            program = given
            if not _is_program(given):
                rows = ({0: torch.export.Dim.DYNAMIC},)
                program = torch.export.export(given, (torch.from_numpy(example),), dynamic_shapes=rows, strict=False)
            written = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=WRITTEN.opset,
                input_names=["x"],
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever it meets
        raise ConversionRefused(
            name,
            f"PyTorch's exporter does not follow it: {first_line(error.__cause__ or error)}",
            "write its branches with torch.where, let only the number of rows vary, and try torch.export.export on it",
        ) from error
    model: onnx.ModelProto = written.model_proto
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _own_shape(given: Any) -> tuple[int, ...] | None:
    """The shape of one row that a program was exported with; None of a module.

    Raises:
        ConversionRefused: It has several inputs, or takes a fixed number of rows.
    """
    if not _is_program(given):
        return None
    name, inputs = _name(given), given.graph_signature.user_inputs
    values = [node.meta.get("val") for node in given.graph.nodes if node.name in inputs]
    if len(values) != 1 or not hasattr(values[0], "shape") or not len(values[0].shape):
        raise ConversionRefused(
            name, f"it takes {len(values)} inputs", "export a program that takes one tensor of rows"
        )
    rows, *shape = values[0].shape
    if isinstance(rows, int) or not all(isinstance(one, int) for one in shape):
        raise ConversionRefused(
            name,
            f"it was exported for the shape {[str(one) for one in values[0].shape]}",
            "export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},): the number of rows varies, nothing else",
        )
    return tuple(shape)


def _is_program(given: Any) -> bool:
    return bool(isinstance(given, _torch().export.ExportedProgram))


def _name(given: Any) -> str:
    return f"the PyTorch {type(given).__name__}"


@contextmanager
def _evaluating(given: Any) -> Iterator[None]:
    """Evaluation mode, and each part's own mode after it."""
    if not hasattr(given, "modules") or type(given).__name__ == "ExportedProgram":
        yield
        return
    training = [module for module in given.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's remarks on its own workings are not for the user of edgekit."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "edgekit-toolkit", "torch") from error
    import torch.utils._pytree

    return torch
