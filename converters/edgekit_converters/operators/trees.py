"""Single trees and forests: what the leaves say, bit for bit, summed in the order of the trees and divided once.

The nodes are written by `tree_ensemble`; boosting of every kind has its own modules (`boosting`, `histogram`,
`adaboost`), whose emitters are listed here too.

Source: `Tree._apply_dense` of sklearn/tree/_tree.pyx; `predict_proba` and `predict` of sklearn/ensemble/_forest.py (one
job: with `n_jobs` above 1 scikit-learn itself adds in the order in which its threads finish).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Table, Value, columns
from edgekit_converters.operators import (
    Predict,
    Predicted,
    Transform,
    adaboost,
    boosting,
    encoders,
    from_matrix,
    histogram,
    scores,
    tree_ensemble,
)

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

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


def averaged(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """A tree, or the mean of a forest: class frequencies of each target, or target values."""
    classifier = hasattr(step, "classes_")
    counts = np.atleast_1d(step.n_classes_).tolist() if classifier else []
    estimators = getattr(step, "estimators_", None)
    trees = [
        tree_ensemble.plain(one.tree_, _frequencies(one.tree_, counts) if classifier else one.tree_.value[:, :, 0])
        for one in (estimators if estimators is not None else [step])
    ]
    if trees[0].values.shape[1] == 1:
        total = tree_ensemble.sums(graph, trees, 1, x, "float32")
    else:
        total = tree_ensemble.vector_sums(graph, trees, x, "float32")
    if estimators is not None and len(trees) > 1:
        total = graph.value("Div", [total, graph.constant(np.array([float(len(trees))]), "trees")], total)
    if not classifier:
        return Predicted(value=total)
    ends = np.cumsum(counts).tolist()
    shares = [graph.gather(total, range(end - count, end)) for end, count in zip(ends, counts, strict=True)]
    return Predicted(label=scores.best_of_each(graph, shares, step.classes_), probabilities=total)


def _frequencies(tree: Any, counts: list[int]) -> NDArray[np.float64]:
    """[nodes, classes]: those of all targets, side by side; the tree has room for the widest target in each."""
    return np.concatenate([tree.value[:, target, :count] for target, count in enumerate(counts)], axis=1)


def embedding(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """RandomTreesEmbedding: one indicator for each leaf of each tree."""
    trees = [tree_ensemble.plain(one.tree_, one.tree_.value[:, :, 0]) for one in step.estimators_]
    leaves = tree_ensemble.leaf_nodes(walk.graph, trees, walk.matrix(table), "float32")
    return encoders.one_hot_encoder(walk.graph, step.one_hot_encoder_, columns(leaves))


PREDICTORS: Final[Mapping[str, Predict]] = {
    **dict.fromkeys(AVERAGED, from_matrix(averaged)),
    **adaboost.PREDICTORS,
    **boosting.PREDICTORS,
    **histogram.PREDICTORS,
}
TRANSFORMERS: Final[Mapping[str, Transform]] = {"RandomTreesEmbedding": embedding}
