from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit_contracts.errors import BadInput
from edgekit_contracts.manifest import Feature, Manifest, Tensor
from edgekit_runtime.encoding import Encoder, sum_of_squares
from tests import bundles

FEATURES = (
    Feature(name="a", dtype="float64", nullable=True),
    Feature(name="b", dtype="float64", nullable=False, unit="degC"),
    Feature(name="c", dtype="int64", nullable=False),
)


def manifest(dtype: str = "float64") -> Manifest:
    # The tensor's order need not be the features' order.
    tensor = Tensor(name="numbers", dtype="float32" if dtype == "float32" else "float64", features=("b", "a", "c"))
    return bundles.manifest(features=FEATURES, inputs=(tensor,))


def refusal(encode: Any, rows: Any) -> str | None:
    try:
        encode(rows)
    except BadInput as error:
        return f"{error.sentence}; {error.next_step}"
    return None


def test_every_way_in_makes_the_same_tensor_and_refuses_alike() -> None:
    encoder = Encoder(manifest())
    random = np.random.default_rng(0)
    strange = np.array([np.nan, np.inf, -np.inf, 1e39, -1e300, 3.4e38])
    refused = 0
    for _ in range(300):
        rows = random.normal(size=(random.integers(1, 4), 3)) * 10.0 ** random.integers(-300, 38)
        places = random.random(rows.shape) < 0.1
        rows[places] = random.choice(strange, places.sum())
        arrays = {name: rows[:, at] for at, name in enumerate(("b", "a", "c"))}
        lists = {
            name: [None if np.isnan(value) and at % 2 else value for at, value in enumerate(column.tolist())]
            for name, column in arrays.items()
        }
        sentences = [
            refusal(encoder.encode, arrays),
            refusal(encoder.encode, lists),
            refusal(encoder.encode_tensors, {"numbers": rows}),
            refusal(encoder.encode_tensors, {"numbers": rows.astype(object)}),
        ]
        assert len(set(sentences)) == 1
        plain = (np.isnan(rows) | (np.abs(rows) <= np.finfo(np.float32).max)).all()
        assert (sentences[0] is None) == bool(plain and not np.isnan(rows[:, [0, 2]]).any())
        if sentences[0] is None:
            for batch in (encoder.encode(arrays), encoder.encode(lists), encoder.encode_tensors({"numbers": rows})):
                assert batch.numbers is not None
                np.testing.assert_array_equal(batch.numbers, rows)
        else:
            refused += 1
    assert 50 < refused < 250


def test_a_refusal_names_the_unit_of_what_to_send() -> None:
    with pytest.raises(BadInput, match="feature 'b': is missing") as refused:
        Encoder(manifest()).encode({"a": [1.0], "b": [None], "c": [1]})
    assert refused.value.next_step == "send a value, in degC"


def test_a_number_that_is_none_is_refused_by_its_name_in_one_row_as_in_many() -> None:
    encoder = Encoder(manifest())
    for rows in (1, 2):
        for value, sentence in (("1", "'1' is not a number"), (10**400, "a value is not a 64-bit number")):
            columns: dict[str, Any] = {"a": [1.0] * rows, "b": [0.5] * rows, "c": [value] * rows}
            with pytest.raises(BadInput, match=f"feature 'c': {sentence}"):
                encoder.encode(columns)
    odd: dict[str, Any] = {"a": [True], "b": [np.int8(3)], "c": [np.float32(0.5)]}
    batch = encoder.encode(odd)
    assert batch.numbers is not None
    assert batch.numbers.tolist() == [[3, 1, 0.5]]


def test_a_tensor_of_float32_is_checked_before_it_is_rounded() -> None:
    encoder = Encoder(manifest("float32"))
    batch = encoder.encode_tensors({"numbers": np.array([[0.1, np.nan, 1e-60]])})
    assert batch.numbers is not None
    assert batch.numbers.dtype == np.float32
    with pytest.raises(BadInput, match="feature 'b': a value is beyond"):
        encoder.encode_tensors({"numbers": np.array([[1e39, 1.0, 1.0]])})


def test_the_sum_of_squares_is_nan_where_a_number_is_and_never_warns() -> None:
    for size in (3, 10_000):
        numbers = np.full(size, 1e300)
        assert sum_of_squares(numbers) == np.inf
        numbers[1] = -np.inf
        assert sum_of_squares(numbers) == np.inf
        numbers[-1] = np.nan
        assert np.isnan(sum_of_squares(numbers))
        assert sum_of_squares(np.full(size, 1e38, dtype=np.float32)) == np.inf
