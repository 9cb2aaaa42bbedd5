"""A matrix that records what numpy and pandas do with it.

The functions of numpy are in `traced_functions`, what frames have beside them in `traced_frames`.

Source: the dispatch protocols of NEP 13 (`__array_ufunc__`) and NEP 18 (`__array_function__`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.ufuncs import OF_TRUTH, UFUNCS, truth

NEXT_STEP: Final = "apply the function to the data before the model, or use a scikit-learn step that does the same"


class Untraceable(BaseException):
    """The function asks for something that no graph can do; the text says what.

    No `except Exception` and no `hasattr` of the function may swallow it and go another way.
    """


class _Shape:
    """[rows, columns] of which only the columns are known."""

    def __init__(self, width: int) -> None:
        self._width = width

    def __getitem__(self, index: int) -> int:
        if index in {1, -1}:
            return self._width
        raise Untraceable("its function reads the number of rows, which is not fixed")

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> NoReturn:
        raise Untraceable("its function reads the number of rows, which is not fixed")


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """The rows of a matrix, or of one column (`flat`), which are not there yet.

    Args:
        expr: What it stands for.
        flat: One-dimensional [rows], of an `expr` [rows, 1].
        names: The columns' names, where the function was fitted on a frame.
        writable: The function may write into it: no argument of the function, and no part of another matrix.
        whole: The matrix of which it is a part: numpy shows there what is written into it later.
        key: Which part.
    """

    def __init__(
        self,
        expr: Expr,
        *,
        flat: bool = False,
        names: Sequence[str] | None = None,
        writable: bool = True,
        whole: Traced | None = None,
        key: Any = None,
    ) -> None:
        self.flat, self.names, self._writable = flat, names, writable and whole is None
        self._expr, self._writes = expr, 0
        self._whole, self._key, self._seen = whole, key, 0 if whole is None else whole._writes

    @property
    def expr(self) -> Expr:
        """What it stands for now."""
        if self._whole is not None and self._whole._writes != self._seen:
            raise Untraceable("its function reads a part that it took before it wrote into the whole")
        return self._expr

    @property
    def ndim(self) -> int:
        """2, or 1 where it is one column without its axis."""
        return 1 if self.flat else 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return np.dtype(bool if self.expr.value.dtype == "bool" else np.float64)

    @property
    def shape(self) -> _Shape:
        """Its columns; its rows are not known."""
        return _Shape(1 if self.flat else self.expr.width)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Traced:
        name = ufunc.__name__
        if "out" in options and isinstance(options["out"][0], Traced):
            into = options.pop("out")[0]
            return into._taken(self.__array_ufunc__(ufunc, method, *inputs, **options))  # type: ignore[no-any-return]
        given = sorted(one for one, value in options.items() if value is not None)
        if method != "__call__" or given:
            raise Untraceable(f"numpy.{name} with {', '.join(given) or method} has no ONNX mapping")
        if name == "matmul":
            return product(*inputs)
        if name not in UFUNCS and name not in OF_TRUTH:
            raise Untraceable(f"numpy.{name} has no ONNX mapping")
        return combined(name, inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from edgekit_converters.operators.traced_functions import FUNCTIONS

        name = func.__name__
        if name not in FUNCTIONS:
            raise Untraceable(f"numpy.{name} has no ONNX mapping")
        try:
            return FUNCTIONS[name](*args, **kwargs)
        except TypeError as error:
            raise Untraceable(f"numpy.{name} with these options has no ONNX mapping") from error

    def __array__(self, *_args: Any, **_options: Any) -> NoReturn:
        raise Untraceable("its function asks for the values of its argument")

    def __bool__(self) -> NoReturn:
        raise Untraceable("its function decides by the values of its argument")

    def __iter__(self) -> NoReturn:
        raise Untraceable("its function goes through its argument row by row")

    def __len__(self) -> NoReturn:
        raise Untraceable("its function counts the rows of its argument")

    def __setitem__(self, key: Any, value: Any) -> None:
        from edgekit_converters.operators.traced_frames import written

        if not self._writable or self.flat:
            raise Untraceable("its function writes into its argument, or into a part of it")
        if self.names is not None and not isinstance(key, Traced):
            self._expr, self.names = written(self, key, value)
        elif isinstance(key, Traced):
            if key.flat or key.expr.value.dtype != "bool" or np.ndim(value):
                raise Untraceable("its function writes into rows of its argument")
            self._expr = chosen(key, value, self).expr
        else:
            places = self._places(key)
            part = as_columns(self, value, places.size)
            columns = [self._expr.at(place) for place in range(self._expr.width)]
            for at, place in enumerate(np.atleast_1d(places).tolist()):
                columns[place] = part.at(at)
            self._expr = concat([one.cast("float64") for one in columns])
        self._writes += 1

    def _taken(self, found: Traced) -> Traced:
        """Itself after `x += 1` and the like: a part writes into its whole."""
        if found.flat != self.flat or found.expr.width != self.expr.width:
            raise Untraceable("its function writes something of another shape into its argument")
        if self._whole is not None and self._key is not None:
            self._whole[self._key] = found
            self._seen = self._whole._writes
        elif not self._writable:
            raise Untraceable("its function writes into its argument, or into a part of it")
        self._expr = found.expr
        self._writes += 1
        return self

    def __delitem__(self, key: Any) -> None:
        if not self._writable or self.names is None or key not in self.names:
            raise Untraceable("its function removes columns from its argument")
        kept = self._named([one for one in self.names if one != key])
        self._expr, self.names = kept._expr, kept.names
        self._writes += 1

    def __getattr__(self, name: str) -> Any:
        from edgekit_converters.operators.traced_frames import attribute

        if name.startswith("_"):
            raise AttributeError(name)
        return attribute(self, name)

    def __getitem__(self, key: Any) -> Traced:
        if isinstance(key, str) or (isinstance(key, list) and key and all(isinstance(one, str) for one in key)):
            return self._named(key)
        if self.names is not None:
            raise Untraceable("its function takes columns of a frame by something else than their names")
        if self.flat:
            rows, *rest = key if isinstance(key, tuple) else (key,)
            if _is_all(rows) and rest in ([None], [slice(None)], []):
                return Traced(self.expr, flat=rest != [None], whole=self)
            raise Untraceable("its function indexes a column in a way that has no ONNX mapping")
        places = self._places(key)
        part = self.expr.at(*np.atleast_1d(places).tolist())
        _, *rest = key if isinstance(key, tuple) else (key, slice(None))
        if not isinstance(rest[0], int | np.integer | slice):
            return Traced(part, flat=places.ndim == 0)  # of a list of places numpy makes a copy
        return Traced(part, flat=places.ndim == 0, whole=self, key=key)

    def _places(self, key: Any) -> NDArray[np.int64]:
        """The columns that an index of all rows takes: one number, or several."""
        rows, *rest = key if isinstance(key, tuple) else (key, slice(None))
        if not _is_all(rows):
            raise Untraceable("its function chooses rows")
        if len(rest) != 1 or rest[0] is None:
            raise Untraceable("its function indexes its argument in a way that has no ONNX mapping")
        return np.asarray(np.arange(self.expr.width)[rest[0]])

    def _named(self, key: str | list[str]) -> Traced:
        if self.names is None or not set(key if isinstance(key, list) else [key]) <= set(self.names):
            raise Untraceable(f"its function takes the column {key!r}, which its argument does not have")
        wanted = key if isinstance(key, list) else [key]
        part = self.expr.at(*map(self.names.index, wanted))
        return Traced(part, flat=isinstance(key, str), names=wanted if isinstance(key, list) else None)

    @property
    def columns(self) -> list[str]:
        """The names, where it is a frame."""
        if self.names is None:
            raise AttributeError("'numpy.ndarray' object has no attribute 'columns'")
        return list(self.names)

    @columns.setter
    def columns(self, names: Sequence[Any]) -> None:
        if not self._writable or self.names is None or len(names) != len(self.names):
            raise Untraceable("its function renames columns of its argument")
        self.names = [str(one) for one in names]

    def to_numpy(self) -> Traced:
        """Itself, without names; what pandas gives is read-only."""
        return Traced(self.expr, flat=self.flat, writable=False)

    @property
    def values(self) -> Traced:
        """Itself, without names."""
        return self.to_numpy()

    def astype(self, dtype: Any, **_options: Any) -> Traced:
        """As float64 or bool; whole numbers are float64 here."""
        whole = self.dtype == bool and np.dtype(dtype).kind in "iu"
        if np.dtype(dtype) == np.float64 or whole:
            return Traced(self.expr.cast("float64"), flat=self.flat, names=self.names)
        if np.dtype(dtype) == np.int64:
            return combined("trunc", (self,))
        if np.dtype(dtype) == self.dtype:
            return self.copy()
        raise Untraceable(f"its function converts to {np.dtype(dtype).name}, which has no ONNX mapping")

    def copy(self, *_args: Any, **_options: Any) -> Traced:
        """The same numbers, into which the function may write."""
        return Traced(self.expr, flat=self.flat, names=self.names)


def _is_all(rows: Any) -> bool:
    return rows is Ellipsis or (isinstance(rows, slice) and rows == slice(None))


def replace_nan(x: Traced, value: float) -> Traced:
    """`value` where it is NaN."""
    return Traced(x.expr.is_nan().where(value, x.expr), flat=x.flat, names=x.names)


def combined(name: str, inputs: Sequence[Any]) -> Traced:
    """What a ufunc makes of the operands, broadcast as numpy does it."""
    traced = [one for one in inputs if isinstance(one, Traced)]
    first = traced[0]
    if any(one.flat != first.flat for one in traced):
        raise Untraceable("its function combines a matrix with one number a row")
    framed = [one.names for one in traced if one.names is not None]
    if any(names != framed[0] for names in framed):
        raise Untraceable("its function combines frames of different columns, which pandas aligns by their names")
    operands = []
    for one in inputs:
        expr = one.expr if isinstance(one, Traced) else first.expr.constant(constant_of(one, flat=first.flat))
        operands.append(expr)
    # numpy adds and multiplies truth values as such.
    boolean = all(one.value.dtype == "bool" for one in operands)
    emit = OF_TRUTH[name] if boolean and name in OF_TRUTH else UFUNCS.get(name)
    if emit is None:
        raise Untraceable(f"numpy.{name} of numbers has no ONNX mapping")
    logical = name.startswith("logical_")
    if not (boolean and name in OF_TRUTH):
        operands = [truth(one) if logical else one.cast("float64") for one in operands]
    return Traced(emit(*operands), flat=first.flat, names=framed[0] if framed else None)


def product(x: Any, weights: Any) -> Traced:
    """A matrix times constants."""
    if not isinstance(x, Traced) or x.flat or isinstance(weights, Traced) or np.ndim(weights) not in {1, 2}:
        raise Untraceable("numpy.matmul other than rows times constants has no ONNX mapping")
    array = np.asarray(weights, dtype=np.float64)
    return Traced(x.expr.cast("float64") @ array.reshape(len(array), -1), flat=array.ndim == 1)


def constant_of(value: Any, *, flat: bool) -> Any:
    """Numbers beside a matrix that is traced: one, or one for each column.

    Raises:
        Untraceable: They are no numbers, or one for each row.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise Untraceable("its function combines its argument with something that is no number")
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 1 or (flat and array.size != 1):
        raise Untraceable("its function combines the rows with as many constants")
    return array if array.dtype == bool else array.astype(np.float64)


def chosen(condition: Any, x: Any, y: Any) -> Traced:
    """`x` where the condition holds, else `y`; without names, as numpy.where gives it."""
    traced = [one for one in (condition, x, y) if isinstance(one, Traced)]
    if any(one.flat != traced[0].flat for one in traced):
        raise Untraceable("its function combines a matrix with one number a row")
    where, one, other = (
        part.expr if isinstance(part, Traced) else traced[0].expr.constant(constant_of(part, flat=traced[0].flat))
        for part in (condition, x, y)
    )
    return Traced(truth(where).where(one.cast("float64"), other.cast("float64")), flat=traced[0].flat)


def as_columns(like: Traced, value: Any, count: int) -> Expr:
    """[rows, count] of what is written into `count` columns of `like`: a matrix, one number a row, or constants.

    Raises:
        Untraceable: It has another number of columns.
    """
    if isinstance(value, Traced):
        found = value.expr.cast("float64")
    else:
        found = like.expr.ones() * np.atleast_1d(constant_of(value, flat=False)).astype(np.float64)
    if found.width == 1 and count > 1:
        found = found.at(*[0] * count)
    if found.width != count:
        raise Untraceable(f"its function writes {found.width} columns into {count}")
    return found
