"""Models of dictionaries read a table of their keys, and texts hash at inference to the columns that they had."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import murmurhash3_32

from edgekit_contracts.errors import ConversionRefused, DataMismatch
from edgekit_converters.data import as_frame
from edgekit_converters.draft import draft_manifest
from edgekit_converters.verify import verify
from edgekit_runtime.engine import Engine
from tests.converters.frames import CONVERTER, TARGET, assert_same, converted, run

STEPS = [
    DictVectorizer(),
    DictVectorizer(sparse=False, sort=False, dtype=np.float32, separator="/"),
    FeatureHasher(n_features=16),
    FeatureHasher(n_features=7, alternate_sign=False, dtype=np.float32),
]
CITIES = ["Rome", "Bern", "Oslo", "Zürich", "東京", ""]


def records() -> list[dict[str, Any]]:
    """Texts, numbers, whole numbers and truth values, each of which some rows lack."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(150):
        row = {
            "city": str(random.choice(CITIES)),
            "age": int(random.integers(0, 90)),
            "weight": float(random.normal(70, 10)),
            "member": bool(random.random() > 0.5),
        }
        found.append({key: value for key, value in row.items() if random.random() > 0.15})
    return found


def target() -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, 3, 150)


def names() -> pd.DataFrame:
    """Two columns of texts."""
    random = np.random.default_rng(0)
    words = [*CITIES, "a" * 50, "e\u0301", "\x00", "=", "-"]
    return pd.DataFrame({name: random.choice(words, 150).astype(object) for name in ("one", "other")})


@pytest.mark.parametrize("step", STEPS, ids=["names", "names in float32", "hashes", "hashes in float32"])
def test_dictionaries_give_the_columns_of_the_original(step: Any) -> None:
    conversion = assert_same(step.fit(records()), records())
    theirs = step.transform(records())
    dense = np.asarray(theirs.todense()) if sparse.issparse(theirs) else theirs
    assert np.array_equal(run(conversion, step, records())["value"], dense)
    assert all(feature.nullable for feature in conversion.features)
    assert not conversion.delegated


@pytest.mark.parametrize("step", STEPS, ids=["names", "names in float32", "hashes", "hashes in float32"])
@pytest.mark.parametrize(
    "last", [LogisticRegression(C=1e-3), DecisionTreeClassifier(max_depth=6)], ids=["linear", "tree"]
)
def test_a_pipeline_over_dictionaries_passes_the_builds_verification(step: Any, last: Any) -> None:
    model = make_pipeline(step, last).fit(records(), target())
    frame = as_frame(records())
    conversion = CONVERTER.convert(model, frame, TARGET)
    engine = Engine(conversion.onnx, draft_manifest("records", "1.0", conversion, TARGET.onnxruntime))
    verified = verify(
        engine, lambda rows: CONVERTER.answers(model, rows), frame, precision=conversion.precision, model=model
    )
    assert verified.parity.label_mismatches == 0


def test_a_key_and_its_text_may_stand_under_the_name_of_another_key() -> None:
    rows = [{"a": "b", "a=b": 2.0, "c": 1.0}, {"a": "x", "a=b": 3.0}, {"a": "b"}]
    step = DictVectorizer(sparse=False).fit(rows)
    assert step.transform(rows)[:, step.vocabulary_["a=b"]].tolist() == [3.0, 3.0, 1.0]
    assert_same(step, rows, exact=True)


def test_keys_that_are_no_texts_are_columns_of_their_text() -> None:
    rows = [{1: 1.0, 2: 200.0}, {1: 3.0, 3: 1.0}]
    step = DictVectorizer(sparse=False).fit(rows)
    conversion = assert_same(step, rows, exact=True)
    assert [feature.name for feature in conversion.features] == ["1", "2", "3"]


def test_a_table_of_the_keys_stands_for_the_dictionaries() -> None:
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=1e-3)).fit(records(), target())
    frame = pd.DataFrame(records()).iloc[:, ::-1]
    assert_same(model, frame)


def test_a_key_of_training_that_the_data_lacks_is_refused() -> None:
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=1e-3)).fit(records(), target())
    with pytest.raises(ConversionRefused, match="no column for that"):
        converted(model, as_frame(records()).drop(columns="age"))


@pytest.mark.parametrize("missing", [None, float("nan")], ids=["None", "NaN"])
def test_a_missing_value_that_is_written_down_is_refused(missing: Any) -> None:
    with pytest.raises(DataMismatch, match="a dictionary holds None or NaN under 'b'"):
        as_frame([{"a": 1.0, "b": missing}, {"a": 2.0, "b": 1.0}])


@pytest.mark.parametrize("signs", [True, False])
@pytest.mark.parametrize("width", [1, 8, 1000])
def test_texts_hash_to_the_columns_of_the_original(signs: bool, width: int) -> None:
    step = FeatureHasher(n_features=width, input_type="string", alternate_sign=signs)
    rows = names().to_numpy()
    conversion = assert_same(step, rows, exact=True)
    assert not any(feature.nullable for feature in conversion.features)


def test_a_hash_of_the_least_integer_is_where_the_original_has_it() -> None:
    # 'abs' of -2 ** 31 has no int32; scikit-learn's special case is its true absolute value.
    assert murmurhash3_32("akqlrggi", seed=0) == -(2**31)
    step = FeatureHasher(n_features=6, input_type="string")
    assert_same(step, np.array([["akqlrggi"], ["a"]], dtype=object), exact=True)


def test_columns_of_a_frame_are_hashed_behind_an_imputer() -> None:
    frame = names().assign(number=np.random.default_rng(0).normal(size=150))
    frame.loc[::7, "one"] = np.nan
    hashed = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?"), FeatureHasher(n_features=32, input_type="string")
    )
    before = ColumnTransformer([("hashed", hashed, ["one", "other"]), ("number", "passthrough", ["number"])])
    model = make_pipeline(before, LogisticRegression(C=1e-3)).fit(frame, target())
    conversion = assert_same(model, frame)
    assert {one.name: one.nullable for one in conversion.features} == {"one": True, "other": True, "number": False}


@pytest.mark.parametrize(
    ("step", "rows", "why"),
    [
        (FeatureHasher(input_type="pair"), [[("a", 1)]], "3 dimensions"),
        (FeatureHasher(n_features=2**21), [{"a": 1.0}], "a row of them is dense"),
        (FeatureHasher(n_features=8, dtype=np.int64), [{"a": 1.5}], "cuts numbers off"),
        (DictVectorizer(dtype=np.int64), [{"a": 1.5}], "cuts numbers off"),
    ],
    ids=["pairs", "width", "hashes", "names"],
)
def test_what_reads_no_table_or_cuts_numbers_off_is_refused(step: Any, rows: Any, why: str) -> None:
    step.fit(rows)
    with pytest.raises((ConversionRefused, DataMismatch), match=why):
        converted(step, rows)
