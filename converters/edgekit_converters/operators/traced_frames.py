"""What frames and columns of pandas have beside numpy, of a matrix that is traced (`traced`); and pandas itself.

Source: the reference of pandas.DataFrame and pandas.Series at https://pandas.pydata.org/docs/reference/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.traced import Traced, Untraceable, as_columns, chosen, combined, replace_nan
from edgekit_converters.operators.traced_functions import FUNCTIONS

_METHODS_OF_NUMPY: Final = frozenset(
    {"all", "any", "cumsum", "max", "mean", "min", "prod", "round", "std", "sum", "var"}
)
"""Functions of numpy that are methods of arrays and of frames too."""


def attribute(x: Traced, name: str) -> Any:
    """An attribute that the matrix has as an array, a frame or a column.

    Raises:
        AttributeError: The original has none of that name.
        Untraceable: It has no ONNX mapping.
    """
    if name in _METHODS_OF_NUMPY:
        return partial(FUNCTIONS[name], x)
    if name in OF_BOTH:
        return partial(OF_BOTH[name], x)
    if name in METHODS and (x.names is not None or x.flat):
        return partial(METHODS[name], x)
    if x.names is not None and name in x.names and not hasattr(pd.DataFrame, name):
        return x[name]
    if x.names is not None and name in {"index", "loc"}:
        return Index(x) if name == "index" else _Located(x)
    if x.names is None and not x.flat and not hasattr(np.ndarray, name):
        raise AttributeError(f"'numpy.ndarray' object has no attribute '{name}'")
    raise Untraceable(f"its function uses '.{name}' of its argument, which has no ONNX mapping")


def written(frame: Traced, key: Any, value: Any) -> tuple[Expr, list[str]]:
    """The frame's columns and names after `frame[key] = value`: columns are exchanged, or added at the end."""
    wanted = key if isinstance(key, list) else [key]
    if not all(isinstance(one, str) for one in wanted):
        raise Untraceable("its function writes into a frame by something else than names")
    if isinstance(value, Traced) and value.names is not None and value.names != wanted and len(wanted) != 1:
        raise Untraceable("its function writes columns of other names, in the order in which they stand")
    part = as_columns(frame, value, len(wanted))
    names = list(frame.names or ())
    columns = [frame.expr.at(place).cast("float64") for place in range(len(names))]
    for at, name in enumerate(wanted):
        if name in names:
            columns[names.index(name)] = part.at(at)
        else:
            names.append(name)
            columns.append(part.at(at))
    return concat(columns), names


@dataclass(frozen=True, slots=True)
class Index:
    """The index of a frame's rows: another frame of the same rows may be made with it."""

    frame: Traced


class _Located:
    """`frame.loc[:, names]`, and `frame.loc[condition, name] = value`."""

    def __init__(self, frame: Traced) -> None:
        self._frame = frame

    def __getitem__(self, key: Any) -> Traced:
        rows, names = key if isinstance(key, tuple) else (key, None)
        if names is None or not (isinstance(rows, slice) and rows == slice(None)):
            raise Untraceable("its function chooses rows")
        return self._frame[names]

    def __setitem__(self, key: Any, value: Any) -> None:
        rows, name = key if isinstance(key, tuple) else (key, None)
        if isinstance(rows, Traced) and rows.flat and isinstance(name, str):
            value = chosen(rows, value, self._frame[name])
        elif name is None or not (isinstance(rows, slice) and rows == slice(None)):
            raise Untraceable("its function writes into rows of its argument")
        self._frame[name] = value


def _clip(x: Traced, low: Any = None, high: Any = None, **options: Any) -> Traced:
    low = options.pop("min", options.pop("lower", low))
    high = options.pop("max", options.pop("upper", high))
    if options:
        raise Untraceable(f"clip with {', '.join(options)} has no ONNX mapping")
    return FUNCTIONS["clip"](x, low, high)  # type: ignore[no-any-return]  # Any: ndim among them


def _reshape(x: Traced, *shape: Any, **_options: Any) -> Traced:
    """[rows, 1] and [rows] of one column."""
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
    if x.expr.width == 1 and wanted in {(-1, 1), (-1,)}:
        return Traced(x.expr, flat=wanted == (-1,), whole=x)
    raise Untraceable(f"its function reshapes its argument to {wanted}")


def _assign(frame: Traced, **new: Any) -> Traced:
    made = frame.copy()
    for name, value in new.items():
        made[name] = value(made) if callable(value) and not isinstance(value, Traced) else value
    return made


def _drop(frame: Traced, labels: Any = None, *, axis: Any = 0, columns: Any = None) -> Traced:
    if columns is None and axis not in {1, "columns"}:
        raise Untraceable("its function removes rows")
    given = labels if columns is None else columns
    gone = [given] if isinstance(given, str) else list(given)
    return frame[[one for one in frame.names or () if one not in gone]]


def _pop(frame: Traced, item: str) -> Traced:
    found = frame[item]
    del frame[item]
    return found


def _rename(frame: Traced, *, columns: Any) -> Traced:
    new: Callable[[str], Any] = columns if callable(columns) else lambda name: columns.get(name, name)
    return Traced(frame.expr, names=[new(one) for one in frame.names or ()])


def _to_frame(column: Traced, name: str = "0") -> Traced:
    return Traced(column.expr, names=[name])


