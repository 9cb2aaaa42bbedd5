"""A thread that waits for work, and can be asked whether it still comes round to waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


class Pulse:
    """One thread's sign of life. The thread beats whenever it comes round; any other thread may ask.

    A thread that is stuck in its work, or has ended, does not answer. One that is idle does: the question wakes it.

    Args:
        name: Who beats, for a sentence: "the reporter".
        wake: Makes the thread come round.
    """

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self.name: Final = name
        self._wake = wake
        self._asked = self._answered = 0

    def ask(self) -> None:
        """Are you there?"""
        self._asked += 1
        self._wake()

    def beat(self) -> None:
        """Said by the thread itself, each time it comes round."""
        self._answered = self._asked

    @property
    def answered(self) -> bool:
        """Whether it came round since it was last asked."""
        return self._answered == self._asked
