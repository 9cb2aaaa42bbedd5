"""OneHotEncoder and OrdinalEncoder.

Text: one `LabelEncoder` turns all columns into numbers of known texts (0: unknown); a table, one row a column, turns
those into what the step gives (`Gather`). So the count of nodes does not grow with the columns or the categories.

Numbers: `Equal` with all categories at once (`IsNaN` for a learned NaN), then one product with a matrix of 0, 1, -1.

Source: `_BaseEncoder._transform`, `OneHotEncoder.transform` and `OrdinalEncoder.transform` of
sklearn/preprocessing/_encoders.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.manifest import MISSING_TEXT
from edgekit_converters.graph import ML, Column, GraphBuilder, Table, Value, columns
from edgekit_converters.nulls import is_null
from edgekit_converters.operators import Transform, Unfaithful

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

NOWHERE = -1
"""The code of a value that gives a row of zeros."""


@dataclass(frozen=True, slots=True)
class Codes:
    """What an encoder makes of one column."""

    categories: list[Any]
    codes: list[float]
    """Of each category: its one-hot column or NOWHERE; or its ordinal number."""
    unknown: float
    """The same for every other value."""
    width: int
    """Columns that it gives."""


def one_hot_encoder(graph: GraphBuilder, step: Any, table: Table) -> Table:
    """The indicator columns, in the order of scikit-learn.

    Raises:
        Unfaithful: A column learned None and NaN as two categories, or numbers in a column of text.
    """
    return indicators(graph, table, [one_hot_codes(step, index) for index in range(len(table))])


def indicators(graph: GraphBuilder, table: Table, found: list[Codes]) -> Table:
    """The indicator columns of all columns, whatever learned their categories.

    Raises:
        Unfaithful: As `one_hot_encoder`.
    """
    return _runs(table, found, lambda part, codes: _one_hot(graph, part, codes))


def ordinal_encoder(graph: GraphBuilder, step: Any, table: Table) -> Table:
    """One column of codes for each column.

    Raises:
        Unfaithful: As `one_hot_encoder`.
    """
    return coded(graph, table, [ordinal_codes(step, index) for index in range(len(table))])


def coded(graph: GraphBuilder, table: Table, found: list[Codes]) -> Table:
    """One column of codes for each column, whatever learned them.

    Raises:
        Unfaithful: As `one_hot_encoder`.
    """
    return _runs(table, found, lambda part, codes: _ordinal(graph, part, codes))


def one_hot_codes(step: Any, index: int) -> Codes:
    """Which indicator column each category of a column switches on."""
    categories, grouped, infrequent = _grouped(step, index)
    drop = step._drop_idx_after_grouping
    dropped = None if drop is None or drop[index] is None else int(drop[index])

    def column(group: int) -> int:
        if dropped is None:
            return group
        return NOWHERE if group == dropped else group - (group > dropped)

    joins = step.handle_unknown in {"infrequent_if_exist", "warn"} and infrequent is not None
    unknown = column(infrequent) if joins and infrequent is not None else NOWHERE
    return Codes(categories, [column(group) for group in grouped], unknown, int(step._n_features_outs[index]))


def ordinal_codes(step: Any, index: int) -> Codes:
    """The number of each category of a column."""
    categories, grouped, _ = _grouped(step, index)
    codes: list[float] = [float(group) for group in grouped]
    codes += [0.0] * (len(categories) - len(codes))  # grouping leaves the missing category out
    if index in step._missing_indices:
        codes[step._missing_indices[index]] = float(step.encoded_missing_value)
    unknown = float(step.unknown_value) if step.handle_unknown == "use_encoded_value" else 0.0
    return Codes(categories, codes, unknown, 1)


def _grouped(step: Any, index: int) -> tuple[list[Any], list[int], int | None]:
    """The categories, the group of each, and the group of the infrequent ones."""
    categories = list(step.categories_[index])
    nulls = [one for one in categories if is_null(one)]
    if len(nulls) > 1:
        raise Unfaithful(
            f"column {index} learned both None and NaN as categories, and a device knows one missing value",
            "replace None by NaN in the training data and fit again",
        )
    if not step._infrequent_enabled or step._default_to_infrequent_mappings[index] is None:
        return categories, list(range(len(categories))), None
    mapping = [int(group) for group in step._default_to_infrequent_mappings[index]]
    return categories, mapping, mapping[int(step._infrequent_indices[index][0])]


def _runs(table: Table, found: list[Codes], emit: Callable[[Table, list[Codes]], Table]) -> Table:
    """Neighbours of one type are encoded together."""
    result: list[Column] = []
    for _, run in groupby(range(len(table)), key=lambda index: table[index].dtype == "text"):
        indices = list(run)
        result += emit(tuple(table[index] for index in indices), [found[index] for index in indices])
    return tuple(result)


def _one_hot(graph: GraphBuilder, part: Table, found: list[Codes]) -> Table:
    width = sum(codes.width for codes in found)
    if width == 0:
        return ()
    if part[0].dtype != "text":
        return columns(_one_hot_numbers(graph, part, found, width))
    offsets = np.cumsum([0] + [codes.width for codes in found])
    rows = [
        ({key: code if code == NOWHERE else code + offset for key, code in known.items()}, unknown)
        for (known, unknown), offset in zip(map(_by_text, found), offsets, strict=False)
    ]
    unknowns = [
        unknown if unknown == NOWHERE else unknown + offset for (_, unknown), offset in zip(rows, offsets, strict=False)
    ]
    codes = _lookup(graph, part, [known for known, _ in rows], unknowns, np.int64)
    spread = graph.gather(codes, [index for index, one in enumerate(found) for _ in range(one.width)])
    here = graph.constant(np.arange(width, dtype=np.int64).reshape(1, -1), "indicator")
    on = graph.value("Equal", [spread, here], Value("", "bool", width))
    return columns(graph.cast(on, "float64"))


def _ordinal(graph: GraphBuilder, part: Table, found: list[Codes]) -> Table:
    if part[0].dtype != "text":
        return columns(_ordinal_numbers(graph, part, found))
    rows = [_by_text(codes) for codes in found]
    return columns(_lookup(graph, part, [known for known, _ in rows], [unknown for _, unknown in rows], np.float64))


def _by_text(codes: Codes) -> tuple[dict[str, float], float]:
    known = {}
    for category, code in zip(codes.categories, codes.codes, strict=True):
        if not isinstance(category, str) and not is_null(category):
            raise Unfaithful(
                f"the category {category!r} is not text", "convert the column with .astype(str) and fit again"
            )
        known[MISSING_TEXT if is_null(category) else category] = code
    return known, codes.unknown


def _lookup(
    graph: GraphBuilder, part: Table, known: list[dict[str, float]], unknown: list[float], dtype: type[np.generic]
) -> Value:
    """[rows, columns]: the code of each text, by its column's table."""
    x = graph.matrix(part)
    texts = sorted({text for one in known for text in one})
    numbers = graph.value(
        "LabelEncoder",
        [x],
        replace(x, dtype="int64"),
        ML,
        keys_strings=texts,
        values_int64s=list(range(1, len(texts) + 1)),
        default_int64=0,
    )
    codes = np.array([[u, *(k.get(text, u) for text in texts)] for k, u in zip(known, unknown, strict=True)])
    starts = graph.constant((np.arange(len(known), dtype=np.int64) * codes.shape[1]).reshape(1, -1), "starts")
    places = numbers if len(known) == 1 else graph.value("Add", [numbers, starts], numbers)
    table = graph.constant(codes.ravel().astype(dtype), "codes")
    return graph.value("Gather", [table, places], replace(x, dtype="int64" if dtype is np.int64 else "float64"), axis=0)


