"""One row at a time, answered where it lies.

A ring has places for rows whose memory ONNX Runtime was told once: a row is copied into a free place, the bound call
reads it there and writes its answers beside it, and when every place is taken the observer has them counted together.
So a call makes no arrays. Threads take different places: a list's `pop` and `append` are one step each, and no call
waits for another.

Memory begins at a multiple of 64 bytes, as ONNX Runtime's own does, so that vectorised sums add in the same order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from time import perf_counter_ns
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import BadInput
from edgekit_runtime.encoding import Batch
from edgekit_runtime.engine import Answer, Engine, no_number
from edgekit_runtime.observe import Observer
from edgekit_runtime.session import Bound, first_line
from edgekit_runtime.tally import Rows, score_columns

PLACES: Final = 64
"""Each costs 3 kB, and more of them would leave a core's cache between two of their calls."""
PLACES_UNOBSERVED: Final = 8
"""Threads that are answered at once where nothing is counted."""
_ALIGNMENT: Final = 64
_CODES: Final = {"float64": "d", "float32": "f", "int64": "q", "int32": "i", "bool": "?"}
"""Types of outputs -> the codes of `struct`, which reads all of a place's outputs in one step."""
_DOUBLE: Final = np.dtype(np.float64)

_TOPS: Final = slice(7 if sys.byteorder == "little" else 0, None, 8)
"""Of float64 numbers the bytes with the sign and the upper seven bits of the exponent."""
_PLAIN_TOPS: Final = bytes([*range(0x47), *range(0x80, 0xC7)])
"""Those of numbers below 2**113: no NaN, nothing infinite, nothing beyond float32. One look at bytes takes a third of
the time of one at numbers; of others the encoder's check decides."""

Held = tuple[Answer, int]
"""An answer, and the number of the place where its row waits."""
_Place = tuple[Any, Callable[[], object], memoryview, int, Bound]
"""The row's memory, the call on it, the bytes of its answers, its number, and the call's binding."""


