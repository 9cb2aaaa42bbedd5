"""What a framework's converter is, and how the right one is found.

A converter is an entry point of the group `edgekit.converters`, so that another distribution can bring one. Everything
after it (verification, quality, reference statistics, the golden set, the bundle) sees only `Conversion` and `Answers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from edgekit_contracts.errors import NotAModel
from edgekit_contracts.manifest import ClassLabel, Feature, Output, Task, Tensor
from edgekit_converters.target import Target
from edgekit_runtime.engine import Answers

if TYPE_CHECKING:
    import pandas as pd

    from edgekit_runtime.session import Session

__all__ = ["Answers", "Conversion", "Converter", "FileReader", "GROUP", "converters", "file_readers", "find"]

GROUP: Final = "edgekit.converters"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """A model as ONNX, and what the manifest says of it."""

    onnx: bytes
    task: Task
    classes: tuple[ClassLabel, ...]
    """Empty where the model has several targets."""
    features: tuple[Feature, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Output, ...]
    precision: Literal["float64", "float32", "mixed"]
    opset: int
    ml_opset: int
    ir: int
    operators: tuple[str, ...]
    """`domain:Operator`, sorted."""
    targets: tuple[tuple[ClassLabel, ...], ...] = ()
    """The classes of each target of a classification with several: `label` is [rows, targets]."""
    delegated: bool = False
    """Whether a converter that is not edgekit's wrote a part."""
    notes: tuple[str, ...] = ()
    """What a person should know of the conversion, a sentence each."""
    magnifying: tuple[str, ...] = ()
    """Steps, by their paths, that the original computes in float32, magnifying its rounding, and the graph in float64:
    `edgekit_converters.magnified`."""
    session: Session | None = field(default=None, compare=False, repr=False)
    """The file as a device loads it, where the conversion had to ask it already."""


@runtime_checkable
class Converter(Protocol):
    """One framework's way to ONNX."""

    @property
    def framework(self) -> str:
        """The framework's name, such as `scikit-learn`."""
        ...

    @property
    def supported(self) -> str:
        """What it takes, for the error that nothing was found."""
        ...

    @property
    def ensures(self) -> str:
        """What holds for every conversion that it does not refuse."""
        ...

    def requires(self, model: Any) -> bool:
        """Whether it takes this object; cheap, and false rather than an error."""
        ...

    def describe(self, model: Any) -> str:
        """The model in a few words, for people."""
        ...

    def convert(self, model: Any, X: pd.DataFrame, target: Target) -> Conversion:
        """Writes the model as ONNX.

        Args:
            model: Fitted; `requires` took it.
            X: Rows of the kind that the model was trained on: types, ranges and categories are read from them.
            target: The ONNX to write.

        Raises:
            ConversionRefused: A step has no faithful conversion.
            DataMismatch: The rows do not fit the model.
            NotAModel: The model is not fitted.
        """
        ...

    def answers(self, model: Any, X: pd.DataFrame) -> Answers:
        """The original model's own answers to the rows."""
        ...


@runtime_checkable
class FileReader(Protocol):
    """What a converter has besides, if its framework writes files of its own: `edgekit_converters.load` asks it."""

    @property
    def files(self) -> str:
        """The files that it reads, for the error that a file is none: such as `an .onnx file`."""
        ...

    def reads(self, path: Path, head: bytes) -> bool:
        """Whether a file is the framework's, by its name and its first 4096 bytes; never an error.

        True for a damaged one too, so that `load` says what is wrong with it.
        """
        ...

    def load(self, path: Path, *, trust: bool) -> Any:
        """Reads the file, without running what is in it.

        Args:
            path: Exists, and is a file; `reads` took it.
            trust: Its maker vouches for it: code in it may run.

        Raises:
            UntrustedModel: Loading runs code from the file, and `trust` is not given.
            NotAModel: It is damaged, or holds something else.
            MissingExtra: The framework is not installed.
        """
        ...


def converters() -> tuple[Converter, ...]:
    """One of each registered converter, by the name of its entry point."""
    return tuple(point.load()() for point in sorted(entry_points(group=GROUP), key=lambda point: point.name))


def file_readers() -> tuple[FileReader, ...]:
    """Those of the converters that read files."""
    return tuple(converter for converter in converters() if isinstance(converter, FileReader))


def find(model: Any) -> Converter:
    """The first converter that takes the model.

    Raises:
        NotAModel: None does; the error says what is supported.
    """
    known = converters()
    for converter in known:
        if converter.requires(model):
            return converter
    kind = f"an object of {type(model).__module__}.{type(model).__qualname__}"
    raise NotAModel(kind, "; ".join(converter.supported for converter in known) or "nothing: no converter is installed")
