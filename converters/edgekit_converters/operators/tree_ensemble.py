"""Decision trees as ONNX nodes: every decision and every sum is the original's, bit for bit.

Three spellings of one thing:

- *Sums* (ai.onnx.ml 5, one target a tree): `TreeEnsemble` adds float64 leaves, tree by tree, in the order given; or
  float32 ones, where the original adds in float32.
- *Votes* (ai.onnx.ml 5, leaves of 0 and 1): `TreeEnsemble` counts in float32, where whole numbers below 2^24 are exact.
- *Numbers* (everything else, and all of ai.onnx.ml 3, whose output is float32): the operator gives the number of each
  tree's leaf, `Gather` looks its values up, and `ReduceSum` over the first axis adds them tree by tree.

With several threads in one call (edgekit-runtime has one, unless it is told otherwise) onnxruntime may split the trees
of the *sums* (measured, 1.32.0: where a call has more than 50 rows, from 10 trees on), which then differ by at most
2 * trees * 2^-53 * (the sum of the leaves' absolute values), 2^-24 in float32; votes and numbers are exact with any
count of threads. So where bits are said to be equal, one thread is meant.

Source: `TreeEnsembleCommon::ComputeAgg` of tree_ensemble_common.h and `ReduceAggregatorSum::FastReduceRK` of
reduction_ops.h, for the order of sums in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.tree_nodes import Reads, Tree, version_3, version_5

LEAVES_MAX: Final = 2**24
"""Up to here float32 holds every whole number."""


def plain(tree: Any, values: NDArray[Any], *, missing: bool = True) -> Tree:
    """A tree of sklearn.tree with the values of its nodes.

    Args:
        tree: Fitted.
        values: [nodes, targets].
        missing: Whether a missing value gets to it: some ensembles refuse rows that have one.
    """
    return Tree(
        feature=np.asarray(tree.feature, dtype=np.int64),
        threshold=np.asarray(tree.threshold, dtype=np.float64),
        left=np.asarray(tree.children_left, dtype=np.int64),
        right=np.asarray(tree.children_right, dtype=np.int64),
        leaf=np.asarray(tree.children_left) < 0,
        missing_left=np.asarray(tree.missing_go_to_left, dtype=bool) & missing,
        values=np.asarray(values, dtype=np.float64),
    )


def constant(*values: float) -> Tree:
    """A tree of one leaf, with one value or one for each target."""
    zero = np.zeros(1, dtype=np.int64)
    no = np.zeros(1, dtype=bool)
    return Tree(
        feature=zero, threshold=zero.astype(float), left=zero, right=zero, leaf=~no, missing_left=no,
        values=np.array([values], dtype=np.float64),
    )  # fmt: skip


def sums(
    graph: GraphBuilder, trees: Sequence[Tree], count: int, x: Value, reads: Reads, computes: Reads = "float64"
) -> Value:
    """[rows, count]: tree j adds its leaf's one value to target j % count, in `computes`, in the order of the trees."""
    if graph.target.ml_opset >= 5:
        target = [np.full(len(tree.leaf), number % count) for number, tree in enumerate(trees)]
        weights = [tree.values[:, 0] for tree in trees]
        return version_5(graph, trees, target, weights, count, x, reads, computes)
    table, numbers = _table(trees)
    found = _numbers(graph, trees, numbers, x, reads)
    values = graph.node(
        "Gather", [graph.constant(table[:, 0].astype(computes), "leaves"), _by_tree(graph, found)], axis=0
    )[0]
    if count == 1:
        total = graph.node("ReduceSum", [values, _first(graph)], keepdims=0)[0]
        return graph.value(
            "Reshape", [total, graph.constant(np.array([-1, 1], dtype=np.int64), "shape")], Value("", computes, 1)
        )
    shape = graph.constant(np.array([len(trees) // count, count, -1], dtype=np.int64), "shape")
    total = graph.node("ReduceSum", [graph.node("Reshape", [values, shape])[0], _first(graph)], keepdims=0)[0]
    return graph.value("Transpose", [total], Value("", computes, count), perm=[1, 0])


def vector_sums(
    graph: GraphBuilder, trees: Sequence[Tree], x: Value, reads: Reads, computes: Reads = "float64"
) -> Value:
    """[rows, targets]: every tree adds its leaf's values to all targets, in `computes`, in the order of the trees."""
    width = trees[0].values.shape[1]
    if graph.target.ml_opset >= 5 and len(trees) < LEAVES_MAX and all(map(_votes, trees)):
        target = [tree.values.argmax(axis=1) for tree in trees]
        ones = [np.ones(len(tree.leaf)) for tree in trees]
        return graph.cast(version_5(graph, trees, target, ones, width, x, reads, "float32"), computes)
    table, numbers = _table(trees)
    found = _numbers(graph, trees, numbers, x, reads)
    leaves = graph.constant(table.astype(computes), "leaves")
    if len(trees) == 1:
        flat = graph.constant(np.array([-1], dtype=np.int64), "flat")
        number = graph.node("Reshape", [graph.cast(found, "int64"), flat])[0]
        return graph.value("Gather", [leaves, number], Value("", computes, width), axis=0)
    values = graph.node("Gather", [leaves, _by_tree(graph, found)], axis=0)[0]
    return graph.value("ReduceSum", [values, _first(graph)], Value("", computes, width), keepdims=0)


def leaf_nodes(graph: GraphBuilder, trees: Sequence[Tree], x: Value, reads: Reads) -> Value:
    """[rows, trees] in float64: the number of the node in which each tree ends, as `apply` of scikit-learn."""
    numbers = [np.arange(len(tree.leaf), dtype=np.float64) for tree in trees]
    return graph.cast(_numbers(graph, trees, numbers, x, reads), "float64")


def _votes(tree: Tree) -> bool:
    """Whether every leaf is 1 for one target and 0 for the others."""
    leaves = tree.values[tree.leaf]
    return bool(((leaves == 0) | (leaves == 1)).all() and (leaves.sum(axis=1) == 1).all())


def _table(trees: Sequence[Tree]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """The different leaves, [leaves, targets], and for each tree the number of each node's row."""
    rows = np.ascontiguousarray(np.concatenate([np.where(tree.leaf[:, None], tree.values, 0.0) for tree in trees]))
    # Compared as bits, so that nothing is merged that is not the same.
    _, first, inverse = np.unique(rows.view(np.int64), axis=0, return_index=True, return_inverse=True)
    if len(first) > LEAVES_MAX:
        raise Unfaithful(f"it has more than {LEAVES_MAX:,} different leaves", "train fewer or smaller trees")
    numbers = np.split(inverse.reshape(-1).astype(np.float64), np.cumsum([len(tree.leaf) for tree in trees])[:-1])
    return rows[first], numbers


def _numbers(
    graph: GraphBuilder, trees: Sequence[Tree], numbers: Sequence[NDArray[np.float64]], x: Value, reads: Reads
) -> Value:
    """[rows, trees]: a whole number for each tree's leaf."""
    target = [np.full(len(tree.leaf), number) for number, tree in enumerate(trees)]
    if graph.target.ml_opset >= 5:
        return version_5(graph, trees, target, numbers, len(trees), x, reads, reads)
    return version_3(graph, trees, numbers, x, reads)


def _by_tree(graph: GraphBuilder, numbers: Value) -> str:
    """[trees, rows], for a sum over the first axis: the one that onnxruntime does in order."""
    return graph.node("Transpose", [graph.cast(numbers, "int64")], perm=[1, 0])[0]


def _first(graph: GraphBuilder) -> str:
    return graph.constant(np.array([0], dtype=np.int64), "first")
