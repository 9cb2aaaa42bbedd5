"""Models that answer more than their `predict`, or one part of it: the standard deviation, the nearest rows, one label.

Each wraps a fitted estimator, and is an estimator itself, so that it is converted, verified and bundled as any other:

    >>> edgekit.build(WithDeviation(process), data, device="raspberry-pi-4")
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if

from edgekit_contracts.errors import UsageError
from edgekit_converters.tasks import targets_of
from edgekit_converters.walk import unwrap


class _Extended(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Fitted where what it wraps is.

    Args:
        estimator: Fitted, or fitted by `fit`.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any = None) -> Any:
        """Fits the estimator itself."""
        self.estimator.fit(X) if y is None else self.estimator.fit(X, y)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return bool(hasattr(self.estimator, "n_features_in_"))

    @property
    def n_features_in_(self) -> int:
        """Columns of training."""
        return int(self.estimator.n_features_in_)

    def __getattr__(self, name: str) -> Any:
        # A property would always be there, and an estimator that was fitted on a matrix has no names.
        if name == "feature_names_in_":
            return self.estimator.feature_names_in_
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")


class WithDeviation(RegressorMixin, _Extended):  # type: ignore[misc]
    """A regressor's prediction and its standard deviation (`return_std=True`), side by side.

    Of GaussianProcessRegressor, BayesianRidge and ARDRegression, and of a Pipeline that ends in one; of several targets
    all predictions come first.
    """

    def predict(self, X: Any) -> NDArray[np.float64]:
        """[rows, 2 * targets]."""
        mean, deviation = unwrap(self.estimator).predict(X, return_std=True)
        return np.hstack([np.reshape(one, (len(one), -1)) for one in (mean, deviation)])


class WithNeighbours(TransformerMixin, _Extended):  # type: ignore[misc]
    """The distances of the nearest rows of training, then their numbers (`kneighbors`), of NearestNeighbors and kin.

    It may stand at the end of a Pipeline.
    """

    def transform(self, X: Any) -> NDArray[np.float64]:
        """[rows, 2 * n_neighbors]."""
        distance, number = self.estimator.kneighbors(X)
        return np.hstack([distance, number.astype(np.float64)])


class OneLabel(ClassifierMixin, _Extended):  # type: ignore[misc]
    """One of the labels of a classifier that answers several a row, with its probabilities: a bundle holds one.

    Args:
        estimator: Fitted.
        place: Which label, from 0, in the order of the columns that the estimator was fitted on.
    """

    def __init__(self, estimator: Any, place: int) -> None:
        super().__init__(estimator)
        self.place = place

    def __sklearn_is_fitted__(self) -> bool:
        # A pipeline over texts has no `n_features_in_`; of what is no estimator `targets_` says that it has no labels.
        known = hasattr(self.estimator, "classes_") or not isinstance(self.estimator, BaseEstimator)
        return known or super().__sklearn_is_fitted__()

    @property
    def targets_(self) -> list[NDArray[Any]]:
        """The classes of each label.

        Raises:
            UsageError: The estimator answers one label a row, or fewer than `place` says.
        """
        targets = targets_of(self.estimator)
        if targets is None:
            raise UsageError("a label is chosen, and the model does not answer several a row", "leave --label out")
        if not 0 <= self.place < len(targets):
            raise UsageError(
                f"the model answers {len(targets)} labels a row, and no label {self.place}",
                f"choose one from 0 to {len(targets) - 1}",
            )
        return targets

    @property
    def classes_(self) -> NDArray[Any]:
        """The label's own."""
        return self.targets_[self.place]

    def predict(self, X: Any) -> NDArray[Any]:
        """[rows]: one of `classes_`."""
        classes, found = self.classes_, self.estimator.predict(X)
        dense = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
        return dense[:, self.place].astype(classes.dtype)

    @available_if(lambda self: hasattr(self.estimator, "predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """[rows, classes]; of an estimator that gives the shares of what is there, those of what is not before them."""
        found = self.estimator.predict_proba(X)
        if isinstance(found, list):
            return np.asarray(found[self.place])
        there = np.asarray(found)[:, self.place]
        return np.stack([1 - there, there], axis=1)
