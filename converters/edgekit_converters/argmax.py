"""Which models answer with the class of the largest probability, by definition: they need to be asked once only.

Source: scikit-learn's own `predict`: sklearn/ensemble/_forest.py, ensemble/_bagging.py, tree/_classes.py,
calibration.py, and ensemble/_voting.py where it votes softly. Others (boosting, linear models, neighbours) decide on
scores, whose order may be another one in the last place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.walk import last_step

BY_ARGMAX: Final = frozenset(
    {"BaggingClassifier", "CalibratedClassifierCV", "DecisionTreeClassifier", "ExtraTreeClassifier"}
    | {"ExtraTreesClassifier", "RandomForestClassifier", "VotingClassifier"}
)
CHECKED: Final = 50
"""Rows of each call, evenly spaced, whose label is asked for beside all near ties."""
NEAR: Final = 1e-9


def by_argmax(model: Any) -> bool:
    """Whether the model's `predict` takes the first of the largest probabilities."""
    last = last_step(model)
    kind = type(last)
    if kind.__name__ not in BY_ARGMAX or not kind.__module__.startswith("sklearn."):
        return False
    return getattr(last, "voting", "soft") == "soft"


def labels(
    classes: NDArray[Any],
    probabilities: NDArray[Any],
    predict: Callable[[NDArray[np.int64]], NDArray[Any]],
) -> NDArray[Any] | None:
    """The labels by the probabilities; the model itself is asked for some rows, and for every tie.

    Args:
        classes: The classes, in the order of the probabilities.
        probabilities: [rows, classes].
        predict: The model's own labels for the rows of these indices.

    Returns:
        [rows]; None where one of those that were asked for is another.
    """
    found = np.asarray(classes)[np.argmax(probabilities, axis=1)]
    best = np.sort(probabilities, axis=1)[:, -2:]
    asked = best[:, -1] - best[:, 0] <= NEAR
    asked[np.linspace(0, len(found) - 1, min(CHECKED, len(found))).astype(int)] = True
    rows = np.flatnonzero(asked)
    return found if (predict(rows) == found[rows]).all() else None
