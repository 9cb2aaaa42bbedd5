"""The sums of one window: counts on the reference's bins, and moments, of a block of rows at a time.

Each numeric feature of a block, the scores and the labels as two more, is sorted, and its edges are looked up in it:
many values cost one sort and few edges. How many values lie at or below each edge is all that is kept; bins, nulls and
values out of range are differences of these, taken when the window is closed.

Moments of blocks are merged by Chan's formula. Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise
Algorithm for Computing Sample Variances", 1979.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_contracts.counts import encode_distances
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.reference import Bins, Distance
from edgekit_runtime.block import Block
from edgekit_runtime.differences import BESIDE, FINITE, NEGATIVE_INFINITY, PRESENT, Differences
from edgekit_runtime.distance import Distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXACT: Final = 2**53
"""Integers below it are float64 numbers, each its own."""
_LARGEST: Final = float(np.finfo(np.float64).max)


class Layout:
    """Which column is counted on which bins.

    Args:
        manifest: The bundle's manifest.
        bins: The reference's bins.
        distance: The reference's distance, where it has one.
    """

    def __init__(self, manifest: Manifest, bins: Bins, distance: Distance | None = None) -> None:
        tensors = {("text" if tensor.dtype == "text" else "numbers"): tensor.features for tensor in manifest.inputs}
        numeric = [feature for feature in bins.features if feature.categories is None]
        self.bins = bins
        self.distance = None if distance is None else Distances(distance)
        self.moments = manifest.privacy.moments
        """Whether moments are sent."""
        order = [tensors["numbers"].index(feature.name) for feature in numeric]
        self.numbers = slice(0, len(order)) if order == [*range(len(order))] else np.array(order, dtype=np.intp)
        """For each numeric feature of the bins its column in the tensor."""
        self.text = [
            (tensors["text"].index(feature.name), {text: at for at, text in enumerate(feature.categories)})
            for feature in bins.features
            if feature.categories is not None
        ]
        """For each text feature its column in the tensor, and text -> bin."""
        self.missing_text = manifest.missing_text
        self.classes = bins.classes
        plain = all(isinstance(label, int | float) and abs(label) < _EXACT for label in bins.classes)
        self.class_numbers: Mapping[Any, int] | None = (
            None if plain else {label: at for at, label in enumerate(bins.classes)}
        )
        """Class -> the number that stands for it in a block; None where the classes are such numbers themselves."""
        numbers = np.array(bins.classes if plain else range(len(bins.classes)), np.float64)
        self.class_edges = np.stack([np.nextafter(numbers, -np.inf), numbers], axis=1).ravel()
        """For each class the numbers that it lies above, and at."""
        # Where a model gives labels alone, there is no score to abstain by.
        scored = any(output.role != "label" for output in manifest.outputs)
        threshold = manifest.monitoring.abstain_below if scored else None
        self.differences = Differences(bins)
        widest = self.differences.edges - BESIDE
        self.edges = np.array(
            [
                *(_edges(feature.edges, feature.minimum, feature.maximum, widest) for feature in numeric),
                _edges(bins.score_edges, threshold, None, widest),
            ]
        )
        """[numeric features and the score, edges]."""
        self.edges_of = list(self.edges)
        """The same, one by one."""

    def block(self, rows: int) -> Block:
        """Room for so many rows."""
        return Block(rows, self.numbers, len(self.edges) - 1, labelled=bool(self.classes))

    def labels(self, labels: NDArray[Any] | None) -> Sequence[float] | NDArray[Any]:
        """Labels as the numbers that stand for them; -1 for one that is no class. Empty where none are counted."""
        if labels is None or not self.classes:
            return ()
        if self.class_numbers is None:
            return labels
        return [self.class_numbers.get(label, -1) for label in labels.tolist()]


class Tally:
    """What one window has seen.

    Args:
        layout: Of the bundle.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.n = 0
        self._sums = np.zeros(layout.differences.size, dtype=np.int64)
        self._below = layout.differences.below(self._sums)
        self._texts = layout.differences.texts(self._sums)
        self._classes = layout.differences.classes(self._sums)
        self._distances = np.zeros(layout.distance.size if layout.distance else 0, dtype=np.int64)
        features = len(layout.edges) - 1
        self._count, self._quadruples = np.zeros(features), np.zeros((4, features))
        self._mean, self._m2, self._minimum, self._maximum = self._quadruples
        self._quadruples[2:] = np.nan

    def add(self, block: Block) -> None:
        """Counts a block, whose values are sorted then; all of it, or nothing where it cannot be counted."""
        layout, values = self._layout, block.values
        features = values[: len(layout.edges) - 1]
        if layout.classes and math.isnan((scores := values[-2]).max()):
            values[-1, scores != scores] = np.nan  # no answer, no class
        distances = layout.distance.counts(features) if layout.distance else 0
        values.sort(axis=1)  # NaN comes last
        columns = zip(layout.edges_of, values, strict=False)  # but the labels
        below = np.array([column.searchsorted(edges, "right") for edges, column in columns])
        classes = self._class_counts(values[-1], answered=below[-1, PRESENT])
        texts = [self._text_counts(block.text, column, index) for column, index in layout.text]
        if layout.moments:
            self._merge_moments(features, below[:-1, NEGATIVE_INFINITY], below[:-1, FINITE])
        self.n += block.rows
        self._below += below
        self._classes += classes
        self._distances += distances
        for total, counts in zip(self._texts, texts, strict=True):
            total += counts

    def counts(self, latency: NDArray[np.int64], resent: int) -> NDArray[np.int64]:
        """The window's counts, in the order that `telemetry.Window` describes.

        Args:
            latency: Calls at or below each edge of the latency bins, and all of them.
            resent: Calls that were made again.
        """
        return self._layout.differences.counts(self._sums, self.n, latency, resent)

    def distances(self) -> bytes:
        """As `Window.distances`."""
        distance = self._layout.distance
        return encode_distances(distance.name, self._distances.tolist()) if distance else b""

    def moments(self) -> bytes:
        """As `Window.moments`: mean, M2, minimum and maximum of each numeric feature; NaN where there is no value."""
        with np.errstate(over="ignore"):
            quadruples = self._quadruples.T.astype("<f4", order="C")
        quadruples[self._count == 0] = np.nan
        return quadruples.tobytes()

    def _text_counts(self, rows: Sequence[Sequence[str]], column: int, index: dict[str, int]) -> NDArray[np.int64]:
        counts = np.zeros(len(index) + 2, dtype=np.int64)
        texts = [row[column] for row in rows]
        if not index:
            missing = texts.count(self._layout.missing_text)
            counts[:] = len(texts) - missing, missing
            return counts
        for text, times in Counter(texts).items():
            counts[-1 if text == self._layout.missing_text else index.get(text, len(index))] += times
        return counts

    def _class_counts(self, labels: NDArray[np.float64], answered: int) -> NDArray[np.int64]:
        """Of sorted labels, of which so many are numbers."""
        counts: NDArray[np.int64] = np.diff(labels.searchsorted(self._layout.class_edges, "right"))[::2]
        if self._layout.classes and counts.sum() != answered:
            raise ValueError("a label that is none of the classes")
        return counts

    def _merge_moments(self, values: NDArray[np.float64], start: NDArray[np.intp], stop: NDArray[np.intp]) -> None:
        """Takes in sorted values [features, rows], of which those from `start` to `stop` [features] are finite.

        The values are changed: what is made of them in their own place is made in half the time.
        """
        count, rows = stop - start, values.shape[1]
        if count.sum() == values.size:
            some, least, most, finite = count, values[:, 0].copy(), values[:, -1].copy(), None
        else:
            some, features, finite = np.maximum(count, 1), np.arange(len(count)), np.isfinite(values)
            least = np.where(count > 0, values[features, np.minimum(start, rows - 1)], np.nan)
            most = np.where(count > 0, values[features, np.maximum(stop - 1, 0)], np.nan)
            values[~finite] = 0.0
        mean = values.sum(axis=1) / some
        values -= mean[:, None]
        if finite is not None:
            values[~finite] = 0.0
        delta, total = mean - self._mean, np.maximum(self._count + count, 1)
        self._m2 += np.einsum("ij,ij->i", values, values) + delta**2 * self._count * count / total
        self._mean += delta * count / total
        self._count += count
        np.fmin(self._minimum, least, out=self._minimum)
        np.fmax(self._maximum, most, out=self._maximum)


def _edges(inner: Sequence[float], low: float | None, high: float | None, widest: int) -> list[float]:
    return [
        -np.inf,
        -np.inf if low is None else float(np.nextafter(low, -np.inf)),  # below `low` is at or below that number
        *inner,
        *[_LARGEST] * (widest - len(inner)),
        _LARGEST if high is None else high,
        _LARGEST,
        np.inf,
    ]
