"""Models that answer more than their `predict`: the standard deviation beside it, or the nearest rows of training.

Each wraps a fitted estimator, and is an estimator itself, so that it is converted, verified and bundled as any other:

    >>> edgekit.build(WithDeviation(process), data, device="raspberry-pi-4")
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin

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
