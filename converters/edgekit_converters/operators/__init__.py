"""One scikit-learn step into nodes, a family a file.

Each module lists its classes in a mapping from class name to emitter; `edgekit_converters.walk` walks the fitted
pipeline and looks its steps up in `catalog`. An emitter is exact: it computes in float64 with the operations that
scikit-learn itself uses, or it raises `Unfaithful`, to which the walk adds the path of the step.

- `numeric`: scalers. - `selection`: choosing columns. - `imputers`: SimpleImputer. - `encoders`: OneHotEncoder and
OrdinalEncoder. - `linear`: linear models. - `trees`: trees, forests and boosting. - `scores`: from scores to labels and
probabilities. - `delegate`: everything else, through skl2onnx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_converters.graph import GraphBuilder, Table, Value, columns, is_narrow

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


class Unfaithful(Exception):
    """This step cannot be converted so that it answers like the original.

    Attributes:
        why: A clause, for `ConversionRefused`.
        next_step: What a person can do about it.
    """

    def __init__(self, why: str, next_step: str) -> None:
        super().__init__(why)
        self.why, self.next_step = why, next_step


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What a last step answers."""

    label: Value | None = None
    """[rows]: class labels."""
    probabilities: Value | None = None
    """[rows, classes]."""
    value: Value | None = None
    """[rows, targets] of a regression."""
    decision: Value | None = None
    """[rows, 1 or scores] of `decision_function`, for the wrappers that ask for it; no output of the graph."""
    deviation: Callable[[], Value] | None = None
    """Writes the standard deviation of `value`, of the same shape, for the wrapper that asks for it."""


Transform = Callable[["Walk", Any, Table, "Path"], Table]
"""Walk, fitted step, its columns, its path -> the columns of its `transform`."""
Predict = Callable[["Walk", Any, Table, "Path"], Predicted]
"""Walk, fitted step, its columns, its path -> what its `predict` and `predict_proba` answer."""


def on_matrix(emit: Callable[[GraphBuilder, Any, Value], Value]) -> Transform:
    """A transformer of one float64 matrix."""

    def transform(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
        return columns(emit(walk.graph, step, walk.matrix(table)))

    return transform


def on_own_type(emit: Callable[[GraphBuilder, Any, Value, bool], Value]) -> Transform:
    """A transformer of one float64 matrix whose results are rounded to float32 where all columns are of that.

    The emitter is told so, to round what the original computes on the way.
    """

    def transform(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
        narrow = is_narrow(table)
        found = emit(walk.graph, step, walk.matrix(table), narrow)
        return columns(walk.graph.cast(found, "float32") if narrow else found)

    return transform


def magnifying(emit: Transform) -> Transform:
    """A transformer that magnifies rounding; the walk notes it where the original was fitted in float32."""

    def transform(walk: Walk, step: Any, table: Table, path: Path) -> Table:
        if any(isinstance(one, np.ndarray) and one.dtype == np.float32 for one in vars(step).values()):
            walk.magnifying.append(f"{'/'.join(path)} ({type(step).__name__})")
        return emit(walk, step, table, path)

    return transform


def from_matrix(emit: Callable[[GraphBuilder, Any, Value], Predicted]) -> Predict:
    """A predictor of one float64 matrix."""

    def predict(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
        return emit(walk.graph, step, walk.matrix(table))

    return predict
