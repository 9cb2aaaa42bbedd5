"""The pure parts of shadow and canary: agreement, shares of keys, spending."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from edgekit_runtime.strategies.agreement import Agreement, share
from edgekit_runtime.strategies.budget import LEVEL_MIN, SAMPLES_MIN, SLICE_S, Brake, TokenBucket
from edgekit_runtime.strategies.canary import is_chosen, point


@given(st.integers(1, 100_000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_interval_is_that_of_clopper_and_pearson(rows: int, part: float) -> None:
    agreed = round(part * rows)
    found = share(agreed, rows)
    assert found.low == pytest.approx(beta.ppf(0.025, agreed, rows - agreed + 1) if agreed else 0, abs=1e-9)
    assert found.high == pytest.approx(beta.ppf(0.975, agreed + 1, rows - agreed) if agreed < rows else 1, abs=1e-9)


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.99, 0.999, 0.9999])
def test_the_interval_covers_any_truth_at_least_95_times_in_100(truth: float) -> None:
    agreed = np.arange(401)
    covers = np.array([(s := share(int(k), 400)).low <= truth <= s.high for k in agreed])
    assert binom.pmf(agreed, 400, truth)[covers].sum() >= 0.95


def test_agreement_is_counted_overall_and_by_the_live_answer() -> None:
    agreement = Agreement()
    assert agreement.overall.value is None
    agreement.add(["a", "a", "b"], [True, False, True])
    agreement.add(["b"], [True])
    assert (agreement.overall.agreed, agreement.overall.rows) == (3, 4)
    assert {group: (one.agreed, one.rows) for group, one in agreement.groups.items()} == {"a": (1, 2), "b": (2, 2)}


@pytest.mark.parametrize("part", [0.0, 0.01, 0.25, 0.5, 1.0])
def test_a_canary_answers_its_share_of_the_keys(part: float) -> None:
    keys = 40_000
    chosen = sum(is_chosen(b"machine-%d" % key, b"trial", part) for key in range(keys))
    assert abs(chosen - part * keys) <= 4 * math.sqrt(keys * part * (1 - part))


@given(st.binary(), st.binary(max_size=64), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_the_keys_of_a_smaller_one(key: bytes, salt: bytes, one: float, other: float) -> None:
    assert 0 <= point(key, salt) < 1
    if is_chosen(key, salt, min(one, other)):
        assert is_chosen(key, salt, max(one, other))


def test_another_salt_draws_other_keys() -> None:
    both = sum(is_chosen(b"%d" % key, b"a", 0.5) and is_chosen(b"%d" % key, b"b", 0.5) for key in range(4000))
    assert 900 < both < 1100


@given(st.floats(0.01, 100), st.floats(0.1, 10), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=30))
def test_a_bucket_never_gives_more_than_its_depth_and_what_flowed_in(
    rate: float, depth: float, steps: list[tuple[float, float]]
) -> None:
    bucket, now, taken = TokenBucket(rate, depth), 0.0, 0.0
    bucket.available(now)
    for wait, tokens in steps:
        now += wait
        taken += tokens if bucket.take(tokens, now) else 0.0
        assert taken <= depth + rate * now + 1e-6
        assert bucket.available(now) >= 0


def test_what_was_spent_beyond_the_tokens_is_paid_off_first() -> None:
    bucket = TokenBucket(rate=0.1, depth=1.0)
    bucket.spend(3.0, 0.0)
    assert bucket.available(0.0) == pytest.approx(-2.0)
    assert bucket.available(10.0) == pytest.approx(-1.0)
    assert not bucket.take(0.1, 20.0)
    assert bucket.take(0.1, 21.5)


def latencies(brake: Brake, slowdown: float, seed: int, *, rows: int = SAMPLES_MIN) -> None:
    random = np.random.default_rng(seed)
    for at_work in (True, False):
        for latency in random.lognormal(4, 0.5, rows) * (slowdown if at_work else 1.0):
            brake.note(float(latency), at_work=at_work)


def test_the_brake_takes_work_and_rest_in_turns() -> None:
    brake = Brake()
    assert [brake.is_at_work(slot * SLICE_S + 0.1) for slot in range(6)] == [True, True, True, False, True, True]


def test_the_brake_halves_what_a_shadow_may_do_where_it_delays_the_answers() -> None:
    brake = Brake()
    for round_ in range(8):
        latencies(brake, 3.0, round_)
        brake.judge()
    assert brake.level == LEVEL_MIN


def test_the_brake_lets_a_harmless_shadow_work_and_recovers() -> None:
    brake = Brake(level=LEVEL_MIN)
    for round_ in range(60):
        latencies(brake, 1.0, round_)
        brake.judge()
    assert brake.level > 0.5


def test_the_brake_waits_for_enough_requests() -> None:
    brake = Brake()
    latencies(brake, 9.0, 1, rows=SAMPLES_MIN - 1)
    brake.judge()
    assert brake.level == 1.0
