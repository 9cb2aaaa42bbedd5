"""How far each row lies from the reference data, all numeric features together: what no histogram of one feature sees.

The formula is `reference.Distance`'s; the toolkit counts the reference data with the same code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_contracts.reference import Distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

FARTHEST: Final = 1000.0
"""Standard deviations; beyond, all values lie in the last bin anyway, and float32 holds the squares."""
_BLAS_MOST: Final = 200_000
"""Products of one matrix product that OpenBLAS computes on the calling thread alone."""


class Distances:
    """Measures rows, and counts them in the distance's bins.

    Args:
        distance: Of the reference.
    """

    def __init__(self, distance: Distance) -> None:
        scale = np.array(distance.scale, np.float64)
        self.name, self.size = distance.name, distance.size
        self._center = np.array(distance.center, np.float64)[:, None]
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        self._inverse = inverse.astype(np.float32)[:, None]
        self._components = np.array(distance.components, np.float32).reshape(len(distance.weights), len(scale))
        self._weights, self._rest = np.array(distance.weights, np.float32), np.float32(distance.rest)
        self._edges = np.array(distance.edges, np.float64)
        self._rows = max(1, _BLAS_MOST // max(1, self._components.size))

    def of(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The distances, float32 [rows], of values [numeric features, rows] in the bins' order; NaN is missing."""
        z = self._unbounded(values)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = _squares(z)
        # No number is beyond the bound where the sum of all squares is within its square, nor missing.
        return self._less(squares, z) if squares.max(initial=0.0) < FARTHEST**2 else self.of_standard(_bounded(z))

    def standard(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values in standard deviations from their means, 0 where one is missing; [numeric features, rows]."""
        return _bounded(self._unbounded(values))

    def of_standard(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """The distances, float32 [rows], of what `standard` gave."""
        return self._less(_squares(z), z)

    def _unbounded(self, values: NDArray[Any]) -> NDArray[np.float32]:
        z = np.empty(values.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            # Subtracted in float64, and kept in half the bytes: the rest stays within a core's cache.
            np.subtract(values, self._center, out=z, dtype=np.float64, casting="same_kind")
            z *= self._inverse
        return z

    def _less(self, squares: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sums of squares as distances."""
        squares *= self._rest
        if len(self._weights):
            for start in range(0, z.shape[1], self._rows):
                part = self._components @ z[:, start : start + self._rows]
                part *= part
                squares[start : start + self._rows] -= self._weights @ part
        return squares

    def counts(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """How many of the values' rows lie in each bin, int64 [bins]."""
        found = self.of(values)
        found.sort()
        counts = np.empty(self.size, np.int64)
        counts[:-1], counts[-1] = found.searchsorted(self._edges, "right"), len(found)
        counts[1:] -= counts[:-1].copy()
        return counts


def _squares(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's sum of squares."""
    found: NDArray[np.float32] = np.einsum("ij,ij->j", z, z)
    return found


def _bounded(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same memory, with no number beyond `FARTHEST`, and 0 for a missing one."""
    np.clip(z, -FARTHEST, FARTHEST, out=z)
    missing = np.isnan(z)
    if missing.any():
        z[missing] = 0.0
    return z
