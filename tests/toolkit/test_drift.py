from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy import stats

from edgekit.monitor.drift import MINIMUM_ROWS, TOGETHER, compare, compare_counts
from edgekit_contracts.counts import FeatureWindow, WindowCounts, decode_counts
from edgekit_contracts.latency import percentile_ms
from edgekit_contracts.reference import LATENCY_BINS, Bins, Distance, FeatureBins, FeatureCounts, Reference
from tests.telemetry_samples import BINS, REFERENCE, window

FEATURES, BINS_EACH, REFERENCE_ROWS = 20, 20, 5000
EDGES = stats.norm.ppf(np.arange(1, BINS_EACH) / BINS_EACH)


def histogram(values: np.ndarray) -> tuple[int, ...]:
    return tuple(np.bincount(np.searchsorted(EDGES, values), minlength=BINS_EACH).tolist())


def reference_of(generator: np.random.Generator) -> Reference:
    bins = Bins(
        features=tuple(FeatureBins(name=f"f{i}", edges=tuple(EDGES)) for i in range(FEATURES)),
        classes=("a", "b"),
        score_edges=tuple(EDGES),
    )
    draws = generator.normal(size=(FEATURES + 1, REFERENCE_ROWS))
    return Reference(
        bins=bins,
        rows=REFERENCE_ROWS,
        features=tuple(FeatureCounts(bins=histogram(row), null=0) for row in draws[:-1]),
        classes=(REFERENCE_ROWS // 2, REFERENCE_ROWS // 2),
        scores=histogram(draws[-1]),
    )


def window_of(generator: np.random.Generator, n: int, shift: float = 0.0) -> WindowCounts:
    draws = generator.normal(size=(FEATURES + 1, n))
    draws[0] += shift
    ones = int(generator.binomial(n, 0.5))
    return WindowCounts(
        features=tuple(FeatureWindow(bins=histogram(row), null=0, invalid=0, out_of_range=0) for row in draws[:-1]),
        classes=(ones, n - ones),
        scores=histogram(draws[-1]),
        output_nulls=0,
        abstained=0,
        resent=0,
        latency=(0,) * LATENCY_BINS,
    )


@pytest.mark.parametrize("n", [50, 500])
def test_without_drift_false_alarms_keep_within_alpha(n: int) -> None:
    # A binomial bound at one in ten thousand on the count of windows with any alarm, each with a fresh reference; the
    # floor of the effect size is off, so that the tests themselves are measured.
    generator = np.random.default_rng(20261123)
    alpha, windows = 0.05, 200
    alarms = sum(
        any(t.drifted for t in compare(window_of(generator, n), reference_of(generator), alpha=alpha, floor=0.0))
        for _ in range(windows)
    )
    assert alarms <= stats.binom.ppf(1 - 1e-4, windows, alpha)


def test_half_a_deviation_at_500_rows_is_found_and_named() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        tested = compare(window_of(generator, 500, shift=0.5), reference_of(generator))
        assert tested[0].drifted
        assert tested[0].effect > 0.02


def test_a_trifle_is_not_drift_however_many_rows_there_are() -> None:
    generator = np.random.default_rng(2)
    (feature, *_) = compare(window_of(generator, 100_000, shift=0.1), reference_of(generator))
    assert feature.p is not None
    assert feature.p < 1e-4
    assert feature.effect < 0.02
    assert not feature.drifted


DISTANCE = Distance(center=(0.0,), scale=(1.0,), components=(), weights=(), rest=1.0, edges=(1.0, 4.0))


def test_distances_that_grew_are_drift_of_the_features_together_alone() -> None:
    generator = np.random.default_rng(8)
    known = msgspec.structs.replace(reference_of(generator), distance=DISTANCE, distances=(3000, 1500, 500))
    *others, together = compare(window_of(generator, 500), known, distances=(250, 150, 100))
    assert (together.name, together.kind, together.rows, together.drifted) == (TOGETHER, "distance", 500, True)
    assert not any(one.drifted for one in others)
    assert not compare(window_of(generator, 500), known, distances=(300, 150, 50))[-1].drifted
    assert TOGETHER not in [one.name for one in compare(window_of(generator, 500), known)]


def test_a_sensor_that_sticks_in_the_middle_is_found_by_its_spread() -> None:
    generator = np.random.default_rng(3)
    stuck = generator.normal(size=300)
    stuck[:150] *= 0.1
    p, _ = compare_counts(histogram(stuck), histogram(generator.normal(size=5000)))
    assert p is not None
    assert p < 1e-6


def test_missing_values_count_as_one_more_bin() -> None:
    reference = (500,) * 10
    p, effect = compare_counts((45,) * 10, reference, missing=(50, 0))
    assert p is not None
    assert p < 1e-10
    assert effect > 0.1
    assert compare_counts((50,) * 10, reference)[0] == 1.0


def test_a_few_missing_values_where_there_were_none_are_found() -> None:
    # 2 % of 500: too few for a bin of their own in the chi-squared test.
    p, effect = compare_counts((49,) * 10, (500,) * 10, missing=(10, 0))
    assert p is not None
    assert p < 1e-6
    assert effect > 0.02


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1])
def test_features_that_are_rarely_true_give_no_more_alarms_than_alpha(share: float) -> None:
    generator = np.random.default_rng(7)
    alpha, trials = 0.01, 1200
    pairs = zip(generator.binomial(100, share, trials), generator.binomial(5000, share, trials), strict=True)
    found = [compare_counts((100 - a, a), (5000 - b, b))[0] for a, b in pairs]
    assert sum(p is not None and p < alpha for p in found) <= stats.binom.ppf(1 - 1e-4, trials, alpha)


