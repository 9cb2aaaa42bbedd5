"""Trees, forests and boosting: every decision is exactly scikit-learn's.

`TreeEnsembleRegressor` of ai.onnx.ml 3 with float64 thresholds: trees of sklearn.tree compare float32(x) <= threshold,
so x goes through float32 once and back; histogram boosting compares float64. NaN goes where training sent it
(`nodes_missing_value_tracks_true`). Sums are made in float64 inside the operator, but its output is float32: hence the
precision `mixed`, relative error 6e-8. (An exact sum needs ai.onnx.ml 5 or leaf indices; see the issues.)

Source: `Tree._apply_dense` of sklearn/tree/_tree.pyx; `_predict_one_from_raw_data` of
sklearn/ensemble/_hist_gradient_boosting/_predictor.pyx; ONNX operator schema TreeEnsembleRegressor-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgekit_converters.graph import ML, GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, Unfaithful, from_matrix, scores

AVERAGED: Final = frozenset(
    [
        "DecisionTreeClassifier",
        "DecisionTreeRegressor",
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "RandomForestClassifier",
        "RandomForestRegressor",
    ]
)
BOOSTED: Final = frozenset({"GradientBoostingClassifier", "GradientBoostingRegressor"})
HISTOGRAM: Final = frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """One binary tree; x <= threshold goes left. All arrays are [nodes] but `values`."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    missing_left: NDArray[np.bool_]
    values: NDArray[np.float64]
    """[nodes, targets]: what a leaf adds to each target."""


