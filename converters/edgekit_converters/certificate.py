"""A proof that the trees in the written file are those of the fitted model, node by node.

The ONNX bytes are read again, every tree is rebuilt from the operators' attributes (and the tables that they point
into), and laid beside the fitted estimator's own arrays: feature, threshold, children, the way of missing values, sets
of categories, and what each leaf adds. Nothing of the emitters is used. The proof covers every input, not a sample: for
a float64 x that the original rounds to float32, `x <= s` equals `float32(x) <= t` for every x exactly where
float32(s) <= t and float32(next(s)) > t, since rounding is monotone; for a float32 x, where s <= t and next(s) > t.

Source: translation validation, A. Pnueli, M. Siegel, E. Singerman, TACAS 1998, doi:10.1007/BFb0054170; ONNX operator
schemas TreeEnsemble-5 and TreeEnsembleRegressor-3; IEEE 754-2019, 4.3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgekit_contracts.errors import ParityBroken
from edgekit_converters import certified_catboost
from edgekit_converters.fitted_trees import Ensemble, fitted_ensembles
from edgekit_converters.graph import ML
from edgekit_converters.operators.catboost_dump import Dump
from edgekit_converters.written_trees import OPERATORS, Written, written_ensembles

_EXACT_ML: Final = OPERATORS | {"LabelEncoder", "ArrayFeatureExtractor"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What was proved of a file."""

    trees: int
    nodes: int
    """Inner nodes and leaves that were compared."""
    exact: bool
    """Besides, nothing else in the file computes in float32."""
    statement: str
    """One sentence for people."""


def certify(data: bytes, model: Any) -> Certificate | None:
    """Compares the trees of a file with those of the model.

    Args:
        data: The ONNX file.
        model: The fitted model that it was made of.

    Returns:
        The proof; None where the model has no trees, or where their way into the file is not known.

    Raises:
        ParityBroken: A node differs; the sentence names the first one.
    """
    expected = fitted_ensembles(model)
    if not expected:
        return None
    written = onnx.load_model_from_string(data)
    found = written_ensembles(written)
    if len(found) != len(expected):
        return None
    nodes = trees = 0
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, Dump):
            nodes += certified_catboost.compare(one, other)
            trees += len(other.trees)
        else:
            nodes += _compare(one, other)
            trees += len(other.roots) - other.starts
    exact = _float64_elsewhere(written.graph, found)
    return Certificate(
        trees=trees,
        nodes=nodes,
        exact=exact,
        # With several, onnxruntime may add the leaves in another order (`operators.tree_ensemble`).
        statement=f"{trees:,} trees, {nodes:,} nodes: each decides as the original's, whatever reaches it, "
        "and with one thread a call they add alike",
    )


def _compare(written: Written, fitted: Ensemble) -> int:
    """Walks both at once, a level at a time; gives the count of nodes."""
    if len(written.roots) != len(fitted.roots):
        raise ParityBroken(f"{fitted.name}: the file has {len(written.roots)} trees, the model {len(fitted.roots)}")
    ours, theirs, tree = written.roots, fitted.roots, np.arange(len(fitted.roots))
    count = 0
    while len(ours):
        count += len(ours)
        if count > 2 * len(fitted.leaf):
            raise ParityBroken(f"{fitted.name}: a node of the file is its own descendant")
        leaf = fitted.leaf[theirs]
        # A tree of one leaf is written as an inner node with that leaf on both sides.
        alone = leaf & ~written.leaf[ours] & (written.left[ours] == written.right[ours])
        ours = np.where(alone, written.left[ours], ours)
        _refuse(fitted, tree, theirs, written.leaf[ours] != leaf, "is a leaf in one of them only")
        at, to = ours[leaf], theirs[leaf]
        same = (written.values[at].view(np.int64) == fitted.values[to].view(np.int64)) | (
            (written.values[at] == 0) & (fitted.values[to] == 0)
        )
        _refuse(fitted, tree[leaf], to, ~same.all(axis=1), "adds another value")
        at, to, tree = ours[~leaf], theirs[~leaf], tree[~leaf]
        _refuse(fitted, tree, to, written.feature[at] != fitted.feature[to], "reads another column")
        _refuse(fitted, tree, to, written.missing[at] != fitted.missing[to], "sends missing values the other way")
        _refuse(fitted, tree, to, ~_same_split(written, at, fitted, to), "decides otherwise for some input")
        ours = np.concatenate([written.left[at], written.right[at]])
        theirs = np.concatenate([fitted.left[to], fitted.right[to]])
        tree = np.concatenate([tree, tree])
    return count


def _same_split(written: Written, at: NDArray[np.int64], fitted: Ensemble, to: NDArray[np.int64]) -> NDArray[np.bool_]:
    split, threshold = written.split[at], fitted.threshold[to]
    if fitted.reads == "float64":
        same = (split == threshold) & (not written.float32)
    else:
        same = written.rounds_alike(at, threshold)
    result: NDArray[np.bool_] = np.asarray(same)
    for place in np.flatnonzero(np.isin(at, list(written.members)) | np.isin(to, list(fitted.members))):
        # Codes are 0 and above: a negative one stands for an empty set.
        codes = written.members.get(int(at[place]))
        found = None if codes is None else frozenset(code for code in codes if code >= 0)
        result[place] = found == fitted.members.get(int(to[place]))
    return result


def _refuse(
    fitted: Ensemble, tree: NDArray[np.int64], node: NDArray[np.int64], wrong: NDArray[np.bool_], how: str
) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        number = int(node[first] - fitted.roots[tree[first]])
        raise ParityBroken(f"{fitted.name}, tree {int(tree[first])}: node {number} {how}")


def _adds_float32(node: onnx.NodeProto) -> bool:
    """Whether a tree operator adds float32 numbers, whose sum depends on the order, and so on the threads."""
    weights = [numpy_helper.to_array(one.t) for one in node.attribute if one.name == "leaf_weights"]
    return any(one.dtype == np.float32 and bool((one != np.rint(one)).any()) for one in weights)


def _float64_elsewhere(graph: onnx.GraphProto, found: list[Written]) -> bool:
    """Whether all that the proof does not cover computes in float64 (or with whole numbers and texts)."""
    covered = {name for one in found for name in one.covered}
    for node in graph.node:
        if node.domain == ML and (node.op_type not in _EXACT_ML or _adds_float32(node)):
            return False
        for attribute in node.attribute:
            if attribute.HasField("g"):
                return False
            is_float = node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT
            if is_float and node.name not in covered:
                return False
            is_constant = attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.FLOAT
            if is_constant and node.name not in covered:
                return False
    return all(tensor.data_type != onnx.TensorProto.FLOAT for tensor in graph.initializer)
