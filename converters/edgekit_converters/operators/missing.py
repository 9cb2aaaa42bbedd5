"""Missing values: their indicator, their nearest neighbours' mean, their regression on the other columns.

KNNImputer leaves the choice among equally distant neighbours to `numpy.argpartition`; here it is the one of the lowest
index, and a note says so.

Source: `MissingIndicator.transform` of sklearn/impute/_base.py, `KNNImputer.transform` of _knn.py,
`IterativeImputer.transform` of _iterative.py; `nan_euclidean_distances` of sklearn/metrics/pairwise.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Column, GraphBuilder, Table, Value, columns
from edgekit_converters.nulls import is_null
from edgekit_converters.operators import Transform, Unfaithful, imputers
from edgekit_converters.operators.expression import Expr, concat

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

Rows = NDArray[np.float64]


def missing_indicator(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """MissingIndicator: 1 where a value is missing, of the columns that had missing values in training, or of all."""
    found: list[Column] = []
    for text, run in groupby(table, key=lambda column: column.dtype == "text"):
        part = tuple(run)
        nothing: list[Any] = [None] * len(part)
        if text:
            _, mask = imputers._text(walk.graph, step.missing_values, part, nothing, walk.none)
        else:
            _, mask = imputers._numbers(walk.graph, step.missing_values, part, nothing, "float64")
        found += columns(mask)
    chosen = tuple(found[index] for index in step.features_)
    return columns(walk.graph.cast(walk.graph.matrix(chosen), "float64")) if chosen else ()


def knn_imputer(walk: Walk, step: Any, table: Table, path: Path) -> Table:
    """KNNImputer: the mean, plain or by 1 / distance, of the nearest training rows that have the value.

    Raises:
        Unfaithful: A metric or weights of one's own.
    """
    if step.metric != "nan_euclidean" or step.weights not in {"uniform", "distance"}:
        raise Unfaithful(
            "it measures or weighs neighbours with a function of its own",
            "use metric='nan_euclidean' and weights='uniform' or 'distance'",
        )
    x = Expr(walk.graph, walk.matrix(table))
    missing = _is_missing(x, step.missing_values)
    known = np.asarray(step._fit_X, dtype=np.float64)
    known_missing = np.asarray(step._mask_fit_X, dtype=bool)
    distances = _distances(x, missing, known, known_missing)
    parts = []
    for column, valid in enumerate(step._valid_mask):
        here = x.at(column)
        if valid:
            donors = np.flatnonzero(~known_missing[:, column])
            filled = _from_neighbours(distances.at(*donors.tolist()), known[donors, column], step)
            parts.append(missing.at(column).where(filled, here))
        elif step.keep_empty_features:
            parts.append(here.constant(0.0) * here.ones())
    walk.notes.append(
        f"among training rows at the same distance, {'/'.join(path)} takes the first ones; which ones scikit-learn "
        "takes is not defined"
    )
    result = columns(concat(parts).value) if parts else ()
    return result + _indicator(step, missing)


def iterative_imputer(walk: Walk, step: Any, table: Table, path: Path) -> Table:
    """IterativeImputer: the recorded sequence of regressions, each filling one column from the others.

    A batch in which every value is missing keeps the initial imputation, as in scikit-learn.

    Raises:
        Unfaithful: It samples, or an estimator gives something else than one number a row.
    """
    if step.sample_posterior:
        raise Unfaithful("it draws what it imputes at random", "fit it with sample_posterior=False")
    everything = Expr(walk.graph, walk.matrix(table))
    complete = _is_missing(everything, step.missing_values)
    empty = np.asarray(step._is_empty_feature, dtype=bool)
    kept = np.flatnonzero(~empty | step.keep_empty_features).tolist()
    start = imputers.simple_imputer(walk.graph, step.initial_imputer_, columns(everything.value), none=walk.none)
    indicator = _indicator(step, complete)
    if step.n_iter_ == 0:
        return start + indicator
    missing = complete.at(*kept)
    if step.keep_empty_features and empty.any():
        missing = missing & ~empty
    filled = [*start]
    for number, (feature, neighbours, estimator) in enumerate(step.imputation_sequence_):
        given = tuple(filled[index] for index in neighbours)
        value = walk.predict(estimator, given, (*path, f"imputation_sequence_[{number}]")).value
        if value is None:
            raise Unfaithful("its estimator is no regressor", "impute with a regressor")
        low, high = float(step._min_value[feature]), float(step._max_value[feature])
        guess = Expr(walk.graph, walk.graph.cast(replace(value, width=1), "float64"))
        guess = guess if low == -np.inf else guess.maximum(low)
        guess = guess if high == np.inf else guess.minimum(high)
        before = Expr(walk.graph, walk.graph.matrix((filled[feature],), "float64"))
        filled[feature] = columns(missing.at(feature).where(guess, before).value)[0]
    result = walk.graph.matrix(tuple(filled), "float64")
    initial = walk.graph.matrix(start, "float64")
    least = walk.graph.value("ReduceMin", [missing.cast("float64").value], Value("", "float64", 1), keepdims=1)
    nothing_known = Expr(walk.graph, least) > 0.0
    return columns(nothing_known.where(Expr(walk.graph, initial), Expr(walk.graph, result)).value) + indicator


def _indicator(step: Any, missing: Expr) -> Table:
    """The columns that `add_indicator` puts behind."""
    if not step.add_indicator or not len(step.indicator_.features_):
        return ()
    return columns(missing.cast("float64").at(*map(int, step.indicator_.features_)).value)


def _is_missing(x: Expr, marker: Any) -> Expr:
    return x.is_nan() if is_null(marker) else x.equals(float(marker))


def _distances(x: Expr, missing: Expr, known: Rows, known_missing: NDArray[np.bool_]) -> Expr:
    """[rows, training rows]: nan_euclidean_distances, squared; infinite where no column is present in both."""
    x = missing.where(0.0, x)
    known = np.where(known_missing, 0.0, known)
    present = known_missing.astype(np.float64)
    square, known_square = x * x, known * known
    result = x @ (-2.0 * known.T) + square.sum() + known_square.sum(axis=1)
    result = result.maximum(0.0) - square @ present.T - missing.cast("float64") @ known_square.T
    count = (~missing).cast("float64") @ (1.0 - present.T)
    none = count < 0.5
    return none.where(np.inf, result.maximum(0.0) / none.where(1.0, count) * float(x.width))


def _from_neighbours(squared: Expr, donors: Any, step: Any) -> Expr:
    """[rows, 1]: the weighted mean of the nearest donors; the mean of all where none has a distance."""
    graph: GraphBuilder = squared.graph
    count = min(int(step.n_neighbors), len(donors))
    wanted = graph.constant(np.array([count], dtype=np.int64), "neighbours")
    nearest, places = graph.node("TopK", [squared.sqrt().value, wanted], 2, axis=1, largest=0, sorted=1)
    distance = Expr(graph, Value(nearest, "float64", count))
    values = Expr(graph, Value(places, "int64", count)).look_up(donors)
    absent = distance.equals(np.inf)
    weight = absent.where(0.0, 1.0)
    if step.weights == "distance":
        same = distance.equals(0.0)
        some = same.cast("float64").sum() > 0.0
        weight = some.where(same.cast("float64"), 1.0 / same.where(1.0, distance))
    total = weight.sum()
    lonely = total.equals(0.0)
    return lonely.where(float(np.mean(donors)), (values * weight).sum() / lonely.where(1.0, total))


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "IterativeImputer": iterative_imputer,
    "KNNImputer": knn_imputer,
    "MissingIndicator": missing_indicator,
}
