"""What a look at something found: a verdict, a sentence, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from edgekit_contracts.errors import EdgekitError

Verdict = Literal["ok", "warn", "FAIL"]
INDENT: Final = 20
"""Where the words of a line begin."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """Its name: `clock`, `disk`."""
    verdict: Verdict
    """`warn`: it works, and not well or not for long; `FAIL`: what was asked for does not work."""
    sentence: str
    next_step: str = ""
    exit_code: int = 3
    """Of the command, where this is a FAIL: 1 where something was refused for a stated reason, 3 the environment."""

    @classmethod
    def of(cls, check: str, error: EdgekitError) -> Finding:
        """What an error says, as a finding."""
        return cls(check, "FAIL", error.sentence, error.next_step, 1 if error.exit_code == 1 else 3)

    @property
    def words(self) -> str:
        """`sentence; next step`."""
        return "; ".join(filter(None, (self.sentence, self.next_step)))

    def line(self) -> str:
        """`FAIL  port     sentence; next step`."""
        return f"{self.verdict:<4}  {self.check:<12}  {self.words}"


def exit_code(findings: list[Finding]) -> int:
    """0: nothing failed; 3: the environment; 1: all that failed was refused for a stated reason."""
    return max((finding.exit_code for finding in findings if finding.verdict == "FAIL"), default=0)
