"""Rows in, answers out: the only place that calls ONNX Runtime.

`encode` turns named columns into the model's tensors (`edgekit_runtime.encoding`); `run` is one call of the session;
`bind` is the same call on memory that stays where it is. The converters measure and verify with this very class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import numpy as np

from edgekit_contracts import limits
from edgekit_contracts.errors import BadInput, EdgekitError, Refused, UsageError
from edgekit_contracts.manifest import ClassLabel, Manifest
from edgekit_runtime.encoding import Batch, Column, Encoder, sum_of_squares
from edgekit_runtime.session import Bound, Session, SessionSettings, bind, direct_run, first_line, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answer", "Answers", "Batch", "Column", "Engine"]

_SETTINGS: Final = SessionSettings()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the model says of one row."""

    label: ClassLabel | None
    """The class, of the classes' own type; None where the model gives none."""
    probabilities: tuple[float, ...] = ()
    """In the order of the manifest's classes; empty where the model gives none."""
    values: tuple[float, ...] = ()
    """What is predicted or transformed; beside a label the decision function."""

    @property
    def value(self) -> float:
        """The only one of `values`: what a regression predicts.

        Raises:
            UsageError: The model gives none, or several.
        """
        if len(self.values) != 1:
            raise UsageError(f"the answer has {len(self.values)} values", "read label, probabilities or values")
        return self.values[0]

    @property
    def confidence(self) -> float:
        """The largest probability; NaN where the model gives none."""
        return max(self.probabilities, default=math.nan)


class Answers(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the model says of each row."""

    labels: NDArray[Any] | None
    """[rows]: class labels, of the classes' own type; [rows, targets] where the model has several targets."""
    probabilities: NDArray[Any] | None
    """[rows, classes], in the order of the manifest's classes; those of several targets side by side."""
    values: NDArray[Any] | None
    """[rows, columns]: what is predicted or transformed; beside labels the decision function."""

    @property
    def scores(self) -> NDArray[Any]:
        """[rows]: the confidence or the largest decision beside a label, else the first value; NaN for none."""
        if self.probabilities is not None:
            return np.asarray(self.probabilities.max(axis=1))
        if self.values is not None:
            return self.values[:, 0] if self.labels is None else np.asarray(self.values.max(axis=1))
        assert self.labels is not None
        return np.full(len(self.labels), np.nan)

    def part(self, start: int, stop: int) -> Answers:
        """To some of the rows."""
        labels, probabilities, values = self.labels, self.probabilities, self.values
        return Answers(
            None if labels is None else labels[start:stop],
            None if probabilities is None else probabilities[start:stop],
            None if values is None else values[start:stop],
        )

    def row(self, at: int) -> Answer:
        """What the model says of one of the rows, of a model with one label a row."""
        label = None if self.labels is None else self.labels[at : at + 1].tolist()[0]
        probabilities = () if self.probabilities is None else tuple(self.probabilities[at].tolist())
        return Answer(label, probabilities, () if self.values is None else tuple(self.values[at].tolist()))


class Engine:
    """A model that answers. Safe to call from several threads.

    Args:
        model: The ONNX file's bytes (bytes, so that it cannot refer to other files).
        manifest: The bundle's manifest.
        settings: How ONNX Runtime runs it.
        session: What runs the graph; by default ONNX Runtime in this process.

    Raises:
        Refused: ONNX Runtime does not load the model, or is known to answer wrongly.
    """

    def __init__(
        self,
        model: bytes,
        manifest: Manifest,
        *,
        settings: SessionSettings = _SETTINGS,
        session: Session | None = None,
    ) -> None:
        self.manifest = manifest
        self.encoder = Encoder(manifest)
        self.features = self.encoder.features
        self._session: Session = session or open_session(model, manifest, settings)
        self._run = direct_run(self._session)
        self._outputs = [output.name for output in manifest.outputs]
        at = {output.role: index for index, output in enumerate(manifest.outputs)}
        self._label, self._probabilities, self._value = at.get("label"), at.get("probabilities"), at.get("value")
        self._truth = any(output.role == "label" and output.dtype == "bool" for output in manifest.outputs)
        self._numbers = next((tensor.name for tensor in manifest.inputs if tensor.dtype != "text"), None)
        self._text = next((tensor.name for tensor in manifest.inputs if tensor.dtype == "text"), None)
        self._hands_on = manifest.task == "transformation"
        self._free = any(feature.free for feature in manifest.features)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets ONNX Runtime's session go."""
        del self._session, self._run

    def encode(self, columns: Mapping[str, Column]) -> Batch:
        """Named columns as the model's tensors: `Encoder.encode`.

        Raises:
            BadInput: They do not fit the model.
        """
        return self.encoder.encode(columns)

    def encode_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> Batch:
        """The graph's own tensors: `Encoder.encode_tensors`.

        Raises:
            BadInput: They do not fit the model.
        """
        return self.encoder.encode_tensors(tensors)

    def run(self, batch: Batch) -> Answers:
        """One call of the session; of free texts, one for every few rows.

        Raises:
            Refused: ONNX Runtime failed on these rows.
        """
        if self._free and batch.rows > limits.DOCUMENT_ROWS:
            starts = range(0, batch.rows, limits.DOCUMENT_ROWS)
            return _join([self.run(batch.part(start, start + limits.DOCUMENT_ROWS)) for start in starts])
        outputs = self.outputs(batch)
        labels = None if self._label is None else outputs[self._label]
        answers = Answers(
            labels.astype(bool) if labels is not None and self._truth else labels,
            None if self._probabilities is None else outputs[self._probabilities],
            None if self._value is None else outputs[self._value],
        )
        numbers = answers.probabilities if answers.probabilities is not None else answers.values
        # What a transformer makes of a missing value may be a missing value.
        if numbers is not None and not self._hands_on and math.isnan(sum_of_squares(numbers)):
            raise no_number()
        return answers

    def outputs(self, batch: Batch) -> Sequence[Any]:
        """The graph's outputs as it gives them, in the manifest's order.

        Raises:
            Refused: ONNX Runtime failed on these rows.
        """
        feed: dict[str, Any] = {}
        if self._numbers is not None:
            feed[self._numbers] = batch.numbers
        if self._text is not None:
            feed[self._text] = batch.text
        try:
            return self._run(self._outputs, feed)
        except EdgekitError:
            raise
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise Refused(
                f"ONNX Runtime failed on {batch.rows} rows: {first_line(error)}",
                "run 'edgekit-runtime verify' on the bundle on this machine",
            ) from error

    def bind(self, numbers: NDArray[Any], outputs: Sequence[NDArray[Any] | None]) -> Bound | None:
        """A call on memory that stays where it is; None where the session cannot do that, or the model takes text.

        Args:
            numbers: [rows, numeric features] of the tensor's type, contiguous.
            outputs: One for each output, likewise, of the answer's shape and type; None: ONNX Runtime keeps it itself.
        """
        if self._numbers is None or self._text is not None:
            return None
        return bind(self._session, {self._numbers: numbers}, dict(zip(self._outputs, outputs, strict=True)))

    def predict(self, columns: Mapping[str, Column]) -> Answers:
        """`run(encode(columns))`.

        Raises:
            BadInput, Refused: As `encode` and `run`.
        """
        return self.run(self.encode(columns))


def no_number() -> BadInput:
    """A refusal: the model answers with NaN."""
    return BadInput("", "the model gives no number for these rows", "check them for implausible values")


def _join(parts: Sequence[Answers]) -> Answers:
    def joined(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Answers(
        joined([part.labels for part in parts]),
        joined([part.probabilities for part in parts]),
        joined([part.values for part in parts]),
    )
