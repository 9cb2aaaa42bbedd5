"""One pipeline of the set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.pipelines.tables import Data


@dataclass(frozen=True, slots=True)
class Case:
    """A model that is not fitted, and what it is fitted on."""

    name: str
    """In words, once in the set."""
    data: Callable[[], Data]
    model: Any
    refusal: str = ""
    """Words of the sentence that refuses it, where no conversion can be right by the model's nature."""
