"""Named columns become the model's tensors, and what the original model would refuse is refused by the feature's name.

Numbers are checked together, in one pass over all of them; only where that pass finds something is the feature looked
for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, overload

import msgspec
import numpy as np

from edgekit_contracts import limits
from edgekit_contracts.errors import BadInput
from edgekit_contracts.manifest import Feature, Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
PLAIN_SQUARES: Final = 1e76
"""Numbers whose squares add up to less are all finite and within float32: (3.4e38)**2 is 1.16e77."""

Scalar = float | str | bool | None


class Coded(Sequence[Scalar]):
    """A column by its distinct values, each of which is looked at once.

    Args:
        values: Each is the value of a row at least.
        codes: [rows]: places in `values`.
    """

    def __init__(self, values: Sequence[Scalar], codes: NDArray[np.intp]) -> None:
        self.values, self.codes = values, codes

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> Scalar: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[Scalar]: ...

    def __getitem__(self, row: int | slice) -> Scalar | Sequence[Scalar]:
        if isinstance(row, slice):
            return [self.values[code] for code in self.codes[row]]
        return self.values[int(self.codes[row])]


Column = Sequence[Scalar] | np.ndarray[Any, np.dtype[Any]]

NUMBERS: Final = frozenset({float, int, bool, type(None), np.float64, np.float32, np.int64, np.int32, np.bool_})
"""Types of most numbers; any other is looked at one by one."""
_BLAS_MOST: Final = 8192
"""Numbers of which OpenBLAS takes the sum of squares on the calling thread alone."""


class Batch(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Rows in the form that the session takes."""

    rows: int
    numbers: NDArray[np.float64] | NDArray[np.float32] | None
    """[rows, numeric features]; NaN is a missing value."""
    text: NDArray[np.object_] | None
    """[rows, text features]; the manifest's `missing_text` is a missing value."""

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """The rows of several batches of one model."""
        numbers: list[NDArray[Any]] = [one.numbers for one in batches if one.numbers is not None]
        text = [one.text for one in batches if one.text is not None]
        return Batch(
            sum(one.rows for one in batches),
            np.concatenate(numbers) if numbers else None,
            np.concatenate(text) if text else None,
        )

    def part(self, start: int, stop: int) -> Batch:
        """Some of the rows."""
        numbers = None if self.numbers is None else self.numbers[start:stop]
        return Batch(min(stop, self.rows) - start, numbers, None if self.text is None else self.text[start:stop])


