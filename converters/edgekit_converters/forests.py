"""Asks a forest on all cores, and keeps its answers: the rows in parts, each added up in the order of the trees.

Its own `n_jobs` would add in the order in which its threads end. Calls of several threads are safe: fitted trees only
read (scikit-learn's `n_jobs` shares them between threads too).

Source: scikit-learn, sklearn/ensemble/_forest.py, `predict_proba` and `predict`.
"""

from __future__ import annotations

import os
import warnings
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.parallel import Parallel, delayed

from edgekit_converters.walk import last_step, unwrap

FORESTS: Final = frozenset(
    {"ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"}
)
ROWS: Final = 1_000
"""Of a part, at least."""


def predicted(model: Any, method: Literal["predict", "predict_proba"], rows: Any) -> Any:
    """What the fitted model's own method answers.

    Args:
        model: Any model; one that ends in a forest is asked on all cores.
        method: Its method.
        rows: A frame or a matrix [rows, columns].
    """
    last = last_step(model)
    if type(last).__name__ not in FORESTS or not type(last).__module__.startswith("sklearn."):
        return getattr(model, method)(rows)
    model = unwrap(model)
    while isinstance(model, Pipeline):
        rows = model[:-1].transform(rows) if len(model) > 1 else rows
        model = unwrap(model.steps[-1][1])
    ask, count = getattr(model, method), min(os.cpu_count() or 1, rows.shape[0] // ROWS)
    if count < 2 or last.n_outputs_ > 1:
        return ask(rows)
    edges = np.linspace(0, rows.shape[0], count + 1).astype(int).tolist()
    # Each call empties the warnings' filters, which are all threads', for a moment; where another one finds them so, it
    # warns of that. Recorded, it is not shown, and the filters are as before in the end.
    with warnings.catch_warnings(record=True):
        parts: Any = Parallel(n_jobs=count, require="sharedmem")(
            delayed(ask)(rows[start:stop]) for start, stop in pairwise(edges)
        )
    return np.concatenate(parts)
