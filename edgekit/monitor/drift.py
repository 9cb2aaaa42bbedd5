"""Drift, tested on counts: three tests on each feature, the score, the classes and the distances.

Let c be a window's counts on B bins (n rows), r the reference's (m rows), both with their missing values as one more
bin.

1. *Trend*: did the values move up or down? Wilcoxon's rank-sum test on the ordered bins: with s_b the mid-rank of bin
   b in the pooled counts, scaled to (0, 1), `z = (mean_c(s) - mean_r(s)) / sqrt(S2 (1/n + 1/m))`, S2 the pooled
   variance of s. Source: Wilcoxon 1945, Mann and Whitney 1947; ties by mid-ranks as in Lehmann, "Nonparametrics",
   1975, section 1.4.
2. *Spread*: did they spread or gather? The same with scores (s - 1/2)^2. Source: Mood 1954, Ann. Math. Statist. 25.
3. *Anything else*: chi-squared of homogeneity of the 2 x B table, bins with an expected count below 2 joined to their
   neighbour. Source: Pearson 1911; the pooling keeps the tail calibrated (telemetry facts, 5.3). Where only two bins
   are left, Fisher's exact test takes its place (Fisher 1935): the chi-squared tail is wrong by a factor of 50 at an
   expected count of 2, and yes/no features with a rare yes are common.

Where values are missing, missing against present is tested too, exactly: a sensor that begins to drop 2 % of its
readings would vanish in the pooling.

Text has no order: chi-squared alone. The variance is that of two samples, 1/n + 1/m, because the reference is a
sample too. Within a feature p = min(1, k * smallest of the k tests made); over features alpha is divided by the
number of tests (Bonferroni, which holds under any dependence). Measured on no drift: 3.5 to 5 % alarms at alpha = 5 %
for every n >= 50, where fixed PSI thresholds give up to 100 % (telemetry facts, 5.1).

The effect size is the population stability index less its expectation under no drift, `PSI - (B - 1)(1/n + 1/m)`,
because PSI ~ (1/n + 1/m) chi2 with B-1 degrees of freedom. Source: Yurdakul 2018, "Statistical properties of PSI".
Drift is reported where p < alpha / tests and the effect reaches a floor: a p-value alone fires on trifles once n is
large, an index alone fires on noise while n is small.

One more test looks at the distances of the rows from the reference (`reference.Distance`): where only the correlation
of features changed, it alone can see it, and does (telemetry facts, 5.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgekit_contracts.counts import WindowCounts
from edgekit_contracts.reference import Reference

ALPHA: Final = 0.01
EFFECT_FLOOR: Final = 0.02
MINIMUM_ROWS: Final = 50
TOGETHER: Final = "features together"
"""Names the test of the distances."""
EXPECTED_MINIMUM: Final = 2.0

Counts = NDArray[np.float64]


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one feature, on the score or on the classes."""

    name: str
    kind: Literal["feature", "score", "classes", "distance"]
    rows: int
    p: float | None
    """Before the division of alpha; None where fewer than 50 rows, or nothing to compare, allow no test."""
    effect: float
    """Debiased population stability index, never below 0."""
    drifted: bool


def compare_counts(
    window: Sequence[int], reference: Sequence[int], *, missing: tuple[int, int] = (0, 0), ordered: bool = True
) -> tuple[float | None, float]:
    """Tests one run of bins.

    Args:
        window: Counts of the window, in the bins' order; shape (B,).
        reference: Counts of the reference; shape (B,).
        missing: Missing values in the window and in the reference.
        ordered: Whether the order of the bins means anything.

    Returns:
        p (None where no test is possible) and the effect size.
    """
    c, r = np.asarray(window, np.float64), np.asarray(reference, np.float64)
    values = np.stack([c, r])
    presence = np.stack([values.sum(axis=1), np.asarray(missing, np.float64)], axis=1)
    if presence.sum(axis=1).min() < MINIMUM_ROWS:
        return None, 0.0
    whole = _pooled(np.column_stack([values, presence[:, 1]]))
    parts = [_homogeneity(whole)]
    effect = _effect(whole)
    values = _pooled(values)
    # With two bins left there is one question only, and `_homogeneity` has answered it exactly.
    if ordered and values.shape[1] > 2 and values.sum(axis=1).all():
        ranks = _mid_ranks(values.sum(axis=0))
        parts += [_score_test(values, ranks), _score_test(values, (ranks - 0.5) ** 2)]
    if presence[:, 1].any() and whole.shape[1] != 2:
        parts.append(_homogeneity(presence))
        effect = max(effect, _effect(presence))
    return min(1.0, len(parts) * min(parts)), effect


