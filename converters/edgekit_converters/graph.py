"""Building an ONNX graph, node by node, with the same bytes for the same calls.

A `Value` is a matrix in the graph that knows its element type and its number of columns; a `Table` is a row of columns
that may lie in several values, so that choosing, reordering and joining columns costs no node until an operator asks
for one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit_converters.nodes import all_nodes, needed_nodes, rename
from edgekit_converters.target import Target

Dtype = Literal["float64", "float32", "int64", "bool", "text"]

ML: Final = "ai.onnx.ml"
MICROSOFT: Final = "com.microsoft"
"""onnxruntime's own operators, in every wheel of it."""
ELEMENT: Final[Mapping[Dtype, int]] = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "text": TensorProto.STRING,
}
_DTYPE: Final[Mapping[int, Dtype]] = dict(zip(ELEMENT.values(), ELEMENT.keys(), strict=True))


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: [rows, width], or [rows] where `width` is 0."""

    name: str
    dtype: Dtype
    width: int


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a value."""

    value: Value
    index: int
    source: str | None = None
    """The feature that it holds, as it came in or with missing values filled; None once it was computed with."""

    @property
    def dtype(self) -> Dtype:
        """The value's element type."""
        return self.value.dtype


Table = tuple[Column, ...]
"""Columns in the order in which scikit-learn would see them."""


def columns(value: Value, sources: Sequence[str | None] | None = None) -> Table:
    """All columns of a value."""
    named = sources if sources is not None else [None] * value.width
    return tuple(Column(value, index, source) for index, source in enumerate(named))


Shape = Sequence[int | None]
"""Sizes of the axes; None is any."""
Turn = Callable[["GraphBuilder", Sequence[Value]], tuple[Value | None, Sequence[Value]]]
"""One turn of a Loop."""


def is_narrow(table: Table) -> bool:
    """Whether the original makes one matrix of float32 of the columns: one of another type would widen all."""
    return all(column.dtype == "float32" for column in table)


