from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgekit_runtime
from edgekit_contracts.errors import BadInput, GoldenMismatch, Refused
from edgekit_contracts.manifest import MISSING_TEXT
from edgekit_runtime.engine import Engine
from edgekit_runtime.selftest import check_golden
from tests import bundles


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), bundles.manifest())


def row(**values: Any) -> dict[str, list[Any]]:
    return {name: [value] for name, value in ({"age": 30.0, "bmi": 22.0, "sex": "f"} | values).items()}


def test_it_answers_like_numpy(engine: Engine) -> None:
    answers = engine.predict(bundles.ROWS)
    assert answers.probabilities is not None
    np.testing.assert_allclose(answers.probabilities, bundles.answers(bundles.ROWS), atol=1e-12)


def test_arrays_lists_and_tensors_give_the_same_answers(engine: Engine) -> None:
    lists = engine.predict(bundles.ROWS).scores
    arrays = engine.predict({name: np.array(column, dtype=object) for name, column in bundles.ROWS.items()}).scores
    numbers = np.array([bundles.ROWS["age"], [np.nan if v is None else v for v in bundles.ROWS["bmi"]]]).T
    text = np.array([["f"], ["m"], [None], ["x"]], dtype=object)
    tensors = engine.run(engine.encode_tensors({"numbers": numbers, "text": text})).scores
    assert lists.tolist() == arrays.tolist() == tensors.tolist()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"age": None}, "feature 'age': is missing, and the model has no answer for that"),
        ({"age": "30"}, "feature 'age': '30' is not a number"),
        ({"age": float("inf")}, "feature 'age': a value is beyond 3.4e38"),
        ({"bmi": -1e39}, "feature 'bmi': a value is beyond 3.4e38"),
        ({"age": 10**400}, "feature 'age': a value is not a 64-bit number"),
        ({"sex": 1.0}, "feature 'sex': 1.0 is not text"),
        ({"sex": MISSING_TEXT}, "feature 'sex': .* is reserved"),
        ({"sex": "x" * 5000}, "feature 'sex': .* longer than 4096 characters"),
    ],
)
def test_a_value_without_an_answer_is_refused_by_its_feature(
    engine: Engine, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        engine.predict(row(**values))


def test_columns_that_do_not_fit_are_refused_by_name(engine: Engine) -> None:
    with pytest.raises(BadInput, match="the request lacks 'bmi', 'sex'"):
        engine.predict({"age": [1.0]})
    with pytest.raises(BadInput, match="the model has no feature 'shoe'"):
        engine.predict(row() | {"shoe": [1]})
    with pytest.raises(BadInput, match=r"different lengths \(1, 2\)"):
        engine.predict(row() | {"age": [1, 2]})
    with pytest.raises(BadInput, match="no rows"):
        engine.predict({"age": [], "bmi": [], "sex": []})
    with pytest.raises(BadInput, match=r"tensor 'numbers' has shape \[1, 3\]; expected \[rows, 2\]"):
        engine.encode_tensors({"numbers": np.zeros((1, 3)), "text": np.array([["f"]], dtype=object)})


def test_a_closed_feature_refuses_what_the_original_would(engine: Engine) -> None:
    closed = [msgspec.structs.replace(f, closed=True) if f.name == "sex" else f for f in bundles.FEATURES]
    strict = Engine(bundles.model(), bundles.manifest(features=tuple(closed)))
    with pytest.raises(BadInput, match="feature 'sex': 'x' is unknown to the model"):
        strict.predict(row(sex="x"))
    assert strict.predict(row(sex=None)).labels is not None


def test_a_file_that_is_no_model_is_refused_in_a_sentence() -> None:
    with pytest.raises(Refused, match=r"onnxruntime .* does not load tiny 1\.0"):
        Engine(b"not a model", bundles.manifest())


def test_the_golden_set_passes_on_the_right_model(engine: Engine) -> None:
    assert check_golden(engine, bundles.golden()).max_difference < 1e-12


def test_a_wrong_probability_or_label_fails_the_self_test(engine: Engine) -> None:
    right = bundles.golden()
    off = ((right.probabilities[0][0] + 1e-6, right.probabilities[0][1]), *right.probabilities[1:])
    with pytest.raises(GoldenMismatch, match=r"1 of 4 golden rows differ .*off by 1e-06"):
        check_golden(engine, bundles.golden(probabilities=off))
    swapped = ("no" if right.labels[0] == "yes" else "yes", *right.labels[1:])
    with pytest.raises(GoldenMismatch, match="1 of 4"):
        check_golden(engine, bundles.golden(labels=swapped))


def test_load_refuses_a_bundle_that_answers_wrongly_here(tmp_path: Path) -> None:
    right = bundles.golden()
    swapped = ("no" if right.labels[0] == "yes" else "yes", *right.labels[1:])
    made = bundles.make(tmp_path, golden_set=bundles.golden(labels=swapped))
    with pytest.raises(GoldenMismatch, match=r"tiny 1\.0 fails its self-test here"):
        edgekit_runtime.load(made.path, keys=[made.public])


def test_load_gives_an_engine_that_answers(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    with edgekit_runtime.load(made.path, keys=[made.public]) as engine:
        labels = engine.predict(row()).labels
        assert labels is not None
        assert labels.tolist() == ["no"]
