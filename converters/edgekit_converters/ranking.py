"""Models that rank answer a number a row, as regressors do; scikit-learn knows no such kind.

So a ranker, alone or at the end of pipelines, is converted as the regressor that gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.pipeline import Pipeline

from edgekit_converters.walk import last_step, unwrap


def ends_in(model: Any, kind: str) -> bool:
    """Whether the last step is of that class."""
    return type(last_step(model)).__name__ == kind


def without_ranker(model: Any, regressor: Callable[[Any], Any]) -> Any:
    """The model with a regressor in the place of the ranker at its end."""
    model = unwrap(model)
    if not isinstance(model, Pipeline):
        return regressor(model)
    name, last = model.steps[-1]
    return Pipeline([*model.steps[:-1], (name, without_ranker(last, regressor))])
