"""A matrix that records what numpy does with it.

Source: the dispatch protocols of NEP 13 (`__array_ufunc__`) and NEP 18 (`__array_function__`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import numpy as np

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

    def __iter__(self) -> NoReturn:
        raise Untraceable("its function reads the number of rows, which is not fixed")


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """The rows of a matrix, or of one column (`flat`), which are not there yet.

    Args:
        expr: What it stands for.
        flat: One-dimensional [rows], of an `expr` [rows, 1].
        names: The columns' names, where the function was fitted on a frame.
    """

    def __init__(self, expr: Expr, *, flat: bool = False, names: Sequence[str] | None = None) -> None:
        self.expr, self.flat, self.names = expr, flat, names

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
        given = sorted(one for one, value in options.items() if value is not None)
        if method != "__call__" or given:
            raise Untraceable(f"numpy.{name} with {', '.join(given) or method} has no ONNX mapping")
        if name == "matmul":
            return _product(*inputs)
        if name not in UFUNCS and name not in OF_TRUTH:
            raise Untraceable(f"numpy.{name} has no ONNX mapping")
        return _combined(name, inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Traced:
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

    def __setitem__(self, _key: Any, _value: Any) -> NoReturn:
        raise Untraceable("its function writes into its argument")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Untraceable(f"its function uses '.{name}' of its argument, which has no ONNX mapping")

    def __getitem__(self, key: Any) -> Traced:
        if isinstance(key, str) or (isinstance(key, list) and key and all(isinstance(one, str) for one in key)):
            return self._named(key)
        if self.names is not None:
            raise Untraceable("its function takes columns of a frame by something else than their names")
        rows, *rest = key if isinstance(key, tuple) else (key, slice(None))
        if not (isinstance(rows, slice) and rows == slice(None)) and rows is not Ellipsis:
            raise Untraceable("its function chooses rows")
        if self.flat:
            if rest in ([None], [slice(None)], []):
                return Traced(self.expr, flat=rest != [None])
            raise Untraceable("its function indexes a column in a way that has no ONNX mapping")
        if len(rest) != 1 or rest[0] is None:
            raise Untraceable("its function indexes its argument in a way that has no ONNX mapping")
        places = np.arange(self.expr.width)[rest[0]]
        return Traced(self.expr.at(*np.atleast_1d(places).tolist()), flat=places.ndim == 0)

    def _named(self, key: str | list[str]) -> Traced:
        if self.names is None or not set(key if isinstance(key, list) else [key]) <= set(self.names):
            raise Untraceable(f"its function takes the column {key!r}, which its argument does not have")
        wanted = key if isinstance(key, list) else [key]
        part = self.expr.at(*map(self.names.index, wanted))
        return Traced(part, flat=isinstance(key, str), names=wanted if isinstance(key, list) else None)

    def to_numpy(self) -> Traced:
        """Itself, without names."""
        return Traced(self.expr, flat=self.flat)

    @property
    def values(self) -> Traced:
        """Itself, without names."""
        return self.to_numpy()

    def astype(self, dtype: Any, **_options: Any) -> Traced:
        """As float64 or bool."""
        if np.dtype(dtype) == np.float64:
            return Traced(self.expr.cast("float64"), flat=self.flat, names=self.names)
        if np.dtype(dtype) == self.dtype:
            return self
        raise Untraceable(f"its function converts to {np.dtype(dtype).name}, which has no ONNX mapping")

    def copy(self, **_options: Any) -> Traced:
        """Itself: nothing writes into it."""
        return self

    def reshape(self, *shape: Any) -> Traced:
        """[rows, 1] and [rows] of one column."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if self.expr.width == 1 and wanted in {(-1, 1), (-1,)}:
            return Traced(self.expr, flat=wanted == (-1,))
        raise Untraceable(f"its function reshapes its argument to {wanted}")

    def clip(self, low: Any = None, high: Any = None, **options: Any) -> Traced:
        """As numpy.clip, and as that of a frame."""
        low = options.pop("min", options.pop("lower", low))
        high = options.pop("max", options.pop("upper", high))
        if options:
            raise Untraceable(f"clip with {', '.join(options)} has no ONNX mapping")
        return _clip(self, low, high)

    def round(self, decimals: int = 0) -> Traced:
        """As numpy.round."""
        return _round(self, decimals)

    def abs(self) -> Traced:
        """The frame's method."""
        return _combined("absolute", (self,))

    def sum(self, axis: Any = None, *, keepdims: bool = False) -> Traced:
        """As numpy.sum."""
        return _sum(self, axis, keepdims=keepdims)

    def mean(self, axis: Any = None, *, keepdims: bool = False) -> Traced:
        """As numpy.mean."""
        return _mean(self, axis, keepdims=keepdims)

    def fillna(self, value: float) -> Traced:
        """The frame's method: `value` where it is NaN."""
        return replace_nan(self, float(value))


def replace_nan(x: Traced, value: float) -> Traced:
    """`value` where it is NaN."""
    return Traced(x.expr.is_nan().where(value, x.expr), flat=x.flat, names=x.names)


def _combined(name: str, inputs: Sequence[Any]) -> Traced:
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
        expr = one.expr if isinstance(one, Traced) else first.expr.constant(_constant(one, flat=first.flat))
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


