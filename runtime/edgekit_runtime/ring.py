"""One row at a time, answered in memory that stays where it is.

A ring has a few places whose memory ONNX Runtime was told once: a row is copied into a free place, and the bound call
reads it there and writes its answers beside it. So a call makes no arrays. What the observer is to count is a copy of
the place's bytes: answers, row and latency. A few of these wait as they are, then a block of them as one, and a full
block is counted together. Threads take different places: a list's `pop` and `append` are one step each, and no call
waits for another.

Memory begins at a multiple of 64 bytes, as ONNX Runtime's own does, so that vectorised sums add in the same order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from struct import Struct
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_runtime.block import Rows, score_columns
from edgekit_runtime.encoding import Batch
from edgekit_runtime.engine import Answer, Engine, no_number
from edgekit_runtime.observe import Observer
from edgekit_runtime.session import Bound, first_line
from edgekit_runtime.yielding import rest

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLACES: Final = 8
"""Threads that are answered at once. Each costs 3 kB, and the one that was used last is in a core's cache."""
FIRST: Final = 2
"""Places that are made at the beginning, in a fifth of a millisecond each: a service answers on one thread or two."""
WAITING: Final = 256
"""Rows that wait singly: so few that what they take is in a core's cache and taken again."""
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

_LATENCY: Final = np.dtype(np.int64)
"""Nanoseconds; a place's last bytes."""

