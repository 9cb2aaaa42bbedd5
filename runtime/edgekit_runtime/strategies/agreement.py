"""How often two models agree, and between which bounds the true share lies.

The interval is the exact one of Clopper and Pearson, which covers the truth at least 95 times in 100 whatever it is.
Agreement is close to 1, and there Wilson's shorter interval falls behind: of 1,000 rows it covers a true share of 0.999
92.0 times in 100, one of 0.9999 90.5 times (computed from the binomial distribution). It speaks of independent rows.

Sources: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934), doi:10.1093/biomet/26.4.404; L. D. Brown, T. T. Cai,
A. DasGupta, Statistical Science 16 (2001), doi:10.1214/ss/1009213286, on how others cover near 0 and 1; DLMF, sections
8.17(iv) and 8.17(v), for the incomplete beta function.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Final

import msgspec

CONFIDENCE: Final = 0.95
_STEPS_MAX: Final = 100
_PRECISION: Final = 1e-12
_TINY: Final = 1e-300


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A share of rows and its interval."""

    agreed: int
    rows: int
    low: float
    """Both bounds at 95 % confidence; 0 and 1 where there are no rows."""
    high: float

    @property
    def value(self) -> float | None:
        """The share itself; None without rows."""
        return self.agreed / self.rows if self.rows else None


def share(agreed: int, rows: int, confidence: float = CONFIDENCE) -> Share:
    """The share `agreed / rows` with its exact interval.

    Args:
        agreed: Rows that agree, of `rows`.
        rows: Rows that were compared.
        confidence: Of the interval, two-sided.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if agreed == 0 else _beta_quantile(tail, agreed, rows - agreed + 1)
    high = 1.0 if agreed == rows else _beta_quantile(1 - tail, agreed + 1, rows - agreed)
    return Share(agreed=agreed, rows=rows, low=low, high=high)


class Agreement:
    """Counts of agreement, overall and by what the live model answered. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Hashable, bool]] = Counter()

    def add(self, groups: Iterable[Hashable], agree: Iterable[bool]) -> None:
        """Counts rows.

        Args:
            groups: Of each row, what the live model answered (its label; one name for all where there are no labels).
            agree: Of each row, whether the candidate answered alike.
        """
        with self._lock:
            self._counts.update(zip(groups, agree, strict=True))

    @property
    def counts(self) -> tuple[int, int]:
        """Rows that agree, and all rows."""
        with self._lock:
            agreed = sum(count for (_, same), count in self._counts.items() if same)
            return agreed, self._counts.total()

    @property
    def overall(self) -> Share:
        """Of all rows."""
        return share(*self.counts)

    @property
    def groups(self) -> dict[str, Share]:
        """By what the live model answered."""
        with self._lock:
            counts = dict(self._counts)
        found = {str(group): group for group, _ in counts}
        return {
            name: share(counts.get((group, True), 0), counts.get((group, True), 0) + counts.get((group, False), 0))
            for name, group in sorted(found.items())
        }


def _beta_quantile(p: float, a: int, b: int) -> float:
    """The `x` with I_x(a, b) = p: Newton's steps from the mean, halving wherever one leaves the bracket."""
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(_STEPS_MAX):
        excess = _incomplete_beta(x, a, b) - p
        low, high = (low, x) if excess > 0 else (x, high)
        # The derivative is the density of the beta distribution. Source: DLMF 8.17.1.
        density = math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - _log_beta(a, b))
        step = excess / density if density else math.inf
        following = x - step if low < x - step < high else (low + high) / 2
        if abs(following - x) <= _PRECISION:
            return following
        x = following
    return x


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _incomplete_beta(x: float, a: int, b: int) -> float:
    """The regularised incomplete beta function I_x(a, b).

    Source: DLMF 8.17.22 (the continued fraction) and 8.17.4 (the symmetry that keeps it where it converges fast).
    """
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(1.0 - x, b, a)
    if x <= 0.0:
        return 0.0
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - math.log(a) - _log_beta(a, b))
    # Lentz's way of evaluating 1/(1 + d1/(1 + d2/(1 + ...))) from the front. Source: DLMF 3.10(iii).
    value, c, d, m = 1.0, math.inf, 1.0, 0
    while True:
        if m:
            c, d = _step(m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), c, d)
            value *= c * d
        c, d = _step(-(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), c, d)
        value *= c * d
        if m and abs(c * d - 1.0) < 1e-14:
            return front * value
        m += 1


def _step(coefficient: float, c: float, d: float) -> tuple[float, float]:
    return 1.0 + coefficient / c or _TINY, 1.0 / (1.0 + coefficient * d or _TINY)
