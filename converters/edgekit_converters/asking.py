"""Asks the original and the converted model the same rows, in blocks, both at the same time.

The original is asked on one thread only, since not every model may be called from several; the converted one answers
blocks of its own on the other cores. Each of its calls is one of a single thread, as on a device: more threads inside
one call would add in another order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_contracts.manifest import Feature
from edgekit_converters.registry import Answers
from edgekit_converters.schema import floats
from edgekit_converters.stacking import stacked
from edgekit_runtime.engine import Column, Engine

FIRST_ROWS: Final = 5_000
"""Of a first block of the original's, small, so that a slow model shows progress soon."""
BLOCK_ROWS: Final = 100_000
"""Of the others: an ensemble brings each of its trees into the caches once a block."""
BLOCK_CELLS: Final = 8_000_000
"""At most in one block of the original's: 64 MB of float64."""
ENGINE_ROWS: Final = 16_384
ENGINE_CELLS: Final = 1_000_000
"""At most in one block of the converted model's: what is between its nodes is several times as much."""
WIDE_CELLS: Final = 4_000_000
"""At most in one such block, of numbers beside the widest constant of the graph: 32 MB of float64."""
HALVINGS: Final = 200
"""Calls that are spent on finding which of the rows that may be refused are refused."""

NANS_TRIED: Final = 50
"""Rows to which the original gives NaN, of each block, of which it is checked that the Engine refuses them."""

Progress = Callable[[int, int], None]
"""Called with the rows that are done, and all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows, and what both models say of them."""

    columns: Mapping[str, Column]
    theirs: Answers
    """The original's."""
    ours: Answers


def ask(
    engine: Engine,
    original: Callable[[pd.DataFrame], Answers],
    parts: Sequence[pd.DataFrame],
    optional: Sequence[pd.DataFrame] = (),
    progress: Progress = lambda done, total: None,
    *,
    at_once: int | None = None,
) -> Asked:
    """The answers to all the parts, one after another.

    Args:
        engine: The converted model.
        original: The original's answers to a frame.
        parts: Rows of the same columns; each frame has its own types, which are kept.
        optional: More of them, of which those are left out that the original refuses.
        progress: Called after each block.
        at_once: At most so many rows in one call of the converted model.

    Raises:
        ParityBroken: The converted model refuses a row that the original answers.
        EdgekitError: The original refuses a row of `parts`.
    """
    features = engine.manifest.features
    total = sum(map(len, (*parts, *optional)))
    done = 0
    columns: list[Mapping[str, Column]] = []
    theirs: list[Answers] = []
    ours: list[Future[Answers]] = []
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        for block in _blocks(parts, FIRST_ROWS):
            columns.append(columns_of(block, features))
            ours += [pool.submit(engine.predict, piece) for piece in _pieces(columns[-1], len(block), at_once)]
            theirs.append(original(block))
            done += len(block)
            progress(done, total)
        for whole, found_there in _answered(optional, original):
            block, answers = _with_numbers(engine, whole, found_there)
            if not len(block):
                continue
            columns.append(columns_of(block, features))
            ours += [pool.submit(engine.predict, piece) for piece in _pieces(columns[-1], len(block), at_once)]
            theirs.append(answers)
            done += len(block)
            progress(done, total)
        try:
            found = [one.result() for one in ours]
        except EdgekitError as error:
            raise ParityBroken(f"it refuses a row that the original answers: {error.sentence}") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return Asked(_join_columns(columns), _join(theirs), _join(found))


def answered(engine: Engine, columns: Mapping[str, Column], at_once: int | None = None) -> Answers:
    """The converted model's answers to all the rows, block by block.

    Raises:
        EdgekitError: It refuses a row.
    """
    rows = len(next(iter(columns.values())))
    return _join([engine.predict(piece) for piece in _pieces(columns, rows, at_once)])


