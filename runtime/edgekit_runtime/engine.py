"""Rows in, answers out: the only place that calls ONNX Runtime.

`encode` turns named columns into the model's tensors and refuses, by the feature's name, what the original model would
refuse; `run` is one call of the session. The converters measure and verify with this very class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit_contracts import limits
from edgekit_contracts.errors import BadInput, EdgekitError, EnvironmentFault, Refused
from edgekit_contracts.manifest import Feature, Manifest

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)

Column = Sequence[float | str | bool | None] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the form that the session takes."""

    rows: int
    numbers: NDArray[np.float64] | NDArray[np.float32] | None
    """[rows, numeric features]; NaN is a missing value."""
    text: NDArray[np.object_] | None
    """[rows, text features]; the manifest's `missing_text` is a missing value."""

    def part(self, start: int, stop: int) -> Batch:
        """Some of the rows."""
        numbers = None if self.numbers is None else self.numbers[start:stop]
        return Batch(min(stop, self.rows) - start, numbers, None if self.text is None else self.text[start:stop])


@dataclass(frozen=True, slots=True)
class Answers:
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


class Session(Protocol):
    """What an Engine needs of an `onnxruntime.InferenceSession`."""

    def run(self, names: Sequence[str], feed: Mapping[str, Any], /) -> Sequence[Any]:
        """The outputs of these names."""
        ...


