"""Trees that come out of a file are trees: libraries follow the numbers of children wherever they lead, or for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import FormatError


def check_tree(
    left: NDArray[Any],
    right: NDArray[Any],
    leaf: NDArray[np.bool_],
    features: NDArray[Any],
    count: int,
    what: str,
    number: int,
) -> None:
    """Checks that children are nodes, none is reached twice, and the features that inner nodes ask for are there.

    Args:
        left: [nodes]: left children; of leaves anything.
        right: [nodes]: right children.
        leaf: [nodes].
        features: Those of the inner nodes.
        count: How many features there are.
        what: The file, for the sentence.
        number: The tree's.

    Raises:
        FormatError: It is no tree.
    """
    seen = np.zeros(len(leaf), dtype=bool)
    level = np.zeros(1, dtype=np.int64)
    while len(level):
        known = len(left) == len(right) == len(leaf) and level.min() >= 0 and level.max() < len(leaf)
        if not known or seen[level].any() or len(np.unique(level)) < len(level):
            raise FormatError(what, f"$.trees[{number}]", "its nodes are no tree")
        seen[level] = True
        inner = level[~leaf[level]]
        level = np.concatenate([left[inner], right[inner]]).astype(np.int64)
    if len(features) and (features.min() < 0 or features.max() >= count):
        raise FormatError(what, f"$.trees[{number}]", f"it asks for another feature than the {count} that there are")


def check_trees(model: Any, what: str) -> None:
    """Checks each tree of scikit-learn in a model that was read from a file.

    Args:
        model: Whatever was in the file.
        what: The file, for the sentence.

    Raises:
        FormatError: One is no tree.
    """
    for number, (tree, width) in enumerate(_trees(model, None, set())):
        if type(tree).__name__ == "Tree":
            leaf = tree.children_left == -1
            count = tree.n_features if width is None else min(width, tree.n_features)
            check_tree(tree.children_left, tree.children_right, leaf, tree.feature[~leaf], count, what, number)
            continue
        nodes = tree.nodes
        leaf = nodes["is_leaf"].astype(bool)
        sets = nodes["bitset_idx"][~leaf & nodes["is_categorical"].astype(bool)]
        if len(sets) and sets.max() >= min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets)):
            raise FormatError(what, f"$.trees[{number}]", "it asks for a set of categories that is not there")
        count = np.iinfo(np.int64).max if width is None else width
        check_tree(nodes["left"], nodes["right"], leaf, nodes["feature_idx"][~leaf], count, what, number)


def _trees(one: Any, width: int | None, seen: set[int]) -> Iterator[tuple[Any, int | None]]:
    """The trees inside of an object, each with the number of features of the estimator that holds it."""
    if id(one) in seen or isinstance(one, str | bytes | int | float | type) or one is None:
        return
    seen.add(id(one))
    kind = type(one)
    if kind.__name__ in {"Tree", "TreePredictor"} and kind.__module__.startswith("sklearn."):
        yield one, width
        return
    inside: Any = ()
    if isinstance(one, Mapping):
        inside = one.values()
    elif isinstance(one, list | tuple | set) or (isinstance(one, np.ndarray) and one.dtype == object):
        inside = np.ravel(one) if isinstance(one, np.ndarray) else one
    elif hasattr(one, "__dict__"):
        inside, width = vars(one).values(), vars(one).get("n_features_in_", width)
    for part in inside:
        yield from _trees(part, width, seen)
