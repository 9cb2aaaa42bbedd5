"""The two tree operators of ai.onnx.ml, and thresholds that decide as the original's in the type that they compare in.

Thresholds. Where the original rounds x to float32 first, `float32(x) <= t` is the same as `float32(x) <= down(t)`, with
down(t) the largest float32 that is not above t; and the same as `x <= last(t)` for a float64 x, with last(t) the
largest float64 that rounds to down(t): the midpoint to the next float32, or the float64 before it (ties go to even).

Missing values. NaN passes no comparison, so it takes the false branch. Where training sends it left, the node asks the
contrary question of the negated column, `-x <= s` with s the number below -t: that is `x > t`, and NaN goes left. It
costs one negation of the columns, spares onnxruntime a test for NaN at every node, and since libraries send missing
values to the larger side, the more frequent branch is the false one, which onnxruntime keeps in the same cache line.
XGBoost sends them right where training had none: there the nodes of a large ensemble that mostly go left ask the
contrary question too, of negated columns in which -inf stands for NaN, so that NaN goes right.

Source: ONNX operator schemas TreeEnsemble-5 and TreeEnsembleRegressor-3; IEEE 754-2019, 4.3.1;
`TreeEnsembleCommon::ProcessTreeNodeLeave` of tree_ensemble_common.h, for the order of nodes in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgekit_converters.graph import ML, GraphBuilder, Value

Reads = Literal["float32", "float64"]
"""The type in which the original compares."""

LEQ: Final = 0
MEMBER: Final = 6
"""Modes of TreeEnsemble-5: x <= split, and x in a set."""
NO_CODE: Final = -1.0
"""What no category has as its code."""
SUM: Final = 1
TURNED_TREES_MIN: Final = 200
"""Below, negated columns cost a row more than nodes in the more frequent order save it; each column like a tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """One binary tree; x <= threshold, or x in the node's set, goes left. All arrays are [nodes] but `values`."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    missing_left: NDArray[np.bool_]
    values: NDArray[np.float64]
    """[nodes, targets]: what a leaf adds to each target."""
    members: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """Node -> the codes that go left, for splits by category."""
    mostly_left: NDArray[np.bool_] | None = None
    """[nodes]: more of training's rows went left than right; None: not known."""


