"""SimpleImputer, for numbers and for text.

Numbers: `Where(IsNaN(x), statistic, x)`, or `Equal` where `missing_values` is a number; float32 stays float32, for
which `Imputer` is the same in one node. Text has no `Equal` in old opsets: `LabelEncoder` maps the reserved missing
text to 1 and everything else to 0, and `Where` takes it from there.

Source: `SimpleImputer.transform` and `MissingIndicator.transform` of sklearn/impute/_base.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_contracts.manifest import MISSING_TEXT
from edgekit_converters.graph import ML, Column, Dtype, GraphBuilder, Table, Value, columns, is_narrow
from edgekit_converters.nulls import is_null
from edgekit_converters.operators import Transform, Unfaithful

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def simple_imputer(graph: GraphBuilder, step: Any, table: Table, *, none: bool) -> Table:
    """The table with its missing values filled, then the columns of the missing indicator.

    Args:
        graph: Where the nodes go.
        step: The fitted imputer.
        table: Its columns.
        none: A missing text is None in the model's eyes, else NaN: an imputer of the other one leaves it alone.

    Raises:
        Unfaithful: `missing_values` is a text.
    """
    statistics = list(step.statistics_)
    kept = [index for index, one in enumerate(statistics) if step.keep_empty_features or not is_null(one)]
    filled: list[Column] = [*table]
    masks: list[Column] = [*table]
    dtype: Dtype = "float32" if is_narrow(table) else "float64"
    # Neighbours of one type go together: a node costs more than a column.
    for text, run in groupby(range(len(table)), key=lambda index: table[index].dtype == "text"):
        indices = list(run)
        part = tuple(table[index] for index in indices)
        fill = [statistics[index] for index in indices]
        if text:
            value, mask = _text(graph, step.missing_values, part, fill, none)
        elif dtype == "float32" and is_null(step.missing_values) and not step.add_indicator:
            value = mask = _single(graph, part, fill)
        else:
            value, mask = _numbers(graph, step.missing_values, part, fill, dtype)
        for position, index in enumerate(indices):
            filled[index] = Column(value, position, table[index].source)
            masks[index] = Column(mask, position)
    result = [filled[index] for index in kept]
    if step.add_indicator and step.indicator_ is not None:
        chosen = tuple(masks[index] for index in step.indicator_.features_)
        if chosen:
            result += columns(graph.cast(graph.matrix(chosen), "float64"))
    return tuple(result)


def _numbers(graph: GraphBuilder, missing: Any, part: Table, fill: list[Any], dtype: Dtype) -> tuple[Value, Value]:
    if isinstance(missing, str):
        raise Unfaithful(f"missing_values={missing!r} in columns of numbers", "mark missing numbers with NaN")
    x = graph.matrix(part, dtype)
    like = replace(x, dtype="bool")
    if is_null(missing):
        mask = graph.value("IsNaN", [x], like)
    else:
        mask = graph.value("Equal", [x, graph.constant(np.array([missing], dtype=dtype), "missing")], like)
    row = np.array([_statistics(fill)], dtype=dtype)
    return graph.value("Where", [mask, graph.constant(row, "statistics"), x], x), mask


def _single(graph: GraphBuilder, part: Table, fill: list[Any]) -> Value:
    x = graph.matrix(part, "float32")
    return graph.value("Imputer", [x], x, ML, imputed_value_floats=_statistics(fill), replaced_value_float=float("nan"))


def _statistics(fill: list[Any]) -> list[float]:
    """What missing numbers become.

    A text cannot stand in a column of numbers: it stays missing, which an encoder knows as little (one that learned the
    text is refused). A column that is dropped afterwards may have any statistic.
    """
    return [np.nan if is_null(one) or isinstance(one, str) else float(one) for one in fill]


def _text(graph: GraphBuilder, missing: Any, part: Table, fill: list[Any], none: bool) -> tuple[Value, Value]:
    key = MISSING_TEXT if is_null(missing) else missing
    if not isinstance(key, str):
        raise Unfaithful(f"missing_values={missing!r} in columns of text", "mark missing texts with NaN or None")
    x = graph.matrix(part)
    if is_null(missing) and (missing is None) != none:
        never = graph.value(
            "LabelEncoder", [x], replace(x, dtype="int64"), ML, keys_strings=[""], values_int64s=[0], default_int64=0
        )
        return x, graph.cast(never, "bool")
    found = graph.value(
        "LabelEncoder",
        [x],
        replace(x, dtype="int64"),
        ML,
        keys_strings=[key],
        values_int64s=[1],
        default_int64=0,
    )
    mask = graph.cast(found, "bool")
    row = np.array([[MISSING_TEXT if is_null(one) else str(one) for one in fill]], dtype=object)
    return graph.value("Where", [mask, graph.constant(row, "statistics"), x], x), mask


def _simple(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    walk.fills |= {one for one in step.statistics_ if isinstance(one, str)}
    return simple_imputer(walk.graph, step, table, none=walk.none)


TRANSFORMERS: Final[Mapping[str, Transform]] = {"SimpleImputer": _simple}
