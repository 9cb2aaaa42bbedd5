"""Whatever a program holds its rows in, as rows or columns by the features' names.

Data frames and tables of Arrow are known by what they do (`columns`, `frame[name]`), so that no such library is
imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from edgekit_contracts.errors import BadInput, UsageError
from edgekit_runtime.encoding import NUMBERS, Column, Scalar, refuse_names

_PLAIN: Final = NUMBERS | {str}
"""Types of most values of a row."""
_NULLS: Final = frozenset({"NAType", "NaTType"})
"""Types by which pandas says that a value is missing."""


class Table(Protocol):
    """A data frame, of pandas, polars or another library."""

    @property
    def columns(self) -> Iterable[Any]:
        """The columns' names."""
        ...

    def __getitem__(self, name: Any, /) -> Any: ...


def is_row(rows: Any) -> bool:
    """Whether this is one row: values, or feature -> value."""
    if isinstance(rows, np.ndarray):
        return rows.ndim == 1
    if isinstance(rows, list | tuple):
        return not rows or _is_value(rows[0])
    if type(rows) is dict and _PLAIN.issuperset(map(type, rows.values())):
        return True
    if hasattr(rows, "columns") or not hasattr(rows, "keys"):
        return False
    return all(_is_value(rows[name]) for name in rows.keys())  # noqa: SIM118 - a Series of pandas iterates its values


def row_values(row: Any, names: Sequence[str]) -> Sequence[Scalar]:
    """The values of one row, in the order of the names.

    Raises:
        BadInput: They are not the row's names, or not as many.
    """
    if isinstance(row, np.ndarray):
        row = row.tolist()
    if not isinstance(row, list | tuple):
        refuse_names(row.keys(), names)
        row = [row[name] for name in names]
    elif len(row) != len(names):
        raise BadInput(
            "", f"the row has {len(row)} values; the model has {len(names)} features", "send a value for each feature"
        )
    return row if _PLAIN.issuperset(map(type, row)) else [_plain(value) for value in row]


def columns_of(rows: Any, names: Sequence[str]) -> dict[str, Column]:
    """Several rows as columns.

    Raises:
        BadInput: They are not the features' columns, or rows differ in length.
        UsageError: Nothing that holds rows.
    """
    if isinstance(rows, np.ndarray) and rows.ndim == 2:
        if rows.shape[1] != len(names):
            raise BadInput(
                "", f"the rows have {rows.shape[1]} columns; the model has {len(names)} features", "send every feature"
            )
        return dict(zip(names, rows.T, strict=True))
    table: Any = rows
    if hasattr(table, "columns"):
        # Of a table of Arrow, `columns` are the columns themselves.
        given = list(getattr(table, "column_names", table.columns))
        names = [str(name) for name in given]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadInput(twice, "there are two columns of this name", "rename one of them")
        return {name: _column(name, table[column]) for name, column in zip(names, given, strict=True)}
    if hasattr(table, "keys"):
        return {name: _column(name, table[name]) for name in table.keys()}  # noqa: SIM118
    if isinstance(rows, list | tuple):
        return dict(zip(names, zip(*(row_values(row, names) for row in rows), strict=True), strict=True))
    raise UsageError(
        f"{type(rows).__name__} holds no rows that the model reads", "give a row, a list, an array or a data frame"
    )


def units_of(rows: Any) -> Mapping[str, object]:
    """Feature -> unit, as pandas carries them along with a data frame in `attrs["units"]`; empty where it does not."""
    attributes = getattr(rows, "attrs", None)
    units = attributes.get("units") if isinstance(attributes, Mapping) else None
    return units if isinstance(units, Mapping) else {}


def _column(name: str, values: Any) -> Column:
    """One column, with a missing value as None or NaN."""
    column: Any = np.asarray(unmasked(values)) if hasattr(values, "__array__") else values
    if not isinstance(column, np.ndarray | Sequence) or isinstance(column, str) or getattr(column, "ndim", 1) == 0:
        raise BadInput(name, "is one value beside columns", "send one row, or columns of equal length")
    if isinstance(column, np.ndarray) and column.ndim > 1:
        raise BadInput(name, f"has the shape {list(column.shape)}", "send one value for each row")
    if isinstance(column, np.ndarray) and column.dtype == object:
        return [_plain(value) for value in column.tolist()]
    return column


def unmasked(rows: Any) -> Any:
    """A masked array's values, missing where they are masked; anything else as it is."""
    if not isinstance(rows, np.ndarray) or not hasattr(rows, "filled"):
        return rows
    found: Any = rows
    return found.astype(np.float64).filled(np.nan) if rows.dtype.kind in "fiub" else found.astype(object).filled(None)


def _is_value(value: Any) -> bool:
    return isinstance(value, str | bytes) or not hasattr(value, "__len__") or getattr(value, "ndim", 1) == 0


def _plain(value: Any) -> Any:
    """A value with NumPy's single-value array and the null of pandas as Python has them."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    return None if type(value).__name__ in _NULLS else value