class Encoder:
    """What a model takes, and how rows are brought into that form.

    Args:
        manifest: The bundle's manifest.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.features: Mapping[str, Feature] = {feature.name: feature for feature in manifest.features}
        self._inputs, self._missing = manifest.inputs, manifest.missing_text
        self.tensors = frozenset(tensor.name for tensor in manifest.inputs)
        """Names of the graph's own inputs."""
        tensors = {("text" if tensor.dtype == "text" else "numbers"): tensor for tensor in manifest.inputs}
        self.numbers = tensors["numbers"].features if "numbers" in tensors else ()
        """Names of the numeric features, in the order of the tensor's columns."""
        self.text = tensors["text"].features if "text" in tensors else ()
        """Names of the text features, likewise."""
        single = "numbers" in tensors and tensors["numbers"].dtype == "float32"
        self.dtype: type[np.float32] | type[np.float64] = np.float32 if single else np.float64
        """Of the tensor of numbers."""
        self._strict = np.array([not self.features[name].nullable for name in self.numbers], dtype=bool)
        self._any_strict = bool(self._strict.any())
        self._known = {
            feature.name: frozenset(feature.categories or ()) for feature in manifest.features if feature.closed
        }

    def encode(self, columns: Mapping[str, Column]) -> Batch:
        """Makes tensors of named columns of equal length.

        Numbers may be int, float, bool or None (missing); texts str or None.

        Raises:
            BadInput: A feature is missing, unknown, of the wrong type, or has a value the model has no answer for.
        """
        refuse_names(columns.keys(), self.features)
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise BadInput("", f"the columns have different lengths ({', '.join(map(str, sorted(lengths)))})")
        rows = lengths.pop()
        if rows == 0:
            raise BadInput("", "the request has no rows")
        if rows == 1:
            numbers = self.vector(self.numbers, [columns[name][0] for name in self.numbers])[None]
        else:
            numbers = np.empty((rows, len(self.numbers)))
            for index, name in enumerate(self.numbers):
                numbers[:, index] = self._column(name, columns[name])
        return self._batch(rows, numbers, [columns[name] for name in self.text])

    def encode_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> Batch:
        """Makes a batch of the graph's own tensors, `[rows, columns]` each, with the checks of `encode`.

        Raises:
            BadInput: As `encode`; or a tensor of another shape.
        """
        found: dict[bool, NDArray[Any]] = {}
        for tensor in self._inputs:
            array = tensors.get(tensor.name)
            if array is None:
                raise BadInput("", f"the request lacks the tensor '{tensor.name}'")
            if array.ndim != 2 or array.shape[1] != len(tensor.features):
                raise BadInput(
                    "", f"tensor '{tensor.name}' has shape {list(array.shape)}; expected [rows, {len(tensor.features)}]"
                )
            found[tensor.dtype == "text"] = array
        numbers, text = found.get(False), found.get(True)
        if numbers is None or numbers.dtype.kind not in "fiub" or (text is not None and len(text) != len(numbers)):
            columns = {} if numbers is None else dict(zip(self.numbers, numbers.T, strict=True))
            return self.encode(columns | ({} if text is None else dict(zip(self.text, text.T, strict=True))))
        if not len(numbers):
            raise BadInput("", "the request has no rows")
        return self._batch(len(numbers), numbers.astype(np.float64, copy=False), [] if text is None else list(text.T))

    def order(self, names: Sequence[str]) -> NDArray[np.intp] | None:
        """For each column of the tensor of numbers its place among the names; None where these are the same."""
        return None if tuple(names) == self.numbers else np.array([names.index(name) for name in self.numbers])

    def vector(self, names: Sequence[str], values: Sequence[Scalar]) -> NDArray[np.float64]:
        """The numbers of one row's features; `check` is still to come.

        Raises:
            BadInput: A value is not a number.
        """
        if NUMBERS.issuperset(map(type, values)):
            try:
                return np.array(values, dtype=np.float64)
            except OverflowError:
                pass  # said below, by name
        return np.concatenate([self._column(name, (value,)) for name, value in zip(names, values, strict=True)])

    def check(self, numbers: NDArray[np.float64]) -> None:
        """Refuses numbers that the model has no answer for.

        Args:
            numbers: [rows, numeric features] or [numeric features], in the tensor's order.

        Raises:
            BadInput: A value is missing where it must not be, or beyond float32.
        """
        # The sum is NaN where a value is, and too large where a value is infinite or beyond float32.
        if sum_of_squares(numbers) < PLAIN_SQUARES:
            return
        if numbers.size <= _BLAS_MOST:  # of a few rows with missing values, which many models take
            present = numbers == numbers
            allowed = not self._any_strict or bool(present[..., self._strict].all())
            if allowed and sum_of_squares(numbers[present]) < PLAIN_SQUARES:
                return
        matrix = numbers.reshape(-1, len(self.numbers))
        # scikit-learn refuses what is beyond float32 wherever a step computes in it, and nothing was proved out there.
        beyond = np.any(np.abs(matrix) > FLOAT32_MAX, axis=0)
        missing = np.any(np.isnan(matrix), axis=0) & self._strict
        for name, is_beyond, is_missing in zip(self.numbers, beyond.tolist(), missing.tolist(), strict=True):
            if is_beyond:
                raise self._refusal(
                    name, "a value is beyond 3.4e38, where the model was not proved", "send a plausible value"
                )
            if is_missing:
                raise self._no_answer_for_missing(name)

    def check_unit(self, name: str, unit: object) -> None:
        """Refuses values in another unit than the one that the model was trained on.

        Args:
            name: A feature; of a name that is none, `encode` speaks.
            unit: What whoever sends them says that they are in.

        Raises:
            BadInput: It is another one, or the model's owner named none.
        """
        feature = self.features.get(name)
        if feature is None or unit == feature.unit:
            return
        if feature.unit is None:
            raise BadInput(name, f"is said to be in {show(unit)}, and the bundle names no unit", "leave the unit out")
        raise BadInput(name, f"is in {show(unit)}, and the model takes {feature.unit}", f"convert it to {feature.unit}")

    def _batch(self, rows: int, numbers: NDArray[np.float64], text: Sequence[Column]) -> Batch:
        matrix: NDArray[Any] | None = None
        texts: NDArray[np.object_] | None = None
        if self.numbers:
            self.check(numbers)
            matrix = np.ascontiguousarray(numbers, dtype=self.dtype)
        if self.text:
            texts = np.empty((rows, len(self.text)), dtype=object)
            for index, (name, column) in enumerate(zip(self.text, text, strict=True)):
                texts[:, index] = self._texts(name, column)
        return Batch(rows, matrix, texts)

    def _column(self, name: str, values: Column) -> NDArray[np.float64]:
        if isinstance(values, Coded):
            return self._column(name, values.values)[values.codes]
        if not isinstance(values, np.ndarray) or values.dtype == object:
            if not NUMBERS.issuperset(map(type, values)):
                for value in values:
                    if not isinstance(value, int | float | np.number | np.bool_) and value is not None:
                        raise self._no_number(name, value)
        elif values.dtype.kind not in "fiub":
            raise self._no_number(name, values[0])
        try:
            return np.asarray(values, dtype=np.float64)  # None becomes NaN
        except (OverflowError, TypeError, ValueError) as error:
            raise self._refusal(name, "a value is not a 64-bit number") from error

    def _texts(self, name: str, values: Column) -> list[str] | NDArray[np.object_]:
        if isinstance(values, Coded):
            return np.array(self._texts(name, values.values), dtype=object)[values.codes]
        feature, missing = self.features[name], self._missing
        known = self._known.get(name)
        most = limits.DOCUMENT_MAX_CHARS if feature.free else limits.TEXT_MAX_CHARS
        texts: list[str] = []
        for value in values:
            if value is None or (isinstance(value, float) and math.isnan(value)):
                if not feature.nullable:
                    raise self._no_answer_for_missing(name)
                texts.append(missing)
                continue
            if not isinstance(value, str):
                raise self._refusal(name, f"{show(value)} is not text", "send strings or null")
            if value == missing or len(value) > most:
                raise self._refusal(name, f"{show(value)} is reserved or longer than {most} characters")
            if known is not None and value not in known:
                raise self._refusal(
                    name, f"{show(value)} is unknown to the model", f"send one of: {', '.join(sorted(known)[:10])}"
                )
            texts.append(value)
        return texts

    def _refusal(self, name: str, fault: str, next_step: str = "correct the request") -> BadInput:
        unit = self.features[name].unit
        return BadInput(name, fault, f"{next_step}, in {unit}" if unit and next_step.startswith("send") else next_step)

    def _no_number(self, name: str, value: object) -> BadInput:
        return self._refusal(name, f"{show(value)} is not a number", "send numbers, true or false, or null")

    def _no_answer_for_missing(self, name: str) -> BadInput:
        return self._refusal(name, "is missing, and the model has no answer for that", "send a value")


def refuse_names(given: Collection[str], features: Collection[str]) -> None:
    """Refuses names that are not exactly the features'.

    Raises:
        BadInput: One is missing, or unknown.
    """
    if len(given) == len(features) and all(map(given.__contains__, features)):
        return
    lacking = [name for name in features if name not in given]
    odd = [str(name) for name in given if name not in features]
    if lacking:
        beside = f", and has {_names(odd)}, which the model does not know" if odd else ""
        raise BadInput(
            "", f"the request lacks {_names(lacking)}{beside}", "send every feature; null is a missing value"
        )
    if odd:
        raise BadInput("", f"the model has no feature {_names(odd)}", "send the model's features only")


def sum_of_squares(numbers: NDArray[Any]) -> float:
    """Over all numbers: NaN where one of them is NaN, and only there; infinite where the sum is too large.

    Neither warns of an overflow, as `numbers.dot` does.
    """
    if numbers.size <= _BLAS_MOST:
        return float(np.vdot(numbers, numbers))
    flat = numbers.reshape(-1)
    return float(np.einsum("i,i->", flat, flat))


def show(value: object) -> str:
    """A value in an error's sentence."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name[:64]}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
