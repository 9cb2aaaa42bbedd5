"""AdaBoost over trees: weighted votes, or a weighted median; all trees are one operator.

Other estimators are `reweighted`'s.

Source: `decision_function`, `_compute_proba_from_decision` and `_get_median_predict` of
sklearn/ensemble/_weight_boosting.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, Value
from edgekit_converters.operators import Predict, Predicted, reweighted, scores
from edgekit_converters.operators.tree_ensemble import plain, sums, vector_sums
from edgekit_converters.operators.tree_nodes import Tree

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """AdaBoostClassifier: a tree gives its weight to the class it predicts, -weight / (classes - 1) to the others."""
    if not _of_trees(step):
        return reweighted.classifier(walk, step, table, path)
    graph, classes, x = walk.graph, step.classes_, walk.matrix(table)
    whole = float(np.sum(step.estimator_weights_))
    total = graph.constant(np.array([whole]), "weights")
    if len(classes) == 2:
        # The first class gets what the second one loses: its sum is the other's, negated, bit for bit.
        second = [replace(tree, values=tree.values[:, 1:]) for tree in votes(step)]
        lead = sums(graph, second, 1, x, "float32")
        each = graph.constant(np.array([[-whole, whole]]), "weights")
        sides = graph.value("Div", [lead, each], replace(lead, width=2))
        half = graph.value("Div", [lead, total], lead)
        decision = graph.value("Mul", [half, graph.constant(np.array([2.0]), "two")], half)
        return Predicted(
            label=scores.best(graph, sides, classes), probabilities=scores.softmax(graph, sides), decision=decision
        )
    raw = vector_sums(graph, votes(step), x, "float32")
    raw = graph.value("Div", [raw, total], raw)
    scaled = graph.value("Div", [raw, graph.constant(np.array([len(classes) - 1.0]), "others")], raw)
    return Predicted(label=scores.best(graph, raw, classes), probabilities=scores.softmax(graph, scaled), decision=raw)


def votes(step: Any) -> list[Tree]:
    """The trees, whose leaves hold what they add to each class."""
    others = -1 / (len(step.classes_) - 1)
    found = []
    for one, weight in zip(step.estimators_, step.estimator_weights_, strict=False):
        predicted = one.classes_[one.tree_.value[:, 0, :].argmax(axis=1)]
        added = np.where(predicted[:, None] == step.classes_[None, :], weight, others * weight)
        found.append(plain(one.tree_, added, missing=False))
    return found


def regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """AdaBoostRegressor: the prediction at which the sorted weights reach half of their sum."""
    if not _of_trees(step):
        return reweighted.regressor(walk, step, table, path)
    graph, count = walk.graph, len(step.estimators_)
    # As many targets as trees: what each one predicts.
    trees = [plain(one.tree_, one.tree_.value[:, 0, :1], missing=False) for one in step.estimators_]
    found = sums(graph, trees, count, walk.matrix(table), "float32")
    size = graph.constant(np.array([count], dtype=np.int64), "trees")
    _, order = graph.node("TopK", [found, size], 2, axis=1, largest=0, sorted=1)
    weights = graph.constant(np.asarray(step.estimator_weights_, dtype=np.float64)[:count], "weights")
    sorted_weights = graph.node("Gather", [weights, order], axis=0)[0]
    reached = graph.node("CumSum", [sorted_weights, graph.constant(np.array(1, dtype=np.int64), "axis")])[0]
    whole = graph.node("Gather", [reached, graph.constant(np.array([-1], dtype=np.int64), "last")], axis=1)[0]
    half = graph.node("Mul", [whole, graph.constant(np.array([0.5]), "half")])[0]
    above = graph.node("Cast", [graph.node("GreaterOrEqual", [reached, half])[0]], to=7)[0]
    place = graph.node("ArgMax", [above], axis=1, keepdims=1, select_last_index=0)[0]
    tree = graph.node("GatherElements", [order, place], axis=1)[0]
    return Predicted(value=graph.value("GatherElements", [found, tree], Value("", "float64", 1), axis=1))


def _of_trees(step: Any) -> bool:
    return all(type(one).__name__ in _TREES and type(one).__module__.startswith("sklearn.") for one in step.estimators_)


_TREES: Final = frozenset(
    ["DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"]
)
PREDICTORS: Final[Mapping[str, Predict]] = {"AdaBoostClassifier": classifier, "AdaBoostRegressor": regressor}
