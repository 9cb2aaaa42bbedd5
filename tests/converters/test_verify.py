# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from edgekit_contracts.errors import DataMismatch, ParityBroken
from edgekit_converters.certificate import certify
from edgekit_converters.draft import draft_manifest
from edgekit_converters.registry import Answers
from edgekit_converters.verify import Verified, disagreement_bound, verify
from edgekit_runtime.engine import Engine
from tests.converters.frames import CONVERTER, converted, features, target, textbook


def verified(model: Any, X: pd.DataFrame, original: Any = None, *, exact: bool = True) -> Verified:
    conversion = converted(model, X)
    engine = Engine(conversion.onnx, draft_manifest("m", "1", conversion, "1.24.1"))
    return verify(
        engine,
        original or (lambda rows: CONVERTER.answers(model, rows)),
        X,
        precision=conversion.precision,
        model=model,
        certificate=certify(conversion.onnx, model) if exact else None,
    )


def test_a_forest_is_verified_bit_for_bit_at_its_own_thresholds() -> None:
    parity = verified(textbook(RandomForestClassifier(10, random_state=0)).fit(features(), target()), features()).parity
    assert parity.mined_rows > 500
    assert parity.rows > parity.mined_rows
    assert (parity.max_difference, parity.worst_ulps, parity.ties) == (0.0, 0.0, 0)
    assert parity.tolerance == 1e-9
    assert (parity.worst_row, parity.differs) == (None, None)
    assert parity.marks_reached == parity.marks > 100
    assert parity.certificate is not None
    assert "10 trees" in parity.certificate
    assert parity.disagreement_bound == pytest.approx(1 - 0.05 ** (1 / 240), rel=1e-2)


def test_a_regression_has_no_rate_of_labels() -> None:
    parity = verified(textbook(RandomForestRegressor(5)).fit(features(), target("value")), features()).parity
    assert parity.disagreement_bound is None
    assert parity.worst_ulps == 0.0


def test_probabilities_through_exp_are_reported_in_ulps() -> None:
    model = textbook(GradientBoostingClassifier(n_estimators=8)).fit(features(), target())
    parity = verified(model, features()).parity
    assert parity.worst_ulps is not None
    assert 0 <= parity.worst_ulps < 100


def test_a_model_without_trees_is_verified_without_a_certificate() -> None:
    parity = verified(textbook(LogisticRegression()).fit(features(), target()), features()).parity
    assert parity.certificate is None
    assert parity.mined_rows > 0


def flipping_ties(model: Any) -> Any:
    """The original, but for rows with two equal classes, where it takes the second."""

    def original(rows: pd.DataFrame) -> Answers:
        answers = CONVERTER.answers(model, rows)
        assert answers.probabilities is not None
        assert answers.labels is not None
        tied = answers.probabilities[:, 0] == answers.probabilities[:, 1]
        return Answers(np.where(tied, model.classes_[1], answers.labels), answers.probabilities, None)

    return original


def test_a_tie_of_certified_trees_must_come_out_equal() -> None:
    X = features()[["visits"]]
    model = DecisionTreeClassifier(max_leaf_nodes=2, random_state=0).fit(X, np.arange(len(X)) // 2 % 2)
    model.tree_.value[:] = 0.5
    with pytest.raises(ParityBroken, match="another label"):
        verified(model, X, flipping_ties(model))
    found = verified(model, X, flipping_ties(model), exact=False)
    assert found.parity.ties > 0
    assert found.parity.disagreement_bound == 1.0
    assert found.undecided.any()


def test_rows_that_the_original_refuses_are_not_compared() -> None:
    X = features()[["area", "visits"]]
    model = RandomForestClassifier(5, random_state=0).fit(X, target())

    def original(rows: pd.DataFrame) -> Answers:
        if (rows["area"] > X["area"].max()).any():
            raise DataMismatch("an area that no data has")
        return CONVERTER.answers(model, rows)

    everything, known = verified(model, X).parity, verified(model, X, original).parity
    assert 0 < known.mined_rows < everything.mined_rows


def test_the_worst_row_is_kept() -> None:
    X = features()[["area", "visits"]]
    model = RandomForestRegressor(5, random_state=0).fit(X, target("value"))

    def original(rows: pd.DataFrame) -> Answers:
        values = CONVERTER.answers(model, rows).values
        assert values is not None
        return Answers(None, None, values + np.where(rows["area"] == X["area"].iloc[7], 1e-12, 0.0)[:, None])

    found = verified(model, X, original)
    assert found.columns["area"][found.worst] == X["area"].iloc[7]
    worst = found.parity.worst_row
    assert worst is not None
    assert worst.values[0] == X["area"].iloc[7]
    assert worst.original[0] != worst.converted[0] == model.predict(X.iloc[[7]])[0]
    assert found.parity.differs is not None
    assert found.parity.max_difference == pytest.approx(1e-12 / 20, rel=1)
    assert found.parity.worst_ulps is not None
    assert found.parity.worst_ulps > 100


def test_the_report_says_that_float32_columns_can_differ() -> None:
    X = features()[["area"]].astype("float32")
    parity = verified(LogisticRegression().fit(X, target()), X).parity
    assert parity.differs is not None
    assert "float32: the columns area" in parity.differs


@pytest.mark.parametrize(("wrong", "rows"), [(0, 1), (0, 240), (3, 500), (40, 100), (7, 7)])
def test_the_bound_is_that_of_clopper_and_pearson(wrong: int, rows: int) -> None:
    bound = disagreement_bound(wrong, rows)
    if wrong == rows:
        assert bound == 1.0
    else:
        assert binom.cdf(wrong, rows, bound) == pytest.approx(0.05)
