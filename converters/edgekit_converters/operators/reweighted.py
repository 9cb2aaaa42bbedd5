"""AdaBoost over estimators that are no trees: weighted votes, or a weighted median.

Source: `decision_function` (SAMME), `_compute_proba_from_decision` and `_get_median_predict` of
sklearn/ensemble/_weight_boosting.py; Zhu, Zou, Rosset, Hastie: Multi-class AdaBoost, 2009.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.graph import ML, Table, Value
from edgekit_converters.operators import Predicted, Unfaithful, scores
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.wrappers import predicted_each

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def places(walk: Walk, step: Any, table: Table, path: Path) -> Expr:
    """[rows, estimators], float64: the place of each estimator's class among the classes.

    Raises:
        Unfaithful: An estimator gives no label.
    """
    values, dtype = scores.class_values(step.classes_)
    found = []
    for index, one in enumerate(step.estimators_):
        label = walk.predict(one, table, (*path, str(index))).label
        if label is None:
            raise Unfaithful("its estimator is no classifier", "use a classifier as the estimator")
        column = Expr(walk.graph, label)
        if dtype == "text":
            place = column.apply(
                "LabelEncoder",
                dtype="int64",
                domain=ML,
                keys_strings=[str(one) for one in values],
                values_int64s=list(range(len(values))),
            ).reshape(-1, 1)
        else:
            place = column.reshape(-1, 1).equals(values).cast("int64").argmax().reshape(-1, 1)
        found.append(place.cast("float64"))
    return concat(found)


def classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """SAMME: f_c = sum of w (if the estimator says c) or -w / (classes - 1), over the sum of the weights."""
    count, used = len(step.classes_), len(step.estimators_)
    weights = np.asarray(step.estimator_weights_, dtype=np.float64)
    place, whole, weights = places(walk, step, table, path), float(weights.sum()), weights[:used]
    if count == 2:
        # f_1 - f_0 of two classes is twice the sum of w where the estimator says the second, else -w.
        vote = (place > 0.5).where(weights, -weights).sum() / whole
        decision = vote + vote
        shares = (concat([-decision, decision]) / 2.0).softmax()
        label = scores.positive(walk.graph, decision.value, step.classes_)
    else:
        hit = place.reshape(-1, 1, used).equals(np.arange(count, dtype=np.float64).reshape(-1, 1))
        votes = hit.where(weights, -1 / (count - 1) * weights).sum()
        decision = votes.reshape(-1, count) / whole
        shares = (decision / float(count - 1)).softmax()
        label = scores.best(walk.graph, decision.value, step.classes_)
    return Predicted(label=label, probabilities=shares.value, decision=decision.value)


def regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The smallest prediction at which the weights, added in the order of the predictions, reach half of their sum."""
    graph, count = walk.graph, len(step.estimators_)
    values = concat(predicted_each(walk, step.estimators_, table, path, ("predict",)))
    number = graph.constant(np.array([count], dtype=np.int64), "count")
    rising, order = graph.node("TopK", [values.value, number], 2, axis=-1, largest=0, sorted=1)
    weights = np.asarray(step.estimator_weights_, dtype=np.float64)
    axis = graph.constant(np.array(1, dtype=np.int64), "axis")
    added = Expr(graph, Value(order, "int64", count)).look_up(weights).apply("CumSum", axis)
    reached = (added >= added.at(count - 1) * 0.5).cast("int64").argmax().reshape(-1, 1)
    return Predicted(value=graph.value("GatherElements", [rising, reached.value], Value("", "float64", 1), axis=1))