def _one_hot_numbers(graph: GraphBuilder, part: Table, found: list[Codes], width: int) -> Value:
    """Indicators of the categories, times the matrix from categories to columns.

    A column that unknown values join is 1 minus the indicators of everything that is not in it.
    """
    hits, slices = _indicators(graph, part, found)
    weights = np.zeros((hits.width, width))
    bias = np.zeros((1, width))
    offset = 0
    for codes, rows in zip(found, slices, strict=True):
        for row, code in zip(range(rows.start, rows.stop), codes.codes, strict=True):
            if codes.unknown != NOWHERE and code != codes.unknown:
                weights[row, offset + int(codes.unknown)] = -1.0
            if code != NOWHERE and code != codes.unknown:
                weights[row, offset + int(code)] = 1.0
        if codes.unknown != NOWHERE:
            bias[0, offset + int(codes.unknown)] = 1.0
        offset += codes.width
    return _product(graph, hits, weights, bias)


def _ordinal_numbers(graph: GraphBuilder, part: Table, found: list[Codes]) -> Value:
    """Unknown plus the step from it to the category's code; a code that is NaN is put in afterwards."""
    hits, slices = _indicators(graph, part, found)
    weights, nans = np.zeros((hits.width, len(found))), np.zeros((hits.width, len(found)))
    bias, bias_nans = np.zeros((1, len(found))), np.zeros((1, len(found)))
    for index, (codes, rows) in enumerate(zip(found, slices, strict=True)):
        unknown = 0.0 if np.isnan(codes.unknown) else codes.unknown
        bias[0, index], bias_nans[0, index] = unknown, float(np.isnan(codes.unknown))
        for row, code in zip(range(rows.start, rows.stop), codes.codes, strict=True):
            weights[row, index] = 0.0 if np.isnan(code) else code - unknown
            nans[row, index] = float(np.isnan(code)) - bias_nans[0, index]
    result = _product(graph, hits, weights, bias)
    if not (nans.any() or bias_nans.any()):
        return result
    half = graph.constant(np.array([0.5]), "half")
    missing = graph.node("Greater", [_product(graph, hits, nans, bias_nans), half])[0]
    return graph.value("Where", [missing, graph.constant(np.array([np.nan]), "nan"), result], result)


