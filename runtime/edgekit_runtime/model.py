"""The library's own face: a bundle that answers whatever a program holds its rows in."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from edgekit_contracts.errors import BadInput, EdgekitError, UsageError
from edgekit_contracts.manifest import Feature
from edgekit_runtime.encoding import Batch, Column, Scalar
from edgekit_runtime.engine import Answer, Answers, Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.rows import Table, columns_of, is_row, row_values, units_of, unmasked
from edgekit_runtime.single import Single

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Model:
    """A bundle that was verified, loaded and tested here. Safe to use from several threads.

    Args:
        engine: What answers.
        observer: What counts; None: nothing is counted.
    """

    def __init__(self, engine: Engine, observer: Observer | None = None) -> None:
        self.engine, self.manifest, self.observer = engine, engine.manifest, observer
        self.features: tuple[Feature, ...] = engine.manifest.features
        """What the model takes, in the order of a row: names, types, units, categories."""
        self._names = [feature.name for feature in self.features]
        self._single = Single(observer)
        self._lock = threading.Lock()  # the end
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the model go. What it answered is with the observer, whose window can still be closed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._single.close()
            self.engine.close()

    @overload  # a list of texts is one row, though each text is a sequence of texts
    def predict(  # type: ignore[overload-overlap]
        self, rows: Mapping[str, Scalar] | Sequence[Scalar] | np.ndarray[tuple[int], Any], /
    ) -> Answer: ...

    @overload
    def predict(
        self,
        rows: Mapping[str, Column]
        | Sequence[Mapping[str, Scalar]]
        | Sequence[Sequence[Scalar]]
        | np.ndarray[tuple[int, int], Any]
        | Table,
        /,
    ) -> Answers: ...

    def predict(self, rows: Any, /) -> Answer | Answers:
        """Answers one row, or many.

        Args:
            rows: One row: its values in the order of `features` (a list, a tuple or an array), or feature -> value.
                Several: an array [rows, features], a list of rows of either kind, feature -> column, or a data frame
                (whose `attrs["units"]`, feature -> unit, are checked). None and NaN are missing values.

        Returns:
            An `Answer` to one row, `Answers` to several.

        Raises:
            BadInput: A feature is missing, unknown, of the wrong type or unit, or has a value the model has no answer
                for.
            UsageError: Nothing that holds rows; or the model is closed.
            Refused: ONNX Runtime failed on these rows.
        """
        started_ns = perf_counter_ns()
        try:
            answer = self._single.answer(rows, started_ns)
            return self._usual(rows, started_ns) if answer is None else answer
        except (BadInput, UsageError):
            if self.observer is not None:
                self.observer.count_rejected()
            raise
        except EdgekitError:
            if self.observer is not None:
                self.observer.count_failed()
            raise

    def _usual(self, rows: Any, started_ns: int) -> Answer | Answers:
        """Answers what the ring does not take as it is."""
        single = is_row(rows)
        if single and self._single.ready:
            answer = self._single.answer(self._vector(rows), started_ns)
            if answer is not None:
                return answer
        batch = self._batch(rows, single)
        if self._closed:
            raise UsageError("the model is closed", "load it again")
        answers = self.engine.run(batch)
        if self.observer is not None:
            self.observer.record(batch, answers, (perf_counter_ns() - started_ns) / 1000)
        if not single:
            return answers
        self._single.learn(self.engine, batch)
        return answers.row(0)

    def _vector(self, row: Any) -> NDArray[np.float64]:
        """One row's numbers, of a model that takes numbers alone."""
        if isinstance(row, np.ndarray) and row.dtype.kind in "fiub":
            return row.astype(np.float64)
        return self.engine.encoder.vector(self._names, row_values(row, self._names))

    def _batch(self, rows: Any, single: bool) -> Batch:
        names, encoder, rows = self._names, self.engine.encoder, unmasked(rows)
        if single:
            return encoder.encode({name: (value,) for name, value in zip(names, row_values(rows, names), strict=True)})
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == len(names) and not encoder.text:
            order = encoder.order(names)
            return encoder.encode_tensors({self.manifest.inputs[0].name: rows if order is None else rows[:, order]})
        for name, unit in units_of(rows).items():
            encoder.check_unit(name, unit)
        return encoder.encode(columns_of(rows, names))
