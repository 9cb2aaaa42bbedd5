"""Scalers, with the operations of scikit-learn in their order, so that results are equal bit for bit.

Columns of float32 stay so, as in scikit-learn: each operation's result is rounded to float32, whether it is computed in
that (constants of float32) or in float64 (others, written into the matrix in place).

Source: `transform` of sklearn/preprocessing/_data.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Table, Value, columns, is_narrow
from edgekit_converters.operators import Transform

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def standard_scaler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """StandardScaler: (x - mean) / scale."""
    if step.with_mean:
        x = _row(graph, "Sub", x, _like(step.mean_, x))
    if step.with_std and step.scale_ is not None:
        x = _row(graph, "Div", x, _like(step.scale_, x))
    return x


def min_max_scaler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """MinMaxScaler: x * scale + min, cut to `feature_range` where `clip`."""
    x = _row(graph, "Add", _row(graph, "Mul", x, step.scale_), step.min_)
    return clip(graph, x, *step.feature_range) if step.clip else x


def max_abs_scaler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """MaxAbsScaler: x / scale, cut to [-1, 1] where `clip`."""
    x = _row(graph, "Div", x, step.scale_)
    return clip(graph, x, -1.0, 1.0) if getattr(step, "clip", False) else x


def robust_scaler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """RobustScaler: (x - center) / scale."""
    if step.with_centering:
        x = _row(graph, "Sub", x, step.center_)
    if step.with_scaling:
        x = _row(graph, "Div", x, step.scale_)
    return x


def binarizer(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """Binarizer: 1 where x > threshold, else 0."""
    limit = graph.constant(_like([step.threshold], x), "threshold")
    return graph.cast(graph.value("Greater", [x, limit], replace(x, dtype="bool")), x.dtype)


def clip(graph: GraphBuilder, x: Value, low: float, high: float) -> Value:
    """X cut to [low, high]; NaN stays NaN, which ONNX leaves open for `Clip`."""
    for operator, bound in (("Less", low), ("Greater", high)):
        limit = graph.constant(_like([bound], x), "bound")
        beyond = graph.node(operator, [x, limit])[0]
        x = graph.value("Where", [beyond, limit, x], x)
    return x


def _like(row: Any, x: Value) -> NDArray[Any]:
    """Constants of the matrix's own type."""
    return np.asarray(row, dtype=np.float32 if x.dtype == "float32" else np.float64)


def _row(graph: GraphBuilder, op: str, x: Value, row: NDArray[Any]) -> Value:
    """An operation with a row of constants, whose result has the matrix's type."""
    constants = np.asarray(row).reshape(1, -1)
    if x.dtype == "float32" and constants.dtype == np.float32:
        return graph.value(op, [x, graph.constant(constants, op.lower())], x)
    wide = graph.cast(x, "float64")
    name = graph.constant(constants.astype(np.float64), op.lower())
    return graph.cast(graph.value(op, [wide, name], wide), x.dtype)


def _scaler(emit: Callable[[GraphBuilder, Any, Value], Value]) -> Transform:
    """A scaler of a matrix that is float32 where all its columns are, as in numpy."""

    def transform(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
        x = walk.graph.matrix(table, "float32") if is_narrow(table) else walk.matrix(table)
        return columns(emit(walk.graph, step, x))

    return transform


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "Binarizer": _scaler(binarizer),
    "StandardScaler": _scaler(standard_scaler),
    "MinMaxScaler": _scaler(min_max_scaler),
    "MaxAbsScaler": _scaler(max_abs_scaler),
    "RobustScaler": _scaler(robust_scaler),
}
