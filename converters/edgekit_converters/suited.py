"""Every estimator of scikit-learn as its own tests make it, and small data that suits it.

Numbers are positive, and no two distances are equal; documents, records, labels, kernels, categories, several targets
come where an estimator wants them. What suits is read from the estimator's tags, as far as they say it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from unittest import SkipTest

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils import get_tags

from edgekit_contracts.manifest import Task
from edgekit_converters.data import as_frame
from edgekit_converters.walk import takes_labels

ROWS: Final = 120
COLUMNS: Final = 5
"""At most; iris has four."""
KERNEL_ROWS: Final = 30

BINARY: Final = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV"})
SEVERAL_CLASSES: Final = frozenset({"MultiOutputClassifier"})
SEVERAL_LABELS: Final = frozenset({"ClassifierChain"})
SEVERAL_NUMBERS: Final = frozenset(
    {"MultiOutputRegressor", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"}
    | {"RegressorChain"}
)
WITH_GAPS: Final = frozenset({"IterativeImputer", "KNNImputer", "MissingIndicator", "SimpleImputer"})
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "DictionaryLearning": {"transform_algorithm": "omp"},
    "DummyClassifier": {"strategy": "prior"},
    "FeatureHasher": {"n_features": 64},
    "HashingVectorizer": {"n_features": 64},
    "LocalOutlierFactor": {"novelty": True},
    "RadiusNeighborsClassifier": {"outlier_label": "most_frequent"},
    "SelectFdr": {"alpha": 0.9},
    "SelectFpr": {"alpha": 0.9},
    "SelectFwe": {"alpha": 0.9},
    "SparseCoder": {"dictionary": np.random.default_rng(0).normal(size=(5, COLUMNS))},
}
"""Where scikit-learn's own test instance fits no such data, answers at random, or differs from the default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suited:
    """Rows and target for one estimator."""

    frame: pd.DataFrame
    """The rows as a table."""
    rows: Any
    """The same as the estimator takes them: the table, documents, or records."""
    target: NDArray[Any]
    """[rows], or [rows, targets]."""


def instance(name: str, kind: Any) -> Any:
    """A legal instance, as scikit-learn's own tests make it; None where they make none."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils._test_common.instance_generator import _construct_instances

    if name == "FrozenEstimator":
        return kind(LogisticRegression())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = next(iter(_construct_instances(kind))).set_params(**SETTINGS.get(name, {}))
            seeds = [key for key in made.get_params() if key.rpartition("__")[2] == "random_state"]
            return made.set_params(**dict.fromkeys(seeds, 0))
        except (Exception, SkipTest):  # whatever a constructor raises
            return None


def fit(model: Any, rows: Any, target: NDArray[Any]) -> None:
    """Fits the model; what a FrozenEstimator holds, or a Pipeline that ends in one, before it."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if type(last).__name__ == "FrozenEstimator":
        last.estimator.fit(rows, target)
    model.fit(rows) if takes_labels(model) else model.fit(rows, target)


def suited(estimator: Any, task: Task, dtype: type) -> Suited:
    """Data for an estimator.

    Args:
        estimator: As `instance` makes it.
        task: What it answers.
        dtype: numpy.float64 or numpy.float32, of all numbers.
    """
    name, tags = type(estimator).__name__, get_tags(estimator).input_tags
    X, target = _numbers(name, task)
    if tags.one_d_array and not tags.two_d_array:
        X = X[:, :1]
    if tags.categorical:
        X = np.floor(X)
    if tags.pairwise:
        X, target = rbf_kernel(X[:KERNEL_ROWS], gamma=0.1), target[:KERNEL_ROWS]
    frame = as_frame(X.astype(dtype)).rename(columns=str)
    if tags.string and not tags.two_d_array:
        documents = _documents(len(X))
        return Suited(frame=pd.DataFrame({"text": documents}), rows=documents, target=target)
    if takes_labels(estimator):
        frame = frame.iloc[:, :1] // 1
        return Suited(frame=frame, rows=frame.iloc[:, 0], target=target)
    if tags.dict:
        frame = frame.assign(kind=np.resize(["pump", "valve", "motor"], len(frame)))
        return Suited(frame=frame, rows=frame.to_dict("records"), target=target)
    return Suited(frame=frame, rows=frame, target=target)


def _numbers(name: str, task: Task) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Diabetes, or iris for classes and clusters; with noise, for of equal distances each may be the nearest."""
    measured = task in {"regression", "transformation"}
    source: Any = load_diabetes() if measured else load_iris()
    random = np.random.default_rng(0)
    rows = random.permutation(len(source.data))[:ROWS]
    data = source.data[rows, :COLUMNS]
    noise = random.random(data.shape)
    X = np.abs(data) * (20.0 if measured else 1.0) + 0.01 + 1e-3 * noise
    target = source.target[rows]
    if name in WITH_GAPS:
        X[::7, 0] = np.nan
    if name in BINARY:
        target = (target > 0).astype(int)
    if name in SEVERAL_LABELS:
        target = np.stack([target > 0, target[::-1] > 1], axis=1).astype(int)
    if name in SEVERAL_CLASSES | SEVERAL_NUMBERS:
        target = np.stack([target, target[::-1]], axis=1)
    return X, target


def _documents(count: int) -> list[str]:
    words = ["Pump", "valve", "Motor", "noise", "heat", "leak", "the", "a", "of", "worn", "BEARING", "replaced"]
    random = np.random.default_rng(0)
    return [" ".join(random.choice(words, random.integers(3, 9))) + "." for _ in range(count)]
