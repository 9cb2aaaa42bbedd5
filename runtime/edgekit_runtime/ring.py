"""One row at a time, answered where it lies.

A ring is a block of rows whose memory ONNX Runtime was told once: a row is copied into the next place, the bound call
reads it there and writes its answers beside it, and when the block is full the observer counts it as it stands. So a
call makes no arrays, and a row that is observed is not copied again. Each place begins at a multiple of 64 bytes, as
ONNX Runtime's own memory does, so that vectorised sums add in the same order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.manifest import Output
from edgekit_runtime.encoding import PLAIN_SQUARES, Batch
from edgekit_runtime.engine import Answer, Engine, no_number
from edgekit_runtime.observe import Observer
from edgekit_runtime.session import Bound
from edgekit_runtime.tally import Rows, score_columns

_ALIGNMENT: Final = 64


class Ring:
    """Places for rows that wait to be counted; without an observer one place, used again and again.

    Args:
        engine: The model; it takes numbers alone.
        observer: What counts.
        sample: A row that the model answers, by which the answers' sizes are known.

    Raises:
        ValueError: The model, or its session, is none whose memory can be bound.
        Refused: ONNX Runtime fails on the sample.
    """

    def __init__(self, engine: Engine, observer: Observer | None, sample: Batch) -> None:
        manifest, encoder = engine.manifest, engine.encoder
        self._check, self._observer = encoder.check, observer
        places = 1 if observer is None else observer.block_rows
        self._block = _aligned(places, len(encoder.numbers), np.dtype(encoder.dtype))
        self._rows = list(self._block)
        self._outputs: dict[str, NDArray[Any]] = {}
        answers: list[list[NDArray[Any] | None]] = []
        for output, found in zip(manifest.outputs, engine.outputs(sample), strict=True):
            if output.role == "label" and found.dtype == object:  # a text has no place of its own
                answers.append([None] * places)
                continue
            columns = found.reshape(1, -1)
            self._outputs[output.role] = block = _aligned(places, columns.shape[1], columns.dtype)
            answers.append([block[place : place + 1].reshape(found.shape) for place in range(places)])
        self._calls = [
            _bound(engine, self._block[place : place + 1], [each[place] for each in answers]) for place in range(places)
        ]
        self._label = _reader(manifest.outputs, self._outputs.get("label"), self._calls)
        self._probabilities = list(self._outputs.get("probabilities", ()))
        self._values = list(self._outputs.get("value", ()))
        self._numbers_are_answers = manifest.task != "transformation"
        self._lock = threading.Lock()  # the places
        self._used = 0
        self._labels: list[Any] = []
        self._latencies_ns: list[int] = []

    def answer(self, row: NDArray[np.float64], started_ns: int) -> Answer | None:
        """Answers a row, and has it counted.

        Args:
            row: [numeric features], in the tensor's order.
            started_ns: When its call began, by `time.perf_counter_ns`.

        Returns:
            The answer; None where another thread is at it, or ONNX Runtime fails: then the usual way is to be taken.

        Raises:
            BadInput: The model has no answer for it.
        """
        if not np.vdot(row, row) < PLAIN_SQUARES:
            self._check(row)
        if not self._lock.acquire(False):
            return None
        try:
            place = self._used
            self._rows[place][:] = row
            try:
                self._calls[place].run()
            except Exception:  # onnxruntime raises several unrelated classes
                return None
            label = None if self._label is None else self._label(place)
            probabilities = tuple(self._probabilities[place].tolist()) if self._probabilities else ()
            values = tuple(self._values[place].tolist()) if self._values else ()
            if self._numbers_are_answers:
                numbers = probabilities or values
                total = sum(numbers)
                if total != total and any(number != number for number in numbers):  # or infinities of both signs
                    raise no_number()
            if self._observer is not None:
                self._labels.append(label)
                self._latencies_ns.append(perf_counter_ns() - started_ns)
                self._used = place + 1
                if self._used == len(self._rows):
                    self._count()
            return Answer(label, probabilities, values)
        finally:
            self._lock.release()

    def flush(self) -> None:
        """Has the rows counted that wait."""
        with self._lock:
            if self._used:
                self._count()

    def _count(self) -> None:
        assert self._observer is not None
        used = slice(0, self._used)
        scores = score_columns(self._label is not None, self._outputs.get("probabilities"), self._outputs.get("value"))
        rows = Rows(self._used, self._block[used], (), self._labels, None if scores is None else scores[used])
        self._observer.count(rows, [latency / 1000 for latency in self._latencies_ns])
        self._used, self._labels, self._latencies_ns = 0, [], []


def _bound(engine: Engine, row: NDArray[Any], answers: list[NDArray[Any] | None]) -> Bound:
    bound = engine.bind(row, answers)
    if bound is None:
        raise ValueError("the model's memory cannot be bound")
    return bound


def _reader(outputs: Sequence[Output], labels: NDArray[Any] | None, calls: list[Bound]) -> Callable[[int], Any] | None:
    """Place -> its label, as Python has it; None where the model gives none."""
    index = next((index for index, output in enumerate(outputs) if output.role == "label"), None)
    if index is None:
        return None
    if labels is None:
        return lambda place: calls[place].results[index].numpy()[0]
    column = labels[:, 0]
    return (lambda place: bool(column[place])) if outputs[index].dtype == "bool" else column.item


def _aligned(places: int, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """[places, width] of zeros, of which each row begins at a multiple of 64 bytes."""
    stride = -(-width * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    memory = np.zeros(places * stride + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    rows: NDArray[Any] = memory[start : start + places * stride].reshape(places, stride)[:, : width * dtype.itemsize]
    return rows.view(dtype)