class GraphBuilder:
    """Nodes, initializers and names of one graph.

    Args:
        target: The ONNX to write.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.opset = target.opset
        """Of the domain `ai.onnx`; raised by steps that need a newer one."""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._sources: list[str] = []
        """What each output is the name of."""
        self._declared: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()
        self._gathered: dict[tuple[str, tuple[int, ...]], Value] = {}
        self._narrowed: dict[Column, Column] = {}

    def input(self, name: str, dtype: Dtype, width: int) -> Value:
        """Declares a graph input [rows, width]."""
        self._inputs.append(helper.make_tensor_value_info(self._unique(name), ELEMENT[dtype], [None, width]))
        return Value(name, dtype, width)

    def output(self, name: str, value: Value) -> None:
        """Makes `value` the graph output `name`."""
        shape = [None, value.width] if value.width else [None]
        self._outputs.append(helper.make_tensor_value_info(self._unique(name), ELEMENT[value.dtype], shape))
        self._sources.append(value.name)

    def constant(self, array: NDArray[Any], hint: str = "const") -> str:
        """Adds an initializer, once for equal arrays, and gives its name."""
        array = np.asarray(array)
        if array.dtype.kind in "OU":
            array = array.astype(object)
            content = "\0".join(map(str, array.ravel())).encode()
        else:
            content = np.ascontiguousarray(array).tobytes()
        key = array.dtype.str, array.shape, content
        if key not in self._known:
            self._known[key] = name = self._unique(hint)
            self._initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return self._known[key]

    def node(
        self, op: str, inputs: Sequence[Value | str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Adds a node and gives its outputs' names; attributes are as `make_node` takes them, or int64 arrays [n]."""
        names = tuple(self._unique(op) for _ in range(outputs))
        given = [one if isinstance(one, str) else one.name for one in inputs]
        whole = {
            name: value
            for name, value in attributes.items()
            if isinstance(value, np.ndarray) and value.dtype == np.int64
        }
        others = {name: value for name, value in attributes.items() if name not in whole}
        node = helper.make_node(op, given, list(names), name=names[0], domain=domain, **others)
        for name, value in whole.items():
            # `make_attribute` looks at each element several times, which takes longer than all else for a large forest.
            node.attribute.add(name=name, type=onnx.AttributeProto.INTS).ints.extend(value.tolist())
        self._nodes.append(node)
        return names

    def value(self, op: str, inputs: Sequence[Value | str], like: Value, domain: str = "", **attributes: Any) -> Value:
        """Adds a node with one output of `like`'s type and width."""
        return replace(like, name=self.node(op, inputs, 1, domain, **attributes)[0])

    def cast(self, value: Value, dtype: Dtype) -> Value:
        """The value as another element type; itself where it is one already."""
        if value.dtype == dtype:
            return value
        return self.value("Cast", [value], replace(value, dtype=dtype), to=ELEMENT[dtype])

    def matrix(self, table: Table, dtype: Dtype | None = None) -> Value:
        """The table as one value.

        Args:
            table: At least one column; all text, or none of them.
            dtype: The element type; by default the columns' own, float64 where they differ.
        """
        first = table[0].dtype
        default: Dtype = first if all(column.dtype == first for column in table) else "float64"
        wanted = dtype or default
        if wanted == "float64":
            table = tuple(self._narrowed.get(column, column) for column in table)
        runs = [(value, list(run)) for value, run in groupby(table, key=lambda column: column.value)]
        parts = [self.cast(self.gather(value, [c.index for c in run]), wanted) for value, run in runs]
        if len(parts) == 1:
            return parts[0]
        return self.value("Concat", parts, Value("", wanted, len(table)), axis=1)

    def narrow(self, table: Table) -> Table:
        """Columns that hold numbers of float32, as float32.

        Where float64 is asked for they are the given columns again, so that who does not compute in float32 pays
        nothing.
        """
        value = self.matrix(table, "float32")
        found = tuple(replace(column, value=value, index=index) for index, column in enumerate(table))
        self._narrowed.update(zip(found, table, strict=True))
        return found

    def rounded(self, value: Value) -> Value:
        """The float64 value with each number rounded to float32."""
        return self.cast(self.cast(value, "float32"), "float64")

    def gather(self, value: Value, indices: Sequence[int]) -> Value:
        """Some columns of a value, in that order; the value itself where that is all of them."""
        if list(indices) == list(range(value.width)):
            return value
        key = value.name, tuple(indices)
        if key not in self._gathered:
            index = self.constant(np.array(indices, dtype=np.int64), "columns")
            self._gathered[key] = self.value("Gather", [value, index], replace(value, width=len(indices)), axis=1)
        return self._gathered[key]

    def repeat(self, most: int, state: Sequence[Value], turn: Turn) -> tuple[Value, ...]:
        """A Loop: the state after `most` turns, or after the first one that says that it is enough.

        Args:
            most: Turns.
            state: What changes from turn to turn.
            turn: Given a builder that sees this graph's values and the state, it gives whether another turn is wanted
                (bool, of size 1; None: always) and the new state, of the same types and shapes.
        """
        inner = self.inner()
        inner.argument("iteration", "int64", [])
        inner.argument("condition", "bool", [])
        given = [replace(one, name=inner.argument("state", one.dtype, None)) for one in state]
        wanted, after = turn(inner, given)
        always = self.constant(np.array(True), "true")
        scalar = self.constant(np.array([], dtype=np.int64), "scalar")
        going = inner.node("Reshape", [wanted or always, scalar])[0]
        # A Loop's body must make its outputs itself: a value of the graph around it is none.
        results = [inner.node("Identity", [one])[0] for one in after]
        answers: dict[str, tuple[Dtype, Shape | None]] = {going: ("bool", [])}
        answers |= {name: (one.dtype, None) for name, one in zip(results, state, strict=True)}
        body = inner.body(answers)
        turns = self.constant(np.array(most, dtype=np.int64), "turns")
        found = self.node("Loop", [turns, always, *state], len(state), body=body)
        return tuple(replace(one, name=name) for one, name in zip(state, found, strict=True))

    def merge(self, model: onnx.ModelProto, inputs: Mapping[str, Value]) -> tuple[Value, ...]:
        """Stitches another model in, its names made our own.

        Args:
            model: Of opsets that are not newer than the target's.
            inputs: The values for its inputs.

        Returns:
            Its outputs, in order.
        """
        renamed = {name: value.name for name, value in inputs.items()}
        graph = model.graph
        for tensor in graph.initializer:
            # Names are ours: those of skl2onnx count up from one conversion to the next.
            renamed[tensor.name] = self._unique("leaf")
            copy = onnx.TensorProto()
            copy.CopyFrom(tensor)
            copy.name = renamed[tensor.name]
            self._initializers[copy.name] = copy
        for node in graph.node:
            if node.op_type == "Identity" and not node.domain:
                renamed[node.output[0]] = renamed[node.input[0]]
            else:
                self._nodes.append(self._adopt(node, renamed))
        return tuple(
            Value(
                renamed[info.name],
                _DTYPE[info.type.tensor_type.elem_type],
                int(info.type.tensor_type.shape.dim[-1].dim_value) if len(info.type.tensor_type.shape.dim) > 1 else 0,
            )
            for info in graph.output
        )

    def declare(self, name: str, dtype: Dtype, shape: Shape | None) -> None:
        """Says what a node gives whose operator onnx does not know: its inference of types crashes on unknown ones."""
        self._declared.append(helper.make_tensor_value_info(name, ELEMENT[dtype], shape))

    def inner(self) -> GraphBuilder:
        """A builder for a body of Loop, Scan or If: it can read the values and constants of this one."""
        inner = GraphBuilder(self.target)
        inner._names, inner._initializers, inner._known = self._names, self._initializers, self._known
        inner._gathered = dict(self._gathered)
        return inner

    def argument(self, hint: str, dtype: Dtype, shape: Shape | None) -> str:
        """Declares what a body is given, and gives its name."""
        name = self._unique(hint)
        self._inputs.append(helper.make_tensor_value_info(name, ELEMENT[dtype], shape))
        return name

    def body(self, outputs: Mapping[str, tuple[Dtype, Shape | None]]) -> onnx.GraphProto:
        """The body, once its nodes are added.

        Args:
            outputs: Name of a node's output -> its element type and shape.
        """
        infos = [helper.make_tensor_value_info(name, ELEMENT[dtype], shape) for name, (dtype, shape) in outputs.items()]
        nodes, _ = needed_nodes(self._nodes, set(outputs))
        return helper.make_graph(nodes, "body", self._inputs, infos, value_info=self._declared)

    def build(self) -> onnx.ModelProto:
        """The model, without what its outputs do not need, checked by `onnx.checker`."""
        nodes, needed = needed_nodes(self._named(), {info.name for info in self._outputs})
        used = [tensor for name, tensor in self._initializers.items() if name in needed]
        graph = helper.make_graph(nodes, "edgekit", self._inputs, self._outputs, used, value_info=self._declared)
        domains = {node.domain for node in all_nodes(graph)}
        known = (("", self.opset), (ML, self.target.ml_opset), (MICROSOFT, 1))
        opsets = [helper.make_opsetid(domain, version) for domain, version in known if domain in {"", *domains}]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=self.target.ir, producer_name="edgekit", producer_version=""
        )
        onnx.checker.check_model(model)
        return model

    def _named(self) -> list[onnx.NodeProto]:
        """The nodes, with the outputs under their names: a value takes its name, and a second one costs a node."""
        made = {name for node in self._nodes for name in node.output}
        final: dict[str, str] = {}
        copies = []
        for info, source in zip(self._outputs, self._sources, strict=True):
            if source in made and source not in final:
                final[source] = info.name
            else:
                copies.append(
                    helper.make_node("Identity", [final.get(source, source)], [info.name], name=f"to_{info.name}")
                )
        nodes = []
        for node in self._nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            rename(copy, final)
            nodes.append(copy)
        return nodes + copies

    def _adopt(self, node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
        """A copy of a node with names of ours, in its subgraphs too; `names` learns those of its outputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        names.update({name: self._unique(node.op_type) for name in node.output if name})
        copy.output[:] = [names.get(name, "") for name in node.output]
        copy.name, copy.doc_string = copy.output[0], ""
        for attribute in copy.attribute:
            if attribute.HasField("g"):
                inner, known = attribute.g, dict(names)
                inner.name, inner.doc_string = "body", ""
                del inner.value_info[:]
                for one in (*inner.input, *inner.initializer):
                    known[one.name] = one.name = self._unique("inner")
                nodes = [self._adopt(one, known) for one in inner.node]
                del inner.node[:]
                inner.node.extend(nodes)
                for info in inner.output:
                    info.name = known[info.name]
        return copy

    def _unique(self, hint: str) -> str:
        name, number = hint, 1
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name
