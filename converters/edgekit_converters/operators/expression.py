"""Formulas over matrices of the graph, written as formulas.

`Expr` wraps a `Value` [rows, width]; its operators add the ONNX node of the same name and broadcast as numpy does. A
plain number stands for every cell, an array [width] for one row of constants. All of it is float64 or bool. What ONNX
lacks in float64 (log1p, expm1, maximum with NaN) is composed here once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Dtype, GraphBuilder, Value

COMPARED_MAX: Final = 32
"""Limits that each cell is compared with at once; more take memory, and are bisected."""


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """A value in a formula.

    Attributes:
        graph: Where the nodes go.
        value: [rows, width].
    """

    graph: GraphBuilder
    value: Value

    __array_ufunc__ = None  # numpy leaves `array + expr` to us

    @property
    def width(self) -> int:
        """Columns."""
        return self.value.width

    def apply(self, op: str, *others: Operand, dtype: Dtype | None = None, width: int = 0, **attributes: Any) -> Expr:
        """The node `op` of this value and the others; as wide as the widest of them unless `width` says otherwise."""
        given: list[Value | str] = [self.value]
        widths = [self.value.width]
        for other in others:
            if isinstance(other, Expr):
                given.append(other.value)
                widths.append(other.value.width)
            else:
                array = _constant(other)
                given.append(self.graph.constant(array, op.lower()))
                widths.append(array.shape[-1])
        like = replace(self.value, dtype=dtype or self.value.dtype, width=width or max(widths))
        return Expr(self.graph, self.graph.value(op, given, like, **attributes))

    def constant(self, row: Operand) -> Expr:
        """A constant as an expression: one row [1, width], which broadcasts."""
        if isinstance(row, Expr):
            return row
        array = _constant(row)
        dtype: Dtype = "bool" if array.dtype == bool else "float64"
        return Expr(self.graph, Value(self.graph.constant(array, "row"), dtype, array.shape[-1]))

    def __add__(self, other: Operand) -> Expr:
        return self.apply("Add", other)

    def __sub__(self, other: Operand) -> Expr:
        return self.apply("Sub", other)

    def __mul__(self, other: Operand) -> Expr:
        return self.apply("Mul", other)

    def __truediv__(self, other: Operand) -> Expr:
        return self.apply("Div", other)

    def __pow__(self, other: Operand) -> Expr:
        return self.apply("Pow", other)

    def __radd__(self, other: Operand) -> Expr:
        return self.constant(other) + self

    def __rsub__(self, other: Operand) -> Expr:
        return self.constant(other) - self

    def __rmul__(self, other: Operand) -> Expr:
        return self.constant(other) * self

    def __rtruediv__(self, other: Operand) -> Expr:
        return self.constant(other) / self

    def __neg__(self) -> Expr:
        return self.apply("Neg")

    def __lt__(self, other: Operand) -> Expr:  # type: ignore[misc]  # arrays leave it to us
        return self.apply("Less", other, dtype="bool")

    def __le__(self, other: Operand) -> Expr:  # type: ignore[misc]  # arrays leave it to us
        return self.apply("LessOrEqual", other, dtype="bool")

    def __gt__(self, other: Operand) -> Expr:  # type: ignore[misc]  # arrays leave it to us
        return self.apply("Greater", other, dtype="bool")

    def __ge__(self, other: Operand) -> Expr:  # type: ignore[misc]  # arrays leave it to us
        return self.apply("GreaterOrEqual", other, dtype="bool")

    def __and__(self, other: Operand) -> Expr:
        return self.apply("And", other)

    def __or__(self, other: Operand) -> Expr:
        return self.apply("Or", other)

    def __invert__(self) -> Expr:
        return self.apply("Not")

    def equal(self, other: Operand) -> Expr:
        """Where both are the same number."""
        return self.apply("Equal", other, dtype="bool")

    def is_nan(self) -> Expr:
        """Where it is NaN."""
        return self.apply("IsNaN", dtype="bool")

    def where(self, chosen: Operand, other: Operand) -> Expr:
        """`chosen` where this bool holds, else `other`."""
        return self.apply("Where", self.constant(chosen), self.constant(other), dtype="float64")

    def floats(self) -> Expr:
        """As float64: a bool becomes 0.0 or 1.0."""
        return Expr(self.graph, self.graph.cast(self.value, "float64"))

    def exp(self) -> Expr:
        """The exponential."""
        return self.apply("Exp")

    def log(self) -> Expr:
        """The natural logarithm."""
        return self.apply("Log")

    def sqrt(self) -> Expr:
        """The square root."""
        return self.apply("Sqrt")

    def abs(self) -> Expr:
        """The absolute value."""
        return self.apply("Abs")

    def cos(self) -> Expr:
        """1 - 2 sin(x / 2) ** 2: Sin has had a float64 kernel for longer than Cos. Within 2e-16, absolute."""
        half = (self * 0.5).apply("Sin")
        return 1.0 - half * half * 2.0

    def log1p(self) -> Expr:
        """Log(1 + x) without losing small x: log(u) * x / (u - 1) with u = 1 + x, and x where u is 1.

        Source: Hewlett-Packard, HP-15C Advanced Functions Handbook, 1982, appendix; W. Kahan. Within 2 ulp.
        """
        u = self + 1.0
        near, infinite = u.equal(1.0), u.equal(np.inf)
        return near.where(self, infinite.where(u, u.log() * self / near.where(1.0, u - 1.0)))

    def expm1(self) -> Expr:
        """Exp(x) - 1 without losing small x: (u - 1) * x / log(u) with u = exp(x), and x where u is 1.

        Source: W. Kahan, in N. Higham, Accuracy and Stability of Numerical Algorithms, section 1.14.1. Within 4 ulp.
        """
        u = self.exp()
        less = u - 1.0
        near, edge = u.equal(1.0), less.equal(-1.0) | u.equal(np.inf)
        return near.where(self, edge.where(less, less * self / near.where(1.0, u.log())))

    def maximum(self, other: Operand) -> Expr:
        """The larger of both; NaN where either is, as numpy.maximum."""
        other = self.constant(other)
        return ((self >= other) | self.is_nan()).where(self, other)

    def minimum(self, other: Operand) -> Expr:
        """The smaller of both; NaN where either is, as numpy.minimum."""
        other = self.constant(other)
        return ((self <= other) | self.is_nan()).where(self, other)

    def matmul(self, weights: NDArray[Any]) -> Expr:
        """The matrix product with constants [width, n]."""
        name = self.graph.constant(np.ascontiguousarray(weights, dtype=np.float64), "weights")
        like = replace(self.value, width=weights.shape[1])
        return Expr(self.graph, self.graph.value("MatMul", [self.value, name], like))

    def sum(self) -> Expr:
        """[rows, 1]: the sum of each row."""
        axes = self.graph.constant(np.array([1], dtype=np.int64), "axes")
        return Expr(
            self.graph, self.graph.value("ReduceSum", [self.value, axes], replace(self.value, width=1), keepdims=1)
        )

    def mean(self) -> Expr:
        """[rows, 1]: the mean of each row."""
        return self.sum() / float(self.width)

    def at(self, indices: Sequence[int]) -> Expr:
        """Some columns, in that order."""
        return Expr(self.graph, self.graph.gather(self.value, list(indices)))

    def ones(self) -> Expr:
        """[rows, 1] of 1.0."""
        return self.at([0]).is_nan().where(1.0, 1.0)

    def look_up(self, table: NDArray[Any]) -> Expr:
        """`table[i]` for each cell's whole number i."""
        name = self.graph.constant(np.asarray(table, dtype=np.float64), "table")
        places = self.graph.cast(self.value, "int64")
        return Expr(self.graph, self.graph.value("Gather", [name, places], replace(places, dtype="float64"), axis=0))


