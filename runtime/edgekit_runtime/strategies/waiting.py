"""Rows that wait for a shadow: copied once into memory of a fixed size, and taken out as views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_contracts import limits
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.engine import Answer, Answers, Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS_MAX: Final = 1024
BYTES_MAX: Final = 4 * limits.MIB
"""That the rows may hold in memory at worst, texts included."""


class Waiting:
    """A block of rows and of what the live model said of them. Not safe to use from several threads by itself.

    Args:
        manifest: The live bundle's manifest.
    """

    def __init__(self, manifest: Manifest) -> None:
        numbers, text = (
            [one for one in manifest.inputs if (one.dtype == "text") == is_text] for is_text in (False, True)
        )
        longest = {
            one.name: limits.DOCUMENT_MAX_CHARS if one.free else limits.TEXT_MAX_CHARS for one in manifest.features
        }
        size = sum(8 * len(one.features) for one in numbers) + sum(
            longest[name] for one in text for name in one.features
        )
        self.rows = max(1, min(ROWS_MAX, BYTES_MAX // max(1, size)))
        """Rows that find room."""
        self.used = 0
        """Rows that wait."""
        self._numbers = np.empty((self.rows, len(numbers[0].features)), dtype=numbers[0].dtype) if numbers else None
        self._text = np.empty((self.rows, len(text[0].features)), dtype=object) if text else None
        self._labels: NDArray[Any] | None = None
        self._values: NDArray[Any] | None = None

    def put(self, batch: Batch, said: Answers, most: int) -> int:
        """Copies the first rows of a request; who sent it may use its arrays again.

        Args:
            batch: The rows, as the live bundle takes them.
            said: What it said.
            most: Rows that are copied at most.

        Returns:
            How many were.
        """
        rows = min(batch.rows, most, self.rows - self.used)
        here = slice(self.used, self.used + rows)
        if self._numbers is not None:
            self._numbers[here] = batch.numbers[:rows]  # type: ignore[index]
        if self._text is not None:
            self._text[here] = batch.text[:rows]  # type: ignore[index]
        if said.labels is not None:
            if self._labels is None:
                self._labels = np.empty(self.rows, dtype=said.labels.dtype)
            self._labels[here] = said.labels[:rows]
        elif said.values is not None:
            if self._values is None:
                self._values = np.empty((self.rows, said.values.shape[1]))
            self._values[here] = said.values[:rows]
        self.used += rows
        return rows

    def put_row(self, row: NDArray[np.float64], said: Answer) -> bool:
        """Copies one row of numbers, [numeric features] as the tensor has them; False where there is no room."""
        labels = values = None
        if said.label is not None:
            labels = np.array([said.label], dtype=object if isinstance(said.label, str) else None)
        elif said.values:
            values = np.array([said.values])
        return self.put(Batch(1, row[None], None), Answers(labels, None, values), 1) == 1

    def part(self, start: int, stop: int) -> tuple[Batch, Answers]:
        """Some of the rows that wait, as views."""
        rows, said = Batch(self.rows, self._numbers, self._text), Answers(self._labels, None, self._values)
        return rows.part(start, stop), said.part(start, stop)
