"""What the wrappers of `edgekit_converters.extended` add to an estimator's answer.

Source: `predict` of sklearn/gaussian_process/_gpr.py and sklearn/linear_model/_bayes.py; `kneighbors` of
sklearn/neighbors/_base.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgekit_converters.graph import Table, columns
from edgekit_converters.operators import Predict, Predicted, Transform, Unfaithful, neighbours, scores

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

PACKAGE: Final = "edgekit_converters"


def _with_deviation(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    found = walk.predict(step.estimator, table, (*path, "estimator"))
    if found.value is None or found.deviation is None:
        raise Unfaithful(
            "its estimator gives no standard deviation",
            "wrap a GaussianProcessRegressor, a BayesianRidge or an ARDRegression",
        )
    return Predicted(value=scores.side_by_side(walk.graph, [found.value, found.deviation()]))


def _with_neighbours(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    distance, number = neighbours.found(walk, step.estimator, table)
    return columns(scores.side_by_side(walk.graph, [distance.value, number.cast("float64").value]))


PREDICTORS: Final[Mapping[str, Predict]] = {"WithDeviation": _with_deviation}
TRANSFORMERS: Final[Mapping[str, Transform]] = {"WithNeighbours": _with_neighbours}
