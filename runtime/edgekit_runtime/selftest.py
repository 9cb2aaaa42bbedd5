"""The golden set, replayed on this machine: a wrong answer means that the model does not run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgekit_contracts.errors import EdgekitError, GoldenMismatch
from edgekit_contracts.golden import GoldenSet
from edgekit_runtime.encoding import Batch
from edgekit_runtime.engine import Engine
from edgekit_runtime.yielding import rest

if TYPE_CHECKING:
    from numpy.typing import NDArray


class GoldenResult(msgspec.Struct, frozen=True):
    """The self-test's figures."""

    rows: int
    max_difference: float
    """Of probabilities, or of values relative to max(1, |value|)."""


class SelfTest(msgspec.Struct, frozen=True):
    """Of all that is in service."""

    results: tuple[GoldenResult, ...]
    """Of each bundle that is right, the former ones that answer in the place of a live one from now on among them."""
    faults: tuple[str, ...] = ()
    """What was wrong, a sentence for each bundle that was let go."""


def check_golden(engine: Engine, golden: GoldenSet) -> GoldenResult:
    """Answers the golden rows, together and one by one, and compares with the original's answers.

    Raises:
        GoldenMismatch: An answer differs by more than the golden set's tolerance, or the model fails on a row.
    """
    columns = dict(zip(golden.features, golden.columns, strict=True))
    try:
        batch = engine.encode(columns)
    except EdgekitError as error:
        raise GoldenMismatch(engine.manifest.title, golden.rows, golden.rows, error.sentence) from error
    together = _differences(engine, golden, batch, range(golden.rows))
    # A batch and a single row take different paths in ONNX Runtime (microsoft/onnxruntime#28557 hit one of them only).
    single = np.concatenate(
        [_differences(engine, golden, batch.part(row, row + 1), [row]) for row in range(min(golden.rows, 16))]
    )
    for differences in (together, single):
        wrong = np.flatnonzero(~(differences <= golden.tolerance))
        if len(wrong):
            raise GoldenMismatch(
                engine.manifest.title,
                len(differences),
                len(wrong),
                f"first at row {wrong[0]}: off by {differences[wrong[0]]:.3g}, tolerance {golden.tolerance:.3g}",
            )
    return GoldenResult(golden.rows, float(max(together.max(), single.max())))


def _differences(engine: Engine, golden: GoldenSet, batch: Batch, rows: range | list[int]) -> NDArray[np.float64]:
    """Per row: the largest difference, infinite for a wrong label."""
    try:
        answers = engine.run(batch)
    except EdgekitError as error:
        raise GoldenMismatch(engine.manifest.title, golden.rows, len(rows), error.sentence) from error
    rest()
    worst = np.zeros(len(rows))
    if golden.labels:
        assert answers.labels is not None
        wrong = np.array(
            [golden.labels[row] != answer for row, answer in zip(rows, answers.labels.tolist(), strict=True)]
        )
        worst[wrong] = np.inf
    if golden.probabilities:
        assert answers.probabilities is not None
        expected = np.array([golden.probabilities[row] for row in rows])
        worst = np.maximum(worst, np.abs(answers.probabilities - expected).max(axis=1))
    if golden.values:
        assert answers.values is not None
        expected = np.array([golden.values[row] for row in rows])
        relative = np.abs(answers.values - expected) / np.maximum(1.0, np.abs(expected))
        worst = np.maximum(worst, relative.max(axis=1))
    return worst
