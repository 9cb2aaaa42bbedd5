"""Answered rows, and where they wait to be counted together: a block, column by column, whose memory is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS: Final = 8
"""Of a row's numbers up to this many it is quicker to compare column by column."""


class Rows(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Answered rows."""

    rows: int
    numbers: NDArray[Any] | None
    """[rows, numeric features], in the tensor's order."""
    text: Sequence[Sequence[str]]
    """For each row its texts, in the tensor's order; empty where the model takes none."""
    labels: Sequence[float] | NDArray[Any]
    """[rows], as numbers: see `tally.Layout.labels`; empty where none are counted."""
    scores: NDArray[Any] | None
    """[rows, columns], of which the largest is a row's score."""

    def part(self, start: int, stop: int) -> Rows:
        """Some of them."""
        numbers = None if self.numbers is None else self.numbers[start:stop]
        scores = None if self.scores is None else self.scores[start:stop]
        return Rows(min(stop, self.rows) - start, numbers, self.text[start:stop], self.labels[start:stop], scores)


class Block:
    """Rows that wait to be counted.

    Args:
        size: Rows that it holds.
        numbers: For each numeric feature that is counted its column in the tensor.
        features: How many these are.
        labelled: Whether labels are counted.
    """

    def __init__(self, size: int, numbers: slice | NDArray[np.intp], features: int, *, labelled: bool) -> None:
        self.size, self.rows = size, 0
        self._numbers, self._features, self._labelled = numbers, features, labelled
        self._values = np.zeros((features + 1 + labelled, size))
        self.text: list[Sequence[str]] = []
        """For each row its texts."""

    @property
    def values(self) -> NDArray[np.float64]:
        """[numeric features, the score, the label where it is counted; rows]: whoever counts them may change them."""
        return self._values[:, : self.rows]

    def take(self, rows: Rows) -> None:
        """Copies rows for which there is room."""
        here = slice(self.rows, self.rows + rows.rows)
        if rows.numbers is not None:
            self._values[: self._features, here] = rows.numbers.T[self._numbers]
        if rows.scores is not None:
            _largest(rows.scores, self._values[self._features, here])
        if self._labelled:
            self._values[-1, here] = rows.labels
        self.text += rows.text
        self.rows = here.stop

    def clear(self) -> None:
        """Has room again."""
        self.rows, self.text = 0, []


def score_columns(
    labelled: bool, probabilities: NDArray[Any] | None, values: NDArray[Any] | None
) -> NDArray[Any] | None:
    """[rows, columns], of which a row's largest is its score, as `Answers.scores`; None for labels alone."""
    if probabilities is not None:
        return probabilities
    return values if values is None or labelled else values[:, :1]


def _largest(scores: NDArray[Any], out: NDArray[np.float64]) -> None:
    """The largest of each row."""
    if scores.shape[1] > _COLUMNS:
        np.maximum.reduce(scores, axis=1, out=out)
        return
    out[:] = scores[:, 0]
    for column in scores.T[1:]:
        np.maximum(out, column, out=out)
