"""Originals that magnify their own rounding in float32, and what their answers are compared with.

Some steps divide by what is nearly 0: the small eigenvalues of a kernel, the deviation of what a power has flattened.
Of float32 columns the last digit of a sum or of a logarithm, which is the processor's choice, then becomes the third or
fourth of the answer: the same model answers the same rows otherwise on another processor, or a row alone and among
others. No conversion can be closer to that than it is to itself.

For these steps, which the converter names, labels are compared as ever with those of float32. Numbers must be, to a
hundredth of the tolerance of float32, those that the original itself answers to the same numbers as float64; and its
answers in float32 may be no further than `ROUNDING_MAX` from these, or the build is refused.

Source: docs/adr/0041-rounding-that-the-original-magnifies.md, with the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgekit_contracts.errors import ParityBroken
from edgekit_converters.asking import Asked
from edgekit_converters.comparison import Differences, measured, refuse
from edgekit_converters.registry import Answers

TOLERANCE: Final = 1e-6
"""Of the converted model's answers from the original's in float64; before such a step a scaler may round to float32."""
ROUNDING_MAX: Final = 2e-3
"""Of the original's answers in float32 from those in float64, values relative to max(1, |value|): twice the most that
scikit-learn's own test instances show on any kind of processor that was tried."""


@dataclass(frozen=True, slots=True)
class Magnified:
    """What the converted model was compared with."""

    answers: Answers
    """The original's labels in float32, and its numbers in float64."""
    found: Differences
    """Of the converted model's answers from these; undecided are rows whose numbers in float64 are."""
    rounding: float
    """The largest difference between the original's numbers in float32 and in float64."""


def compare_widened(asked: Asked, wide: Asked, narrow: Differences, tolerance: float) -> Magnified:
    """Compares labels with those of float32, and numbers with those of float64.

    Args:
        asked: The rows, and the answers to them.
        wide: The same rows as float64, and the answers to them.
        narrow: How the answers to `asked` differ.
        tolerance: The ordinary one, of ties.

    Raises:
        ParityBroken: They differ, or the original rounds by more than `ROUNDING_MAX`.
    """
    if len(narrow.wrong) != len(next(iter(wide.columns.values()))):
        raise ParityBroken("the original refuses other rows in float64")
    answers = Answers(asked.theirs.labels, wide.theirs.probabilities, wide.theirs.values)
    found = measured(answers, asked.ours, tolerance=tolerance, exact=False)
    # A label that differs must be a tie in float32 and in float64.
    refuse(asked.columns, replace(found, undecided=found.undecided & narrow.undecided), TOLERANCE)
    rounding = float(measured(answers, asked.theirs, tolerance=tolerance, exact=False).difference.max())
    if not rounding <= ROUNDING_MAX:
        raise ParityBroken(f"in float32 the original differs from itself in float64 by up to {rounding:.3g}")
    return Magnified(answers, found, rounding)


def describe(own: Magnified, steps: Sequence[str], spread: float) -> str:
    """For which inputs the numbers differ, and why.

    Args:
        own: What was compared.
        steps: Those that magnify rounding.
        spread: How far the original's answers to a row alone are from those among others.
    """
    return (
        f"for any: {' and '.join(steps)} magnifies the rounding of float32, in which the original differs from itself "
        f"in float64 by up to {own.rounding:.2g}, and for a row alone and among others by up to {spread:.2g}; the "
        f"converted model computes in float64, and differs from the original in that by up to "
        f"{own.found.difference.max():.2g}"
    )