def _apply(x: Traced, func: Callable[[Any], Any], axis: Any = 0) -> Traced:
    """Of a frame, each column's; of a column, the function itself: it may not look at single values."""
    if axis not in {0, "index"}:
        raise Untraceable("its function goes through its argument row by row")
    if x.names is None:
        return _checked(func(x))
    return Traced(concat([_checked(func(x[name])).expr.cast("float64") for name in x.names]), names=x.names)


def _checked(found: Any) -> Traced:
    if not isinstance(found, Traced) or not found.flat:
        raise Untraceable("its function applies what gives no column for a column")
    return found


def _where(x: Traced, cond: Traced, other: Any = np.nan) -> Traced:
    return Traced(chosen(cond, x, other).expr, flat=x.flat, names=x.names)


def _mask(x: Traced, cond: Traced, other: Any = np.nan) -> Traced:
    return Traced(chosen(cond, other, x).expr, flat=x.flat, names=x.names)


def _between(x: Traced, left: Any, right: Any) -> Traced:
    return combined("logical_and", (x >= left, x <= right))


def _binary(name: str) -> Callable[..., Traced]:
    def method(x: Traced, other: Any, axis: Any = "columns") -> Traced:
        if isinstance(other, Traced) and other.flat and not x.flat:
            if axis not in {0, "index"}:
                raise Untraceable("its function combines a frame with one number a row")
            other = Traced(other.expr)
        return combined(name, (x, other))

    return method


def _isnull(x: Traced) -> Traced:
    return combined("isnan", (x,))


OF_BOTH: Final[Mapping[str, Callable[..., Traced]]] = {
    "clip": _clip,
    "flatten": lambda x: _reshape(x, -1).copy(),
    "ravel": lambda x: _reshape(x, -1),
    "reshape": _reshape,
}
"""Methods of arrays; `clip` is one of frames too."""

METHODS: Final[Mapping[str, Callable[..., Traced]]] = {
    "abs": lambda x: combined("absolute", (x,)),
    "add": _binary("add"),
    "apply": _apply,
    "assign": _assign,
    "between": _between,
    "div": _binary("divide"),
    "divide": _binary("divide"),
    "drop": _drop,
    "eq": _binary("equal"),
    "fillna": lambda x, value: replace_nan(x, float(value)),
    "floordiv": _binary("floor_divide"),
    "ge": _binary("greater_equal"),
    "gt": _binary("greater"),
    "isin": FUNCTIONS["isin"],
    "isna": _isnull,
    "isnull": _isnull,
    "le": _binary("less_equal"),
    "lt": _binary("less"),
    "mask": _mask,
    "mod": _binary("remainder"),
    "mul": _binary("multiply"),
    "multiply": _binary("multiply"),
    "ne": _binary("not_equal"),
    "notna": lambda x: ~_isnull(x),
    "notnull": lambda x: ~_isnull(x),
    "pop": _pop,
    "pow": _binary("power"),
    "rename": _rename,
    "sub": _binary("subtract"),
    "to_frame": _to_frame,
    "truediv": _binary("divide"),
    "where": _where,
}
"""Methods of frames and of their columns."""


class _Kind(type):
    """`isinstance(one, pandas.DataFrame)` holds for what is traced as a frame."""

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, pd.DataFrame) or (isinstance(one, Traced) and one.names is not None)

    def __call__(cls, data: Any = None, *args: Any, columns: Any = None, **options: Any) -> Any:
        if isinstance(options.get("index"), Index):
            index = options.pop("index")
            if data is None:
                return Traced(index.frame.expr.at(0), names=[])
        if isinstance(data, Traced) and not data.flat and not args:
            names = data.names if columns is None else list(columns)
            if names is None or len(names) != data.expr.width or (data.names is not None and data.names != names):
                raise Untraceable("its function makes a frame without a name for each column")
            return Traced(data.expr, names=names)
        known: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
        traced = [one for one in known.values() if isinstance(one, Traced)]
        if not traced:
            plain: Any = pd.DataFrame
            return plain(data, *args, columns=columns, **options)
        columns = list(columns or known)
        return Traced(concat([as_columns(traced[0], known[one], 1) for one in columns]), names=columns)


class _Frame(metaclass=_Kind):
    """pandas.DataFrame, which makes frames of what is traced too."""


def _concat(parts: Any, *, axis: Any = 0, **options: Any) -> Any:
    given = list(parts)
    if not any(isinstance(one, Traced) for one in given):
        return pd.concat(given, axis=axis, **options)
    if axis not in {1, "columns"} or not all(isinstance(one, Traced) and one.names is not None for one in given):
        raise Untraceable("its function joins rows, or frames with what is none")
    names: Sequence[str] = [name for one in given for name in one.names]
    return Traced(concat([one.expr.cast("float64") for one in given]), names=names)


class Frames:
    """pandas, of which the parts that make frames take what is traced."""

    DataFrame = _Frame
    concat = staticmethod(_concat)

    def __getattr__(self, name: str) -> Any:
        plain = getattr(pd, name)
        if name in {"isna", "isnull", "notna", "notnull"}:
            traced: Callable[..., Traced] = METHODS[name]
            return lambda x: traced(x) if isinstance(x, Traced) else plain(x)
        return plain