Held = tuple[Answer, bytes]
"""An answer, and its place's bytes."""
_Place = tuple[Any, Callable[[], object], memoryview, memoryview, memoryview, Callable[[], bytes], Bound]
"""The row's memory, the call on it, the bytes of its answers, its label as a number, the call's latency, what copies
all these bytes, and the call's binding."""


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
        encoder, manifest = engine.encoder, engine.manifest
        found = dict(zip((output.role for output in manifest.outputs), engine.outputs(sample), strict=True))
        self._text_at = next(
            (at for at, one in enumerate(manifest.outputs) if one.role == "label" and found["label"].dtype == object),
            None,
        )
        # A text has no place of its own: ONNX Runtime keeps it, and the place has the number of the class.
        self._text = None if self._text_at is None else found.pop("label")[0]
        self._classes = {} if observer is None else observer.class_numbers or {}
        kind = next((output.dtype for output in manifest.outputs if output.role == "label"), None)
        self._labelled, self._truth = kind is not None, kind == "bool"
        numbered = {} if self._text_at is None else {"label": np.zeros(1, np.int64)}
        self._parts, codes, self._answered = _layout(found | numbered)
        self._unpack = Struct(codes).unpack
        start = _up(self._answered, _ALIGNMENT)
        stop = start + len(encoder.numbers) * np.dtype(encoder.dtype).itemsize
        self._size = _up(stop, _LATENCY.itemsize) + _LATENCY.itemsize
        self._parts |= {"row": (slice(start, stop), np.dtype(encoder.dtype))}
        self._parts |= {"latency": (slice(self._size - _LATENCY.itemsize, self._size), _LATENCY)}
        self._places = _aligned(PLACES, self._size)
        """[places, bytes]."""
        self._tried = engine, sample, found
        """What each place is bound to, and what it is tried on."""
        self._made = FIRST
        self._free = [self._place(number) for number in range(FIRST)]
        self._waiting: list[bytes] = []
        """Rows that wait to be counted."""
        self._block = 1 if observer is None else observer.block_rows
        self._most = min(WAITING, self._block)
        self._lock = threading.Lock()  # one thread takes what waits; all that follows
        self._kept = np.empty((0 if observer is None else self._block, self._size), np.uint8)
        """[rows, bytes]: those that waited before them."""
        self._columns = {role: self._column(self._kept, role) for role in self._parts}
        self._rows, self._room = 0, self._block if observer is None else observer.room
        """How many these are; how many more the observer waits for."""

    def flush(self) -> None:
        """Has the rows counted that wait."""
        if self._observer is not None:
            with self._lock:
                self._keep()
                self._count()

    def _full(self) -> None:
        with self._lock:
            self._keep()

    def _keep(self) -> None:
        """Writes what waits behind what is kept, and has each full block counted."""
        waiting = self._waiting[:]
        del self._waiting[: len(waiting)]  # what other threads append meanwhile stands behind
        while waiting:
            part = waiting[: self._room - self._rows]
            del waiting[: len(part)]
            found = np.frombuffer(b"".join(part), np.uint8)
            self._kept[self._rows : self._rows + len(part)] = found.reshape(len(part), self._size)
            self._rows += len(part)
            if self._rows == self._room:
                self._count()

    def _count(self) -> None:
        """Has counted what is kept."""
        if not self._rows or self._observer is None:
            return
        columns = {role: column[: self._rows] for role, column in self._columns.items()}
        labels: Any = columns["label"][:, 0] if self._labelled else None
        if self._text_at is None:
            labels = self._observer.labels(labels)
        scores = score_columns(self._labelled, columns.get("probabilities"), columns.get("value"))
        self._observer.count(Rows(self._rows, columns["row"], (), labels, scores), columns["latency"][:, 0])
        self._rows, self._room = 0, self._observer.room

    def _column(self, records: NDArray[np.uint8], role: str) -> NDArray[Any]:
        """[rows, columns]: the row, one of the answers, or the latency."""
        part, dtype = self._parts[role]
        return records[:, part].view(dtype)

    def _place(self, number: int) -> _Place:
        """Binds a place's memory, and tries it.

        Raises:
            ValueError: As `Ring`.
        """
        engine, sample, found = self._tried
        place: Any = self._places[number : number + 1]
        written = [
            self._column(place, output.role).reshape(found[output.role].shape) if output.role in found else None
            for output in engine.manifest.outputs
        ]
        row = self._column(place, "row")
        bound = engine.bind(row, written)
        if bound is None:
            raise ValueError("the session's memory cannot be bound")
        self._try(place, bound, sample, found)
        rest()
        # A row that needs no rounding is written as the bytes that were looked at.
        target: Any = memoryview(row[0].view(np.uint8)) if row.dtype == _DOUBLE else row[0]
        answers, latency = memoryview(place[0, : self._answered]), memoryview(self._column(place, "latency")[0])
        label = memoryview(self._column(place, "label")[0]) if "label" in self._parts else answers
        return target, bound.run, answers, label, latency, memoryview(place[0]).tobytes, bound

    def _grow(self) -> None:
        """Makes one more place, where rows came at once and there was none left."""
        with self._lock:
            number = self._made
            if number == PLACES:
                return
            self._made += 1
        with suppress(Exception):  # the usual way answers, and says what is wrong
            self._free.append(self._place(number))

    def _try(self, place: NDArray[np.uint8], bound: Bound, sample: Batch, found: Mapping[str, NDArray[Any]]) -> None:
        """Answers the sample in this place, and compares each byte."""
        assert sample.numbers is not None
        self._column(place, "row")[:] = sample.numbers[:1]
        try:
            bound.run()
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise ValueError(f"the bound call fails: {first_line(error)}") from error
        same = all(self._column(place, role).tobytes() == array.tobytes() for role, array in found.items())
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
            record = held[1]
            self._waiting.append(record[: -_LATENCY.itemsize] + latency_ns.to_bytes(_LATENCY.itemsize, sys.byteorder))
            if len(self._waiting) >= self._most:
                self._full()

    def _function(self, engine: Engine, *, held: bool) -> Any:
        """A function, since a method would look up each name that it needs at each call."""
        free, full, grow, unpack, clock = self._free, self._full, self._grow, self._unpack, perf_counter_ns
        take, give, waiting, wait, most = free.pop, free.append, self._waiting, self._waiting.append, self._most
        observed, truth, text_at, classes = self._observer is not None, self._truth, self._text_at, self._classes
        check, ndarray, double, tops, wild = engine.encoder.check, np.ndarray, _DOUBLE, _TOPS, _WILD
        size, make = len(engine.encoder.numbers) * _DOUBLE.itemsize, Answer
        whole = self._parts["row"][1] == _DOUBLE
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
                grow()
                return None
            target, run, answers, number, latency, copy, bound = place
            try:
                try:
                    target[:] = data if whole else row
                    run()
                    found = unpack(answers)
                    label = number[0] if labelled else None
                    if text_at is not None:
                        label = bound.results[text_at].numpy()[0]
                        number[0] = classes.get(label, -1)
                except Exception:  # onnxruntime raises several unrelated classes
                    return None
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
                    return make(label, probabilities, values), copy()
                if observed:
                    latency[0] = clock() - started_ns
                    wait(copy())
            finally:
                give(place)
            if observed and len(waiting) >= most:
                full()
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
        gap = _up(size, array.itemsize if role == "label" else _ALIGNMENT) - size
        codes += f"{gap}x" + (f"{array.nbytes}x" if role == "label" else f"{array.size}{_CODES[array.dtype.name]}")
        parts[role] = slice(size + gap, size + gap + array.nbytes), array.dtype
        size = parts[role][0].stop
    return parts, codes, size


def _has_nan(numbers: Sequence[float]) -> bool:
    """Whether one of them is NaN; infinities of both signs, whose sum is NaN, are none."""
    return any(number != number for number in numbers)


def _up(size: int, multiple: int) -> int:
    """The least multiple that is not below `size`."""
    return -(-size // multiple) * multiple


def _aligned(places: int, size: int) -> NDArray[np.uint8]:
    """[places, size] bytes of zeros; each place begins at a multiple of 64."""
    stride = _up(size, _ALIGNMENT)
    memory = np.zeros(places * stride + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + places * stride].reshape(places, stride)[:, :size]
