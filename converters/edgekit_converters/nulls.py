"""What the original model takes for a missing text: None, or NaN.

A device knows one missing value, null. scikit-learn tells None from NaN: an imputer of NaN leaves None alone, and an
encoder learns them as two categories. So a missing text of the reference data, or of a verification row, is handed to
the original as the one that the model knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def is_null(value: Any) -> bool:
    """Whether a scalar is None, NaN or pandas.NA."""
    return value is None or value is pd.NA or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def knows_none(step: Any) -> bool:
    """Whether some imputer or encoder in the fitted model has None as its missing value."""
    kind = type(step).__name__
    if kind == "SimpleImputer":
        return step.missing_values is None
    if kind in {"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}:
        return any(one is None for categories in step.categories_ for one in categories)
    if kind in {"GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"}:
        return knows_none(step.best_estimator_)
    if kind == "FrozenEstimator":
        return knows_none(step.estimator)
    if hasattr(step, "steps"):
        return any(knows_none(inner) for _, inner in step.steps)
    if hasattr(step, "transformers_"):
        return any(knows_none(inner) for _, inner, _ in step.transformers_)
    if hasattr(step, "transformer_list"):
        return any(knows_none(inner) for _, inner in step.transformer_list)
    return False


def with_known_nulls(frame: pd.DataFrame, none: bool) -> pd.DataFrame:
    """The frame whose missing texts are None, or all NaN; columns of other types than object stay."""
    changed = {}
    # Of the types first: a table of a thousand numbers is asked about a thousand times, and a column takes long to get.
    objects = frame.dtypes.to_numpy() == np.dtype(object)
    for name in frame.columns[objects] if objects.any() else ():
        series = frame[name]
        missing = series.isna().to_numpy()
        if missing.any():
            array = series.to_numpy(dtype=object, copy=True)
            array[missing] = None if none else np.nan
            changed[name] = pd.Series(array, index=series.index, dtype=object)
    return frame.assign(**changed) if changed else frame
