"""The steps of a build: timed, and told of while they last and when they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a build, done."""

    name: str
    result: str
    seconds: float


OnProgress = Callable[[str, str], None]
"""Called with a step's name when it begins, and with how far it is while it lasts."""


@dataclass
class Running:
    """A step that runs."""

    title: str
    on_progress: OnProgress | None
    result: str = ""

    def say(self, result: str) -> None:
        """Sets what is shown once the step is done."""
        self.result = result

    def progress(self, done: int, total: int) -> None:
        """Tells how far it is."""
        if self.on_progress is not None:
            self.on_progress(self.title, f"{done:,} of {total:,} rows")


class Steps:
    """Times each step and tells of it while it lasts and when it is done."""

    def __init__(self, on_step: Callable[[Step], None] | None, on_progress: OnProgress | None) -> None:
        self.done: list[Step] = []
        self._on_step, self._on_progress = on_step, on_progress

    @contextmanager
    def step(self, title: str) -> Iterator[Running]:
        """Runs the body as a step of this name; it is not done where the body raises."""
        record, started = Running(title, self._on_progress), time.perf_counter()
        if self._on_progress is not None:
            self._on_progress(title, "")
        yield record
        self.done.append(Step(name=title, result=record.result, seconds=round(time.perf_counter() - started, 3)))
        if self._on_step is not None:
            self._on_step(self.done[-1])
