"""The trees of an ONNX file, rebuilt from the operators' attributes and the tables that their outputs point into.

A node that reads a negated column is laid back: `-x <= s` with its branches in turn is `x <= t`, t the number below -s.
In some of those columns -inf stands for NaN, which then goes the way of the true branch.
Two ways of giving values are read: a leaf adds its weight to its target (`TreeEnsemble`, SUM), or its weight is the
number of a row of a table (a `Gather` from an initializer, behind a cast to int64).

Source: ONNX operator schemas TreeEnsemble-5 and TreeEnsembleRegressor-3 of ai.onnx.ml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit_contracts.errors import ParityBroken
from edgekit_converters.graph import ML

OPERATORS: Final = frozenset({"TreeEnsemble", "TreeEnsembleRegressor"})
LEQ: Final = 0
MEMBER: Final = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """All nodes of one operator, inner ones and leaves; arrays are [nodes] but `values` and `roots`."""

    float32: bool
    """It compares in float32."""
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    split: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    values: NDArray[np.float64]
    """[nodes, targets]: what a leaf adds to each."""
    members: Mapping[int, frozenset[float]]
    covered: frozenset[str]
    """Nodes of the graph that belong to it: itself, and before it the cast and what puts negated columns beside x."""

    def rounds_alike(self, nodes: NDArray[np.int64], threshold: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether `x <= split` is the same as `float32(x) <= threshold` for every x that reaches the nodes."""
        split = self.split[nodes]
        with np.errstate(over="ignore"):
            low = split.astype(np.float32)
            beyond = np.nextafter(low, np.float32(np.inf)) if self.float32 else np.nextafter(split, np.inf)
            above = beyond.astype(np.float32).astype(np.float64)
        return np.asarray((low <= threshold) & ((above > threshold) | np.isposinf(threshold)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Raw:
    float32: bool
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    split: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    members: dict[int, frozenset[float]]
    target: NDArray[np.int64]
    weight: NDArray[np.float64]
    targets: int


def written_ensembles(model: onnx.ModelProto) -> list[Written]:
    """Every tree operator of the graph, in its order; none where one is spelled in a way that is not known here."""
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in graph.node:
        if node.domain != ML or node.op_type not in OPERATORS:
            continue
        values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        raw = _version_5(values) if node.op_type == "TreeEnsemble" else _version_3(values)
        before, x, low = _beside_negated(node, makers)
        maker = makers.get(x)
        if node.op_type == "TreeEnsembleRegressor" and _has_sets(maker, makers, tables):
            return []
        if len(before) > 1:
            width = _width(model, x)
            if width is None:
                return []
            raw = _laid_back(raw, width, low)
        covered = {one.name for one in before}
        if maker is not None and maker.op_type == "Cast" and all(one in before for one in readers[maker.output[0]]):
            covered.add(maker.name)
        found.append(_with_values(raw, _lookup(node, readers, tables), frozenset(covered)))
    return found


def _beside_negated(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]
) -> tuple[list[onnx.NodeProto], str, tuple[bool, ...]]:
    """The operator and the nodes that put -x beside what it reads, x, and for each -x whether NaN is -inf in it."""
    joined = makers.get(node.input[0])
    if joined is None or joined.op_type != "Concat":
        return [node], node.input[0], ()
    found, x, low = [node, joined], joined.input[0], []
    for name in joined.input[1:]:
        negated = makers.get(name)
        low.append(negated is not None and negated.op_type == "Imputer" and _low_for_nan(negated))
        if negated is not None and low[-1]:
            found.append(negated)
            negated = makers.get(negated.input[0])
        if negated is None or negated.op_type != "Neg" or negated.input[0] != x:
            return [node], node.input[0], ()
        found.append(negated)
    return found, x, tuple(low)


def _low_for_nan(imputer: onnx.NodeProto) -> bool:
    """Whether it puts -inf in the place of NaN."""
    given = {one.name: helper.get_attribute_value(one) for one in imputer.attribute}
    return bool(np.isnan(given.get("replaced_value_float", 0.0))) and given.get("imputed_value_floats") == [-np.inf]


def _width(model: onnx.ModelProto, name: str) -> int | None:
    """Columns of a tensor [rows, columns]; None where shape inference does not find them."""
    # Shape inference writes and reads the whole model twice; only trees that read trees need it.
    small = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    small.graph.input.extend(model.graph.input)
    small.graph.initializer.extend(model.graph.initializer)
    small.graph.node.extend(node for node in model.graph.node if node.op_type not in OPERATORS)
    for one in (small, model):
        graph = onnx.shape_inference.infer_shapes(one).graph
        for info in (*graph.input, *graph.value_info):
            shape = info.type.tensor_type.shape.dim
            if info.name == name and len(shape) == 2 and shape[1].HasField("dim_value"):
                return int(shape[1].dim_value)
    return None


def _laid_back(raw: _Raw, width: int, low: tuple[bool, ...]) -> _Raw:
    """The nodes that read negated columns as the ones that they stand for.

    NaN takes their false branch, now the left; where -inf stands for it their true one, now the right.

    Args:
        raw: As written.
        width: Of the columns that are not negated.
        low: For each block of negated ones behind them, whether -inf stands for NaN.
    """
    block = np.where(raw.leaf, 0, np.minimum(raw.feature // width, len(low)))
    turned, unseen = block > 0, np.array([False, *low])[block]
    dtype = np.float32 if raw.float32 else np.float64
    above = -np.nextafter(raw.split.astype(dtype), dtype(np.inf))
    return replace(
        raw,
        feature=raw.feature - block * width,
        split=np.where(turned, above.astype(np.float64), raw.split),
        left=np.where(turned, raw.right, raw.left),
        right=np.where(turned, raw.left, raw.right),
        missing=(raw.missing ^ turned) & ~unseen,
    )


def _has_sets(
    maker: onnx.NodeProto | None, makers: Mapping[str, onnx.NodeProto], tables: Mapping[str, TensorProto]
) -> bool:
    """Whether columns were added that stand for sets of categories (for runtimes without them)."""
    if maker is None or maker.op_type != "Concat":
        return False
    for name in maker.input:
        source = makers.get(name)
        if source is not None and source.op_type == "Gather" and source.input[0] in tables:
            table = numpy_helper.to_array(tables[source.input[0]])
            if table.ndim == 2 and table.dtype.kind == "f" and np.isnan(table[-1]).all():
                return True
    return False


def _lookup(
    node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], tables: Mapping[str, TensorProto]
) -> NDArray[np.float64] | None:
    """The table, [rows, targets] or [rows], that the operator's outputs are numbers of; None where it gives sums."""
    at, numbers = node, False
    while len(readers.get(at.output[0], ())) == 1:
        at = readers[at.output[0]][0]
        if at.op_type == "Cast" and at.attribute[0].i == TensorProto.INT64:
            numbers = True
        elif at.op_type == "Gather" and numbers and at.input[0] in tables:
            table = numpy_helper.to_array(tables[at.input[0]]).astype(np.float64)
            if table.ndim == 2:
                return table
            count = _stages(at, readers, tables)
            # One value for one target: which one is the tree's number modulo their count.
            return np.concatenate([table[:, None], np.full((len(table), count - 1), np.nan)], axis=1)
        elif at.op_type not in {"Transpose", "Reshape"}:
            return None
    return None


def _stages(
    gather: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], tables: Mapping[str, TensorProto]
) -> int:
    """How many targets the trees add to in turn: the middle one of the shape behind the table."""
    after = readers[gather.output[0]][0]
    if after.op_type != "Reshape":
        return 1
    return int(numpy_helper.to_array(tables[after.input[1]])[1])


def _with_values(raw: _Raw, table: NDArray[np.float64] | None, covered: frozenset[str]) -> Written:
    tree = _tree_of(raw)
    leaf = np.flatnonzero(raw.leaf)
    target, weight = raw.target[leaf], raw.weight[leaf]
    if table is None:
        values = np.zeros((len(raw.leaf), raw.targets))
        values[leaf, target] = weight
    else:
        number = weight.astype(np.int64)
        if (number != weight).any() or (number < 0).any() or (number >= len(table)).any():
            raise ParityBroken("a leaf of the file points at no row of its table")
        if (target != tree[leaf]).any():
            raise ParityBroken("a leaf of the file gives its number to another tree")
        values = np.zeros((len(raw.leaf), table.shape[1]))
        if table.shape[1] > 1 and np.isnan(table[:, 1:]).all():
            values[leaf, tree[leaf] % table.shape[1]] = table[number, 0]
        else:
            values[leaf] = table[number]
    return Written(
        float32=raw.float32, roots=raw.roots, feature=raw.feature, split=raw.split, left=raw.left, right=raw.right,
        leaf=raw.leaf, missing=raw.missing, values=values, members=raw.members, covered=covered,
    )  # fmt: skip


def _tree_of(raw: _Raw) -> NDArray[np.int64]:
    """[nodes]: the tree that each node belongs to."""
    tree = np.full(len(raw.leaf), -1)
    at, number = raw.roots, np.arange(len(raw.roots))
    for _ in range(len(raw.leaf) + 1):
        tree[at] = number
        inner = ~raw.leaf[at]
        at, number = at[inner], number[inner]
        if not len(at):
            return tree
        at, number = np.concatenate([raw.left[at], raw.right[at]]), np.concatenate([number, number])
        if len(at) > 2 * len(raw.leaf):
            break
    raise ParityBroken("a node of the file is its own descendant")


def _version_5(values: Mapping[str, Any]) -> _Raw:
    splits, weights = numpy_helper.to_array(values["nodes_splits"]), numpy_helper.to_array(values["leaf_weights"])
    modes = numpy_helper.to_array(values["nodes_modes"])
    inner, leaves = len(splits), len(weights)
    if not np.isin(modes, (LEQ, MEMBER)).all() or values["aggregate_function"] != 1 or values["post_transform"] != 0:
        raise ParityBroken("the file's trees are of a kind that the model has not")

    def child(name: str, flags: str) -> NDArray[np.int64]:
        at = _ints(values[name]) + np.where(_ints(values[flags]) != 0, inner, 0)
        if at.min() < 0 or at.max() >= inner + leaves:
            raise ParityBroken("a child of the file's trees does not exist")
        return np.concatenate([at, np.zeros(leaves, dtype=np.int64)])

    members: dict[int, frozenset[float]] = {}
    if (modes == MEMBER).any():
        codes = numpy_helper.to_array(values["membership_values"]).astype(np.float64)
        sets = np.split(codes, np.flatnonzero(np.isnan(codes)) + 1)
        for node, codes in zip(np.flatnonzero(modes == MEMBER), sets, strict=False):
            members[int(node)] = frozenset(codes[:-1].tolist())
    missing = _ints(values.get("nodes_missing_value_tracks_true", np.zeros(inner))) != 0
    return _Raw(
        float32=splits.dtype == np.float32,
        roots=_ints(values["tree_roots"]),
        feature=np.concatenate([_ints(values["nodes_featureids"]), np.zeros(leaves, dtype=np.int64)]),
        split=np.concatenate([splits.astype(np.float64), np.zeros(leaves)]),
        left=child("nodes_truenodeids", "nodes_trueleafs"),
        right=child("nodes_falsenodeids", "nodes_falseleafs"),
        leaf=np.arange(inner + leaves) >= inner,
        missing=np.concatenate([missing, np.zeros(leaves, dtype=bool)]),
        members=members,
        target=np.concatenate([np.zeros(inner, dtype=np.int64), _ints(values["leaf_targetids"])]),
        weight=np.concatenate([np.zeros(inner), weights.astype(np.float64)]),
        targets=int(values["n_targets"]),
    )


def _version_3(values: Mapping[str, Any]) -> _Raw:
    double = "nodes_values_as_tensor" in values
    split = numpy_helper.to_array(values["nodes_values_as_tensor"]) if double else np.array(values["nodes_values"])
    given = numpy_helper.to_array(values["target_weights_as_tensor"]) if double else np.array(values["target_weights"])
    trees, numbers = _ints(values["nodes_treeids"]), _ints(values["nodes_nodeids"])
    leaf = np.array([mode == b"LEAF" for mode in values["nodes_modes"]])
    if not all(mode in (b"LEAF", b"BRANCH_LEQ") for mode in values["nodes_modes"]):
        raise ParityBroken("the file's trees are of a kind that the model has not")
    width = int(numbers.max()) + 1
    keys = trees * width + numbers
    order = np.argsort(keys, kind="stable")

    def place(tree: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
        wanted = tree * width + number
        at: NDArray[np.int64] = order[np.searchsorted(keys[order], wanted).clip(max=len(order) - 1)]
        if not np.array_equal(keys[at], wanted):
            raise ParityBroken("a child of the file's trees does not exist")
        return at

    left = place(trees, np.where(leaf, numbers, _ints(values["nodes_truenodeids"])))
    right = place(trees, np.where(leaf, numbers, _ints(values["nodes_falsenodeids"])))
    is_root = np.ones(len(leaf), dtype=bool)
    is_root[left[~leaf]] = False
    is_root[right[~leaf]] = False
    target, weight = np.zeros(len(leaf), dtype=np.int64), np.zeros(len(leaf))
    at = place(_ints(values["target_treeids"]), _ints(values["target_nodeids"]))
    target[at], weight[at] = _ints(values["target_ids"]), given
    return _Raw(
        float32=not double,
        roots=np.flatnonzero(is_root),
        feature=_ints(values["nodes_featureids"]),
        split=split.astype(np.float64),
        left=left,
        right=right,
        leaf=leaf,
        missing=_ints(values.get("nodes_missing_value_tracks_true", np.zeros(len(leaf)))) != 0,
        members={},
        target=target,
        weight=weight,
        targets=int(values["n_targets"]),
    )


def _ints(values: Any) -> NDArray[np.int64]:
    return np.asarray(values, dtype=np.int64)
