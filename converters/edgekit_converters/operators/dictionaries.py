"""DictVectorizer and FeatureHasher: from named values, or from texts, to numbers.

A model that was fitted on dictionaries reads a table whose columns are their keys; a missing value is a key that the
dictionary lacks. A number stands under its key, a text under `key=text` with the value 1, a missing one nowhere.

DictVectorizer: each name that it has learned is a column. FeatureHasher: MurmurHash3 (x86, 32 bit, seed 0) of a name's
UTF-8; its absolute value modulo `n_features` is the column to which the value is added, with the hash's sign where
`alternate_sign`. With `input_type="string"` each text of a row is a name itself.

Source: `_transform` of sklearn/feature_extraction/_dict_vectorizer.py; _hash.py and _hashing_fast.pyx beside it;
A. Appleby, SMHasher, MurmurHash3.cpp, which onnxruntime's operator of that name (docs/ContribOperators.md) follows too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from onnx import TensorProto, numpy_helper
from sklearn.utils import murmurhash3_32

from edgekit_contracts.manifest import MISSING_TEXT
from edgekit_converters.graph import MICROSOFT, Column, GraphBuilder, Table, Value, columns
from edgekit_converters.operators import Transform, Unfaithful
from edgekit_converters.operators.documents import OPSET
from edgekit_converters.operators.encoders import NOWHERE, Codes, indicators
from edgekit_converters.operators.expression import Expr, concat, total
from edgekit_converters.operators.text import WIDTH_MAX
from edgekit_converters.schema import Encoding

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

SEPARATOR: Final = "="
"""FeatureHasher's own, between a key and its text."""


def of_dictionaries(step: Any) -> bool:
    """Whether a step reads a sequence of dictionaries, no table."""
    kind = type(step).__name__
    return kind == "DictVectorizer" or (kind == "FeatureHasher" and step.input_type == "dict")


def names_of(step: Any) -> dict[str, int]:
    """The names that a DictVectorizer has learned, as texts, and the column of each.

    Raises:
        Unfaithful: Two of them are the same text.
    """
    names = {str(name): int(place) for name, place in step.vocabulary_.items()}
    if len(names) < len(step.vocabulary_):
        raise Unfaithful("two of its names are the same text", "give the dictionaries texts for keys, and fit again")
    return names


def texts_of(step: Any, key: str) -> dict[str, int]:
    """The texts under a key that a DictVectorizer has learned, and the column of each."""
    start = f"{key}{step.separator}"
    return {name.removeprefix(start): place for name, place in names_of(step).items() if name.startswith(start)}


