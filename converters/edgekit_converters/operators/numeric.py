"""Scalers, with the operations of scikit-learn in their order, so that float64 results are equal bit for bit.

Source: `transform` of sklearn/preprocessing/_data.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, on_matrix


def standard_scaler(graph: GraphBuilder, step: Any, x: Value) -> Value:
    """StandardScaler: (x - mean) / scale."""
    if step.with_mean:
        x = _row(graph, "Sub", x, step.mean_)
    if step.with_std and step.scale_ is not None:
        x = _row(graph, "Div", x, step.scale_)
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
    limit = graph.constant(np.array([step.threshold], dtype=np.float64), "threshold")
    return graph.cast(graph.value("Greater", [x, limit], replace(x, dtype="bool")), "float64")


def clip(graph: GraphBuilder, x: Value, low: float, high: float) -> Value:
    """X cut to [low, high]; NaN stays NaN, which ONNX leaves open for `Clip`."""
    for operator, bound in (("Less", low), ("Greater", high)):
        limit = graph.constant(np.array([bound], dtype=np.float64), "bound")
        beyond = graph.node(operator, [x, limit])[0]
        x = graph.value("Where", [beyond, limit, x], x)
    return x


def _row(graph: GraphBuilder, op: str, x: Value, row: NDArray[np.float64]) -> Value:
    return graph.value(op, [x, graph.constant(np.asarray(row, dtype=np.float64).reshape(1, -1), op.lower())], x)


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "Binarizer": on_matrix(binarizer),
    "StandardScaler": on_matrix(standard_scaler),
    "MinMaxScaler": on_matrix(min_max_scaler),
    "MaxAbsScaler": on_matrix(max_abs_scaler),
    "RobustScaler": on_matrix(robust_scaler),
}
