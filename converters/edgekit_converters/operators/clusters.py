"""Clusterers that know new rows: the number of the nearest centre; and mixtures: the most likely component.

|c|^2 - 2 x . c ranks the centres, as scikit-learn does it; of equals the first.

Source: `_labels_inertia` of sklearn/cluster/_kmeans.py and `lloyd_iter_chunked_dense` of _k_means_lloyd.pyx;
`_predict_recursive` of _bisect_k_means.py; `predict` of _birch.py, _mean_shift.py, _affinity_propagation.py;
`_estimate_log_gaussian_prob` of sklearn/mixture/_gaussian_mixture.py, `_estimate_log_prob` of _bayesian_mixture.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture._gaussian_mixture import _compute_log_det_cholesky

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, from_matrix, scores
from edgekit_converters.operators.expression import Expr, concat, rows_of

Array = NDArray[np.float64]


def _nearest(x: Expr, centres: Any) -> Expr:
    """[rows]: the place of the nearest centre."""
    rows: Array = np.asarray(centres, dtype=np.float64)
    squares: Array = (rows * rows).sum(axis=1)
    return (x @ (-2.0 * rows.T) + squares).argmin()


def _centres(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """KMeans, MiniBatchKMeans, MeanShift, AffinityPropagation; of the last, -1 where it found no centre."""
    if not len(step.cluster_centers_):
        return Predicted(label=rows_of(x, graph, np.array([-1.0])).cast("int64").flat().value)
    return Predicted(label=_nearest(Expr(graph, x), step.cluster_centers_).value)


def _birch(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The cluster of the nearest subcluster."""
    place = _nearest(Expr(graph, x), step.subcluster_centers_)
    return Predicted(label=scores.label(graph, place.value, np.asarray(step.subcluster_labels_)))


def _bisecting(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """BisectingKMeans: down the tree of centres, at each fork to the nearer of the two."""
    given = Expr(graph, x)
    shift = getattr(step, "_X_mean", 0.0)

    def below(node: Any) -> Expr | float:
        if node.left is None:
            return float(node.label)
        first = _nearest(given, np.stack([node.left.center, node.right.center]) + shift).equals(0)
        return first.where(below(node.left), below(node.right))

    found = below(step._bisecting_tree)
    label = found if isinstance(found, Expr) else rows_of(x, graph, np.array([found]))
    return Predicted(label=label.flat().cast("int64").value)


def _mixture(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """GaussianMixture, BayesianGaussianMixture: log weight + log density of each component, and their softmax.

    The decision is `score_samples`, the logarithm of the sum of those densities.
    """
    features = float(x.width)
    log_det = np.asarray(_compute_log_det_cholesky(step.precisions_cholesky_, step.covariance_type, x.width))
    constant = np.asarray(step._estimate_log_weights()) + log_det - 0.5 * features * np.log(2.0 * np.pi)
    if type(step).__name__ == "BayesianGaussianMixture":
        # The density under the expected precision of the Wishart distribution, as `_estimate_log_prob` has it.
        from scipy.special import digamma

        freedom, count = np.asarray(step.degrees_of_freedom_), np.arange(x.width)[:, np.newaxis]
        spread = features * np.log(2.0) + digamma(0.5 * (freedom - count)).sum(axis=0)
        constant = constant - 0.5 * features * np.log(freedom) + 0.5 * (spread - features / step.mean_precision_)
    found = _distances(Expr(graph, x), step) * -0.5 + constant
    largest = found.max()
    score = (found - largest).exp().sum().log() + largest
    return Predicted(label=found.argmax().value, probabilities=found.softmax().value, decision=score.value)


def _distances(x: Expr, step: Any) -> Expr:
    """[rows, components]: the squared distance to each mean in the component's own measure."""
    means: Array = np.asarray(step.means_, dtype=np.float64)
    roots: Array = np.asarray(step.precisions_cholesky_, dtype=np.float64)
    if step.covariance_type in {"full", "tied"}:
        parts = []
        for index, mean in enumerate(means):
            root = roots if step.covariance_type == "tied" else roots[index]
            parts.append((x @ root - mean @ root).square().sum())
        return concat(parts)
    precisions: Array = roots**2
    if step.covariance_type == "spherical":
        precisions = np.repeat(precisions[:, np.newaxis], x.width, axis=1)
    squares: Array = (means**2 * precisions).sum(axis=1)
    return squares - (x @ (means * precisions).T) * 2.0 + x.square() @ precisions.T


PREDICTORS: Final[Mapping[str, Predict]] = {
    **dict.fromkeys(("AffinityPropagation", "KMeans", "MeanShift", "MiniBatchKMeans"), from_matrix(_centres)),
    **dict.fromkeys(("BayesianGaussianMixture", "GaussianMixture"), from_matrix(_mixture)),
    "Birch": from_matrix(_birch),
    "BisectingKMeans": from_matrix(_bisecting),
}
