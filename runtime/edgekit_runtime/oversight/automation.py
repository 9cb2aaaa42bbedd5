"""How far a model's answers may go by themselves, and which of them are left to a person.

| level | the client gets | a person |
|---|---|---|
| `shadow` | the owner's safe answer; the model's is counted and compared, never given | decides as before |
| `advise` | the model's answer, as advice | decides |
| `confirm` | the model's answer, marked as waiting; it goes to the review queue | confirms |
| `act` | the model's answer | sees the doubtful ones |

At every level an answer whose confidence is below the bundle's `abstain_below` is doubtful: the owner's safe label
takes the model's place, where one is set, and the row goes to the review queue.

Source: R. Parasuraman, T. Sheridan, C. Wickens, "A Model for Types and Levels of Human Interaction with Automation",
IEEE Transactions on Systems, Man, and Cybernetics 30 (2000).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgekit_contracts.errors import UsageError
from edgekit_contracts.manifest import LEVELS, AutomationLevel, ClassLabel, Manifest
from edgekit_runtime.engine import Answer, Answers

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lower(one: AutomationLevel, other: AutomationLevel | None) -> AutomationLevel:
    """The lower of two levels: a device may lower what the bundle allows, never raise it."""
    return one if other is None or LEVELS.index(one) <= LEVELS.index(other) else other


class Judged(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a client gets of a model's answers."""

    answers: Answers
    doubtful: NDArray[np.bool_] | None
    """[rows]: answers below the threshold; None for none of them."""


class Oversight:
    """The rule for one bundle on this device.

    Args:
        manifest: The bundle's manifest.
        level: The device's own level, if it is to be lower.
        safe: The owner's safe answer: a class, or a number where the model gives numbers.

    Raises:
        UsageError: The safe answer is none that the model could give; or there is none, and the level is `shadow`.
    """

    def __init__(
        self, manifest: Manifest, *, level: AutomationLevel | None = None, safe: ClassLabel | None = None
    ) -> None:
        self.level = lower(manifest.automation, level)
        self._manifest, self._safe = manifest, safe
        self._threshold = manifest.monitoring.abstain_below
        if safe is not None:
            _check_safe(manifest, safe)
        elif self.level == "shadow":
            raise UsageError(
                f"{manifest.title} is at the level 'shadow', where its answers are not given, and there is no safe "
                "answer to give instead",
                "set safe_answer of this model in device.toml",
            )

    @property
    def has_safe(self) -> bool:
        """Whether the owner set a safe answer."""
        return self._safe is not None

    def doubts(self, answer: Answer) -> bool:
        """Whether a person is to see this answer to one row."""
        threshold = self._threshold
        return threshold is not None and bool(answer.probabilities) and max(answer.probabilities) < threshold

    def judge(self, answers: Answers) -> Judged:
        """What the client gets, and which rows are doubtful."""
        doubtful = None
        if self._threshold is not None and answers.probabilities is not None:
            below = answers.probabilities.max(axis=1) < self._threshold
            doubtful = below if below.any() else None
        if self.level == "shadow":
            return Judged(self._withheld(answers), doubtful)
        if doubtful is not None and self._safe is not None and answers.labels is not None:
            labels = answers.labels.copy()
            labels[doubtful] = self._safe
            return Judged(Answers(labels, answers.probabilities, answers.values), doubtful)
        return Judged(answers, doubtful)

    def safe_answers(self, rows: int) -> Answers:
        """The safe answer to rows that no model answered; its numbers are missing, but where it is a number itself."""
        roles = {output.role: output for output in self._manifest.outputs}
        labels: NDArray[Any] | None = None
        values: NDArray[Any] | None = None
        if "label" in roles:
            kind = {"int64": np.int64, "bool": np.bool_, "float64": np.float64, "float32": np.float32}
            labels = np.full(rows, self._safe, dtype=kind.get(roles["label"].dtype, object))
        if "value" in roles:
            values = np.full((rows, 1), np.nan if labels is not None else self._safe, dtype=np.float64)
        classes = len(self._manifest.classes)
        return Answers(labels, np.full((rows, classes), np.nan) if "probabilities" in roles else None, values)

    def _withheld(self, answers: Answers) -> Answers:
        """The safe answer in the shape of the model's, of which nothing is let through."""

        def blank(numbers: NDArray[Any] | None, value: Any) -> NDArray[Any] | None:
            return None if numbers is None else np.full_like(numbers, value)

        labels = blank(answers.labels, self._safe)
        return Answers(
            labels,
            blank(answers.probabilities, np.nan),
            blank(answers.values, self._safe if labels is None else np.nan),
        )


def _check_safe(manifest: Manifest, safe: ClassLabel) -> None:
    if manifest.classes:
        # True equals 1, and neither is an answer of a model that gives the other.
        if not any(safe == known and type(safe) is type(known) for known in manifest.classes):
            shown = ", ".join(repr(known) for known in manifest.classes[:10])
            raise UsageError(f"the safe answer {safe!r} is no class of {manifest.title}", f"use one of {shown}")
    elif manifest.task != "regression" or isinstance(safe, bool | str):
        raise UsageError(
            f"the safe answer {safe!r} is none that {manifest.title} could give",
            "use a number for a regression, and none for a transformation",
        )