Operand = Expr | float | NDArray[Any]


def joined(parts: Sequence[Expr]) -> Expr:
    """The columns of all parts, side by side."""
    if len(parts) == 1:
        return parts[0]
    like = replace(parts[0].value, width=sum(part.width for part in parts))
    graph = parts[0].graph
    return Expr(graph, graph.value("Concat", [part.value for part in parts], like, axis=1))


def count_reached(x: Expr, limits: Sequence[NDArray[np.float64]]) -> Expr:
    """[rows, width]: how many of its column's limits each cell has reached (x >= limit).

    The same as `numpy.searchsorted(limits, x, side="right")` of sorted limits: by comparing with all of them, or by
    bisection where they are many. NaN has reached none.
    """
    deepest = max(1, *(len(one) for one in limits))
    if deepest > COMPARED_MAX:
        deepest = (1 << deepest.bit_length()) - 1
    padded = np.full((x.width, deepest), np.inf)
    for row, one in zip(padded, limits, strict=True):
        row[: len(one)] = one
    if deepest > COMPARED_MAX:
        return _bisected(x, padded)
    spread = x.at(np.repeat(np.arange(x.width), deepest).tolist())
    reached = (spread >= padded.ravel()).floats()
    graph = x.graph
    shape = graph.constant(np.array([-1, x.width, deepest], dtype=np.int64), "shape")
    axes = graph.constant(np.array([2], dtype=np.int64), "axes")
    block = graph.node("Reshape", [reached.value, shape])[0]
    return Expr(graph, graph.value("ReduceSum", [block, axes], x.value, keepdims=0))


def _bisected(x: Expr, limits: NDArray[np.float64]) -> Expr:
    """`count_reached` of 2 ** n - 1 sorted limits for each column, in n steps."""
    flat = limits.ravel()
    starts = np.arange(x.width) * float(limits.shape[1])
    count, step = x.constant(np.zeros(x.width)), (limits.shape[1] + 1) // 2
    while step:
        reached = x >= (count + (starts + float(step - 1))).look_up(flat)
        count = count + reached.where(float(step), 0.0)
        step //= 2
    return count


def _constant(operand: float | NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(operand)
    array = array if array.dtype == bool else array.astype(np.float64)
    return array.reshape(1, -1) if array.ndim else array.reshape(1)
