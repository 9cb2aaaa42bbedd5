"""A proof that the trees in the written file are those of a CatBoost model, for every input.

The questions of a symmetric tree are the same in all nodes of a level, and the written tree leaves out those that
decide nothing. So each node of the file is matched with one question of the tree (of the same column, with the same
answer for every number), and for each outcome of all questions that some x can have, the file's way is followed to a
leaf, which must hold the bits of that outcome's leaf. No x is above a border of a column and not above a lower one.
Other trees are walked beside the file's, node by node.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import ParityBroken
from edgekit_converters.operators.catboost_dump import Branching, Dump, Number, Symmetric
from edgekit_converters.written_trees import Written


def compare(written: Written, dump: Dump) -> int:
    """The count of nodes that were compared.

    Raises:
        ParityBroken: The file has other trees; the sentence names the first.
    """
    if len(written.roots) != len(dump.trees):
        raise ParityBroken(f"CatBoost: the file has {len(written.roots)} trees, the model {len(dump.trees)}")
    above = np.array([isinstance(one, Number) and one.missing_above for one in dump.columns], dtype=bool)
    visited: set[int] = set()
    for number, (root, tree) in enumerate(zip(written.roots.tolist(), dump.trees, strict=True)):
        where = f"CatBoost, tree {number}"
        if isinstance(tree, Symmetric):
            visited |= _symmetric(written, root, tree, above, where)
        else:
            visited |= _branching(written, root, tree, above, where)
    return len(visited)


def _symmetric(written: Written, root: int, tree: Symmetric, above: NDArray[np.bool_], where: str) -> set[int]:
    outcomes = (np.arange(len(tree.leaves))[:, None] >> np.arange(len(tree.column))) & 1 == 1
    at = np.full(len(outcomes), root)
    visited = {root}
    possible = _possible(tree, outcomes)
    for _ in range(len(tree.column) + 1):
        going = np.flatnonzero(~written.leaf[at])
        if not len(going):
            break
        here = at[going]
        # A tree of one leaf is written as a node with that leaf on both sides.
        asks = written.left[here] != written.right[here]
        same = _same(written, here[asks, None], tree.column, tree.border, above)
        _refuse_others(np.asarray(same.any(axis=1)), where)
        up = np.zeros(len(going), dtype=bool)
        up[asks] = outcomes[going[asks], same.argmax(axis=1)] if same.size else False
        at[going] = np.where(up, written.right[here], written.left[here])
        visited |= set(at.tolist())
    _same_leaves(written, at[possible], tree.leaves[possible], where)
    return visited


def _branching(written: Written, root: int, tree: Branching, above: NDArray[np.bool_], where: str) -> set[int]:
    ours, theirs, visited = np.array([root]), np.array([0]), {root}
    while len(ours):
        leaf = tree.leaf[theirs]
        alone = leaf & ~written.leaf[ours] & (written.left[ours] == written.right[ours])
        ours = np.where(alone, written.left[ours], ours)
        visited |= set(ours.tolist())
        _same_leaves(written, ours[leaf], tree.values[theirs[leaf]], where)
        at, to = ours[~leaf], theirs[~leaf]
        _refuse_others(_same(written, at, tree.column[to], tree.border[to], above), where)
        ours = np.concatenate([written.left[at], written.right[at]])
        theirs = np.concatenate([tree.below[to], tree.above[to]])
    return visited


def _same(
    written: Written,
    nodes: NDArray[np.int64],
    column: NDArray[np.int64],
    border: NDArray[np.float64],
    above: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether the nodes ask these questions, of missing values too; the arrays broadcast."""
    alike = written.rounds_alike(nodes, border) & (written.missing[nodes] == ~above[column])
    return np.asarray(~written.leaf[nodes] & (written.feature[nodes] == column) & alike)


def _refuse_others(same: NDArray[np.bool_], where: str) -> None:
    if not same.all():
        raise ParityBroken(f"{where}: a node of the file asks what the model does not")


def _same_leaves(written: Written, at: NDArray[np.int64], leaves: NDArray[np.float64], where: str) -> None:
    given, expected = np.ascontiguousarray(written.values[at]), np.ascontiguousarray(leaves)
    same = (given.view(np.int64) == expected.view(np.int64)) | ((given == 0) & (expected == 0))
    if not written.leaf[at].all() or not same.all():
        raise ParityBroken(f"{where}: some input gets another value")


def _possible(tree: Symmetric, outcomes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[outcomes]: whether no question says above where one with a lower border of the same column says not."""
    result = np.ones(len(outcomes), dtype=bool)
    for low in range(len(tree.column)):
        for high in range(len(tree.column)):
            if tree.column[low] == tree.column[high] and tree.border[low] <= tree.border[high]:
                result &= outcomes[:, low] | ~outcomes[:, high]
    return result