class Engine:
    """A model that answers. Safe to call from several threads.

    Args:
        model: The ONNX file's bytes (bytes, so that it cannot refer to other files).
        manifest: The bundle's manifest.
        threads: Threads that ONNX Runtime uses inside one call.
        session: What runs the graph; by default ONNX Runtime in this process.

    Raises:
        Refused: ONNX Runtime does not load the model, or is known to answer wrongly.
    """

    def __init__(self, model: bytes, manifest: Manifest, *, threads: int = 1, session: Session | None = None) -> None:
        self.manifest = manifest
        self.features = {feature.name: feature for feature in manifest.features}
        self._session: Session = session or _session(model, manifest, threads)
        self._outputs = [output.name for output in manifest.outputs]
        self._roles = [output.role for output in manifest.outputs]
        self._label_dtype = next((output.dtype for output in manifest.outputs if output.role == "label"), None)
        self._tensors = {("text" if tensor.dtype == "text" else "numbers"): tensor for tensor in manifest.inputs}
        self._free = any(feature.free for feature in manifest.features)
        self._known = {
            feature.name: frozenset(feature.categories or ()) for feature in manifest.features if feature.closed
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session

    def encode(self, columns: Mapping[str, Column]) -> Batch:
        """Makes tensors of named columns of equal length.

        Numbers may be int, float, bool or None (missing); texts str or None.

        Raises:
            BadInput: A feature is missing, unknown, of the wrong type, or has a value the model has no answer for.
        """
        lacking = [name for name in self.features if name not in columns]
        if lacking:
            raise BadInput("", f"the request lacks {_names(lacking)}", "send every feature; null is a missing value")
        odd = [name for name in columns if name not in self.features]
        if odd:
            raise BadInput("", f"the model has no feature {_names(odd)}", "send the model's features only")
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise BadInput("", f"the columns have different lengths ({', '.join(map(str, sorted(lengths)))})")
        rows = lengths.pop()
        if rows == 0:
            raise BadInput("", "the request has no rows")
        return self._batch(
            rows,
            [self._numbers(name, columns[name]) for name in self._columns("numbers")],
            [self._text(name, columns[name]) for name in self._columns("text")],
        )

    def encode_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> Batch:
        """Makes a batch of the graph's own tensors, `[rows, columns]` each, with the checks of `encode`.

        Raises:
            BadInput: As `encode`; or a tensor of another shape.
        """
        columns: dict[str, Column] = {}
        for tensor in self.manifest.inputs:
            array = tensors.get(tensor.name)
            if array is None:
                raise BadInput("", f"the request lacks the tensor '{tensor.name}'")
            if array.ndim != 2 or array.shape[1] != len(tensor.features):
                raise BadInput(
                    "", f"tensor '{tensor.name}' has shape {list(array.shape)}; expected [rows, {len(tensor.features)}]"
                )
            columns.update(zip(tensor.features, array.T, strict=True))
        return self.encode(columns)

    def run(self, batch: Batch) -> Answers:
        """One call of the session; of free texts, one for every few rows.

        Raises:
            Refused: ONNX Runtime failed on these rows.
        """
        if self._free and batch.rows > limits.DOCUMENT_ROWS:
            starts = range(0, batch.rows, limits.DOCUMENT_ROWS)
            return _join([self.run(batch.part(start, start + limits.DOCUMENT_ROWS)) for start in starts])
        feed = {tensor.name: batch.text if kind == "text" else batch.numbers for kind, tensor in self._tensors.items()}
        try:
            outputs: Any = self._session.run(self._outputs, feed)
        except EdgekitError:
            raise
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise Refused(
                f"ONNX Runtime failed on {batch.rows} rows: {_first_line(error)}",
                "run 'edgekit-runtime verify' on the bundle on this machine",
            ) from error
        results = dict(zip(self._roles, outputs, strict=True))
        labels = results.get("label")
        if labels is not None and self._label_dtype == "bool":
            labels = labels.astype(bool)
        answers = Answers(labels, results.get("probabilities"), results.get("value"))
        numbers = answers.probabilities if answers.probabilities is not None else answers.values
        # What a transformer makes of a missing value may be a missing value.
        if numbers is not None and self.manifest.task != "transformation" and np.isnan(numbers).any():
            raise BadInput("", "the model gives no number for these rows", "check them for implausible values")
        return answers

    def predict(self, columns: Mapping[str, Column]) -> Answers:
        """`run(encode(columns))`.

        Raises:
            BadInput, Refused: As `encode` and `run`.
        """
        return self.run(self.encode(columns))

    def _columns(self, kind: str) -> tuple[str, ...]:
        return self._tensors[kind].features if kind in self._tensors else ()

    def _batch(self, rows: int, numbers: list[NDArray[Any]], text: list[NDArray[Any]]) -> Batch:
        dtype = np.float32 if "numbers" in self._tensors and self._tensors["numbers"].dtype == "float32" else np.float64
        matrix: NDArray[Any] | None = np.ascontiguousarray(np.stack(numbers, axis=1), dtype=dtype) if numbers else None
        texts = np.ascontiguousarray(np.stack(text, axis=1)) if text else None
        return Batch(rows, matrix, texts)

    def _numbers(self, name: str, values: Column) -> NDArray[np.float64]:
        feature = self.features[name]
        if not isinstance(values, np.ndarray) or values.dtype == object:
            for value in values:
                if not isinstance(value, int | float | np.number | np.bool_) and value is not None:
                    raise BadInput(name, f"{_show(value)} is not a number", "send numbers, true or false, or null")
        elif values.dtype.kind not in "fiub":
            raise BadInput(name, f"{_show(values[0])} is not a number", "send numbers, true or false, or null")
        try:
            column = np.asarray(values, dtype=np.float64)  # None becomes NaN
        except (OverflowError, TypeError, ValueError) as error:
            raise BadInput(name, "a value is not a 64-bit number") from error
        # scikit-learn refuses what is beyond float32 wherever a step computes in it, and nothing was proved out there.
        if (np.abs(column) > FLOAT32_MAX).any():
            raise BadInput(name, "a value is beyond 3.4e38, where the model was not proved", "send a plausible value")
        if not feature.nullable and np.isnan(column).any():
            raise _no_answer_for_missing(feature)
        return column

    def _text(self, name: str, values: Column) -> NDArray[np.object_]:
        feature, missing = self.features[name], self.manifest.missing_text
        known = self._known.get(name)
        most = limits.DOCUMENT_MAX_CHARS if feature.free else limits.TEXT_MAX_CHARS
        column = np.empty(len(values), dtype=object)
        for row, value in enumerate(values):
            if value is None or (isinstance(value, float) and math.isnan(value)):
                if not feature.nullable:
                    raise _no_answer_for_missing(feature)
                column[row] = missing
                continue
            if not isinstance(value, str):
                raise BadInput(name, f"{_show(value)} is not text", "send strings or null")
            if value == missing or len(value) > most:
                raise BadInput(name, f"{_show(value)} is reserved or longer than {most} characters")
            if known is not None and value not in known:
                raise BadInput(
                    name, f"{_show(value)} is unknown to the model", f"send one of: {', '.join(sorted(known)[:10])}"
                )
            column[row] = value
        return column


def _join(parts: Sequence[Answers]) -> Answers:
    def joined(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Answers(
        joined([part.labels for part in parts]),
        joined([part.probabilities for part in parts]),
        joined([part.values for part in parts]),
    )


def _session(model: bytes, manifest: Manifest, threads: int) -> ort.InferenceSession:
    if ort.__version__ in limits.WRONG_RUNTIMES:
        raise EnvironmentFault(
            f"onnxruntime {ort.__version__} answers wrongly for tree ensembles",
            "install another version of onnxruntime",
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning worker burns a core between requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises several unrelated classes
        raise Refused(
            f"onnxruntime {ort.__version__} does not load {manifest.title}: {_first_line(error)}",
            f"install onnxruntime {manifest.variant.runtime} or newer, or rebuild the bundle for this device",
        ) from error


def _no_answer_for_missing(feature: Feature) -> BadInput:
    return BadInput(feature.name, "is missing, and the model has no answer for that", "send a value")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name[:64]}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
