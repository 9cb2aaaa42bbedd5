from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from edgekit.collector.sums import Sums
from edgekit_contracts.counts import decode_counts, decode_varints, encode_varints
from edgekit_contracts.errors import FormatError
from edgekit_contracts.reference import Bins, FeatureBins
from edgekit_contracts.telemetry import Window
from tests.telemetry_samples import BINS, window

REGRESSION = Bins(features=(FeatureBins(name="x", edges=(0.0,)),), classes=(), score_edges=())


def outcome(data: bytes, n: int, sums: bool) -> int | str:
    try:
        return Sums(BINS).check(data, n) if sums else sum(decode_counts(data, BINS, n).latency)
    except FormatError as error:
        return str(error)


@pytest.mark.parametrize("rows", [4, 40, 4_000, 400_000, 40_000_000])
def test_counts_are_judged_as_the_contract_s_reader_judges_them(rows: int) -> None:
    body, n = window((rows // 4,) * 4, calls=min(rows, 1000))
    assert outcome(body.counts, n, sums=True) == min(rows, 1000)
    dice = random.Random(rows)
    for _ in range(300):
        data = bytearray(body.counts)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(data))
            data[at : at + dice.randint(0, 1)] = bytes(
                dice.choice((0, 1, 127, 128, 255)) for _ in range(dice.randint(0, 2))
            )
        given = n + dice.choice((0, 0, 1))
        assert outcome(bytes(data), given, sums=True) == outcome(bytes(data), given, sums=False)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80" * 300, b"\xff" * 9 + b"\x7f" + b"\x00" * 100])
def test_what_is_no_run_of_counts_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Sums(BINS).check(data, 4)


def test_a_regression_has_no_classes() -> None:
    data = bytes([3, 1, 0, 0, 2]) + bytes([4, 0, 0, 1]) + bytes([5]) + bytes(71)
    assert Sums(REGRESSION).check(data, 4) == sum(decode_counts(data, REGRESSION, 4).latency) == 5
    with pytest.raises(FormatError, match="add up to 5"):
        Sums(REGRESSION).check(data, 5)


@pytest.mark.parametrize("at", [0, 11, 15])
def test_counts_that_add_up_only_beyond_64_bits_are_refused(at: int) -> None:
    """Of a feature, of a score, and of the latency."""
    body, n = window()
    counts = decode_varints(body.counts, 93)
    # Four times 2**62 is nothing in 64 bits.
    for place in range(at, at + 4):
        counts[place] += 2**62
    with pytest.raises(FormatError):
        Sums(BINS).check(encode_varints(counts), n)


@pytest.mark.parametrize("wrong", [0, 1, 40, 200])
def test_of_many_windows_those_are_right_that_are_right_alone(wrong: int) -> None:
    dice = random.Random(wrong)
    windows, rows = [], []
    for place in range(200):
        body, n = window((dice.randrange(1000), 7, 7, 7), calls=dice.randrange(1, 1000))
        counts = bytearray(body.counts)
        if place < wrong:
            counts[dice.randrange(len(counts))] ^= dice.choice((1, 2, 64, 128, 255))
        moments = dice.choice((b"", np.array([[25, 3, 18, 40]], "<f4").tobytes(), bytes(dice.choice((16, 15)))))
        windows.append(msgspec.structs.replace(body, counts=bytes(counts), moments=moments))
        rows.append(n)
    mixed = dice.sample(range(200), 200)
    windows, rows = [windows[at] for at in mixed], [rows[at] for at in mixed]

    def alone(body: Window, n: int) -> bool:
        try:
            return len(body.moments) != 15 and Sums(BINS).check(body.counts, n, body.moments) == body.software.calls
        except FormatError:
            return False

    found = Sums(BINS).right(windows, rows)
    assert found == [alone(body, n) for body, n in zip(windows, rows, strict=True)]
    assert set(found) == {True, False}
