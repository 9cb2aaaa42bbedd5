"""What a window's counts are made of: nearly each is a difference of two sums that a tally keeps.

All sums of a window stand in one array, so that a window's several hundred counts are two looks at it and one
subtraction when the window is closed, whatever they are counts of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edgekit_contracts.reference import LATENCY_BINS, Bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

BESIDE: Final = 5
"""Edges of a row beside the inner ones, which stand between the first two and the last three."""
NEGATIVE_INFINITY, BELOW_RANGE, RANGE, FINITE, PRESENT = 0, 1, -3, -2, -1
"""Where these stand."""


class Differences:
    """Where the sums of a window stand, and which of them each count is made of.

    Args:
        bins: What is counted on.

    Attributes:
        edges: Edges in a row of `below`.
        size: Numbers of all sums.
    """

    def __init__(self, bins: Bins) -> None:
        numeric = [feature for feature in bins.features if feature.categories is None]
        self.edges = max(len(bins.score_edges), *(len(feature.edges) for feature in numeric), 0) + BESIDE
        self._rows = len(numeric) + 1
        self._below = at = self._rows * self.edges
        self._texts: list[slice] = []
        for feature in bins.features:
            if feature.categories is not None:
                self._texts.append(slice(at, at + feature.size + 1))
                at += feature.size + 1
        self._classes = slice(at, at + len(bins.classes))
        self._latency = slice(self._classes.stop, self._classes.stop + LATENCY_BINS)
        self._n, self._resent, self._zero = range(self._latency.stop, self._latency.stop + 3)
        self.size = self._zero + 1
        plus, minus, more = self._terms(bins)
        self._plus, self._minus = np.array(plus, dtype=np.intp), np.array(minus, dtype=np.intp)
        self._twice = np.array([*more], dtype=np.intp)
        self._plus_too, self._minus_too = np.array([*more.values()], dtype=np.intp).reshape(-1, 2).T.copy()

    def below(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values at or below each edge, [numeric features and the score, edges]: a view."""
        return sums[: self._below].reshape(self._rows, self.edges)

    def texts(self, sums: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """For each text feature its bins, and the missing ones: views."""
        return [sums[place] for place in self._texts]

    def classes(self, sums: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of each class: a view."""
        return sums[self._classes]

    def counts(self, sums: NDArray[np.int64], n: int, latency: NDArray[np.int64], resent: int) -> NDArray[np.int64]:
        """The window's counts, in the order that `telemetry.Window` describes.

        Args:
            sums: Of the window; what follows takes its place there.
            n: Rows.
            latency: Calls at or below each edge of the latency bins, and all of them.
            resent: Calls that were made again.
        """
        sums[self._latency] = latency
        sums[self._n], sums[self._resent] = n, resent
        counts: NDArray[np.int64] = sums.take(self._plus)
        counts -= sums.take(self._minus)
        counts[self._twice] += sums.take(self._plus_too) - sums.take(self._minus_too)
        return counts

    def _terms(self, bins: Bins) -> tuple[list[int], list[int], dict[int, tuple[int, int]]]:
        """For each count its sum and what is taken off, and, by the count's place, those of the few that have two more.

        They are put down in runs: a bundle of a thousand features has more than twenty thousand.
        """
        plus: list[int] = []
        minus: list[int] = []
        more: dict[int, tuple[int, int]] = {}

        def between(edges: list[int]) -> None:
            """What lies between each edge and the next one."""
            plus.extend(edges[1:])
            minus.extend(edges[:-1])

        def alone(sums: Sequence[int]) -> None:
            """Sums that are counts themselves."""
            plus.extend(sums)
            minus.extend([self._zero] * len(sums))

        row, texts = 0, iter(self._texts)
        for feature in bins.features:
            if feature.categories is None:
                edges = range(row, row + self.edges)
                least, low, high = edges[NEGATIVE_INFINITY], edges[BELOW_RANGE], edges[RANGE]
                finite, present = edges[FINITE], edges[PRESENT]
                between([least, *edges[2 : 1 + feature.size], finite])
                more[len(plus) + 1] = present, finite
                more[len(plus) + 2] = finite, high
                plus += [self._n, least, low]
                minus += [present, self._zero, least]
                row += self.edges
            else:
                text = next(texts)
                # Of a free text no value is known, so that none is out of range.
                out_of_range = text.stop - 2 if feature.size > 1 else self._zero
                alone([*range(text.start, text.stop), self._zero, out_of_range])
        alone(range(self._classes.start, self._classes.stop))
        edges = range(row, row + self.edges)
        # An infinite score lies in an outer bin.
        between([self._zero, *edges[2 : 1 + bins.score_size], edges[PRESENT]])
        plus += [self._n, edges[BELOW_RANGE], self._resent]
        minus += [edges[PRESENT], self._zero, self._zero]
        between([self._zero, *range(self._latency.start, self._latency.stop)])
        return plus, minus, more
