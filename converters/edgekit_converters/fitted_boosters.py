"""The trees of XGBoost and LightGBM as those libraries write them down themselves: for the certificate.

Read are forms that the emitters do not read: the binary model of XGBoost (UBJSON) and the text model of LightGBM.

Source: Universal Binary JSON, draft 12, with the typed arrays of XGBoost (doc/tutorials/saving_model.rst); model format
v4 of LightGBM, `Tree::Tree(const char*)` of src/io/tree.cpp and the bits of `decision_type` in include/LightGBM/tree.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_SCALARS: Final = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}

CATEGORY: Final = 1
DEFAULT_LEFT: Final = 2
"""Bits of LightGBM's decision_type; the missing type is above them."""
NONE: Final = 0
"""Of the missing types, the one in which NaN is read as 0."""
BAND: Final = float(np.float32(1e-35))
"""LightGBM reads what is within as 0."""


class Nodes:
    """One tree: arrays [nodes] but `values` [nodes, outputs]; x <= threshold, or x in the set, goes left."""

    def __init__(self, count: int, outputs: int) -> None:
        self.feature = np.zeros(count, dtype=np.int64)
        self.threshold = np.zeros(count)
        self.left, self.right = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        self.leaf, self.missing = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self.values = np.zeros((count, outputs))
        self.members: dict[int, frozenset[float]] = {}


def parsed(data: bytes) -> Any:
    """What a UBJSON document says; typed arrays become numpy's."""
    value, _ = _value(data, 0)
    return value


def _value(data: bytes, at: int) -> tuple[Any, int]:
    kind, at = data[at : at + 1], at + 1
    if kind == b"{":
        found: dict[str, Any] = {}
        while data[at : at + 1] != b"}":
            key, at = _text(data, at)
            found[key], at = _value(data, at)
        return found, at + 1
    if kind == b"[":
        return _array(data, at)
    if kind == b"S":
        return _text(data, at)
    if kind in b"TFZ":
        return {b"T": True, b"F": False, b"Z": None}[kind], at
    dtype = np.dtype(_SCALARS[kind])
    return np.frombuffer(data, dtype, 1, at)[0].item(), at + dtype.itemsize


def _array(data: bytes, at: int) -> tuple[Any, int]:
    kind = b""
    if data[at : at + 1] == b"$":
        kind, at = data[at + 1 : at + 2], at + 2
    if data[at : at + 1] == b"#":
        count, at = _value(data, at + 1)
        if kind:
            dtype = np.dtype(_SCALARS[kind])
            return np.frombuffer(data, dtype, count, at).astype(dtype.newbyteorder("=")), at + count * dtype.itemsize
        items = []
        for _ in range(count):
            item, at = _value(data, at)
            items.append(item)
        return items, at
    items = []
    while data[at : at + 1] != b"]":
        item, at = _value(data, at)
        items.append(item)
    return items, at + 1


def _text(data: bytes, at: int) -> tuple[str, int]:
    count, at = _value(data, at)
    return data[at : at + count].decode(), at + count


def xgboost_trees(booster: Any, rounds: int | None, start: NDArray[np.float64]) -> list[Nodes]:
    """The trees of a Booster of XGBoost, output by output in turn; empty for a linear one.

    Args:
        booster: An `xgboost.Booster`, as `inplace_predict` uses it.
        rounds: How many of its rounds count; None: all.
        start: [outputs]: the margin before the first tree.
    """
    gradient = parsed(bytes(booster.save_raw("ubj")))["learner"]["gradient_booster"]
    if gradient["name"] == "gblinear":
        return []
    model = gradient.get("gbtree", gradient)["model"]
    count = len(model["trees"]) if rounds is None else int(model["iteration_indptr"][rounds])
    output = [int(one) for one in model["tree_info"][:count]]
    factors = gradient.get("weight_drop", ())
    found: list[list[Nodes]] = [[] for _ in start]
    for number, tree in enumerate(model["trees"][:count]):
        nodes = _xgboost_tree(tree, output[number], start, float(factors[number]) if len(factors) else None)
        found[output[number]].append(nodes)
    if len(found[0]) == count:
        return found[0]
    return [nodes for stage in zip(*found, strict=True) for nodes in stage]