def test_a_constant_that_begins_to_vary_is_found() -> None:
    p, effect = compare_counts((90, 10), (1000, 0))
    assert p is not None
    assert p < 1e-6
    assert effect > 0.1


def test_categories_have_no_order() -> None:
    generator = np.random.default_rng(4)
    seen: list[int] = generator.multinomial(200, [0.25] * 4).tolist()
    expected: list[int] = generator.multinomial(2000, [0.25] * 4).tolist()
    shuffle = [2, 0, 3, 1]
    plain = compare_counts(seen, expected, ordered=False)
    shuffled = compare_counts([seen[i] for i in shuffle], [expected[i] for i in shuffle], ordered=False)
    assert shuffled == pytest.approx(plain)
    assert plain[0] == pytest.approx(stats.chi2_contingency([seen, expected], correction=False)[1])


def test_the_trend_is_the_rank_sum_test_that_scipy_gives_on_raw_values() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.normal(0.4, 1, 300), generator.normal(0, 1, 900)
    raw = stats.mannwhitneyu(
        np.searchsorted(EDGES, a), np.searchsorted(EDGES, b), use_continuity=False, method="asymptotic"
    )
    p, _ = compare_counts(histogram(a), histogram(b))
    assert p == pytest.approx(3 * raw.pvalue, rel=1e-6)


def test_too_few_rows_are_not_tested() -> None:
    assert compare_counts((MINIMUM_ROWS - 1, 0), (500, 500)) == (None, 0.0)
    assert compare_counts((MINIMUM_ROWS, 0), (500, 500))[0] is not None
    assert compare_counts((500, 500), (20, 20))[0] is None


@pytest.mark.parametrize(
    ("window_counts", "reference"),
    [((100,), (1000,)), ((100, 0, 0), (1000, 0, 0)), ((0, 0, 100), (0, 1, 999)), ((99, 1), (1000, 0))],
)
def test_degenerate_bins_give_no_alarm_and_no_warning(
    window_counts: tuple[int, ...], reference: tuple[int, ...]
) -> None:
    p, _ = compare_counts(window_counts, reference)
    assert p is not None
    assert p > 0.01


def test_a_feature_that_is_all_missing_is_drift_not_a_fault() -> None:
    p, effect = compare_counts((0, 0), (500, 500), missing=(100, 0))
    assert p is not None
    assert p < 1e-10
    assert effect > 1


def test_score_and_classes_are_tested_too() -> None:
    counts = decode_counts(window()[0].counts, BINS, window()[1])
    assert [(t.name, t.kind) for t in compare(counts, REFERENCE)] == [
        ("bmi", "feature"),
        ("sex", "feature"),
        ("score", "score"),
        ("classes", "classes"),
    ]


def test_percentiles_lie_within_one_bin_of_the_truth() -> None:
    generator = np.random.default_rng(6)
    micros = generator.lognormal(6, 1, 20_000)
    edges = np.logspace(0, 7, 71)
    counts = np.bincount(np.searchsorted(edges, micros), minlength=LATENCY_BINS).tolist()
    for percent in (1, 50, 90, 99, 99.9):
        found = percentile_ms(counts, percent)
        assert found is not None
        assert abs(np.log10(found * 1000 / np.percentile(micros, percent))) < 0.1


def test_percentiles_at_the_ends() -> None:
    nothing = [0] * LATENCY_BINS
    assert percentile_ms(nothing, 50) is None
    assert percentile_ms([5, *nothing[1:]], 50) == pytest.approx(0.001)
    assert percentile_ms([*nothing[1:], 5], 99) == pytest.approx(10_000)
    with pytest.raises(ValueError, match="latency bins"):
        percentile_ms([1, 2, 3], 50)
