"""The leaf in which each tree ends, and the path to it (options `decision_leaf` and `decision_path`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit_converters.graph import Table, Value
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.tree_ensemble import leaf_nodes, plain
from edgekit_converters.walk import Walk


def decisions(walk: Walk, model: Any, table: Table, options: Mapping[str, Any]) -> list[tuple[str, Value]]:
    """The outputs that the options ask for: [rows, trees] each; texts of 0 and 1, a digit for each node, and int64."""
    wanted = [name for name in ("decision_path", "decision_leaf") if options.get(name)]
    if not wanted:
        return []
    trees = [one.tree_ for one in np.ravel(getattr(model, "estimators_", [model]))]
    nodes = [plain(tree, np.zeros((tree.node_count, 1))) for tree in trees]
    leaf = Expr(walk.graph, leaf_nodes(walk.graph, nodes, walk.matrix(table), "float32"))
    outputs = {"decision_leaf": leaf.cast("int64").value}
    if "decision_path" in wanted:
        starts = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
        places = (leaf + starts.astype(np.float64)).cast("int64").value
        texts = walk.graph.constant(np.array([text for tree in trees for text in _paths(tree)], dtype=object), "paths")
        outputs["decision_path"] = walk.graph.value("Gather", [texts, places], Value("", "text", len(trees)), axis=0)
    return [(name, outputs[name]) for name in wanted]


def _paths(tree: Any) -> list[str]:
    """For each node, which nodes lie on the way to it."""
    above = {int(child): node for node in range(tree.node_count) for child in _children(tree, node)}
    found = []
    for node in range(tree.node_count):
        digits = ["0"] * tree.node_count
        at: int | None = node
        while at is not None:
            digits[at] = "1"
            at = above.get(at)
        found.append("".join(digits))
    return found


def _children(tree: Any, node: int) -> list[int]:
    return [one for one in (tree.children_left[node], tree.children_right[node]) if one > 0]