def averaged(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """A tree, or the mean of a forest: class frequencies or target values.

    Raises:
        Unfaithful: A classifier of several outputs.
    """
    estimators = getattr(step, "estimators_", None) or [step]
    if hasattr(step, "classes_") and step.n_outputs_ > 1:
        raise Unfaithful("it answers several labels at once", "train one model for each label")
    classifier = hasattr(step, "classes_")
    trees = [
        _plain(one.tree_, one.tree_.value[:, 0, :] if classifier else one.tree_.value[:, :, 0]) for one in estimators
    ]
    total = ensemble(graph, trees, _through_float32(graph, x))
    if len(trees) > 1:
        total = graph.value("Div", [total, graph.constant(np.array([float(len(trees))]), "trees")], total)
    if not classifier:
        return Predicted(value=total)
    return Predicted(label=scores.best(graph, total, step.classes_), probabilities=total)


def boosted(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """GradientBoosting: init + learning_rate * the sum of the trees, through the loss's link.

    Raises:
        Unfaithful: `init` is an estimator of its own.
    """
    if step.init_ != "zero" and type(step.init_).__name__ not in {"DummyClassifier", "DummyRegressor"}:
        raise Unfaithful(f"init={type(step.init_).__name__} has no conversion yet", "train with init=None")
    start = np.asarray(step._raw_predict_init(np.zeros((1, step.n_features_in_), dtype=np.float32)), dtype=np.float64)
    count = step.estimators_.shape[1]
    trees = []
    for stage in step.estimators_:
        for target, one in enumerate(stage):
            values = np.zeros((one.tree_.node_count, count))
            values[:, target] = one.tree_.value[:, 0, 0] * step.learning_rate
            trees.append(_plain(one.tree_, values))
    raw = _plus(graph, ensemble(graph, trees, _through_float32(graph, x)), start)
    if not hasattr(step, "classes_"):
        return Predicted(value=raw)
    if getattr(step, "loss", None) == "exponential":
        raw = graph.value("Mul", [raw, graph.constant(np.array([2.0]), "two")], raw)
    return _classes(graph, raw, step.classes_)


def histogram(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """HistGradientBoosting: baseline + the sum of the trees, through the loss's link.

    Raises:
        Unfaithful: Categorical splits, or a link that is not known.
    """
    if getattr(step, "is_categorical_", None) is not None and np.any(step.is_categorical_):
        raise Unfaithful(
            "categorical features have no conversion yet",
            "train with categorical_features=None, the categories encoded as numbers",
        )
    count = step.n_trees_per_iteration_
    trees = []
    for stage in step._predictors:
        for target, predictor in enumerate(stage):
            nodes = predictor.nodes
            values = np.zeros((len(nodes), count))
            values[:, target] = nodes["value"]
            trees.append(
                Tree(
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=nodes["num_threshold"].astype(np.float64),
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    leaf=nodes["is_leaf"].astype(bool),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    values=values,
                )
            )
    start = np.asarray(step._baseline_prediction, dtype=np.float64).reshape(1, -1)
    raw = _plus(graph, ensemble(graph, trees, x), start)
    if hasattr(step, "classes_"):
        return _classes(graph, raw, step.classes_)
    link = type(step._loss.link).__name__
    if link == "LogLink":
        raw = graph.value("Exp", [raw], raw)
    elif link != "IdentityLink":
        raise Unfaithful(f"the link {link} has no conversion", "train with another loss")
    return Predicted(value=raw)


def ensemble(graph: GraphBuilder, trees: Sequence[Tree], x: Value) -> Value:
    """[rows, targets] in float64: the sum of what the rows' leaves add."""
    targets = trees[0].values.shape[1]
    sizes = [len(tree.leaf) for tree in trees]
    number = np.repeat(np.arange(len(trees)), sizes)
    node = np.concatenate([np.arange(size) for size in sizes])
    leaf = np.concatenate([tree.leaf for tree in trees])

    def inner(name: str) -> list[int]:
        joined = np.concatenate([getattr(tree, name) for tree in trees]).astype(np.int64)
        return [int(one) for one in np.where(leaf, 0, joined)]

    values = np.concatenate([tree.values for tree in trees])
    # Zeros add nothing; each leaf keeps one entry, so that it is one.
    wanted = leaf[:, None] & ((values != 0) | (np.arange(targets) == 0))
    row, target = np.nonzero(wanted)
    thresholds = np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))
    name = graph.node(
        "TreeEnsembleRegressor",
        [x],
        1,
        ML,
        n_targets=targets,
        nodes_treeids=number.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_modes=["LEAF" if one else "BRANCH_LEQ" for one in leaf],
        nodes_featureids=inner("feature"),
        nodes_truenodeids=inner("left"),
        nodes_falsenodeids=inner("right"),
        nodes_missing_value_tracks_true=inner("missing_left"),
        nodes_values_as_tensor=_doubles("thresholds", thresholds),
        target_treeids=number[row].tolist(),
        target_nodeids=node[row].tolist(),
        target_ids=target.tolist(),
        target_weights_as_tensor=_doubles("weights", values[row, target]),
    )[0]
    return graph.cast(Value(name, "float32", targets), "float64")


def _plain(tree: Any, values: NDArray[np.float64]) -> Tree:
    """A tree of sklearn.tree."""
    return Tree(
        feature=np.asarray(tree.feature, dtype=np.int64),
        threshold=np.asarray(tree.threshold, dtype=np.float64),
        left=np.asarray(tree.children_left, dtype=np.int64),
        right=np.asarray(tree.children_right, dtype=np.int64),
        leaf=np.asarray(tree.children_left) < 0,
        missing_left=np.asarray(tree.missing_go_to_left, dtype=bool),
        values=np.asarray(values, dtype=np.float64),
    )


def _through_float32(graph: GraphBuilder, x: Value) -> Value:
    return graph.cast(graph.cast(x, "float32"), "float64")


def _plus(graph: GraphBuilder, x: Value, row: NDArray[np.float64]) -> Value:
    return graph.value("Add", [x, graph.constant(row, "baseline")], x)


def _classes(graph: GraphBuilder, raw: Value, classes: NDArray[Any]) -> Predicted:
    shares = scores.two_sided(graph, scores.sigmoid(graph, raw)) if raw.width == 1 else scores.softmax(graph, raw)
    return Predicted(label=scores.best(graph, shares, classes), probabilities=shares)


def _doubles(name: str, array: NDArray[np.float64]) -> TensorProto:
    return helper.make_tensor(name, TensorProto.DOUBLE, array.shape, np.ascontiguousarray(array).tobytes(), raw=True)


PREDICTORS: Final[Mapping[str, Predict]] = {
    **dict.fromkeys(AVERAGED, from_matrix(averaged)),
    **dict.fromkeys(BOOSTED, from_matrix(boosted)),
    **dict.fromkeys(HISTOGRAM, from_matrix(histogram)),
}
