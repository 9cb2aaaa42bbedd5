"""What is made of nearest neighbours (`nearest_rows`): votes, means, graphs, and the nearest centroid.

A radius is compared as in scikit-learn, squared: rows on it are within it or not alike.

Source: sklearn/neighbors/_classification.py, _regression.py, _base.py (`_get_weights`), _nearest_centroid.py;
sklearn/metrics/_dist_metrics.pyx.tp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Table, Value, columns
from edgekit_converters.operators import Predict, Predicted, Transform, Unfaithful, from_matrix, scores
from edgekit_converters.operators.distances import SQUARED, cosine, distances, metric_of, reduced, root
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.functions import trace
from edgekit_converters.operators.nearest_rows import members, nearest, order, stored

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def found(walk: Walk, step: Any, table: Table) -> tuple[Expr, Expr]:
    """[rows, k] each: the distances to the k nearest rows of training, and their numbers there (int64)."""
    walk.rounded |= step._fit_method == "brute"
    _note_ties(walk, step)
    distance, place = nearest(Expr(walk.graph, walk.matrix(table)), step)
    return distance, place.look_up(order(step).astype(np.float64)).cast("int64")


def within(x: Expr, step: Any) -> tuple[Expr, Expr]:
    """[rows, stored] each: the distances, and whether the radius reaches them."""
    name, power = metric_of(step)
    rows, radius = stored(step), float(step.radius)
    if name == "cosine":
        distance = cosine(x, rows)
        return distance, distance <= radius
    summed = reduced(x.reshape(-1, 1, x.width) - rows, name, power, len(rows))
    limit = {"euclidean": radius * radius, "minkowski": radius**power}.get(name, radius)
    return root(summed, name, power), summed <= limit


def _weights(step: Any, distance: Expr) -> Expr | None:
    """1 / distance; where a distance is 0, those rows count 1 and the others 0. None for equal weights.

    A function of one's own is traced; within a radius it gets as many distances as there are, so there it is refused.
    """
    if step.weights in (None, "uniform"):
        return None
    if callable(step.weights) and "Radius" not in type(step).__name__:
        return trace(step.weights, distance, {}).cast("float64")
    if step.weights != "distance":
        raise Unfaithful("its weights are a function of its own", "use weights='distance'")
    zero = distance.equals(0.0).cast("float64")
    return (zero.max() > 0.0).where(zero, 1.0 / distance)


def _k_classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The share of each class among the neighbours; the class with the largest, the first of equals; so each target."""
    if step.weights in (None, "uniform"):
        weights, place = None, members(Expr(graph, x), step)
    else:
        distance, place = nearest(Expr(graph, x), step)
        weights = _weights(step, distance)
    width = place.width
    ranked, shares = [], []
    for one_hot in _one_hot(step):
        votes = place.look_up(one_hot)
        if weights is None:
            summed = votes.sum(axis=1, keep=False) / float(width)
        else:
            summed = (votes * weights.reshape(-1, width, 1)).sum(axis=1, keep=False)
        ranked.append(summed.value)
        shares.append((summed if weights is None else summed / summed.sum()).value)
    return Predicted(
        label=scores.best_of_each(graph, ranked, step.classes_), probabilities=scores.side_by_side(graph, shares)
    )


def _one_hot(step: Any) -> list[NDArray[np.float64]]:
    """[stored, classes] for each target: 1 at the row's class."""
    classes = step.classes_ if isinstance(step.classes_, list) else [step.classes_]
    places = np.asarray(step._y)[order(step)].reshape(-1, len(classes))
    return [np.eye(len(known))[places[:, target]] for target, known in enumerate(classes)]


