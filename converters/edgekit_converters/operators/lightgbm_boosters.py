"""A LightGBM Booster as a scikit-learn estimator: what it is asked, and what it converts to.

LightGBM has no class that loads a model file into its own estimators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from edgekit_converters.graph import Table
from edgekit_converters.operators import Predict, Predicted
from edgekit_converters.operators.lightgbm_models import classified, valued

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

PACKAGE: Final = "edgekit_converters"


class _Fitted(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A trained Booster.

    Args:
        booster: A `lightgbm.Booster`.
    """

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        self.n_features_in_ = int(booster.num_feature())
        names = booster.feature_name()
        if names != [f"Column_{place}" for place in range(len(names))]:
            self.feature_names_in_ = np.array(names, dtype=object)

    def fit(self, X: Any, y: Any = None) -> Any:
        """Does nothing: the Booster is trained."""
        return self


class BoosterClassifier(ClassifierMixin, _Fitted):  # type: ignore[misc]  # scikit-learn is untyped
    """Of an objective that tells classes apart; they are 0, 1 ..."""

    @property
    def classes_(self) -> NDArray[np.int64]:
        """[classes]."""
        return np.arange(max(2, self.booster.dump_model(num_iteration=1)["num_class"]))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """[rows, classes], as LGBMClassifier."""
        found = np.asarray(self.booster.predict(X))
        return found if found.ndim > 1 else np.stack([1.0 - found, found], axis=1)

    def predict(self, X: Any) -> NDArray[np.int64]:
        """[rows], as LGBMClassifier."""
        return np.asarray(self.predict_proba(X).argmax(axis=1))


class BoosterRegressor(RegressorMixin, _Fitted):  # type: ignore[misc]  # scikit-learn is untyped
    """Of any other."""

    def predict(self, X: Any) -> NDArray[np.float64]:
        """[rows] or [rows, outputs]."""
        return np.asarray(self.booster.predict(X))


def _classifier(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    return classified(walk, step.booster, table, step.classes_)


def _regressor(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    return valued(walk, step.booster, table)


PREDICTORS: Final[Mapping[str, Predict]] = {"BoosterClassifier": _classifier, "BoosterRegressor": _regressor}
