"""What one row costs in a tree ensemble, read from the attributes of `TreeEnsemble*` (ai.onnx.ml 1, 3 and 5).

Source: the ONNX operator schemas `ai.onnx.ml` TreeEnsembleClassifier-1/-3, TreeEnsembleRegressor-1/-3, TreeEnsemble-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from edgekit_contracts.errors import FormatError

OPERATORS: Final = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"})

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeCost:
    """The cost of one ensemble for one row."""

    trees: int
    nodes: int
    """Inner nodes and leaves: what stays in memory."""
    leaf_weights: int
    """Weights at the leaves, of every class or target."""
    comparisons: float
    """Steps for one row: from each root to a leaf of mean depth, and one step for each weight read there."""


def tree_cost(node: onnx.NodeProto) -> TreeCost:
    """Counts one `TreeEnsemble*` node.

    Raises:
        FormatError: The attributes do not form trees.
    """
    values: dict[str, Any] = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    try:
        return _version_5(values) if node.op_type == "TreeEnsemble" else _version_3(values)
    except (IndexError, KeyError, ValueError) as error:
        raise FormatError("model", f"$.graph.{node.name or node.op_type}", f"not a tree ensemble: {error}") from error


def _version_3(values: Mapping[str, Any]) -> TreeCost:
    # Nodes are named by (tree, number); children by their number in the same tree.
    trees, numbers = _array(values["nodes_treeids"]), _array(values["nodes_nodeids"])
    width = int(max(numbers.max(), 0)) + 1
    keys = trees * width + numbers
    order = np.argsort(keys, kind="stable")
    inner = np.array([mode != b"LEAF" for mode in values["nodes_modes"]])

    def locate(children: Indices) -> Indices:
        wanted = np.where(inner, trees * width + children, keys)
        found: Indices = order[np.searchsorted(keys[order], wanted).clip(max=len(order) - 1)]
        if not np.array_equal(keys[found], wanted):
            raise ValueError("a child does not exist")
        return found

    left, right = locate(_array(values["nodes_truenodeids"])), locate(_array(values["nodes_falsenodeids"]))
    is_root = np.ones(len(keys), dtype=np.bool_)
    is_root[left[inner]] = False
    is_root[right[inner]] = False
    # Not the weights themselves, which are elsewhere (`..._as_tensor`) in float64.
    weights = max(len(values.get("class_ids", ())), len(values.get("target_ids", ())))
    return _count(np.flatnonzero(is_root), left, right, inner, weights)


def _version_5(values: Mapping[str, Any]) -> TreeCost:
    # Inner nodes and leaves lie in two arrays, and a flag says into which a child points; here leaves follow nodes.
    inner_count, leaf_count = len(values["nodes_truenodeids"]), len(values["leaf_targetids"])

    def locate(children: str, leaves: str) -> Indices:
        at = _array(values[children])
        at = np.where(_array(values[leaves]) != 0, at + inner_count, at)
        if at.min() < 0 or at.max() >= inner_count + leaf_count:
            raise ValueError("a child does not exist")
        return np.concatenate([at, np.zeros(leaf_count, dtype=np.int64)])

    left = locate("nodes_truenodeids", "nodes_trueleafs")
    right = locate("nodes_falsenodeids", "nodes_falseleafs")
    inner = np.arange(inner_count + leaf_count) < inner_count
    return _count(_array(values["tree_roots"]), left, right, inner, leaf_count)


def _count(roots: Indices, left: Indices, right: Indices, inner: Mask, weights: int) -> TreeCost:
    """Walks all trees at once, one level at a time."""
    at, tree = roots, np.arange(len(roots))
    depth_sum, leaves = np.zeros(len(roots)), np.zeros(len(roots))
    level = 0
    while len(at):
        if level > len(inner):
            raise ValueError("a node is its own descendant")
        done = ~inner[at]
        np.add.at(depth_sum, tree[done], float(level))
        np.add.at(leaves, tree[done], 1.0)
        at, tree = at[~done], tree[~done]
        at, tree = np.concatenate([left[at], right[at]]), np.concatenate([tree, tree])
        level += 1
        if len(at) > 2 * len(inner):
            raise ValueError("a node has several parents")
    if not len(roots) or not leaves.all():
        raise ValueError("a tree without a leaf")
    per_leaf = weights / float(leaves.sum())
    return TreeCost(
        trees=len(roots),
        nodes=len(inner),
        leaf_weights=weights,
        comparisons=float((depth_sum / leaves).sum()) + per_leaf * len(roots),
    )


def _array(values: Any) -> Indices:
    return np.asarray(values, dtype=np.int64)