def rows_at_once(model: bytes) -> int:
    """How many rows one call of a converted model should get at most: few where a row is wide inside of the graph.

    A product with a constant makes rows as wide as that: of a million hashed names, or of all the rows of training.
    """
    constants = onnx.load_from_string(model).graph.initializer
    widest = max((size for tensor in constants for size in tensor.dims), default=1)
    return max(1, min(ENGINE_ROWS, WIDE_CELLS // max(1, widest)))


def columns_of(frame: pd.DataFrame, features: Sequence[Feature]) -> Mapping[str, Column]:
    """The columns as the Engine takes them: float64 arrays with NaN, lists of str and None."""
    columns: dict[str, Column] = {}
    for feature in features:
        series = frame[feature.name]
        if feature.dtype == "text":
            null = series.isna().to_numpy()
            columns[feature.name] = [
                None if absent else value for value, absent in zip(series.tolist(), null, strict=True)
            ]
        else:
            columns[feature.name] = floats(series)
    return columns


def _blocks(parts: Sequence[pd.DataFrame], rows: int) -> Iterator[pd.DataFrame]:
    """Blocks of one part, or of several that follow one another and have the same types; the first has `rows`."""
    for _, group in groupby(parts, key=lambda part: part.dtypes.tolist()):
        alike = list(group)
        whole = alike[0] if len(alike) == 1 else stacked(alike)
        most = max(1, BLOCK_CELLS // max(1, whole.shape[1]))
        at = 0
        while at < len(whole):
            size = min(rows, most)
            yield whole.iloc[at : at + size]
            at += size
            rows = BLOCK_ROWS


def _answered(
    parts: Sequence[pd.DataFrame], original: Callable[[pd.DataFrame], Answers]
) -> Iterator[tuple[pd.DataFrame, Answers]]:
    """The rows to which the original has an answer, with it: it may refuse values that no data has."""
    waiting = list(_blocks(parts, BLOCK_ROWS))[::-1]
    left = HALVINGS
    while waiting:
        block = waiting.pop()
        try:
            answers = original(block)
        except EdgekitError:
            left -= 1
            if len(block) > 1 and left > 0:
                middle = len(block) // 2
                waiting += [block.iloc[middle:], block.iloc[:middle]]
            continue
        yield block, answers


def _with_numbers(engine: Engine, block: pd.DataFrame, answers: Answers) -> tuple[pd.DataFrame, Answers]:
    """The rows to which the original gives numbers; where it gives NaN, the Engine refuses the row, as is checked.

    Raises:
        ParityBroken: The converted model answers a row to which the original gives NaN.
    """
    numbers = answers.probabilities if answers.probabilities is not None else answers.values
    if numbers is None or engine.manifest.task == "transformation":
        return block, answers
    known = ~np.isnan(numbers).any(axis=1)
    unknown = np.flatnonzero(~known)
    for row in unknown[:: max(1, len(unknown) // NANS_TRIED)]:
        columns = columns_of(block.iloc[[row]], engine.manifest.features)
        try:
            engine.predict(columns)
        except EdgekitError:
            continue
        raise ParityBroken(f"it answers a row to which the original gives NaN: {dict(columns)}"[:300])
    kept = [None if part is None else part[known] for part in (answers.labels, answers.probabilities, answers.values)]
    return block.iloc[np.flatnonzero(known)], Answers(*kept)


def _pieces(columns: Mapping[str, Column], rows: int, at_once: int | None) -> Iterator[Mapping[str, Column]]:
    size = max(1, min(at_once or ENGINE_ROWS, ENGINE_CELLS // len(columns)))
    for at in range(0, rows, size):
        yield {name: column[at : at + size] for name, column in columns.items()}


def _join(parts: list[Answers]) -> Answers:
    def joined(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present else None

    return Answers(
        labels=joined([part.labels for part in parts]),
        probabilities=joined([part.probabilities for part in parts]),
        values=joined([part.values for part in parts]),
    )


def _join_columns(parts: list[Mapping[str, Column]]) -> Mapping[str, Column]:
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        if isinstance(first, np.ndarray)
        else [value for part in parts for value in part[name]]
        for name, first in parts[0].items()
    }
