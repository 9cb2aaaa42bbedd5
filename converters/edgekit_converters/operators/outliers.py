"""Outlier detectors: a decision, and 1 (an inlier) where it is at least 0, else -1.

Source: `decision_function` and `predict` of sklearn/ensemble/_iforest.py, neighbors/_lof.py,
covariance/_elliptic_envelope.py, linear_model/_stochastic_gradient.py (`SGDOneClassSVM`), svm/_classes.py;
`svm_predict` of libsvm, which wants a one-class decision above 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble._iforest import _average_path_length

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, from_matrix, nearest_rows, svm, tree_ensemble
from edgekit_converters.operators.expression import Expr

Array = NDArray[np.float64]


def _judged(decision: Expr, inlier: Expr) -> Predicted:
    label = inlier.where(1.0, -1.0).cast("int64").flat()
    return Predicted(label=label.value, decision=decision.value)


def _forest(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """IsolationForest: -2^(-depth / expected depth) - offset, the depths added tree by tree."""
    trees = []
    for one, features, depths, mean in zip(
        step.estimators_,
        step.estimators_features_,
        step._decision_path_lengths,
        step._average_path_length_per_tree,
        strict=True,
    ):
        tree = tree_ensemble.plain(one.tree_, (np.asarray(depths) + np.asarray(mean) - 1.0).reshape(-1, 1))
        trees.append(replace(tree, feature=np.asarray(features, dtype=np.int64)[tree.feature]))
    depth = Expr(graph, tree_ensemble.sums(graph, trees, 1, x, "float32"))
    expected = len(trees) * float(_average_path_length([step._max_samples])[0])
    ratio = depth / expected if expected else depth.ones()
    two = ratio.constant(2.0)
    decision = -(two**-ratio) - float(step.offset_)
    return _judged(decision, decision >= 0.0)


def _local_factor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """LocalOutlierFactor(novelty=True): - the mean of the neighbours' densities over the row's own, - offset.

    The density is 1 / (mean reachability + 1e-10), the reachability max(distance, k-distance of the neighbour).
    """
    count, order = int(step.n_neighbors_), nearest_rows.order(step)
    distance, place = nearest_rows.nearest(Expr(graph, x), step, count)
    farthest: Array = np.asarray(step._distances_fit_X_, dtype=np.float64)[:, count - 1][order]
    reach = distance.maximum(place.look_up(farthest))
    density = 1.0 / (reach.mean() + 1e-10)
    ratios = place.look_up(np.asarray(step._lrd, dtype=np.float64)[order]) / density
    decision = -ratios.mean() - float(step.offset_)
    return _judged(decision, decision >= 0.0)


def _envelope(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """EllipticEnvelope: - the squared Mahalanobis distance to the location, - offset."""
    centred = Expr(graph, x) - np.asarray(step.location_)
    squared = ((centred @ np.asarray(step.get_precision())) * centred).sum()
    # scikit-learn squares the root that scipy gives.
    decision = -squared.sqrt().square() - float(step.offset_)
    return _judged(decision, decision >= 0.0)


def _linear(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """SGDOneClassSVM: x . coef - offset."""
    decision = Expr(graph, x) @ np.asarray(step.coef_).reshape(-1, 1) - float(np.ravel(step.offset_)[0])
    return _judged(decision, decision >= 0.0)


def _one_class(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """OneClassSVM: libsvm's decision; exactly 0 is an outlier."""
    decision = svm.decision(step, Expr(graph, x))
    return _judged(decision, decision > 0.0)


PREDICTORS: Final[Mapping[str, Predict]] = {
    "EllipticEnvelope": from_matrix(_envelope),
    "IsolationForest": from_matrix(_forest),
    "LocalOutlierFactor": from_matrix(_local_factor),
    "OneClassSVM": from_matrix(_one_class),
    "SGDOneClassSVM": from_matrix(_linear),
}
