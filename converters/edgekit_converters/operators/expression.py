"""Formulas over values of the graph, written as formulas: `(x @ w + b).exp()` adds the nodes.

An `Expr` wraps a `Value`; its operators add the ONNX node of the same name and broadcast as numpy does. A plain number
stands for every cell, an array [width] for one row of constants. Nothing here reorders or simplifies: the nodes are the
operations in the order in which they were written. Beside float64 matrices there are places (int64), truth values
(bool), and tensors [rows, a, b]. What ONNX lacks in float64 is in `composed`.
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
    """A tensor of the graph in a formula.

    Attributes:
        graph: Where the nodes go.
        value: [rows, width]; or [rows], or [rows, a, width].
    """

    graph: GraphBuilder
    value: Value

    __array_ufunc__ = None  # numpy leaves `array + expr` to us

    @property
    def width(self) -> int:
        """Columns: the size of the last axis; 0 of a vector."""
        return self.value.width

    def apply(
        self, op: str, *others: Operand | str, dtype: Dtype | None = None, width: int | None = None, **attributes: Any
    ) -> Expr:
        """The node `op` of this value and the others.

        Args:
            op: The operator.
            others: Numbers and arrays become constants; a name is that of an initializer which is no operand, as axes.
            dtype: Of the result; by default this value's.
            width: Of the result; by default that of the widest operand.
            attributes: The node's.
        """
        given: list[Value | str] = [self.value]
        widest = self.width
        for other in others:
            if isinstance(other, str):
                given.append(other)
            else:
                value = self.constant(other).value
                given.append(value)
                widest = max(widest, value.width)
        like = replace(self.value, dtype=dtype or self.value.dtype, width=widest if width is None else width)
        return Expr(self.graph, self.graph.value(op, given, like, **attributes))

    def constant(self, operand: Operand) -> Expr:
        """A constant as an expression: an array [width] is a row [1, width], which broadcasts.

        Numbers beside int64 or float32 are so too, for ONNX mixes no types; truth values stay so; all else is float64.
        """
        if isinstance(operand, Expr):
            return operand
        array, dtype = np.asarray(operand), self.value.dtype
        if dtype not in {"int64", "float32"}:
            dtype = "bool" if array.dtype == bool else "float64"
        array = array.astype(dtype)
        array = array.reshape(1, -1) if array.ndim == 1 else np.atleast_1d(array)
        return Expr(self.graph, Value(self.graph.constant(array, "constant"), dtype, array.shape[-1]))

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

    def __matmul__(self, weights: NDArray[Any]) -> Expr:
        name = self.graph.constant(np.ascontiguousarray(weights, dtype=np.float64), "weights")
        return self.apply("MatMul", name, width=weights.shape[-1])

    def affine(self, weights: NDArray[Any], bias: NDArray[Any]) -> Expr:
        """The product with weights [width, columns] and a bias [columns], in one node; the order of sums is its own."""
        given = (np.ascontiguousarray(one, dtype=np.float64) for one in (weights, bias))
        names = [self.graph.constant(one, "weights") for one in given]
        return self.apply("Gemm", *names, width=weights.shape[-1])

    def __neg__(self) -> Expr:
        return self.apply("Neg")

    def __abs__(self) -> Expr:
        return self.apply("Abs")

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

    def equals(self, other: Operand) -> Expr:
        """Where both are the same number; a method, for `==` is how Python compares the objects themselves."""
        return self.apply("Equal", other, dtype="bool")

    def is_nan(self) -> Expr:
        """Where it is NaN."""
        return self.apply("IsNaN", dtype="bool")

    def where(self, chosen: Operand, other: Operand) -> Expr:
        """`chosen` where this truth value holds, else `other`; float64."""
        return self.apply("Where", chosen, other, dtype="float64")

    def cast(self, dtype: Dtype) -> Expr:
        """As another element type; a bool becomes 0 or 1."""
        return Expr(self.graph, self.graph.cast(self.value, dtype))

    def exp(self) -> Expr:
        """The exponential function."""
        return self.apply("Exp")

    def log(self) -> Expr:
        """The natural logarithm."""
        return self.apply("Log")

    def sqrt(self) -> Expr:
        """The square root."""
        return self.apply("Sqrt")

    def square(self) -> Expr:
        """It times itself, as numpy's x ** 2."""
        return self * self

    def tanh(self) -> Expr:
        """The hyperbolic tangent."""
        return self.apply("Tanh")

    def sigmoid(self) -> Expr:
        """1 / (1 + exp(-x))."""
        return self.apply("Sigmoid")

    def softmax(self) -> Expr:
        """exp(x - max) / sum over the last axis."""
        return self.apply("Softmax", axis=-1)

    def maximum(self, other: Operand) -> Expr:
        """The larger of both, and NaN where either is: numpy.maximum, for data in which NaN means missing.

        Three more nodes than `at_least`, because ONNX does not say what its Max makes of NaN.
        """
        other = self.constant(other)
        return ((self >= other) | self.is_nan()).where(self, other)

    def minimum(self, other: Operand) -> Expr:
        """The smaller of both, and NaN where either is: numpy.minimum. See `maximum`."""
        other = self.constant(other)
        return ((self <= other) | self.is_nan()).where(self, other)

    def at_least(self, bound: Operand) -> Expr:
        """Lifted to a bound by ONNX's Max alone: for computed numbers, as distances, that rounding may lower.

        What becomes of NaN is the runtime's choice: where it counts, take `maximum`.
        """
        return self.apply("Max", bound)

    def at_most(self, bound: Operand) -> Expr:
        """Cut to a bound by ONNX's Min alone. See `at_least`; where NaN counts, take `minimum`."""
        return self.apply("Min", bound)

    def sum(self, axis: int = -1, *, keep: bool = True) -> Expr:
        """The sum over an axis, which stays with size 1, or (another than the last one) goes."""
        axes = self.graph.constant(np.array([axis], dtype=np.int64), "axes")
        return self.apply("ReduceSum", axes, width=1 if axis == -1 else self.width, keepdims=int(keep))

    def mean(self) -> Expr:
        """The mean over the last axis, which stays with size 1."""
        return self.sum() / float(self.width)

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

    def at(self, *indices: int) -> Expr:
        """[rows, indices]: some of the columns, in that order."""
        return Expr(self.graph, self.graph.gather(self.value, indices))

    def ones(self) -> Expr:
        """[rows, 1] of 1.0."""
        return self.at(0).is_nan().where(1.0, 1.0)

    def look_up(self, table: NDArray[Any]) -> Expr:
        """`table[i]`, float64, for each cell's whole number i (int64, or float64); along the table's first axis."""
        name = self.graph.constant(np.asarray(table, dtype=np.float64), "table")
        width = table.shape[-1] if table.ndim > 1 else self.width
        places = self.graph.cast(self.value, "int64")
        return Expr(self.graph, self.graph.value("Gather", [name, places], Value("", "float64", width), axis=0))

    def reshape(self, *shape: int) -> Expr:
        """Another shape; -1 for the rows, 0 keeps a size."""
        wanted = self.graph.constant(np.array(shape, dtype=np.int64), "shape")
        return self.apply("Reshape", wanted, width=shape[-1] if len(shape) > 1 else 0)

    def flat(self) -> Expr:
        """[rows] of [rows, 1]."""
        return self.reshape(-1)


Operand = Expr | float | NDArray[Any]


def concat(parts: Sequence[Expr]) -> Expr:
    """The columns of all parts, side by side."""
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
