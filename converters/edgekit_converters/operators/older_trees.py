"""The tree operators that ai.onnx.ml 5 has given up, as the one that it has: the same decisions, the same sums.

`TreeEnsemble` has one target a leaf. Where a leaf of the older operators gives to several, each target gets trees of
its own, which decide alike; what is added to a target, and in which order, stays the same. The older operators answer
in float32 even where they sum in float64: a Cast does that here.

Source: ONNX operator schemas TreeEnsembleRegressor-3, TreeEnsembleClassifier-3 and TreeEnsemble-5;
`TreeAggregatorClassifier::FinalizeScores` of onnxruntime's tree_ensemble_aggregator.h, for labels of two classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit_converters.graph import ML
from edgekit_converters.nodes import all_nodes
from edgekit_converters.operators import Unfaithful

OLDER: Final = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})
MODES: Final = (b"BRANCH_LEQ", b"BRANCH_LT", b"BRANCH_GTE", b"BRANCH_GT", b"BRANCH_EQ", b"BRANCH_NEQ")
"""In the order of their numbers in TreeEnsemble-5."""
AGGREGATES: Final = {b"AVERAGE": 0, b"SUM": 1}
NEXT_STEP: Final = "write it with sums of plain scores, or as TreeEnsemble of ai.onnx.ml 5"


def renewed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for ai.onnx.ml 5; itself where it holds none of the older operators.

    Raises:
        Unfaithful: An ensemble does what is not written here.
    """
    if all(node.op_type not in OLDER for node in all_nodes(model.graph)):
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    writer = _Writer(found.graph)
    nodes = list(found.graph.node)
    del found.graph.node[:]
    for node in nodes:
        if node.op_type == "TreeEnsembleRegressor":
            writer.regressor(node)
        elif node.op_type == "TreeEnsembleClassifier":
            writer.classifier(node)
        elif any(inner.op_type in OLDER for inner in all_nodes(helper.make_graph([node], "", [], []))):
            raise Unfaithful("its conversion has an older tree operator in a loop or a branch", NEXT_STEP)
        else:
            found.graph.node.append(node)
    for used in found.opset_import:
        if used.domain == ML:
            used.version = 5
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Nodes:
    """The nodes of the trees, as both older operators have them."""

    attributes: Mapping[str, Any]
    element: int
    """FLOAT or DOUBLE: of the splits, and so of what is compared."""
    splits: list[float]
    trees: Mapping[int, list[int]]
    """Tree -> the places of its nodes in the attributes."""

    def weights(self, part: str) -> dict[int, dict[int, list[tuple[int, float]]]]:
        """Tree -> its leaves -> the targets to which a leaf gives, and what.

        Raises:
            Unfaithful: Twice to the same.
        """
        given = self.attributes
        found: dict[int, dict[int, list[tuple[int, float]]]] = {tree: defaultdict(list) for tree in self.trees}
        places = zip(given[f"{part}_treeids"], given[f"{part}_nodeids"], given[f"{part}_ids"], strict=True)
        for (tree, node, target), weight in zip(places, _wide(given, f"{part}_weights"), strict=True):
            if any(target == one for one, _ in found[tree][node]):
                raise Unfaithful("its conversion gives a leaf two weights for one target", NEXT_STEP)
            found[tree][node].append((target, weight))
        return found


