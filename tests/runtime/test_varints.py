"""The vectorised numbers beside the contract's, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit_contracts.counts import decode_varints, encode_varints
from edgekit_runtime.varints import decode_varint_block, decode_varint_narrow, encode_varint_block

LARGEST = 2**63 - 1
COUNTS = st.lists(
    st.one_of(st.integers(0, 127), st.integers(0, 2**14), st.sampled_from([127, 128, 2**14 - 1, 2**14, LARGEST])),
    max_size=300,
)


@settings(max_examples=200, deadline=None)
@given(values=COUNTS)
@example(values=[1000] * 300)
@example(values=[300] * 48 + [5] * 200)
@example(values=[300] * 49 + [5] * 200)
@example(values=list(range(5000)))
@example(values=[300, *[5] * 40] * 20)
@example(values=[300, 5] * 300)
@example(values=[2**31 + 5, 2**32 - 1, 2**32, 5, 128] * 60)
@example(values=[5] * 200 + [2**40, 300, 2**20] + [5] * 200)
@example(values=[2**20 + place for place in range(300)])
@example(values=[0, 1, 127, 128, 300, 2**32, 2**62, LARGEST])
def test_a_block_is_written_and_read_as_the_contract_does_it(values: list[int]) -> None:
    data = encode_varint_block(np.array(values, dtype=np.int64))
    assert data == encode_varints(values)
    assert decode_varint_block(data).tolist() == decode_varints(data, len(values)) == values


@settings(max_examples=100, deadline=None)
@given(windows=st.lists(COUNTS, min_size=1, max_size=6))
def test_runs_that_are_joined_are_read_in_one(windows: list[list[int]]) -> None:
    joined = b"".join(encode_varint_block(np.array(values, dtype=np.int64)) for values in windows)
    assert decode_varint_block(joined).tolist() == [value for values in windows for value in values]


@pytest.mark.parametrize(("largest", "kind"), [(127, "uint8"), (2**14 - 1, "uint16"), (2**28 - 1, "uint32")])
def test_a_block_is_read_no_wider_than_its_numbers_are(largest: int, kind: str) -> None:
    found = decode_varint_narrow(encode_varints([5, largest, 0]))
    assert (found.dtype.name, found.tolist()) == (kind, [5, largest, 0])
