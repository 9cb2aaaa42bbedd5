"""Inputs as a test declares them: names, element types and widths of skl2onnx's `initial_types`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

import numpy as np

from edgekit_contracts.manifest import MISSING_TEXT
from edgekit_converters.data import feature_names
from edgekit_converters.graph import ML, Column, Dtype, GraphBuilder, Table, Value, columns
from edgekit_converters.walk import used_columns

DTYPES: Final[dict[str, Dtype]] = {
    "BooleanTensorType": "bool",
    "DoubleTensorType": "float64",
    "FloatTensorType": "float32",
    "Int64TensorType": "int64",
    "Int32TensorType": "int64",
    "StringTensorType": "text",
}

VALUES: Final[dict[str, Dtype]] = {"FloatTensorType": "float32", "Int64TensorType": "int64"}
"""Element types of a dictionary's values, as ONNX's maps have them."""

Declared = Sequence[tuple[str, Any]]


class NotDeclared(RuntimeError):
    """An input of a type that edgekit's graphs do not have."""


def declare(graph: GraphBuilder, model: Any, types: Declared) -> Table:
    """Declares the inputs, and gives the model's columns in the order in which it was fitted.

    Raises:
        NotDeclared: An input's type has no place in a graph, or only some columns that the model reads are declared.
    """
    found: dict[str, list[Column]] = {}
    for name, kind in types:
        if type(kind).__name__ == "DictionaryType":
            keys = keys_of(model)
            value = graph.input(name, VALUES.get(type(kind.value_type).__name__) or _unknown(kind), len(keys))
            found[name] = list(columns(value, list(map(str, keys))))
            continue
        dtype = DTYPES.get(type(kind).__name__) or _unknown(kind)
        width = _width(model, kind, alone=len(types) == 1)
        value = graph.input(name, dtype, width)
        if dtype == "text" and _knows_nan(model):
            value = _missing_texts(graph, value)
        found[name] = list(columns(value, [name] * width))
    names = feature_names(model)
    if names is None or set(names).isdisjoint(found) or len(types) == 1:
        return tuple(column for part in found.values() for column in part)
    lacking = [names[index] for index in used_columns(model, len(names)) if names[index] not in found]
    if lacking:
        raise NotDeclared(f"the model reads the columns {lacking}, and the inputs are {list(found)}")
    # A column that no step reads is no input; another stands in its place.
    return tuple(column for name in names for column in found.get(name, next(iter(found.values()))))


def keys_of(model: Any) -> list[Any]:
    """The keys of numbers that the DictVectorizer at the model's start has learned, in its order."""
    first = getattr(model, "steps", [("", model)])[0][1]
    return list(getattr(first, "feature_names_", ()))


def _knows_nan(model: Any) -> bool:
    """Whether it is an encoder that has learned NaN among texts."""
    learned = getattr(model, "categories_", ())
    return any(isinstance(one, float) for texts in learned if texts.dtype == object for one in texts)


def _missing_texts(graph: GraphBuilder, value: Value) -> Value:
    """The text 'nan', which onnxruntime makes of a NaN among texts, as the missing text that edgekit knows."""
    like = replace(value, dtype="int64")
    found = graph.value("LabelEncoder", [value], like, ML, keys_strings=["nan"], values_int64s=[1], default_int64=0)
    missing = graph.constant(np.array([MISSING_TEXT], dtype=object), "missing")
    return graph.value("Where", [graph.cast(found, "bool"), missing, value], value)


def _unknown(kind: Any) -> NoReturn:
    raise NotDeclared(f"an input of {kind}")


def _width(model: Any, kind: Any, *, alone: bool) -> int:
    """The declared width, else that of the training data."""
    shape = list(kind.shape or [])
    if len(shape) > 1 and isinstance(shape[1], int):
        return shape[1]
    return int(getattr(model, "n_features_in_", 1)) if alone else 1