def down(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        nearest = threshold.astype(np.float32)
        return np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def last(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest float64 whose float32 is not above each threshold, for x that float32 can hold."""
    low = down(threshold)
    with np.errstate(over="ignore", invalid="ignore"):
        high = np.nextafter(low, np.float32(np.inf)).astype(np.float64)
        high[np.isinf(high)] = 2.0**128
        middle = (low.astype(np.float64) + high) / 2
        rounded = middle.astype(np.float32)
        found = np.where(rounded <= low, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isinf(low), low.astype(np.float64), found)


def version_5(
    graph: GraphBuilder,
    trees: Sequence[Tree],
    target: Sequence[NDArray[Any]],
    weights: Sequence[NDArray[np.float64]],
    width: int,
    x: Value,
    reads: Reads,
    computes: Reads,
) -> Value:
    """`TreeEnsemble`: `target` and `weights` are of each node; those of leaves count."""
    dtype = np.float32 if computes == "float32" else np.float64
    # An inner node that has the one leaf of a tree on both sides: roots are inner nodes.
    inner_count = np.array([max(1, int((~tree.leaf).sum())) for tree in trees])
    leaf_count = np.array([int(tree.leaf.sum()) for tree in trees])
    inner_at, leaf_at = np.cumsum(inner_count) - inner_count, np.cumsum(leaf_count) - leaf_count
    parts: dict[str, list[NDArray[Any]]] = {
        name: []
        for name in ("modes", "splits", "feature", "left", "right", "left_leaf", "right_leaf", "missing", "mostly_left")
    }
    members: list[float] = []
    for tree, first_inner, first_leaf in zip(trees, inner_at, leaf_at, strict=True):
        inner = ~tree.leaf
        number = np.where(tree.leaf, np.cumsum(tree.leaf) - 1 + first_leaf, np.cumsum(inner) - 1 + first_inner)
        at = np.flatnonzero(inner) if inner.any() else np.zeros(1, dtype=np.int64)
        left, right = (tree.left[at], tree.right[at]) if inner.any() else (at, at)
        modes = np.where(np.isin(at, list(tree.members)), MEMBER, LEQ).astype(np.uint8)
        for one in at[modes == MEMBER]:
            # A split of missing values from all others has no member, and onnxruntime refuses an empty set.
            members += [*(tree.members[int(one)].tolist() or [NO_CODE]), np.nan]
        split = np.where(modes == LEQ, tree.threshold[at], 0.0) if inner.any() else np.zeros(1)
        parts["modes"].append(modes)
        parts["splits"].append(_splits(split, reads, computes))
        parts["feature"].append(tree.feature[at] if inner.any() else at)
        parts["left"].append(number[left])
        parts["right"].append(number[right])
        parts["left_leaf"].append(tree.leaf[left])
        parts["right_leaf"].append(tree.leaf[right])
        parts["missing"].append(tree.missing_left[at])
        parts["mostly_left"].append(np.zeros(len(at), dtype=bool) if tree.mostly_left is None else tree.mostly_left[at])
    joined = {name: np.concatenate(part) for name, part in parts.items()}
    joined["splits"] = joined["splits"].astype(dtype)
    # onnxruntime's Imputer, which puts -inf in the place of NaN, takes float32.
    if computes == "float64" or len(trees) < max(TURNED_TREES_MIN, x.width):
        joined["mostly_left"][:] = False
    x = _asked_contrary(graph, graph.cast(x, computes), joined, joined["modes"] == LEQ)
    attributes: dict[str, Any] = {}
    if joined["missing"].any():
        attributes["nodes_missing_value_tracks_true"] = _ints(joined["missing"])
    if members:
        attributes["membership_values"] = _tensor("members", np.array(members, dtype=dtype))
    leaf = np.concatenate([tree.leaf for tree in trees])
    name = graph.node(
        "TreeEnsemble",
        [x],
        1,
        ML,
        n_targets=width,
        aggregate_function=SUM,
        post_transform=0,
        tree_roots=_ints(inner_at),
        nodes_modes=_tensor("modes", joined["modes"]),
        nodes_splits=_tensor("splits", joined["splits"]),
        nodes_featureids=_ints(joined["feature"]),
        nodes_truenodeids=_ints(joined["left"]),
        nodes_trueleafs=_ints(joined["left_leaf"]),
        nodes_falsenodeids=_ints(joined["right"]),
        nodes_falseleafs=_ints(joined["right_leaf"]),
        leaf_targetids=_ints(np.concatenate(target)[leaf]),
        leaf_weights=_tensor("weights", np.concatenate(weights)[leaf].astype(dtype)),
        **attributes,
    )[0]
    return Value(name, computes, width)


def version_3(
    graph: GraphBuilder, trees: Sequence[Tree], numbers: Sequence[NDArray[np.float64]], x: Value, reads: Reads
) -> Value:
    """`TreeEnsembleRegressor`: one target for each tree; the weight of a leaf is its number."""
    trees, x = _without_members(graph, trees, x)
    tree_id = np.repeat(np.arange(len(trees)), [len(tree.leaf) for tree in trees])
    node_id = np.concatenate([np.arange(len(tree.leaf)) for tree in trees])
    leaf = np.concatenate([tree.leaf for tree in trees])

    def inner(name: str) -> NDArray[Any]:
        return np.where(leaf, 0, np.concatenate([getattr(tree, name) for tree in trees]))

    joined: dict[str, NDArray[Any]] = {
        "feature": inner("feature"),
        "left": inner("left"),
        "right": inner("right"),
        "missing": inner("missing_left") != 0,
        "splits": _splits(np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees])), reads, reads),
    }
    x = _asked_contrary(graph, graph.cast(x, reads), joined, ~leaf)
    splits = joined["splits"]
    weights = np.concatenate(numbers)[leaf]
    # The float64 kernel takes tensors, the float32 one lists.
    attributes: dict[str, Any] = (
        {"nodes_values": splits.tolist(), "target_weights": weights.tolist()}
        if reads == "float32"
        else {
            "nodes_values_as_tensor": _tensor("splits", splits),
            "target_weights_as_tensor": _tensor("weights", weights),
        }
    )
    if joined["missing"].any():
        attributes["nodes_missing_value_tracks_true"] = _ints(joined["missing"])
    name = graph.node(
        "TreeEnsembleRegressor",
        [x],
        1,
        ML,
        n_targets=len(trees),
        nodes_treeids=_ints(tree_id),
        nodes_nodeids=_ints(node_id),
        nodes_modes=["LEAF" if one else "BRANCH_LEQ" for one in leaf],
        nodes_featureids=_ints(joined["feature"]),
        nodes_truenodeids=_ints(joined["left"]),
        nodes_falsenodeids=_ints(joined["right"]),
        target_treeids=_ints(tree_id[leaf]),
        target_nodeids=_ints(node_id[leaf]),
        target_ids=_ints(tree_id[leaf]),
        **attributes,
    )[0]
    return Value(name, "float32", len(trees))


def _asked_contrary(
    graph: GraphBuilder, x: Value, nodes: dict[str, NDArray[Any]], compares: NDArray[np.bool_]
) -> Value:
    """Turns nodes that send NaN left or mostly go left, and gives the columns with the negated ones behind them.

    Args:
        graph: The graph.
        x: The columns, in the type in which the operator compares.
        nodes: [nodes] each: `splits` in that type, `feature`, `left`, `right`, `missing`, and by name what else belongs
            to a side (`left_leaf`, `right_leaf`) or turns a node (`mostly_left`); changed in place.
        compares: The nodes with a threshold.
    """
    # x <= inf has no contrary that a threshold could ask for.
    could = compares & ~np.isposinf(nodes["splits"])
    missing = could & nodes["missing"]
    mostly = could & nodes.get("mostly_left", np.zeros_like(could)) & ~missing
    turned = missing | mostly
    if not turned.any():
        return x
    below = np.nextafter(-nodes["splits"], np.asarray(-np.inf, dtype=nodes["splits"].dtype))
    nodes["splits"] = np.where(turned, below, nodes["splits"])
    nodes["missing"] = nodes["missing"] & ~turned
    for left, right in (("left", "right"), ("left_leaf", "right_leaf")):
        if left in nodes:
            nodes[left], nodes[right] = (
                np.where(turned, nodes[right], nodes[left]),
                np.where(turned, nodes[left], nodes[right]),
            )
    negated, beside, feature = graph.value("Neg", [x], x), [x], nodes["feature"]
    for which in (missing, mostly):
        if which.any():
            feature = np.where(which, feature + len(beside) * x.width, feature)
            beside.append(negated if which is missing else _low_for_nan(graph, negated))
    nodes["feature"] = feature
    return graph.value("Concat", beside, replace(x, width=len(beside) * x.width), axis=1)


def _low_for_nan(graph: GraphBuilder, x: Value) -> Value:
    """The columns, in float32, with -inf for NaN."""
    given = {"replaced_value_float": float("nan"), "imputed_value_floats": [float("-inf")]}
    return replace(x, name=graph.node("Imputer", [x], 1, ML, **given)[0])


def _without_members(graph: GraphBuilder, trees: Sequence[Tree], x: Value) -> tuple[Sequence[Tree], Value]:
    """Splits by category as thresholds on columns of their own: 0 goes left, 1 goes right, NaN stays NaN."""
    sets: dict[int, dict[bytes, tuple[int, NDArray[np.float64]]]] = {}
    for tree in trees:
        for node, codes in tree.members.items():
            known = sets.setdefault(int(tree.feature[node]), {})
            known.setdefault(codes.tobytes(), (len(known), codes))
    if not sets:
        return trees, x
    parts, first, width = [x], {}, x.width
    dtype = np.dtype(x.dtype)
    for feature, known in sorted(sets.items()):
        first[feature] = width
        width += len(known)
        size = int(max(float(codes.max(initial=0.0)) for _, codes in known.values())) + 2
        # Rows: the codes, one for all greater ones, one for a missing value.
        table = np.ones((size + 1, len(known)))
        table[size] = np.nan
        for column, codes in known.values():
            table[codes.astype(np.int64), column] = 0.0
        code = graph.gather(x, [feature])
        limit = graph.constant(np.array(size - 1, dtype=dtype), "greater")
        place = graph.node("Min", [code, limit])[0]
        # A negative code is in no set, as one that is greater than all.
        negative = graph.node("Less", [code, graph.constant(np.array(0, dtype=dtype), "zero")])[0]
        place = graph.node("Where", [negative, limit, place])[0]
        missing = graph.node("IsNaN", [code])[0]
        place = graph.node("Where", [missing, graph.constant(np.array(size, dtype=dtype), "missing"), place])[0]
        flat = graph.node(
            "Reshape",
            [graph.node("Cast", [place], to=TensorProto.INT64)[0], graph.constant(np.array([-1], dtype=np.int64), "f")],
        )[0]
        parts.append(
            graph.value(
                "Gather", [graph.constant(table.astype(dtype), "sets"), flat], Value("", x.dtype, len(known)), axis=0
            )
        )
    joined = graph.value("Concat", parts, Value("", x.dtype, width), axis=1)
    changed = []
    for tree in trees:
        feature_of, threshold = tree.feature.copy(), tree.threshold.copy()
        for node, codes in tree.members.items():
            feature = int(tree.feature[node])
            feature_of[node] = first[feature] + sets[feature][codes.tobytes()][0]
            threshold[node] = 0.5
        changed.append(replace(tree, feature=feature_of, threshold=threshold, members={}))
    return changed, joined


def _splits(threshold: NDArray[np.float64], reads: Reads, computes: Reads) -> NDArray[Any]:
    """The thresholds for an operator that compares in `computes`, where the original compares in `reads`."""
    if computes == "float32":
        return down(threshold)
    return last(threshold) if reads == "float32" else threshold


def _ints(array: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(array, dtype=np.int64)


def _tensor(name: str, array: NDArray[Any]) -> TensorProto:
    return helper.make_tensor(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, np.ascontiguousarray(array).tobytes(), raw=True
    )
