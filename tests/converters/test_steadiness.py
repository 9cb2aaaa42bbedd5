"""How far an original differs from itself, for a row alone and among others."""

# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import KernelPCA, MiniBatchNMF
from sklearn.preprocessing import StandardScaler

from edgekit_contracts.errors import ParityBroken
from edgekit_converters.registry import Answers
from edgekit_converters.steadiness import explained, rounding, spread
from tests.converters.transforms import numbers


def answers(step: Any) -> Any:
    def ask(rows: pd.DataFrame) -> Answers:
        return Answers(None, None, np.asarray(step.transform(rows)))

    return ask


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_original_that_answers_by_the_rows_beside_a_row_is_found_out() -> None:
    X = numbers()
    # It starts from the mean of all rows asked at once.
    original = answers(MiniBatchNMF(2, random_state=0, max_iter=5).fit(X))
    own = spread(original, X)
    assert own > 1e-9
    error = explained(ParityBroken("5 rows differ"), original, X, 1e-9)
    assert error.detail.startswith(
        "5 rows differ; the original itself answers a row alone and among others differently"
    )
    assert len(error.sentence) < 600
    assert explained(ParityBroken("5 rows differ"), original, X, 1.1 * own).detail == "5 rows differ"


def test_an_original_that_answers_each_row_by_itself_is_steady() -> None:
    X = numbers()
    original = answers(StandardScaler().fit(X))
    assert spread(original, X) == 0.0
    assert explained(ParityBroken("one row differs"), original, X, 1e-9).detail == "one row differs"


def test_float32_that_the_original_magnifies_is_found_out_and_float64_is_named() -> None:
    X = numbers().astype(np.float32)
    original = answers(KernelPCA(random_state=0).fit(X))
    rounds = rounding(original, X)
    assert rounds > 1e-4
    error = explained(ParityBroken("5 rows differ"), original, X, 1e-4)
    assert error.detail.startswith(
        "5 rows differ; the columns are float32, in which the original itself rounds by up to"
    )
    assert "astype('float64')" in error.next_step
    assert rounding(original, X.astype(np.float64)) == 0.0