def _product(x: Any, weights: Any) -> Traced:
    """A matrix times constants."""
    if not isinstance(x, Traced) or x.flat or isinstance(weights, Traced) or np.ndim(weights) not in {1, 2}:
        raise Untraceable("numpy.matmul other than rows times constants has no ONNX mapping")
    array = np.asarray(weights, dtype=np.float64)
    return Traced(x.expr.cast("float64") @ array.reshape(len(array), -1), flat=array.ndim == 1)


def _constant(value: Any, *, flat: bool) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise Untraceable("its function combines its argument with something that is no number")
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 1 or (flat and array.size != 1):
        raise Untraceable("its function combines the rows with as many constants")
    return array if array.dtype == bool else array.astype(np.float64)


def _clip(a: Traced, a_min: Any = None, a_max: Any = None) -> Traced:
    for name, bound in (("maximum", a_min), ("minimum", a_max)):
        if bound is not None:
            a = _combined(name, (a, bound))
    return a


def _where(condition: Any, x: Any, y: Any) -> Traced:
    """numpy.where, which gives a plain matrix of frames too."""
    traced = [one for one in (condition, x, y) if isinstance(one, Traced)]
    if any(one.flat != traced[0].flat for one in traced):
        raise Untraceable("its function combines a matrix with one number a row")
    chosen, one, other = (
        part.expr if isinstance(part, Traced) else traced[0].expr.constant(_constant(part, flat=traced[0].flat))
        for part in (condition, x, y)
    )
    return Traced(truth(chosen).where(one.cast("float64"), other.cast("float64")), flat=traced[0].flat)


def _reduced(a: Traced, axis: Any, keepdims: bool, emit: Callable[[Expr], Expr]) -> Traced:
    if a.flat or axis not in {1, -1}:
        raise Untraceable("its function adds up several rows")
    return Traced(emit(a.expr.cast("float64")), flat=not keepdims)


def _sum(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
    """numpy.sum; pandas leaves NaN out."""
    known = replace_nan(a, 0.0) if a.names is not None else a
    return _reduced(known, axis, bool(keepdims), Expr.sum)


def _mean(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
    """numpy.mean; pandas leaves NaN out."""
    if a.names is None:
        return _reduced(a, axis, bool(keepdims), Expr.mean)
    total = _sum(a, axis, keepdims=keepdims)
    return Traced(total.expr / (~a.expr.cast("float64").is_nan()).cast("float64").sum(), flat=total.flat)


def _folded(op: Callable[[Expr, Expr], Expr]) -> Callable[..., Traced]:
    def fold(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
        if a.names is not None:
            raise Untraceable("its function reduces a frame by something else than its sum or mean")

        def emit(x: Expr) -> Expr:
            result = x.at(0)
            for index in range(1, x.width):
                result = op(result, x.at(index))
            return result

        return _reduced(a, axis, bool(keepdims), emit)

    return fold


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Traced:
    if axis not in {1, -1}:
        raise Untraceable("its function joins rows")
    if not all(isinstance(one, Traced) and not one.flat for one in arrays):
        raise Untraceable("its function joins its argument with constants or with one number a row")
    return Traced(concat([one.expr.cast("float64") for one in arrays]))


def _hstack(arrays: Sequence[Any]) -> Traced:
    return _concatenate(arrays, axis=1)


def _column_stack(arrays: Sequence[Any]) -> Traced:
    if not all(isinstance(one, Traced) for one in arrays):
        raise Untraceable("its function joins its argument with constants")
    return Traced(concat([one.expr.cast("float64") for one in arrays]))


def _stack(arrays: Sequence[Any], axis: int = 0) -> Traced:
    if axis not in {1, -1} or not all(isinstance(one, Traced) and one.flat for one in arrays):
        raise Untraceable("its function stacks rows or matrices")
    return _column_stack(arrays)


def _nan_to_num(x: Traced, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Traced:
    largest = float(np.finfo(np.float64).max)
    expr = replace_nan(x, float(nan)).expr
    expr = expr.equals(np.inf).where(largest if posinf is None else float(posinf), expr)
    expr = expr.equals(-np.inf).where(-largest if neginf is None else float(neginf), expr)
    return Traced(expr, flat=x.flat)


def _round(a: Traced, decimals: int = 0) -> Traced:
    if decimals == 0:
        return Traced(a.expr.apply("Round"), flat=a.flat)
    factor = float(10.0 ** abs(decimals))
    if decimals > 0:
        return Traced((a.expr * factor).apply("Round") / factor, flat=a.flat)
    return Traced((a.expr / factor).apply("Round") * factor, flat=a.flat)


def _ones(a: Traced, value: float) -> Traced:
    return Traced(a.expr.cast("float64").is_nan().where(value, value), flat=a.flat)


FUNCTIONS: Final[Mapping[str, Callable[..., Traced]]] = {
    "amax": _folded(Expr.maximum),
    "amin": _folded(Expr.minimum),
    "around": _round,
    "clip": _clip,
    "column_stack": _column_stack,
    "concatenate": _concatenate,
    "copy": lambda a: a,
    "dot": _product,
    "hstack": _hstack,
    "max": _folded(Expr.maximum),
    "mean": _mean,
    "min": _folded(Expr.minimum),
    "nan_to_num": _nan_to_num,
    "ones_like": lambda a: _ones(a, 1.0),
    "prod": _folded(Expr.__mul__),
    "reshape": lambda a, shape: a.reshape(*shape) if isinstance(shape, tuple) else a.reshape(shape),
    "round": _round,
    "stack": _stack,
    "sum": _sum,
    "where": _where,
    "zeros_like": lambda a: _ones(a, 0.0),
}
"""numpy's other functions."""
