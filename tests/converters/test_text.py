"""What takes texts apart is refused by its reason."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from edgekit_contracts.errors import ConversionRefused
from tests.converters.frames import converted, features, target


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (CountVectorizer(token_pattern="."), "regular expression"),
        (TfidfVectorizer(analyzer="char"), "regular expression"),
        (HashingVectorizer(n_features=8), "MurmurHash3"),
    ],
    ids=["counts", "weights", "hashes"],
)
def test_a_vectorizer_is_refused_by_its_reason(step: Any, why: str) -> None:
    model = make_pipeline(ColumnTransformer([("words", step, "lab")]), LogisticRegression()).fit(features(), target())
    with pytest.raises(ConversionRefused, match=why) as refusal:
        converted(model, features())
    assert "columntransformer/words" in refusal.value.step
