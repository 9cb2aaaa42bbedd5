"""Chooses the golden set: about 64 verified rows, spread over the data, the classes and the missing values."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgekit_contracts.golden import GoldenSet
from edgekit_contracts.manifest import Manifest
from edgekit_converters.verify import Verified, plain
from edgekit_runtime.engine import Column

GOLDEN_ROWS: Final = 64


def golden(manifest: Manifest, verified: Verified) -> GoldenSet:
    """The golden set, with the original's answers; the same data gives the same rows."""
    chosen = _rows(verified)
    answers = verified.answers
    return GoldenSet(
        features=tuple(feature.name for feature in manifest.features),
        columns=tuple(_chosen(verified.columns[feature.name], chosen) for feature in manifest.features),
        labels=tuple(answers.labels[chosen].tolist()) if answers.labels is not None else (),
        probabilities=tuple(map(tuple, answers.probabilities[chosen].tolist()))
        if answers.probabilities is not None
        else (),
        values=tuple(map(tuple, answers.values[chosen].tolist())) if answers.values is not None else (),
        tolerance=verified.tolerance,
    )


def _rows(verified: Verified) -> list[int]:
    decided = np.flatnonzero(~verified.undecided)
    # Evenly over all rows: the first are the data's own, the last have one value missing or unknown.
    chosen = decided[np.linspace(0, len(decided) - 1, min(len(decided), GOLDEN_ROWS)).round().astype(int)].tolist()
    if verified.answers.labels is not None:
        # A rare class must not be absent from the self-test.
        labels = np.array(verified.answers.labels.tolist())[decided]
        chosen += [int(decided[np.argmax(labels == one)]) for one in np.unique(labels)[:GOLDEN_ROWS]]
    return sorted(set(chosen))


def _chosen(column: Column, rows: list[int]) -> tuple[float | str | None, ...]:
    return tuple(plain(column[row]) for row in rows)
