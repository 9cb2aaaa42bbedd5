"""One row at a time, answered in memory that stays where it is.

A ring has a few places whose memory ONNX Runtime was told once: a row is copied into a free place, and the bound call
reads it there and writes its answers beside it. So a call makes no arrays. What the observer is to count waits as
bytes, row and answers, and when there is a block of it all is counted together. Threads take different places: a list's
`pop`, `append` and `extend` are one step each, and no call waits for another.

Memory begins at a multiple of 64 bytes, as ONNX Runtime's own does, so that vectorised sums add in the same order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_runtime.block import Rows, score_columns
from edgekit_runtime.encoding import Batch
from edgekit_runtime.engine import Answer, Engine, no_number
from edgekit_runtime.observe import Observer
from edgekit_runtime.session import Bound, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLACES: Final = 8
"""Threads that are answered at once. Each costs 3 kB, and the one that was used last is in a core's cache."""
WAITING: Final = 256
"""Rows that wait to be given to the observer: so few that what they take is in a core's cache and taken again."""
_ALIGNMENT: Final = 64
_ROLES: Final = ("probabilities", "value", "label")
"""In the order of their memory."""
_CODES: Final = {"float64": "d", "float32": "f", "int64": "q", "int32": "i", "bool": "?"}
"""Types of outputs -> the codes of `struct`, which reads all of a place's numbers in one step."""
_DOUBLE: Final = np.dtype(np.float64)

_TOPS: Final = slice(7 if sys.byteorder == "little" else 0, None, 8)
"""Of float64 numbers the bytes with the sign and the upper seven bits of the exponent."""
_WILD: Final = bytes(top in range(0x47, 0x80) or top in range(0xC7, 0x100) for top in range(256))
"""Of each such byte whether its number is 2**113 or beyond, infinite, or no number: none other is beyond float32. One
look at bytes takes a third of the time of one at numbers; where one is wild, the encoder's check decides."""

Held = tuple[Answer, bytes, bytes]
"""An answer, and the bytes of its row and of what the model gave."""
_Place = tuple[Any, Callable[[], object], memoryview, memoryview, Bound]
"""The row's memory, the call on it, the bytes of its answers, its label if that is a number, and the call's binding."""
_PARTS: Final = 4
"""What waits of a row: its bytes, those of its answers, its label and the call's latency in nanoseconds."""