def _xgboost_tree(tree: dict[str, Any], output: int, start: NDArray[np.float64], factor: float | None) -> Nodes:
    left, right = np.asarray(tree["left_children"]), np.asarray(tree["right_children"])
    condition = np.asarray(tree["split_conditions"], dtype=np.float32)
    found = Nodes(len(left), len(start))
    found.leaf = left == -1
    inner = ~found.leaf
    found.feature[inner] = np.asarray(tree["split_indices"])[inner]
    # x < t of float32s: t is the first one that goes right.
    found.threshold[inner] = np.nextafter(condition[inner], np.float32(-np.inf))
    found.left[inner], found.right[inner] = left[inner], right[inner]
    found.missing[inner] = np.asarray(tree["default_left"])[inner] != 0
    ends = np.asarray(tree["categories_segments"]) + np.asarray(tree["categories_sizes"])
    for node, begin, end in zip(tree["categories_nodes"], tree["categories_segments"], ends, strict=True):
        node = int(node)
        found.members[node] = frozenset(float(code) for code in tree["categories"][int(begin) : int(end)])
        # The set goes right there.
        found.left[node], found.right[node] = right[node], left[node]
        found.missing[node] = not found.missing[node]
    at = np.flatnonzero(found.leaf)
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        found.values[at] = np.asarray(tree["leaf_weights"]).reshape(-1, len(start))[right[at]]
        return found
    leaves = condition[at]
    if factor is not None:
        base = np.float32(start[output])
        leaves = ((leaves + base) - base) * np.float32(factor)
    found.values[at, output] = leaves
    return found


def lightgbm_trees(booster: Any) -> list[Nodes]:
    """The trees of a Booster of LightGBM, up to its best iteration; empty where some are linear."""
    text = booster.model_to_string()
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    outputs = int(_fields(head)["num_tree_per_iteration"])
    fields = [_fields(block) for block in blocks]
    if any(one.get("is_linear") == "1" for one in fields):
        return []
    return [_lightgbm_tree(one, number % outputs, outputs) for number, one in enumerate(fields)]


def _fields(block: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition("=") for line in block.splitlines())}


def _lightgbm_tree(fields: dict[str, str], output: int, outputs: int) -> Nodes:
    def numbers(name: str, dtype: type[Any]) -> NDArray[Any]:
        return np.array(fields.get(name, "").split(), dtype=dtype)

    leaves, inner = int(fields["num_leaves"]), int(fields["num_leaves"]) - 1
    found = Nodes(inner + leaves, outputs)
    found.leaf = np.arange(inner + leaves) >= inner
    found.values[inner:, output] = numbers("leaf_value", np.float64)
    if not inner:
        return found
    kinds, threshold = numbers("decision_type", np.int64), numbers("threshold", np.float64)
    # Below 0 stands the leaf ~child.
    children = [numbers(name, np.int64) for name in ("left_child", "right_child")]
    found.left[:inner], found.right[:inner] = (np.where(one < 0, ~one + inner, one) for one in children)
    found.feature[:inner] = numbers("split_feature", np.int64)
    by_category, missing = (kinds & CATEGORY) != 0, kinds >> 2 & 3
    default = np.where(missing == NONE, threshold >= 0, (kinds & DEFAULT_LEFT) != 0)
    found.missing[:inner] = default & ~by_category
    within = np.abs(threshold) < BAND
    moved = np.where(within & (threshold >= 0), BAND, threshold)
    moved = np.where((threshold >= -BAND) & (threshold < 0), np.nextafter(-BAND, -1.0), moved)
    found.threshold[:inner] = np.where(by_category, 0.0, np.where(moved >= 1e300, np.inf, moved))
    bounds, words = numbers("cat_boundaries", np.int64), numbers("cat_threshold", np.int64)
    for node in np.flatnonzero(by_category):
        begin, end = bounds[int(threshold[node])], bounds[int(threshold[node]) + 1]
        found.members[int(node)] = frozenset(_codes(words[begin:end]))
    return found


def _codes(words: Sequence[int] | NDArray[np.int64]) -> Iterator[float]:
    for place, word in enumerate(words):
        yield from (float(32 * place + bit) for bit in range(32) if int(word) >> bit & 1)
