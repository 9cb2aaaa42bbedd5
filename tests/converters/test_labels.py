"""LabelEncoder and LabelBinarizer alone answer each label of one column as the original answers it alone."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import LabelBinarizer, LabelEncoder, MultiLabelBinarizer

from edgekit_contracts.errors import ConversionRefused, DataMismatch
from edgekit_converters.draft import draft_manifest
from edgekit_converters.verify import verify
from edgekit_runtime.engine import Engine
from tests.converters.frames import CONVERTER, TARGET, assert_same, converted, run

COLUMNS: dict[str, Any] = {
    "texts": np.array(["b", "a", "ü", "", "b"], dtype=object),
    "two texts": np.array(["no", "yes", "no"], dtype=object),
    "one text": np.array(["same", "same"], dtype=object),
    "whole numbers": np.array([10, 3, -34, 0, 3]),
    "two whole numbers": np.array([1, 0, 0, 1]),
    "truth values": np.array([True, False, True]),
    "numbers": np.array([1.0, 3.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("name", list(COLUMNS))
@pytest.mark.parametrize(
    "step",
    [LabelEncoder(), LabelBinarizer(), LabelBinarizer(neg_label=-7, pos_label=0), LabelBinarizer(sparse_output=True)],
    ids=["encoder", "binarizer", "binarizer to others", "sparse binarizer"],
)
def test_labels_of_every_type_pass_the_builds_verification(step: Any, name: str) -> None:
    frame = pd.DataFrame({"label": COLUMNS[name]})
    step.fit(COLUMNS[name])
    conversion = assert_same(step, frame, exact=True)
    engine = Engine(conversion.onnx, draft_manifest("labels", "1.0", conversion, TARGET.onnxruntime))
    verify(engine, lambda rows: CONVERTER.answers(step, rows), frame, precision=conversion.precision, model=step)


def test_single_precision_and_whole_classes_meet_the_numbers_as_the_original_makes_them() -> None:
    classes = np.array([1.2, 3.4, 5.4], dtype=np.float32)
    assert_same(LabelEncoder().fit(classes), pd.DataFrame({"label": classes.astype(np.float64)}), exact=None)
    assert_same(LabelEncoder().fit([1, 2]), pd.DataFrame({"label": [1.5, 2.0]}), exact=True)


def test_a_label_that_was_not_learned_is_refused_by_the_manifest_or_is_in_no_column() -> None:
    frame = pd.DataFrame({"label": COLUMNS["texts"]})
    encoder = converted(LabelEncoder().fit(COLUMNS["texts"]), frame)
    assert encoder.features[0].closed
    assert encoder.features[0].categories == ("", "a", "b", "ü")
    for name in ("texts", "two texts"):
        step = LabelBinarizer().fit(COLUMNS[name])
        assert not run(assert_same(step, frame), step, pd.DataFrame({"label": ["other"]}))["value"].any()


def test_what_is_there_or_not_keeps_its_columns() -> None:
    rows = np.array([[0, 1, 1], [1, 0, 0]])
    assert_same(LabelBinarizer(neg_label=-1, pos_label=2).fit(rows), rows, exact=True)


def test_several_columns_and_lists_of_labels_are_refused() -> None:
    with pytest.raises(DataMismatch, match="one column of labels"):
        converted(LabelEncoder().fit(["a"]), pd.DataFrame({"a": ["a"], "b": ["a"]}))
    with pytest.raises(ConversionRefused, match="lists of labels"):
        converted(MultiLabelBinarizer().fit([["a"]]), pd.DataFrame({"a": ["a"]}))