@dataclass(slots=True)
class _Ensemble:
    """The attributes of a TreeEnsemble, as they grow tree by tree."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    roots: list[int] = field(default_factory=list)

    def add(self, nodes: _Nodes, tree: int, weights: Mapping[int, tuple[int, float]]) -> None:
        """One tree, with the target and the weight of each leaf; others give nothing."""
        given, columns, rows = nodes.attributes, self.columns, nodes.trees[tree]
        missing = given.get("nodes_missing_value_tracks_true", ())
        place = {given["nodes_nodeids"][row]: row for row in rows}
        inner = [row for row in rows if given["nodes_modes"][row] != b"LEAF"] or rows[:1]
        at = {row: len(columns["nodes_modes"]) + number for number, row in enumerate(inner)}
        self.roots.append(at[inner[0]])
        for row in inner:
            mode = given["nodes_modes"][row]
            leaf = mode == b"LEAF"  # a tree of one leaf: roots are inner nodes, with that leaf on both sides
            columns["nodes_modes"].append(0 if leaf else MODES.index(mode))
            columns["nodes_featureids"].append(0 if leaf else given["nodes_featureids"][row])
            columns["nodes_splits"].append(0.0 if leaf else nodes.splits[row])
            columns["nodes_missing_value_tracks_true"].append(int(missing[row]) if missing and not leaf else 0)
            for side in ("true", "false"):
                child = row if leaf else place[given[f"nodes_{side}nodeids"][row]]
                end = given["nodes_modes"][child] == b"LEAF"
                columns[f"nodes_{side}leafs"].append(int(end))
                if end:
                    columns[f"nodes_{side}nodeids"].append(len(columns["leaf_weights"]))
                    target, weight = weights.get(given["nodes_nodeids"][child], (0, 0.0))
                    columns["leaf_targetids"].append(target)
                    columns["leaf_weights"].append(weight)
                else:
                    columns[f"nodes_{side}nodeids"].append(at[child])

    def attributes(self, element: int) -> dict[str, Any]:
        """As `make_node` takes them."""
        found: dict[str, Any] = {"tree_roots": self.roots, **self.columns}
        for name, kind in (("nodes_splits", element), ("leaf_weights", element), ("nodes_modes", TensorProto.UINT8)):
            found[name] = helper.make_tensor(name, kind, [len(found[name])], found[name])
        if not any(found["nodes_missing_value_tracks_true"]):
            del found["nodes_missing_value_tracks_true"]
        return found


class _Writer:
    """Writes nodes in the place of the older ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._count = graph, 0

    def regressor(self, node: onnx.NodeProto) -> None:
        """`TreeEnsembleRegressor`: sums or means, and the base values."""
        nodes = _nodes(node)
        given = nodes.attributes
        total = self._scores(node, nodes, "target", int(given.get("n_targets", 1)), given.get("aggregate_function"))
        base = np.array(_wide(given, "base_values") or [0.0], dtype=np.float32)
        self._node("Add", [total, self._constant(base)], node.output[0])

    def classifier(self, node: onnx.NodeProto) -> None:
        """`TreeEnsembleClassifier`: the sums of all classes, or of the second of two, and the label.

        Raises:
            Unfaithful: Base values, weights below 0, or two classes with weights of both.
        """
        nodes = _nodes(node)
        given = nodes.attributes
        classes = given.get("classlabels_int64s") or [one.decode() for one in given["classlabels_strings"]]
        alone = len(classes) == 2 and len(set(given["class_ids"])) == 1
        below = min(_wide(given, "class_weights"), default=0.0) < 0
        if _wide(given, "base_values") or below or (len(classes) == 2 and not alone):
            raise Unfaithful("its conversion sums scores of classes in an older tree operator", NEXT_STEP)
        if alone:
            # Weights of one class, none below 0, are its share; the label is the second class above a half.
            share = self._scores(node, nodes, "class", 1, None)
            rest = self._node("Sub", [self._constant(np.array([1.0], dtype=np.float32)), share])
            scores = self._node("Concat", [rest, share], node.output[1], axis=1)
            above = self._node("Greater", [share, self._constant(np.array([0.5], dtype=np.float32))])
            place = self._node("Cast", [above], to=TensorProto.INT64)
        else:
            scores = self._scores(node, nodes, "class", len(classes), None)
            self._node("Identity", [scores], node.output[1])
            place = self._node("ArgMax", [scores], axis=1, keepdims=0)
        flat = self._node("Reshape", [place, self._constant(np.array([-1]))])
        known = self._constant(np.array(classes, dtype=object if isinstance(classes[0], str) else np.int64))
        self._node("Gather", [known, flat], node.output[0], axis=0)

    def _scores(self, node: onnx.NodeProto, nodes: _Nodes, part: str, count: int, aggregate: bytes | None) -> str:
        """[rows, count] in float32."""
        given = nodes.attributes
        aggregate = aggregate or b"SUM"
        if given.get("post_transform", b"NONE") != b"NONE" or aggregate not in AGGREGATES:
            raise Unfaithful("its conversion transforms what its trees give, in an older operator", NEXT_STEP)
        weights = nodes.weights(part)
        ensemble = _Ensemble()
        for tree, leaves in weights.items():
            targets = sorted({0 if count == 1 else target for gifts in leaves.values() for target, _ in gifts}) or [0]
            if len(targets) > 1 and aggregate != b"SUM":
                raise Unfaithful("its conversion takes means of several targets in an older operator", NEXT_STEP)
            for target in targets:
                mine = {
                    leaf: (target, weight)
                    for leaf, gifts in leaves.items()
                    for one, weight in gifts
                    if count == 1 or one == target
                }
                ensemble.add(nodes, tree, mine)
        x = self._node("Cast", [node.input[0]], to=nodes.element)
        found = self._node(
            "TreeEnsemble", [x], domain=ML, n_targets=count, aggregate_function=AGGREGATES[aggregate],
            **ensemble.attributes(nodes.element),
        )  # fmt: skip
        return found if nodes.element == TensorProto.FLOAT else self._node("Cast", [found], to=TensorProto.FLOAT)

    def _node(self, op: str, inputs: Sequence[str], output: str | None = None, domain: str = "", **given: Any) -> str:
        output = output or self._name()
        self._graph.node.append(helper.make_node(op, inputs, [output], domain=domain, **given))
        return output

    def _constant(self, array: Any) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"renewed_tree_{self._count}"


def _nodes(node: onnx.NodeProto) -> _Nodes:
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    tensor = given.get("nodes_values_as_tensor")
    trees: dict[int, list[int]] = defaultdict(list)
    for row, tree in enumerate(given["nodes_treeids"]):
        trees[tree].append(row)
    return _Nodes(
        attributes=given,
        element=TensorProto.FLOAT if tensor is None else tensor.data_type,
        splits=_wide(given, "nodes_values"),
        trees=trees,
    )


def _wide(given: Mapping[str, Any], name: str) -> list[float]:
    """Numbers that may be given as float32 or as a tensor of float64."""
    tensor = given.get(f"{name}_as_tensor")
    return list(given.get(name, ()) if tensor is None else numpy_helper.to_array(tensor).tolist())