class Ring:
    """Places for rows that wait to be counted; without an observer, for those that are being answered.

    Args:
        engine: The model; it takes numbers alone.
        observer: What counts.
        sample: A row that the model answers, by which the answers' sizes are known.

    Raises:
        ValueError: The model, or its session, is none whose memory can be bound, or answers the sample otherwise then.
        Refused: ONNX Runtime fails on the sample.
    """

    def __init__(self, engine: Engine, observer: Observer | None, sample: Batch) -> None:
        self._observer = observer
        places = PLACES_UNOBSERVED if observer is None else PLACES
        encoder, outputs = engine.encoder, engine.manifest.outputs
        found = dict(zip((output.role for output in outputs), engine.outputs(sample), strict=True))
        self._text_at = next(
            (at for at, output in enumerate(outputs) if output.role == "label" and found["label"].dtype == object), None
        )
        # A text has no place of its own: ONNX Runtime keeps it.
        self._text = None if self._text_at is None else found.pop("label")[0]
        label = next((output.dtype for output in outputs if output.role == "label"), None)
        self._labelled, self._truth = label is not None, label == "bool"
        self._rows = _aligned(places, len(encoder.numbers) * np.dtype(encoder.dtype).itemsize).view(encoder.dtype)
        self._columns: dict[str, NDArray[Any]] = {}
        """Role -> [places, columns]: where the answers are written."""
        layout, size = "=", 0
        parts = {}
        for role in ("label", "probabilities", "value"):
            if role in found:
                array = found[role]
                if array.dtype.name not in _CODES or len(array) != 1:
                    raise ValueError(f"{role} cannot be bound")
                layout += f"{-size % _ALIGNMENT}x{array.size}{_CODES[array.dtype.name]}"
                size += -size % _ALIGNMENT
                parts[role] = slice(size, size + array.nbytes)
                size += array.nbytes
        records = _aligned(places, size)
        for role, part in parts.items():
            self._columns[role] = records[:, part].view(found[role].dtype)
        self._unpack = Struct(layout).unpack
        self._places: list[_Place] = []
        for number in range(places):
            written = [
                self._columns[output.role][number].reshape(found[output.role].shape) if output.role in found else None
                for output in outputs
            ]
            bound = engine.bind(self._rows[number : number + 1], written)
            if bound is None:
                raise ValueError("the session's memory cannot be bound")
            row = self._rows[number]
            # A row that needs no rounding is written as the bytes that were looked at.
            target: Any = memoryview(row.view(np.uint8)) if row.dtype == _DOUBLE else row
            place = target, bound.run, memoryview(records[number]), number, bound
            self._try(place, sample, found)
            self._places.append(place)
        self._in_reverse = self._places[::-1]
        self._free = self._in_reverse[:]  # taken from its end, so that the places are filled in order
        self._done: list[tuple[int, Any, int]] = []
        """Place, label, and the call's latency in nanoseconds."""
        self._in_order = tuple(range(places))
        self._lock = threading.Lock()  # one thread counts at a time

    def flush(self) -> None:
        """Has the rows counted that wait, and frees their places."""
        if self._observer is None:
            return
        with self._lock:
            done = self._done[:]
            del self._done[: len(done)]  # what other threads append meanwhile stands behind
            if not done:
                return
            numbers, labels, latencies_ns = zip(*done, strict=True)
            rows, columns = self._rows, self._columns
            scores = score_columns(self._labelled, columns.get("probabilities"), columns.get("value"))
            freed = self._in_reverse
            if numbers != self._in_order:  # other threads took some, or the window is closing
                rows, scores = rows[list(numbers)], None if scores is None else scores[list(numbers)]
                freed = [self._places[number] for number in reversed(numbers)]
            try:
                self._observer.count(Rows(len(done), rows, (), labels if self._labelled else (), scores), latencies_ns)
            finally:
                self._free += freed

    def _try(self, place: _Place, sample: Batch, found: Mapping[str, NDArray[Any]]) -> None:
        """Answers the sample in this place, and compares each byte."""
        _, run, _, number, bound = place
        assert sample.numbers is not None
        self._rows[number] = sample.numbers[0]
        try:
            run()
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise ValueError(f"the bound call fails: {first_line(error)}") from error
        same = all(self._columns[role][number].tobytes() == array.tobytes() for role, array in found.items())
        if not same or (self._text_at is not None and bound.results[self._text_at].numpy()[0] != self._text):
            raise ValueError("the bound call answers otherwise")

    def answerer(self, engine: Engine) -> Callable[[Any, int], Answer | None]:
        """What answers a row and has it counted.

        Args:
            engine: The ring's.
        """
        found: Callable[[Any, int], Answer | None] = self._function(engine, held=False)
        return found

    def holder(self, engine: Engine) -> Callable[[Any, int], Held | None]:
        """What answers a row, [numeric features] in the tensor's order, and keeps its place until `note` or `drop`.

        Args:
            engine: The ring's.
        """
        found: Callable[[Any, int], Held | None] = self._function(engine, held=True)
        return found

    def note(self, held: Held, latency_ns: int) -> None:
        """Has a row counted that a `holder` answered."""
        answer, number = held
        if self._observer is None:
            self._free.append(self._places[number])
        else:
            self._done.append((number, answer.label, latency_ns))

    def drop(self, held: Held) -> None:
        """Frees the place of a row that a `holder` answered, and that is not to be counted."""
        self._free.append(self._places[held[1]])

    def _function(self, engine: Engine, *, held: bool) -> Any:
        """A function, since a method would look up each name that it needs at each call."""
        free, flush, unpack, clock = self._free, self.flush, self._unpack, perf_counter_ns
        take, give, wait = free.pop, free.append, self._done.append
        observed, truth, text_at = self._observer is not None, self._truth, self._text_at
        check, ndarray, double, tops, plain = engine.encoder.check, np.ndarray, _DOUBLE, _TOPS, _PLAIN_TOPS
        size, whole, make = self._rows.shape[1] * _DOUBLE.itemsize, self._rows.dtype == _DOUBLE, Answer
        order = None if held else engine.encoder.order([feature.name for feature in engine.manifest.features])
        numbers_are_answers = engine.manifest.task != "transformation"
        labelled = self._labelled and text_at is None
        probable = self._columns["probabilities"].shape[1] if "probabilities" in self._columns else 0
        first = slice(int(labelled), int(labelled) + probable)
        rest = slice(first.stop, None) if "value" in self._columns else None

        def answer(row: Any, started_ns: int) -> Answer | Held | None:
            """Answers a row, and has it counted.

            Args:
                row: [features], float64, in the manifest's order; where the answer is held, in the tensor's.
                started_ns: When its call began, by `time.perf_counter_ns`.

            Returns:
                The answer, with its place where it is held; None where it is no such row, no place is free, or ONNX
                Runtime fails: then the usual way is to be taken.

            Raises:
                BadInput: The model has no answer for it.
            """
            if type(row) is not ndarray or row.dtype is not double or row.ndim != 1:
                return None
            if order is not None and len(row) == len(order):
                row = row[order]
            data = row.tobytes()
            if len(data) != size:
                return None
            if data[tops].translate(None, plain):
                check(row)
            if not free:
                flush()
            try:
                place = take()
            except IndexError:
                return None
            try:
                target, run, record, number, bound = place
                target[:] = data if whole else row
                run()
                found = unpack(record)
                label = found[0] if labelled else None
                if text_at is not None:
                    label = bound.results[text_at].numpy()[0]
                elif truth:
                    label = bool(label)
                probabilities = found[first]
                values = () if rest is None else found[rest]
                if numbers_are_answers:
                    total = sum(found)
                    if total != total and _has_nan(probabilities or values):
                        raise no_number()
            except BaseException as error:
                give(place)
                if isinstance(error, Exception) and not isinstance(error, BadInput):
                    return None  # onnxruntime raises several unrelated classes
                raise
            if held:
                return make(label, probabilities, values), number
            if observed:
                wait((number, label, clock() - started_ns))
            else:
                give(place)
            return make(label, probabilities, values)

        return answer


def _has_nan(numbers: Sequence[float]) -> bool:
    """Whether one of them is NaN; infinities of both signs, whose sum is NaN, are none."""
    return any(number != number for number in numbers)


def _aligned(places: int, size: int) -> NDArray[np.uint8]:
    """[places, size] bytes of zeros; each place begins at a multiple of 64."""
    stride = -(-size // _ALIGNMENT) * _ALIGNMENT
    memory = np.zeros(places * stride + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + places * stride].reshape(places, stride)[:, :size]
