"""Float64 formulas of the predictors, as they are written on paper: `(x @ w + b).exp()` adds the nodes.

An `Expr` is a value of the graph with Python's operators; a number or an array on the other side becomes an
initializer. Comparisons are methods (`above`, `equals`), for `==` is how Python compares the objects themselves.
Nothing here reorders or simplifies: the nodes are the operations in the order in which they were written. Beside
matrices there are places (int64), truth values, and tensors [rows, a, b].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Dtype, GraphBuilder, Value


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """A tensor of the graph in a formula."""

    graph: GraphBuilder
    value: Value

    __array_ufunc__ = None  # numpy leaves `array + expr` to us

    @property
    def width(self) -> int:
        """Columns: the size of the last axis; 0 of a vector."""
        return self.value.width

    def __add__(self, other: Operand) -> Expr:
        return self._binary("Add", other)

    def __radd__(self, other: Operand) -> Expr:
        return self._binary("Add", other, reverse=True)

    def __sub__(self, other: Operand) -> Expr:
        return self._binary("Sub", other)

    def __rsub__(self, other: Operand) -> Expr:
        return self._binary("Sub", other, reverse=True)

    def __mul__(self, other: Operand) -> Expr:
        return self._binary("Mul", other)

    def __rmul__(self, other: Operand) -> Expr:
        return self._binary("Mul", other, reverse=True)

    def __truediv__(self, other: Operand) -> Expr:
        return self._binary("Div", other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return self._binary("Div", other, reverse=True)

    def __pow__(self, other: Operand) -> Expr:
        return self._binary("Pow", other)

    def __matmul__(self, matrix: NDArray[Any]) -> Expr:
        weights = self.graph.constant(np.ascontiguousarray(matrix, dtype=np.float64), "weights")
        return self.apply("MatMul", weights, width=matrix.shape[-1])

    def __neg__(self) -> Expr:
        return self.apply("Neg")

    def __abs__(self) -> Expr:
        return self.apply("Abs")

    def exp(self) -> Expr:
        """The exponential function."""
        return self.apply("Exp")

    def log(self) -> Expr:
        """The natural logarithm."""
        return self.apply("Log")

    def sqrt(self) -> Expr:
        """The square root."""
        return self.apply("Sqrt")

    def tanh(self) -> Expr:
        """The hyperbolic tangent."""
        return self.apply("Tanh")

    def sigmoid(self) -> Expr:
        """1 / (1 + exp(-x))."""
        return self.apply("Sigmoid")

    def softmax(self) -> Expr:
        """exp(x - max) / sum over the last axis."""
        return self.apply("Softmax", axis=-1)

    def square(self) -> Expr:
        """It times itself, as numpy's x ** 2."""
        return self * self

    def at_least(self, other: Operand) -> Expr:
        """The larger of both, elementwise."""
        return self._binary("Max", other)

    def at_most(self, other: Operand) -> Expr:
        """The smaller of both, elementwise."""
        return self._binary("Min", other)

    def above(self, other: Operand) -> Expr:
        """Whether it is greater."""
        return self._binary("Greater", other, dtype="bool")

    def not_below(self, other: Operand) -> Expr:
        """Whether it is greater or equal."""
        return self._binary("GreaterOrEqual", other, dtype="bool")

    def below(self, other: Operand) -> Expr:
        """Whether it is less."""
        return self._binary("Less", other, dtype="bool")

    def not_above(self, other: Operand) -> Expr:
        """Whether it is less or equal."""
        return self._binary("LessOrEqual", other, dtype="bool")

    def equals(self, other: Operand) -> Expr:
        """Whether both are the same."""
        return self._binary("Equal", other, dtype="bool")

    def where(self, yes: Operand, no: Operand) -> Expr:
        """`yes` where this truth value holds, else `no`."""
        (first, wide), (second, wider) = self._operand(yes), self._operand(no)
        like = replace(self.value, dtype="float64", width=max(self.width, wide, wider))
        return Expr(self.graph, self.graph.value("Where", [self.value, first, second], like))

    def sum(self, axis: int = -1) -> Expr:
        """The sum over an axis, which stays with size 1."""
        axes = self.graph.constant(np.array([axis], dtype=np.int64), "axes")
        return self.apply("ReduceSum", axes, width=1 if axis == -1 else self.width, keepdims=1)

    def max(self) -> Expr:
        """The largest of the last axis, which stays with size 1."""
        axes = self.graph.constant(np.array([-1], dtype=np.int64), "axes")
        return self.apply("ReduceMax", axes, width=1, keepdims=1)

    def argmax(self) -> Expr:
        """[rows]: the place of the largest of the columns; of equals the first, as numpy.argmax."""
        return self.apply("ArgMax", width=0, dtype="int64", axis=-1, keepdims=0, select_last_index=0)

    def argmin(self) -> Expr:
        """[rows]: the place of the smallest of the columns; of equals the first, as numpy.argmin."""
        return self.apply("ArgMin", width=0, dtype="int64", axis=-1, keepdims=0, select_last_index=0)

    def cast(self, dtype: Dtype) -> Expr:
        """As another element type."""
        return Expr(self.graph, self.graph.cast(self.value, dtype))

    def column(self, *indices: int) -> Expr:
        """[rows, indices]: some of the columns, in that order."""
        return Expr(self.graph, self.graph.gather(self.value, list(indices)))

    def reshape(self, *shape: int) -> Expr:
        """Another shape; -1 for the rows, 0 keeps a size."""
        wanted = self.graph.constant(np.array(shape, dtype=np.int64), "shape")
        return self.apply("Reshape", wanted, width=shape[-1] if len(shape) > 1 else 0)

    def flat(self) -> Expr:
        """[rows] of [rows, 1]."""
        return self.reshape(-1)

    def taken(self, array: NDArray[Any]) -> Expr:
        """The array's entries (along its first axis) at these places, float64."""
        table = self.graph.constant(np.asarray(array, dtype=np.float64), "table")
        width = array.shape[-1] if array.ndim > 1 else self.width
        return Expr(self.graph, self.graph.value("Gather", [table, self.value], Value("", "float64", width), axis=0))

    def apply(
        self, op: str, *more: str, width: int | None = None, dtype: Dtype | None = None, **attributes: Any
    ) -> Expr:
        """Any operator of this value and named others; of the same width and type unless they are given."""
        like = replace(self.value, width=self.width if width is None else width, dtype=dtype or self.value.dtype)
        return Expr(self.graph, self.graph.value(op, [self.value, *more], like, **attributes))

    def _operand(self, other: Operand) -> tuple[Value | str, int]:
        if isinstance(other, Expr):
            return other.value, other.width
        kind = np.int64 if self.value.dtype == "int64" else np.float64
        array = np.atleast_1d(np.asarray(other, dtype=kind))
        return self.graph.constant(array, "constant"), array.shape[-1]

    def _binary(self, op: str, other: Operand, *, reverse: bool = False, dtype: Dtype | None = None) -> Expr:
        name, width = self._operand(other)
        pair = [name, self.value] if reverse else [self.value, name]
        like = replace(self.value, width=max(self.width, width), dtype=dtype or self.value.dtype)
        return Expr(self.graph, self.graph.value(op, pair, like))


Operand = Expr | float | NDArray[Any]


def concat(parts: Sequence[Expr]) -> Expr:
    """The columns of all parts."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    like = replace(first.value, width=sum(one.width for one in parts))
    return Expr(first.graph, first.graph.value("Concat", [one.value for one in parts], like, axis=-1))


def total(parts: Sequence[Expr]) -> Expr:
    """The parts added one after another, from the first on."""
    result = parts[0]
    for one in parts[1:]:
        result = result + one
    return result


def rows_of(x: Value, graph: GraphBuilder, row: NDArray[np.float64]) -> Expr:
    """[rows, columns]: the same row for each row of `x`, whatever `x` holds (NaN and text too)."""
    shape = graph.node("Shape", [x], start=0, end=1)[0]
    count = graph.node("Concat", [shape, graph.constant(np.array([1], dtype=np.int64), "one")], axis=0)[0]
    constant = graph.constant(np.asarray(row, dtype=np.float64).reshape(1, -1), "row")
    return Expr(graph, Value(graph.node("Tile", [constant, count])[0], "float64", int(np.size(row))))