def _indicators(graph: GraphBuilder, part: Table, found: list[Codes]) -> tuple[Value, list[range]]:
    """[rows, all categories] of 0.0 and 1.0, and where each column's categories lie."""
    x = graph.matrix(part, "float64")
    spread = graph.gather(x, [index for index, codes in enumerate(found) for _ in codes.categories])
    flat = [one for codes in found for one in codes.categories]
    if any(isinstance(one, str) for one in flat):
        raise Unfaithful("a text category in a column of numbers", "give the column the type it had in training")
    row = np.array([[np.nan if is_null(one) else float(one) for one in flat]], dtype=np.float64)
    like = replace(spread, dtype="bool")
    hits = graph.value("Equal", [spread, graph.constant(row, "categories")], like)
    if np.isnan(row).any():
        at_null = graph.constant(np.isnan(row), "null_category")
        missing = graph.value("And", [graph.value("IsNaN", [spread], like), at_null], like)
        hits = graph.value("Or", [hits, missing], like)
    ends = np.cumsum([0] + [len(codes.categories) for codes in found])
    return graph.cast(hits, "float64"), [range(start, end) for start, end in pairwise(ends)]


def _product(graph: GraphBuilder, hits: Value, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> Value:
    result = hits
    if weights.shape[0] != weights.shape[1] or not np.array_equal(weights, np.eye(len(weights))):
        like = replace(hits, width=weights.shape[1])
        result = graph.value("MatMul", [hits, graph.constant(weights, "weights")], like)
    if bias.any():
        result = graph.value("Add", [result, graph.constant(bias, "bias")], result)
    return result


def _one_hot_step(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    walk.learn(step, table)
    return one_hot_encoder(walk.graph, step, table)


def _ordinal_step(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    walk.learn(step, table)
    return ordinal_encoder(walk.graph, step, table)


TRANSFORMERS: Final[Mapping[str, Transform]] = {"OneHotEncoder": _one_hot_step, "OrdinalEncoder": _ordinal_step}