def _of_neighbours(emit: Callable[[GraphBuilder, Any, Value], Predicted]) -> Predict:
    """Weights of 1 / distance follow the rounding of scikit-learn's brute force, which finds 1e-7 for equal rows."""

    def predict(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
        walk.rounded |= step.weights == "distance" and step._fit_method == "brute"
        _note_ties(walk, step)
        return emit(walk.graph, step, walk.matrix(table))

    return predict


def _note_ties(walk: Walk, step: Any) -> None:
    """Says for which rows another machine's product of matrices may choose: products of whole numbers are exact."""
    rows = np.asarray(step._fit_X)
    if step._fit_method == "brute" and metric_of(step)[0] in SQUARED and (rows != np.trunc(rows)).any():
        where = (
            "a row of training lies on the radius"
            if "Radius" in type(step).__name__
            else "the last of the nearest rows and the next one are equally near"
        )
        walk.notes.append(
            f"where {where}, the original's brute force decides by the rounding of its machine's matrix product, and "
            "so its own answer varies with the machine: fit with algorithm='kd_tree' to have such ties decided"
        )


def _targets(step: Any) -> NDArray[np.float64]:
    y = np.asarray(step._y, dtype=np.float64)[order(step)]
    return y.reshape(len(y), -1)


def _k_regressor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The mean of the neighbours' targets, weighted."""
    distance, place = nearest(Expr(graph, x), step)
    targets, width = _targets(step), place.width
    found = place.look_up(targets)
    weights = _weights(step, distance)
    if weights is None:
        mean = found.sum(axis=1, keep=False) / float(width)
    else:
        mean = (found * weights.reshape(-1, width, 1)).sum(axis=1, keep=False) / weights.sum()
    return Predicted(value=mean.value)


def _within(step: Any, x: Expr) -> Expr:
    """[rows, stored]: the weight of each stored row, 0 beyond the radius."""
    distance, inside = within(x, step)
    weights = _weights(step, distance)
    return inside.cast("float64") if weights is None else inside.where(weights, 0.0)


def _radius_classifier(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The share of each class within the radius; a row without neighbours gets the outlier label; so each target."""
    classes = step.classes_ if isinstance(step.classes_, list) else [step.classes_]
    within, shares = _within(step, Expr(graph, x)), []
    for target, one_hot in enumerate(_one_hot(step)):
        votes, count = within @ one_hot, one_hot.shape[1]
        whole = votes.sum()
        empty = whole.equals(0.0)
        # Without an outlier label the original raises an error, and NaN says that there is no answer.
        alone = np.full(count, np.nan)
        if step.outlier_label_ is not None:
            known = np.flatnonzero(classes[target] == step.outlier_label_[target])
            if len(known) == 0:
                raise Unfaithful("its outlier label is none of the classes", "use outlier_label='most_frequent'")
            alone = np.eye(count)[known[0]]
        shares.append(empty.where(alone, votes / empty.where(1.0, whole)).value)
    return Predicted(
        label=scores.best_of_each(graph, shares, step.classes_), probabilities=scores.side_by_side(graph, shares)
    )


def _radius_regressor(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The mean of the targets within the radius, NaN where there is none."""
    weights = _within(step, Expr(graph, x))
    return Predicted(value=((weights @ _targets(step)) / weights.sum()).value)


def _centroid(graph: GraphBuilder, step: Any, x: Value) -> Predicted:
    """The class of the nearest centroid; with unequal priors, the largest -distance^2 + 2 log(prior).

    Distances of the scores are measured in units of the standard deviation within the classes.
    """
    rows, prior = np.asarray(step.centroids_, dtype=np.float64), np.asarray(step.class_prior_, dtype=np.float64)
    metric = {"l1": "manhattan", "l2": "euclidean"}.get(step.metric) or str(step.metric)
    deviation = np.where(step.within_class_std_dev_ != 0, step.within_class_std_dev_, 1.0)
    given = Expr(graph, x)
    squared = distances(given / deviation, rows / deviation, metric, 2.0).square()
    score = 2.0 * np.log(prior) - squared
    if np.isclose(prior, 1 / len(prior)).all():
        label = scores.label(graph, distances(given, rows, metric, 2.0).argmin().value, step.classes_)
    else:
        label = scores.best(graph, score.value, step.classes_)
    if not hasattr(step, "predict_proba"):
        return Predicted(label=label)
    decision = score if score.width > 2 else score.at(1) - score.at(0)
    return Predicted(label=label, probabilities=score.softmax().value, decision=decision.value)


def _k_graph(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """KNeighborsTransformer: 1, or the distance, at the k nearest rows of training (k + 1 for distances), else 0."""
    walk.rounded |= step.mode == "distance" and step._fit_method == "brute"
    _note_ties(walk, step)
    x, count = Expr(walk.graph, walk.matrix(table)), len(step._fit_X)
    distance, place = nearest(x, step, int(step.n_neighbors) + (step.mode == "distance"))
    wanted = distance if step.mode == "distance" else distance * 0.0 + 1.0
    numbers = Expr(walk.graph, place.value).look_up(order(step).astype(np.float64)).cast("int64")
    nothing = x.ones() * np.zeros(count)
    found = walk.graph.value("ScatterElements", [nothing.value, numbers.value, wanted.value], nothing.value, axis=1)
    return columns(found)


def _radius_graph(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """RadiusNeighborsTransformer: 1, or the distance, at the rows of training within the radius, else 0."""
    walk.rounded |= step.mode == "distance" and step._fit_method == "brute"
    _note_ties(walk, step)
    distance, inside = within(Expr(walk.graph, walk.matrix(table)), step)
    found = inside.where(distance, 0.0) if step.mode == "distance" else inside.cast("float64")
    return columns(found.at(*np.argsort(order(step)).tolist()).value)


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "KNeighborsTransformer": _k_graph,
    "RadiusNeighborsTransformer": _radius_graph,
}
PREDICTORS: Final[Mapping[str, Predict]] = {
    "KNeighborsClassifier": _of_neighbours(_k_classifier),
    "KNeighborsRegressor": _of_neighbours(_k_regressor),
    "RadiusNeighborsClassifier": _of_neighbours(_radius_classifier),
    "RadiusNeighborsRegressor": _of_neighbours(_radius_regressor),
    "NearestCentroid": from_matrix(_centroid),
}
