"""The features of a model: what the reference data says of each column.

Numbers of all types, whole numbers and truth values travel in one float64 tensor; texts, and categories of texts, in
another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import DataMismatch
from edgekit_contracts.manifest import MISSING_TEXT, Feature, Tensor
from edgekit_converters.graph import Column, GraphBuilder, Table

CATEGORIES_MAX: Final = 100
"""Distinct texts that are written down where no encoder names them."""
NUMBERS: Final = "numbers"
TEXT: Final = "text"

FeatureDtype = Literal["float64", "float32", "int64", "bool", "text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """What an encoder knows of the feature that it reads."""

    categories: tuple[str, ...]
    closed: bool
    """It raises for everything else."""


def dtypes(frame: pd.DataFrame) -> dict[str, FeatureDtype]:
    """The type of each column.

    Raises:
        DataMismatch: A column is neither numbers nor text, or holds the reserved character.
    """
    return {str(name): _dtype(frame[name]) for name in frame.columns}


def inputs(
    graph: GraphBuilder, kinds: Mapping[str, FeatureDtype], *, typed: bool = True
) -> tuple[tuple[Tensor, ...], Table]:
    """Declares the graph's inputs; gives their contract and the features as columns, in order.

    Args:
        graph: Where they go.
        kinds: The features' types.
        typed: The original sees each column in its own type, and no matrix of a common one.
    """
    numbers = tuple(name for name, dtype in kinds.items() if dtype != "text")
    texts = tuple(name for name, dtype in kinds.items() if dtype == "text")
    tensors = []
    found: dict[str, Column] = {}
    if numbers:
        value = graph.input(NUMBERS, "float64", len(numbers))
        tensors.append(Tensor(name=NUMBERS, dtype="float64", features=numbers))
        found |= {name: Column(value, index, name) for index, name in enumerate(numbers)}
        narrow = [name for name in numbers if typed and kinds[name] == "float32"]
        if narrow:
            found |= dict(zip(narrow, graph.narrow(tuple(found[name] for name in narrow)), strict=True))
    if texts:
        value = graph.input(TEXT, "text", len(texts))
        tensors.append(Tensor(name=TEXT, dtype="text", features=texts))
        found |= {name: Column(value, index, name) for index, name in enumerate(texts)}
    return tuple(tensors), tuple(found[name] for name in kinds)


def features(
    frame: pd.DataFrame,
    kinds: Mapping[str, FeatureDtype],
    encodings: Mapping[str, Iterable[Encoding]],
    nullable: Mapping[str, bool],
    documents: Collection[str] = (),
) -> tuple[Feature, ...]:
    """The manifest's features, in the order of `kinds`.

    Args:
        frame: The reference data.
        kinds: The type of each feature.
        encodings: What encoders know of texts.
        nullable: Whether the model has an answer where the feature is missing.
        documents: Texts that are no categories: none of them is written down.
    """
    return tuple(
        Feature(name=name, dtype="text", nullable=nullable[name])
        if name in documents and name not in encodings
        else _text(frame[name], name, list(encodings.get(name, ())), nullable[name])
        if dtype == "text"
        else _number(frame[name], name, dtype, nullable[name])
        for name, dtype in kinds.items()
    )


def tensors_of(frame: pd.DataFrame, tensors: Iterable[Tensor]) -> dict[str, Any]:
    """The frame's rows as the graph takes them."""
    feed: dict[str, Any] = {}
    for tensor in tensors:
        if tensor.dtype == "text":
            columns = [frame[name].astype(object).where(frame[name].notna(), MISSING_TEXT) for name in tensor.features]
            feed[tensor.name] = np.stack([column.to_numpy(dtype=object) for column in columns], axis=1)
        else:
            feed[tensor.name] = np.stack([floats(frame[name]) for name in tensor.features], axis=1)
    return feed


def floats(series: pd.Series[Any]) -> NDArray[np.float64]:
    """A column of numbers as float64, missing values as NaN."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "fiub":
        return series.to_numpy(dtype=np.float64)
    return np.asarray(series.astype(object).where(series.notna(), np.nan), dtype=np.float64)


def _dtype(series: pd.Series[Any]) -> FeatureDtype:
    dtype: Any = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "bool"
    if pd.api.types.is_integer_dtype(dtype):
        return "int64"
    if pd.api.types.is_float_dtype(dtype):
        return "float32" if dtype == np.float32 else "float64"
    if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
        return _of_objects(series)
    raise DataMismatch(
        f"column '{series.name}' has the type {dtype}", f"turn '{series.name}' into numbers or text, and fit again"
    )


def _of_objects(series: pd.Series[Any]) -> FeatureDtype:
    present = series.dropna()
    if pd.api.types.infer_dtype(present.astype(object)) in {"string", "empty"}:
        if any(MISSING_TEXT in value for value in present.unique()):
            raise DataMismatch(
                f"column '{series.name}' holds the reserved character U+2400", "replace that character in the data"
            )
        return "text"
    values = present.tolist()
    if all(isinstance(value, bool | np.bool_) for value in values):
        return "bool"
    if all(isinstance(value, int | float | bool | np.number | np.bool_) for value in values):
        return "float64"
    raise DataMismatch(
        f"column '{series.name}' mixes text with other values", f"give '{series.name}' one type, and fit again"
    )


def _number(series: pd.Series[Any], name: str, dtype: FeatureDtype, nullable: bool) -> Feature:
    values = floats(series)
    finite = values[np.isfinite(values)]
    return Feature(
        name=name,
        dtype=dtype,
        nullable=nullable,
        minimum=float(finite.min()) if finite.size else None,
        maximum=float(finite.max()) if finite.size else None,
    )


def _text(series: pd.Series[Any], name: str, encodings: list[Encoding], nullable: bool) -> Feature:
    closed = [set(one.categories) for one in encodings if one.closed]
    if closed:
        known = set.intersection(*closed)
        return Feature(name=name, dtype="text", nullable=nullable, categories=tuple(sorted(known)), closed=True)
    if encodings:
        found = sorted({text for one in encodings for text in one.categories})
    else:
        found = sorted(set(series.dropna().tolist()))[:CATEGORIES_MAX]
    return Feature(name=name, dtype="text", nullable=nullable, categories=tuple(found))