def compare(
    counts: WindowCounts,
    reference: Reference,
    *,
    distances: Sequence[int] | None = None,
    alpha: float = ALPHA,
    floor: float = EFFECT_FLOOR,
) -> list[Tested]:
    """Tests merged windows against the reference on the same bins.

    Args:
        counts: Merged counts.
        reference: On the same bins.
        distances: Merged counts of the rows' distances, as `lookback.distances_of`; None where there are none.
        alpha: Chance of any false alarm in this call, over all its tests.
        floor: Smallest effect that is called drift.

    Returns:
        One verdict for each feature in order, then `score`, then `classes` of a classifier, then `features together`
        where rows were measured.
    """
    found: list[tuple[str, Literal["feature", "score", "classes", "distance"], int, float | None, float]] = []
    for bins, seen, expected in zip(reference.bins.features, counts.features, reference.features, strict=True):
        missing = seen.null + seen.invalid
        p, effect = compare_counts(
            seen.bins, expected.bins, missing=(missing, expected.null), ordered=bins.categories is None
        )
        found.append((bins.name, "feature", sum(seen.bins) + missing, p, effect))
    p, effect = compare_counts(counts.scores, reference.scores)
    found.append(("score", "score", sum(counts.scores), p, effect))
    if reference.bins.classes:
        p, effect = compare_counts(counts.classes, reference.classes, ordered=False)
        found.append(("classes", "classes", sum(counts.classes), p, effect))
    if distances is not None:
        p, effect = compare_counts(distances, reference.distances)
        found.append((TOGETHER, "distance", sum(distances), p, effect))
    level = alpha / max(1, sum(p is not None for _, _, _, p, _ in found))
    return [
        Tested(
            name=name, kind=kind, rows=rows, p=p, effect=effect, drifted=p is not None and p < level and effect >= floor
        )
        for name, kind, rows, p, effect in found
    ]


def _mid_ranks(pooled: Counts) -> Counts:
    ranks: Counts = (np.cumsum(pooled) - pooled / 2) / pooled.sum()
    return ranks


def _score_test(table: Counts, scores: Counts) -> float:
    """Two-sided p of the difference of mean scores, by the permutation variance."""
    (n, m), pooled = table.sum(axis=1), table.sum(axis=0)
    mean = pooled @ scores / (n + m)
    variance = pooled @ (scores - mean) ** 2 / (n + m - 1)
    if variance <= 1e-15:
        return 1.0
    z = (table[0] @ scores / n - table[1] @ scores / m) / np.sqrt(variance * (1 / n + 1 / m))
    return float(2 * stats.norm.sf(abs(z)))


def _homogeneity(table: Counts) -> float:
    """Chi-squared; of two columns, where one may be rare, Fisher's exact test."""
    if table.shape[1] < 2:
        return 1.0
    if table.shape[1] == 2:
        result: Any = stats.fisher_exact(table.astype(np.int64))
        return float(result.pvalue)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return float(stats.chi2.sf(((table - expected) ** 2 / expected).sum(), table.shape[1] - 1))


def _effect(table: Counts) -> float:
    """Debiased PSI; half a count is added to each cell so that an empty bin stays finite (Jeffreys)."""
    if table.shape[1] < 2:
        return 0.0
    rows = table.sum(axis=1)
    p, q = (table + 0.5) / (rows[:, None] + table.shape[1] / 2)
    bias = (table.shape[1] - 1) * (1 / rows).sum()
    return float(max(0.0, ((p - q) * np.log(p / q)).sum() - bias))


def _pooled(table: Counts) -> Counts:
    """Joins each bin whose expected count is below 2, in either row, to its right neighbour; the last to its left.

    Bins that are empty in both rows go; two bins are left as they are, because their test is exact.
    """
    table = table[:, table.any(axis=0)]
    if table.shape[1] <= 2:
        return table
    share = table.sum(axis=1).min() / table.sum()
    columns: list[Counts] = []
    for column in table.T:
        if columns and columns[-1].sum() * share < EXPECTED_MINIMUM:
            columns[-1] = columns[-1] + column
        else:
            columns.append(column.copy())
    if len(columns) > 1 and columns[-1].sum() * share < EXPECTED_MINIMUM:
        last = columns.pop()
        columns[-1] = columns[-1] + last
    return np.stack(columns, axis=1)