def _dict_vectorizer(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    dtype, names = _float(step), names_of(step)
    parts: dict[int, list[Column]] = defaultdict(list)
    numbers = tuple(one for one in table if one.dtype != "text" and one.source in names)
    if numbers:
        for one, column in zip(numbers, columns(_filled(walk, numbers).value), strict=True):
            parts[names[str(one.source)]].append(column)
    learned = [(one, texts_of(step, str(one.source))) for one in table if one.dtype == "text"]
    learned = [(one, known) for one, known in learned if known]
    if learned:
        codes = [Codes(list(known), [*range(len(known))], NOWHERE, len(known)) for _, known in learned]
        places = [place for _, known in learned for place in known.values()]
        found = indicators(walk.graph, tuple(one for one, _ in learned), codes)
        for place, column in zip(places, found, strict=True):
            parts[place].append(column)
        for one, known in learned:
            encoding = Encoding(categories=tuple(known), closed=False)
            walk.encodings.setdefault(str(one.source), []).append(encoding)
    for name, place in names.items():
        if place not in parts:
            raise Unfaithful(
                f"it has learned '{name}', and the data has no column for that", "give data with all keys of training"
            )
    joined = [one for place in range(len(names)) for one in _sum(walk.graph, parts[place])]
    return columns(walk.graph.matrix(tuple(joined), dtype))


def _sum(graph: GraphBuilder, parts: list[Column]) -> Table:
    """Several values under one name are added."""
    if len(parts) == 1:
        return tuple(parts)
    return columns(total([Expr(graph, graph.matrix((one,), "float64")) for one in parts]).value)


def _feature_hasher(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    if step.input_type == "pair":
        raise Unfaithful("it reads lists of pairs", "fit it on dictionaries (input_type='dict'), which are a table")
    width, graph, dictionaries = int(step.n_features), walk.graph, step.input_type == "dict"
    if width > WIDTH_MAX:
        raise Unfaithful(f"it gives {width:,} columns, and a row of them is dense", f"use at most {WIDTH_MAX:,}")
    texts = tuple(one for one in table if one.dtype == "text")
    numbers = tuple(one for one in table if one.dtype != "text")
    if numbers and not dictionaries:
        raise Unfaithful("a number reaches it, and with input_type='string' it hashes texts", "give it texts only")
    dtype = _float(step, counts=not numbers)
    parts: list[tuple[Expr, Expr]] = []
    """Places and values, [rows, columns] each."""
    if texts:
        parts.append(_hashed_texts(walk, step, texts, dictionaries))
    if numbers:
        parts.append(_hashed_keys(walk, step, numbers))
    places, values = concat([one for one, _ in parts]), concat([one for _, one in parts]).cast(dtype)
    rows = graph.node("Shape", [places.value], start=0, end=1)[0]
    shape = graph.node("Concat", [rows, graph.constant(np.array([width], dtype=np.int64), "width")], axis=0)[0]
    zero = numpy_helper.from_array(np.zeros(1, dtype=dtype))
    zeros = Value(graph.node("ConstantOfShape", [shape], value=zero)[0], dtype, width)
    added = graph.value("ScatterElements", [zeros, places.value, values.value], zeros, axis=1, reduction="add")
    return columns(added)


def _hashed_texts(walk: Walk, step: Any, texts: Table, dictionaries: bool) -> tuple[Expr, Expr]:
    """Hashed at inference; a missing text adds nothing to a dictionary."""
    graph, width = walk.graph, len(texts)
    given = names = graph.matrix(texts)
    if dictionaries:
        graph.opset = max(graph.opset, OPSET)
        keys = np.array([[f"{one.source}{SEPARATOR}" for one in texts]], dtype=object)
        names = graph.value("StringConcat", [graph.constant(keys, "keys"), given], given)
    hashed = graph.node("MurmurHash3", [names], domain=MICROSOFT, positive=0, seed=0)[0]
    hashes = Expr(graph, Value(graph.node("Cast", [hashed], to=TensorProto.INT64)[0], "int64", width))
    places = abs(hashes).apply("Mod", int(step.n_features))
    values = (hashes < 0).where(-1.0 if step.alternate_sign else 1.0, 1.0)
    if dictionaries:
        missing = graph.node("Equal", [given, graph.constant(np.array([MISSING_TEXT], dtype=object), "missing")])[0]
        values = Expr(graph, Value(missing, "bool", width)).where(0.0, values)
    return places, values


def _hashed_keys(walk: Walk, step: Any, numbers: Table) -> tuple[Expr, Expr]:
    """Keys of numbers: hashed now."""
    hashes = np.array([murmurhash3_32(str(one.source), seed=0) for one in numbers], dtype=np.int64)
    values = _filled(walk, numbers)
    if step.alternate_sign:
        values = values * np.where(hashes < 0, -1.0, 1.0)
    shape = walk.graph.node("Shape", [values.value])[0]
    places = walk.graph.constant((np.abs(hashes) % int(step.n_features)).reshape(1, -1), "places")
    spread = walk.graph.node("Expand", [places, shape])[0]
    return Expr(walk.graph, Value(spread, "int64", len(numbers))), values


def _filled(walk: Walk, numbers: Table) -> Expr:
    """[rows, columns]: 0 in the place of a missing number, whose key the dictionary lacks."""
    x = Expr(walk.graph, walk.matrix(numbers))
    return x.is_nan().where(0.0, x)


def _float(step: Any, *, counts: bool = False) -> Literal["float32", "float64"]:
    """The element type of what a step gives.

    Args:
        step: The step.
        counts: It gives whole numbers, which an integer type holds too.
    """
    dtype = np.dtype(step.dtype)
    if dtype == np.float32:
        return "float32"
    if dtype == np.float64 or (counts and dtype in (np.int64, np.int32)):
        return "float64"
    raise Unfaithful(f"its dtype {dtype} cuts numbers off", "use dtype float64")


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "DictVectorizer": _dict_vectorizer,
    "FeatureHasher": _feature_hasher,
}
