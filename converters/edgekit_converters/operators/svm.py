"""Support vector machines of libsvm in float64: kernel, decisions of the pairs of classes, votes.

Source: svm.cpp of libsvm 3 as shipped with scikit-learn (`svm_predict_values`, `svm_predict_probability`);
sklearn/svm/_base.py (`decision_function`, `predict`, `break_ties`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Predict, Predicted, coupling, from_matrix, kernel_functions, scores
from edgekit_converters.operators.expression import Expr, concat, rows_of, total

TIES_MAX: Final = 20_000
"""Support vectors times decisions, up to which the sums of vectors of whole numbers are written out."""
PACKET: Final = 8
"""A multiple of what a processor computes at once: onnxruntime's Exp differs in the last bit for what is left over."""
PROBABILITY_MIN: Final = 1e-7
"""libsvm keeps the pairs' probabilities within [1e-7, 1 - 1e-7]."""


def _dense(array: Any) -> NDArray[np.float64]:
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array, dtype=np.float64)


def _weighted(step: Any, x: Expr, weights: NDArray[np.float64]) -> Expr:
    """[rows, decisions]: kernel @ weights, with `weights` [support vectors, decisions].

    Vectors of whole numbers are often at equal distances, where libsvm's terms cancel to a decision of exactly 0. So
    for them each product is rounded, and the sum goes from the first vector to the last, as there; a MatMul does not
    round the products, and leaves 1e-17.
    """
    if not len(weights):
        return rows_of(x.value, x.graph, np.zeros(weights.shape[1]))
    vectors = _dense(step.support_vectors_)
    if weights.size > TIES_MAX or not vectors.size or not (vectors == np.rint(vectors)).all():
        return _kernel(step, x, vectors) @ weights
    spare = -len(vectors) % PACKET
    vectors, weights = np.pad(vectors, ((0, spare), (0, 0))), np.pad(weights, ((0, spare), (0, 0)))
    by_vector = _kernel(step, x, vectors).apply("Transpose", perm=[1, 0], width=0).reshape(len(vectors), -1, 1)
    products = by_vector.apply("Mul", Expr(x.graph, Value(x.graph.constant(weights[:, None]), "float64", 0)))
    first = x.graph.constant(np.array([0], dtype=np.int64), "first")
    return products.apply("ReduceSum", first, width=weights.shape[1], keepdims=0)


def _kernel(step: Any, x: Expr, vectors: NDArray[np.float64]) -> Expr:
    """[rows, vectors]; the weights are at most C, so that distances by a MatMul are near enough."""
    if step.kernel == "rbf":
        return kernel_functions.rbf(x, vectors, float(step._gamma), block_max=0)
    return kernel_functions.pairwise(
        step.kernel,
        x,
        vectors,
        gamma=float(step._gamma),
        coef0=float(step.coef0),
        degree=float(step.degree),
    )


def _pairs(step: Any, x: Expr) -> Expr:
    """[rows, pairs of classes]: libsvm's decision of each pair; above 0 for the first class of the pair."""
    count = len(step.classes_)
    coefficients = _dense(step._dual_coef_)
    ends = np.concatenate([[0], np.cumsum(step._n_support)])
    weights = np.zeros((coefficients.shape[1], count * (count - 1) // 2))
    for pair, (first, second) in enumerate(combinations(range(count), 2)):
        for one, row in ((first, second - 1), (second, first)):
            inside = slice(ends[one], ends[one + 1])
            weights[inside, pair] = coefficients[row, inside]
    return _weighted(step, x, weights) + np.asarray(step._intercept_, dtype=np.float64)


def _classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """SVC, NuSVC: the class with the most pairs, the first of equals; by confidence with `break_ties`."""
    count = len(step.classes_)
    pairs = _pairs(step, Expr(graph, x))
    shares = _probabilities(step, pairs).value if hasattr(step, "predict_proba") else None
    if count == 2:
        # scikit-learn turns the sign round; libsvm gives the second class a decision of exactly 0.
        second = (-pairs >= 0.0).cast("int64").flat()
        label = scores.label(graph, second.value, step.classes_)
        return Predicted(label=label, probabilities=shares, decision=(-pairs).value)
    confidence = _votes(pairs, pairs < 0.0, count) + _squashed(pairs, count)
    if step.break_ties:
        label = scores.best(graph, confidence.value, step.classes_)
    else:
        label = scores.best(graph, _votes(pairs, pairs <= 0.0, count).value, step.classes_)
    decision = confidence if step.decision_function_shape == "ovr" else pairs
    return Predicted(label=label, probabilities=shares, decision=decision.value)


def _votes(pairs: Expr, second: Expr, count: int) -> Expr:
    """[rows, classes]: how many pairs each class wins."""
    won = second.cast("float64")
    return _per_class(1.0 - won, won, count)


def _squashed(pairs: Expr, count: int) -> Expr:
    """The sum of the decisions for a class, c / (3 (|c| + 1)) (`_ovr_decision_function`)."""
    summed = _per_class(pairs, -pairs, count)
    return summed / ((abs(summed) + 1.0) * 3.0)


def _per_class(first: Expr, second: Expr, count: int) -> Expr:
    """[rows, classes]: each pair's two columns added to its two classes."""
    parts: list[list[Expr]] = [[] for _ in range(count)]
    for pair, (one, other) in enumerate(combinations(range(count), 2)):
        parts[one].append(first.at(pair))
        parts[other].append(second.at(pair))
    return concat([total(one) for one in parts])


def _probabilities(step: Any, pairs: Expr) -> Expr:
    """Platt's sigmoid of each pair, then all pairs coupled."""
    a, b = np.asarray(step._probA, dtype=np.float64), np.asarray(step._probB, dtype=np.float64)
    shares = (-(pairs * a + b)).sigmoid().at_least(PROBABILITY_MIN).at_most(1.0 - PROBABILITY_MIN)
    return coupling.coupled(shares, len(step.classes_))


def decision(step: Any, x: Expr) -> Expr:
    """[rows, 1] of SVR, NuSVR and OneClassSVM: k(x, support vectors) . dual coefficients + intercept."""
    weights = _dense(step._dual_coef_).reshape(1, -1)
    return _weighted(step, x, weights.T) + np.asarray(step._intercept_, dtype=np.float64)


def _regressor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    return Predicted(value=decision(step, Expr(graph, x)).value)


PREDICTORS: Final[Mapping[str, Predict]] = {
    "SVC": from_matrix(_classifier),
    "NuSVC": from_matrix(_classifier),
    "SVR": from_matrix(_regressor),
    "NuSVR": from_matrix(_regressor),
}
