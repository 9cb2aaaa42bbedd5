"""A network, and what neither it nor its file says of itself: the names of its classes, the shape of one row.

A network is a function of arrays, given as a `torch.nn.Module`, an exported program or an ONNX file. The data is a
table: its columns, in order, are the numbers of one row, which the graph puts into the network's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from edgekit_contracts.errors import ConversionRefused, UsageError
from edgekit_contracts.manifest import ClassLabel
from edgekit_converters.nullable import agree
from edgekit_converters.registry import Answers

STEADY_ROWS: Final = 64
"""Rows that are asked for twice."""
ALONE_ROWS: Final = 3
"""Rows that are asked for alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network with what its user says of it.

    Raises:
        UsageError: Fewer than two classes, one named twice, or a dimension below 1.
    """

    model: Any
    """A `torch.nn.Module`, a `torch.export.ExportedProgram`, an `onnx.ModelProto` or an `OnnxFile`."""
    classes: tuple[ClassLabel, ...] | None = None
    """One for each score, in their order: the scores become probabilities. None: the numbers are the answer."""
    shape: tuple[int, ...] | None = None
    """Of one row, as the network takes it: such as (1, 28, 28). None: the columns as they are."""

    def __post_init__(self) -> None:
        if self.classes is not None and len(set(self.classes)) != max(2, len(self.classes)):
            raise UsageError("a classification has two classes or more, each once", "name each class once")
        if self.shape is not None and any(size < 1 for size in self.shape):
            raise UsageError(f"{self.shape} is not the shape of a row", "give sizes of 1 and more, such as 1x28x28")


def described(model: Any, classes: Sequence[ClassLabel] | None, shape: Sequence[int] | None) -> Any:
    """The model, as a `Network` where anything is said of it."""
    if classes is None and shape is None:
        return model
    return Network(
        model=model,
        classes=tuple(classes) if classes is not None else None,
        shape=tuple(shape) if shape is not None else None,
    )


def bare(model: Any) -> Any:
    """The model itself, without what its user says of it."""
    return model.model if isinstance(model, Network) else model


def as_network(model: Any) -> Network:
    """The model as a `Network`."""
    return model if isinstance(model, Network) else Network(model=model)


def size_of(shape: Sequence[int]) -> int:
    """Numbers in a row of that shape."""
    return math.prod(shape)


def check_steady(answers: Callable[[pd.DataFrame], Answers], frame: pd.DataFrame, name: str) -> None:
    """Checks that an answer is a function of its row: the same twice, and the same alone.

    Raises:
        ConversionRefused: It is not.
    """
    rows = frame.head(STEADY_ROWS)
    once = answers(rows)
    if not _equal(once, answers(rows)):
        raise ConversionRefused(
            name, "it answers the same rows differently each time", "remove what is random in it when it answers"
        )
    for row in range(min(ALONE_ROWS, len(rows))):
        if not agree(_row(once, row), answers(rows.iloc[row : row + 1])):
            raise ConversionRefused(
                name,
                "its answer to a row depends on the other rows of the call",
                "make it compute each row by itself: the rows are the first dimension",
            )


def _equal(one: Answers, other: Answers) -> bool:
    return all(
        np.array_equal(np.asarray(ours), np.asarray(theirs))
        for ours, theirs in (
            (one.labels, other.labels),
            (one.probabilities, other.probabilities),
            (one.values, other.values),
        )
    )


def _row(answers: Answers, row: int) -> Answers:
    def part(array: Any) -> Any:
        return None if array is None else array[row : row + 1]

    return Answers(part(answers.labels), part(answers.probabilities), part(answers.values))
