"""What LightGBM itself says of a trained Booster, read from `Booster.dump_model`.

Decisions. LightGBM reads |x| <= 1e-35f as 0 and then asks `x <= t`; a threshold within that band moves to its edge
instead, which decides the same for every x. Where a feature's missing type is None, NaN counts as 0; where it is NaN,
NaN goes the default way; where it is Zero, 0 and NaN both do. A category is x cut to a whole number; negative, unknown
and missing ones go right.

Source: `Tree::NumericalDecision`, `CategoricalDecision` and `Predict` of include/LightGBM/tree.h; `kZeroThreshold` of
meta.h; `RowPairFunctionFromDenseMatric` of src/c_api.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.tree_nodes import Tree

VERSION: Final = "v4"
"""Of the model format; LightGBM 4 writes it."""
ZERO: Final = float(np.float32(1e-35))
"""kZeroThreshold."""
INFINITE: Final = 1e300
"""The dump writes an infinite threshold so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What a leaf of a linear tree answers: const + coefficient * x, one after another, in float64."""

    const: float
    features: tuple[int, ...]
    coefficients: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """A Booster, as far as its answers depend on it."""

    objective: str
    """Name and parameters, such as `binary sigmoid:1`; empty for one of the user's own."""
    outputs: int
    """Tree j adds to output j % outputs."""
    average: bool
    """The sum is divided by the count of rounds (boosting=rf)."""
    features: int
    trees: tuple[Tree, ...]
    lines: tuple[dict[int, Line], ...] | None
    """For each tree, node -> its line; None where no tree is linear."""
    zero_is_missing: frozenset[int]
    """Features whose 0 goes the way of a missing value."""
    categorical: frozenset[int]
    """Features that some tree splits by category."""
    categories: tuple[list[Any], ...]
    """Of the pandas categories, in the order of their columns: the values, in the order of their codes."""


def read(booster: Any) -> Dump:
    """Reads a trained Booster, up to its best iteration where it has one, as its `predict` does.

    Raises:
        Unfaithful: A version that is not known, or a feature whose zeros are missing in some trees only.
    """
    dump = booster.dump_model()
    if dump["version"] != VERSION:
        raise Unfaithful(f"LightGBM's format {dump['version']} is not known here", "use LightGBM 4")
    nodes = [_nodes(one["tree_structure"]) for one in dump["tree_info"]]
    inner = [node for tree in nodes for node in tree if "split_feature" in node and node["decision_type"] == "<="]
    zero = {node["split_feature"] for node in inner if node["missing_type"] == "Zero"}
    if any(node["split_feature"] in zero and node["missing_type"] != "Zero" for node in inner):
        raise Unfaithful("zeros of a feature are missing values in some of its trees only", "train it in one go")
    linear = any("leaf_const" in node for tree in nodes for node in tree)
    return Dump(
        objective=dump.get("objective", ""),
        outputs=int(dump["num_tree_per_iteration"]),
        average=bool(dump["average_output"]),
        features=int(dump["max_feature_idx"]) + 1,
        trees=tuple(map(_tree, nodes)),
        lines=tuple(map(_lines, nodes)) if linear else None,
        zero_is_missing=frozenset(zero),
        categorical=frozenset(
            node["split_feature"] for tree in nodes for node in tree if node.get("decision_type") == "=="
        ),
        categories=tuple(map(list, dump["pandas_categorical"] or ())),
    )


def _nodes(root: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes, parents before children, each with its children's places."""
    found = [root]
    for node in found:
        if "split_feature" in node:
            node["children"] = len(found), len(found) + 1
            found += [node["left_child"], node["right_child"]]
    return found


def _tree(nodes: list[dict[str, Any]]) -> Tree:
    inner = np.array(["split_feature" in node for node in nodes])
    children = np.array([node.get("children", (0, 0)) for node in nodes], dtype=np.int64)
    by_category = np.array([node.get("decision_type") == "==" for node in nodes])
    threshold = np.array(
        [float(node["threshold"]) if one else 0.0 for node, one in zip(nodes, inner & ~by_category, strict=True)]
    )
    threshold = _edges(threshold)
    missing = [
        bool(at >= 0 if node["missing_type"] == "None" else node["default_left"]) if "split_feature" in node else False
        for node, at in zip(nodes, threshold, strict=True)
    ]
    return Tree(
        feature=np.array([node.get("split_feature", 0) for node in nodes], dtype=np.int64),
        threshold=threshold,
        left=children[:, 0],
        right=children[:, 1],
        leaf=~inner,
        missing_left=np.array(missing) & ~by_category,
        values=np.array([[node.get("leaf_value", 0.0)] for node in nodes], dtype=np.float64),
        members={
            int(place): np.sort(np.array(str(nodes[place]["threshold"]).split("||"), dtype=np.float64))
            for place in np.flatnonzero(by_category)
        },
    )


def _edges(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same decisions without reading |x| <= ZERO as 0 first; -ZERO itself is read as 0, and so not below it."""
    moved = np.where((threshold >= 0) & (threshold < ZERO), ZERO, threshold)
    moved = np.where((threshold < 0) & (threshold >= -ZERO), np.nextafter(-ZERO, -np.inf), moved)
    return np.where(threshold >= INFINITE, np.inf, moved)


def _lines(nodes: list[dict[str, Any]]) -> dict[int, Line]:
    return {
        place: Line(
            const=float(node.get("leaf_const", node["leaf_value"])),
            features=tuple(node.get("leaf_features", ())),
            coefficients=tuple(map(float, node.get("leaf_coeff", ()))),
        )
        for place, node in enumerate(nodes)
        if "split_feature" not in node
    }
