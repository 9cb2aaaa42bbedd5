# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

"""Pipelines that no conversion can answer for, by their nature; each is refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import DBSCAN
from sklearn.decomposition import NMF
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case


class RankedRows(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A transformer of somebody's own: arbitrary Python."""

    def fit(self, X: Any, y: Any = None) -> RankedRows:
        """Learns nothing."""
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Each row in the order of its decimals."""
        return np.array([sorted(row, key=lambda value: f"{value:.3f}") for row in np.asarray(X)])


def backwards(text: str) -> list[str]:
    """An analyzer of somebody's own."""
    return text[::-1].split()


def against_the_batch(X: NDArray[Any]) -> NDArray[Any]:
    """Answers that depend on the other rows of the request."""
    return np.asarray(X - X.mean(axis=0))


def cases() -> Iterator[Case]:
    """The pipelines."""
    yield Case(
        "nature: a dummy that answers at random", tables.iris, DummyClassifier(strategy="stratified"), "at random"
    )
    yield Case(
        "nature: DBSCAN has no answer for a new row", tables.iris, make_pipeline(StandardScaler(), DBSCAN()), "DBSCAN"
    )
    yield Case(
        "nature: a transformer of somebody's own",
        tables.iris,
        make_pipeline(RankedRows(), LogisticRegression(max_iter=500)),
        "RankedRows",
    )
    yield Case(
        "nature: factors that settle for the whole batch at once",
        tables.digits,
        make_pipeline(MinMaxScaler(), NMF(8, max_iter=60, random_state=0), LogisticRegression()),
        "nmf",
    )
    yield Case(
        "nature: a function of the whole batch",
        tables.iris,
        make_pipeline(FunctionTransformer(against_the_batch), LogisticRegression()),
        "functiontransformer",
    )
    yield Case(
        "nature: an analyzer of somebody's own",
        tables.reviews,
        make_pipeline(CountVectorizer(analyzer=backwards), LogisticRegression()),
        "countvectorizer",
    )
