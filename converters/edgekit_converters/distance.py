"""Fits how far a row lies from the reference data (`edgekit_contracts.reference.Distance`), and measures that data.

The covariance of the standardised features is split into its principal components. As many as a device can afford are
kept, and every other direction gets their mean variance, never below 0.01: where features are nearly copies of one
another, noise would decide otherwise.

A row looks nearer than it is to a covariance that it helped to make, by about 2 F / rows for F features. So each row
is measured by what the other nine tenths of the data give; else every large window of new rows would seem to drift.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.reference import Distance
from edgekit_runtime.distance import Distances

COMPONENTS: Final = 32
PRODUCTS: Final = 4096
"""Components times features, at most: what a device pays for a row, and the bundle's text in numbers."""
LEAST_VARIANCE: Final = 0.01
FOLDS: Final = 10
ROWS_PER_FEATURE: Final = 5
"""Reference rows; of fewer, the covariance is more noise than data."""
WEIGHT_LEAST: Final = 1e-3
"""Of a component, in parts of the rest's."""
DIGITS: Final = 4
"""Of the components, which have length 1."""
ROWS_MOST: Final = 200_000
"""Reference rows, spread evenly, that are looked at."""


def fit(values: NDArray[np.float64]) -> tuple[Distance, NDArray[np.float64]] | None:
    """Fits the distance, still without bins, and measures the rows.

    Args:
        values: [numeric features, rows]; NaN is missing, infinities count as far away.

    Returns:
        The distance, and those of up to 200,000 of the rows; None where fewer than two features vary, or rows are few.
    """
    values = values[:, :: -(-values.shape[1] // ROWS_MOST) or 1]
    features, rows = values.shape
    plain = _standard(values)
    varying = int(np.count_nonzero(plain.scale))
    if varying < 2 or rows < max(ROWS_PER_FEATURE * varying, FOLDS):
        return None
    z = Distances(plain).standard(values)
    folds = [z[:, start::FOLDS] for start in range(FOLDS)]
    grams = [fold @ fold.T.astype(np.float64) for fold in folds]
    whole = sum(grams, np.zeros((features, features)))
    found = np.empty(rows, np.float32)
    for start, (fold, gram) in enumerate(zip(folds, grams, strict=True)):
        others = _split(plain, (whole - gram) / (rows - fold.shape[1]), varying)
        found[start::FOLDS] = Distances(others).of_standard(fold)
    return _split(plain, whole / rows, varying), found.astype(np.float64)


def _standard(values: NDArray[np.float64]) -> Distance:
    """Means and deviations of what is there and finite, and nothing else yet."""
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=1), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        center = np.where(finite, values, 0.0).sum(axis=1) / count
        scale = np.sqrt((np.where(finite, values - center[:, None], 0.0) ** 2).sum(axis=1) / count)
    # What differs by its last digits only, or by what float32 does not hold, cannot be measured.
    usable = (scale > np.maximum(1e-30, 1e-12 * np.abs(center))) & (scale < 1e30)
    center, scale = np.where(usable, center, 0.0), np.where(usable, scale, 0.0)
    return Distance(
        center=tuple(center.tolist()), scale=tuple(scale.tolist()), components=(), weights=(), rest=1.0, edges=()
    )


def _split(plain: Distance, covariance: NDArray[np.float64], varying: int) -> Distance:
    """Adds the components of a covariance [features, features] of standard values, of which `varying` are not 0."""
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    kept = min(varying - 1, COMPONENTS, PRODUCTS // len(variances))
    rest = max(float(variances[kept:varying].mean()), LEAST_VARIANCE)
    weights = 1 / rest - 1 / np.maximum(variances[:kept], LEAST_VARIANCE)
    # A direction of the rest's own variance is no component.
    useful = weights > WEIGHT_LEAST / rest
    return msgspec.structs.replace(
        plain,
        components=tuple(tuple(one) for one in np.round(vectors.T[:kept][useful], DIGITS).tolist()),
        weights=tuple(weights[useful].tolist()),
        rest=1 / rest,
    )
