from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import delayed

from edgekit_converters.forests import ROWS, predicted

RANDOM = np.random.default_rng(0)
X = pd.DataFrame(RANDOM.normal(size=(4 * ROWS + 1, 4)), columns=list("abcd"))
Y = (X["a"] + X["b"] * X["c"] > 0).to_numpy().astype(int)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each part, on a machine of three cores."""
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    made: list[int] = []

    def counted(ask: Any) -> Any:
        def one(rows: Any) -> Any:
            made.append(rows.shape[0])
            return delayed(ask)(rows)

        return one

    monkeypatch.setattr("edgekit_converters.forests.delayed", counted)
    return made


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(7, random_state=0),
        make_pipeline(StandardScaler(), make_pipeline(ExtraTreesClassifier(7, random_state=0))),
        GridSearchCV(make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)), {}, cv=2),
        RandomForestRegressor(7, random_state=0),
        make_pipeline("passthrough", ExtraTreesRegressor(7, random_state=0)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_forest_asked_in_parts_gives_its_own_answers_bit_for_bit(model: Any, calls: list[int]) -> None:
    model.fit(X[:300], Y[:300])
    methods = ["predict"] + (["predict_proba"] if hasattr(model, "predict_proba") else [])
    for method in methods:
        np.testing.assert_array_equal(predicted(model, method, X), getattr(model, method)(X))  # type: ignore[arg-type]
    assert calls == [1333, 1334, 1334] * len(methods)


@pytest.mark.parametrize("rows", [X, X[: 2 * ROWS - 1]], ids=["several targets", "few rows"])
def test_what_cannot_be_parted_is_asked_whole(rows: pd.DataFrame, calls: list[int]) -> None:
    several = len(rows) == len(X)
    model = RandomForestClassifier(3, random_state=0).fit(
        X[:300], np.stack([Y, 1 - Y], axis=1)[:300] if several else Y[:300]
    )
    np.testing.assert_array_equal(predicted(model, "predict_proba", rows), model.predict_proba(rows))
    linear = LogisticRegression().fit(X[:300], Y[:300])
    np.testing.assert_array_equal(predicted(linear, "predict", rows), linear.predict(rows))
    assert calls == []


@pytest.mark.usefixtures("calls")
def test_what_the_threads_warn_of_is_not_shown_and_the_filters_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(X[:300], Y[:300])
    expected, ask = model.predict_proba(X), RandomForestClassifier.predict_proba

    def warning(self: Any, rows: Any) -> Any:
        warnings.resetwarnings()  # as scikit-learn's own Parallel does, in each thread
        warnings.warn("no filter is there", stacklevel=1)
        return ask(self, rows)

    monkeypatch.setattr(RandomForestClassifier, "predict_proba", warning)
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as shown:
        np.testing.assert_array_equal(predicted(model, "predict_proba", X), expected)
    assert not shown
    assert list(warnings.filters) == before