class Ring:
    """Places for rows that are being answered, and what of them waits to be counted.

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
        encoder, outputs = engine.encoder, engine.manifest.outputs
        found = dict(zip((output.role for output in outputs), engine.outputs(sample), strict=True))
        self._text_at = next(
            (at for at, output in enumerate(outputs) if output.role == "label" and found["label"].dtype == object), None
        )
        # A text has no place of its own: ONNX Runtime keeps it.
        self._text = None if self._text_at is None else found.pop("label")[0]
        kind = next((output.dtype for output in outputs if output.role == "label"), None)
        self._labelled, self._truth = kind is not None, kind == "bool"
        self._rows = _aligned(PLACES, len(encoder.numbers) * np.dtype(encoder.dtype).itemsize).view(encoder.dtype)
        self._parts, codes, size = _layout(found)
        self._unpack = Struct(codes).unpack
        self._records = _aligned(PLACES, size)
        """[places, bytes]: where the answers are written."""
        self._free: list[_Place] = []
        for number in range(PLACES):
            written = [
                self._columns(self._records[number : number + 1], output.role).reshape(found[output.role].shape)
                if output.role in found
                else None
                for output in outputs
            ]
            bound = engine.bind(self._rows[number : number + 1], written)
            if bound is None:
                raise ValueError("the session's memory cannot be bound")
            row = self._rows[number]
            # A row that needs no rounding is written as the bytes that were looked at.
            target: Any = memoryview(row.view(np.uint8)) if row.dtype == _DOUBLE else row
            self._try(number, bound, sample, found)
            record = self._records[number]
            label = self._columns(record[None], "label")[0] if "label" in self._parts else record
            self._free.append((target, bound.run, memoryview(record), memoryview(label), bound))
        self._waiting: list[Any] = []
        """Of each row that waits to be counted `_PARTS` things, one after the other."""
        self._full = _PARTS * min(WAITING, 1 if observer is None else observer.block_rows)
        self._lock = threading.Lock()  # one thread takes what waits

    def flush(self) -> None:
        """Has the rows counted that wait."""
        if self._observer is None:
            return
        with self._lock:
            waiting = self._waiting[:]
            del self._waiting[: len(waiting)]  # what other threads append meanwhile stands behind
        if not waiting:
            return
        rows, answers, labels, latencies_ns = (waiting[part::_PARTS] for part in range(_PARTS))
        numbers = np.frombuffer(b"".join(rows), _DOUBLE).reshape(len(rows), -1).astype(self._rows.dtype, copy=False)
        records = np.frombuffer(b"".join(answers), np.uint8).reshape(len(rows), -1)
        columns = {role: self._columns(records, role) for role in self._parts}
        label = columns.get("label")
        scores = score_columns(self._labelled, columns.get("probabilities"), columns.get("value"))
        said = () if not self._labelled else labels if label is None else label[:, 0]
        self._observer.count(Rows(len(rows), numbers, (), said, scores), latencies_ns)

    def _columns(self, records: NDArray[np.uint8], role: str) -> NDArray[Any]:
        """[rows, columns]: one of the answers."""
        part, dtype = self._parts[role]
        return records[:, part].view(dtype)

    def _try(self, number: int, bound: Bound, sample: Batch, found: Mapping[str, NDArray[Any]]) -> None:
        """Answers the sample in this place, and compares each byte."""
        assert sample.numbers is not None
        self._rows[number] = sample.numbers[0]
        try:
            bound.run()
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise ValueError(f"the bound call fails: {first_line(error)}") from error
        record = self._records[number : number + 1]
        same = all(self._columns(record, role).tobytes() == array.tobytes() for role, array in found.items())
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
        """What answers a row, [numeric features] in the tensor's order; it is counted once it is given to `note`.

        Args:
            engine: The ring's.
        """
        found: Callable[[Any, int], Held | None] = self._function(engine, held=True)
        return found

    def note(self, held: Held, latency_ns: int) -> None:
        """Has a row counted that a `holder` answered."""
        if self._observer is not None:
            answer, row, answers = held
            self._waiting.extend((row, answers, answer.label, latency_ns))
            if len(self._waiting) >= self._full:
                self.flush()

    def _function(self, engine: Engine, *, held: bool) -> Any:
        """A function, since a method would look up each name that it needs at each call."""
        free, flush, unpack, clock = self._free, self.flush, self._unpack, perf_counter_ns
        take, give, waiting, wait, full = free.pop, free.append, self._waiting, self._waiting.extend, self._full
        observed, truth, text_at = self._observer is not None, self._truth, self._text_at
        kept = held or observed
        check, ndarray, double, tops, wild = engine.encoder.check, np.ndarray, _DOUBLE, _TOPS, _WILD
        size, whole, make = self._rows.shape[1] * _DOUBLE.itemsize, self._rows.dtype == _DOUBLE, Answer
        order = None if held else engine.encoder.order([feature.name for feature in engine.manifest.features])
        numbers_are_answers = engine.manifest.task != "transformation"
        labelled = self._labelled and text_at is None
        part, dtype = self._parts.get("probabilities", (slice(0, 0), _DOUBLE))
        valued, probable = "value" in self._parts, (part.stop - part.start) // dtype.itemsize

        def answer(row: Any, started_ns: int) -> Answer | Held | None:
            """Answers a row, and has it counted.

            Args:
                row: [features], float64, in the manifest's order; where the answer is held, in the tensor's.
                started_ns: When its call began, by `time.perf_counter_ns`.

            Returns:
                The answer, with its bytes where it is held; None where it is no such row, no place is free, or ONNX
                Runtime fails: then the usual way is to be taken.

            Raises:
                BadInput: The model has no answer for it.
            """
            if type(row) is not ndarray or row.ndim != 1 or (row.dtype is not double and row.dtype != double):
                return None
            if order is not None and len(row) == len(order):
                row = row[order]
            data = row.tobytes()
            if len(data) != size:
                return None
            if 1 in data[tops].translate(wild):
                check(row)
            try:
                place = take()
            except IndexError:
                return None
            try:
                target, run, memory, number, bound = place
                target[:] = data if whole else row
                run()
                record: Any = memory.tobytes() if kept else memory
                found = unpack(record)
                label = number[0] if labelled else None
                if text_at is not None:
                    label = bound.results[text_at].numpy()[0]
            except Exception:  # onnxruntime raises several unrelated classes
                return None
            finally:
                give(place)
            if truth:
                label = bool(label)
            if valued:
                probabilities, values = found[:probable], found[probable:]
            else:
                probabilities, values = found, ()
            if numbers_are_answers:
                total = sum(found)
                if total != total and _has_nan(probabilities or values):
                    raise no_number()
            if held:
                return make(label, probabilities, values), data, record
            if observed:
                wait((data, record, label, clock() - started_ns))
                if len(waiting) >= full:
                    flush()
            return make(label, probabilities, values)

        return answer


def _layout(found: Mapping[str, NDArray[Any]]) -> tuple[dict[str, tuple[slice, np.dtype[Any]]], str, int]:
    """Of answers to one row: role -> where its bytes are and its type; `struct`'s codes of the numbers; all the bytes.

    Raises:
        ValueError: One is of another size or type than can be bound.
    """
    parts, codes, size = dict[str, tuple[slice, np.dtype[Any]]](), "=", 0
    for role in _ROLES:
        array = found.get(role)
        if array is None:
            continue
        if array.dtype.name not in _CODES or len(array) != 1:
            raise ValueError(f"{role} cannot be bound")
        # A label is no sum: it needs no alignment but its own, and is read by itself.
        gap = -size % (array.itemsize if role == "label" else _ALIGNMENT)
        codes += f"{gap}x" + (f"{array.nbytes}x" if role == "label" else f"{array.size}{_CODES[array.dtype.name]}")
        parts[role] = slice(size + gap, size + gap + array.nbytes), array.dtype
        size = parts[role][0].stop
    return parts, codes, size


def _has_nan(numbers: Sequence[float]) -> bool:
    """Whether one of them is NaN; infinities of both signs, whose sum is NaN, are none."""
    return any(number != number for number in numbers)


def _aligned(places: int, size: int) -> NDArray[np.uint8]:
    """[places, size] bytes of zeros; each place begins at a multiple of 64."""
    stride = -(-size // _ALIGNMENT) * _ALIGNMENT
    memory = np.zeros(places * stride + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + places * stride].reshape(places, stride)[:, :size]
