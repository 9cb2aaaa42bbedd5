"""CatBoost's categorical features: texts and whole numbers become codes, which stand for hashes.

CatBoost keeps no category, only its 32-bit hash. ONNX has no hash, so the categories themselves are looked up: those of
the reference data and of the imputers before the model, hashed by CatBoost. A text that training has not seen but whose
hash is that of one it has seen (a chance of 2^-32 for each of those) CatBoost takes for that one, and the converted
model for unknown.

Source: `OneHotBinsFromTransposedCatFeatures` of catboost/libs/model/cpu/quantization.h; `CalcCatFeatureHash` of
catboost/libs/cat_feature/cat_feature.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import ML, Column, Table, Value
from edgekit_converters.operators import Unfaithful, catboost_dump, encoders
from edgekit_converters.operators.catboost_dump import Category
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.schema import Encoding, floats

if TYPE_CHECKING:
    from edgekit_converters.walk import Walk


@dataclass(frozen=True, slots=True)
class Known:
    """The categories of one feature that are known here.

    Attributes:
        name: The feature's.
        column: Where it comes from.
        codes: Category, as text -> its code: 1, 2 ...; categories of one hash have one code.
        hashes: [codes], ascending: the hash of code 1, of code 2 ...
    """

    name: str
    column: Column
    codes: Mapping[str, int]
    hashes: NDArray[np.int64]


def known_categories(walk: Walk, model: Any, table: Table, positions: Sequence[int]) -> dict[int, Known]:
    """The categories of the features at these positions.

    Raises:
        Unfaithful: A feature was computed by a step before, so that the data does not show its categories.
    """
    found = {position: _texts(walk, table[position], str(model.feature_names_[position])) for position in positions}
    hashes = catboost_dump.hashes(model, sorted(set().union(*found.values()))) if found else {}
    result = {}
    for position, texts in found.items():
        known = np.unique(np.array([hashes[text] for text in texts], dtype=np.int64))
        codes = {text: int(np.searchsorted(known, hashes[text])) + 1 for text in sorted(texts)}
        result[position] = Known(str(model.feature_names_[position]), table[position], codes, known)
    return result


def coded(walk: Walk, known: Mapping[int, Known]) -> dict[int, Expr]:
    """Position -> [rows, 1], int64: the code of the feature's category, 0 where it is none of the known."""
    result: dict[int, Expr] = {}
    for text in (True, False):
        some = {position: one for position, one in known.items() if (one.column.dtype == "text") == text}
        if some:
            part = tuple(one.column for one in some.values())
            tables = [one.codes for one in some.values()]
            value = Expr(walk.graph, _of_texts(walk, part, tables) if text else _of_numbers(walk, part, tables))
            result |= {position: value.at(place) for place, position in enumerate(some)}
    return result


def indicators(codes: Mapping[int, Expr], known: Mapping[int, Known], categories: Sequence[Category]) -> Expr:
    """[rows, categories], bool: whether the feature has the category; never where that is not known here."""
    spread = concat([codes[one.position] for one in categories])
    return spread.equals(np.array([code_of(known[one.position], one.code) for one in categories], dtype=np.int64))


def code_of(known: Known, value: int) -> int:
    """The code of a hash; -1, which no row has, of an unknown one."""
    found = np.flatnonzero(known.hashes == value)
    return int(found[0]) + 1 if len(found) else -1


def tell(walk: Walk, known: Mapping[int, Known], unexplained: Mapping[int, int]) -> None:
    """Writes down which texts the device may send.

    Args:
        walk: The walk.
        known: The features.
        unexplained: Position -> how many of the model's hashes belong to no known category.

    Raises:
        Unfaithful: Some do, in a feature of numbers.
    """
    for position, one in known.items():
        missing = unexplained.get(position, 0)
        if one.column.dtype == "text":
            encoding = Encoding(categories=tuple(one.codes), closed=missing > 0)
            walk.encodings.setdefault(one.column.source or "", []).append(encoding)
        elif missing:
            raise Unfaithful(
                f"the reference data lacks {missing} of the categories of '{one.name}' that the model was trained on",
                "give reference data that holds them all, such as the training data",
            )
        if missing:
            walk.notes.append(
                f"'{one.name}' takes the texts of the reference data only: {missing} that the model was trained on are "
                "not among them, and without these it cannot be told what is unknown"
            )


def _texts(walk: Walk, column: Column, name: str) -> set[str]:
    """The categories, as CatBoost reads them, that may reach the model."""
    if column.source is None or walk.frame is None:
        raise Unfaithful(
            f"its categorical feature '{name}' is computed by a step before it",
            "give it the column as it comes, or encode it and train without cat_features",
        )
    series = walk.frame[column.source]
    if column.dtype == "text":
        return {str(one) for one in series.dropna().unique()} | walk.fills
    numbers = floats(series)
    return {str(int(one)) for one in np.unique(numbers[np.isfinite(numbers)]) if one == int(one)}


def _of_texts(walk: Walk, part: Table, tables: Iterable[Mapping[str, int]]) -> Value:
    known: list[dict[str, float]] = [dict(one) for one in tables]
    return encoders._lookup(walk.graph, part, known, [0.0] * len(known), np.int64)


def _of_numbers(walk: Walk, part: Table, tables: Sequence[Mapping[str, int]]) -> Value:
    """Whole numbers are looked up; others are no category."""
    x = Expr(walk.graph, walk.matrix(part))
    whole = x.cast("int64")
    keys = sorted({int(one) for table in tables for one in table})
    places = whole.apply(
        "LabelEncoder", domain=ML, keys_int64s=keys, values_int64s=list(range(1, len(keys) + 1)), default_int64=0
    )
    places = places * whole.cast("float64").equals(x).cast("int64")
    codes = np.array([[0, *(table.get(str(key), 0) for key in keys)] for table in tables], dtype=np.int64)
    starts = np.arange(len(tables), dtype=np.int64) * codes.shape[1]
    flat = walk.graph.constant(codes.reshape(-1), "codes")
    like = Value("", "int64", len(tables))
    return walk.graph.value("Gather", [flat, (places + starts).value], like, axis=0)
