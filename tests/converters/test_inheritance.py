"""Subclasses of scikit-learn's estimators: those that inherit their answers convert, the others are refused."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import assert_same, converted, target
from tests.converters.transforms import numbers


class Logged:
    """Knows what it was fitted on."""

    seen_ = 0

    def log(self, rows: int) -> None:
        self.seen_ = rows


class LoggedForest(Logged, RandomForestClassifier):  # type: ignore[misc]  # scikit-learn has no types
    """Another default, a note of the fitting, a score and a method of its own."""

    def __init__(self, n_estimators: int = 3, *, random_state: int = 0) -> None:
        super().__init__(n_estimators, random_state=random_state)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LoggedForest:
        self.log(len(X))
        super().fit(X, y, sample_weight)
        return self

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        return 0.0

    def best(self, X: Any) -> Any:
        return self.predict_proba(X).max(axis=1)


class Rescaled(StandardScaler):  # type: ignore[misc]
    """Fits a scaler on other numbers than it is given."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Rescaled:
        super().fit(X * 2, y, sample_weight)
        return self


class Rounded(Ridge):  # type: ignore[misc]
    """Answers otherwise."""

    def predict(self, X: Any) -> Any:
        return super().predict(X).round()


class Clipped(Ridge):  # type: ignore[misc]
    """Answers otherwise, by a private method of scikit-learn's."""

    def _decision_function(self, X: Any) -> Any:
        return np.maximum(super()._decision_function(X), 0.0)


class Twisted(Ridge):  # type: ignore[misc]
    """Answers otherwise, by what its attributes are."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return found * 2 if name == "coef_" else found


class Absolute:
    """Changes what stands behind it."""

    def predict(self, X: Any) -> Any:
        return abs(super().predict(X))  # type: ignore[misc]


class AbsoluteTree(Absolute, DecisionTreeRegressor):  # type: ignore[misc]
    """Answers otherwise, by another base."""


def test_a_subclass_that_changes_the_fitting_alone_answers_as_its_base() -> None:
    X, y = numbers(), target("text")
    assert not assert_same(LoggedForest().fit(X, y), X).delegated
    assert not assert_same(make_pipeline(Rescaled(), Ridge()).fit(X, target("value")), X, exact=True).delegated


@pytest.mark.parametrize("kind", [Rounded, Clipped, Twisted, AbsoluteTree])
def test_a_subclass_that_may_answer_otherwise_is_refused_by_its_name(kind: Any) -> None:
    model = kind().fit(np.array(numbers()), target("value"))
    with pytest.raises(ConversionRefused, match=rf"\({kind.__name__}\): skl2onnx has no converter for it"):
        converted(model, np.array(numbers()))
