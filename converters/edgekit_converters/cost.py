"""What one row costs in an ONNX graph, counted from the file alone: nothing is executed, equal bytes give equal counts.

Symbolic dimensions count as one (the batch of one row). Nodes that ONNX Runtime removes or joins at load are not
counted: constant folding, Identity and Dropout, MatMul+Add, and an activation or BatchNormalization after Conv or Gemm.

Source: ONNX operator schemas; ONNX Runtime documentation, "Graph Optimizations in ONNX Runtime" (constant folding,
redundant node eliminations, semantics-preserving and complex node fusions). The idea of costing what the runtime's
fusions leave is nn-Meter's (Zhang et al., MobiSys 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from edgekit_contracts.errors import FormatError
from edgekit_converters import node_cost, tree_cost
from edgekit_converters.node_cost import Shape

TEXT_BYTES: Final = 100
"""Of a text that is looked up. A LabelEncoder of 200,000 words keeps 225 bytes for each of them (measured 2026-11-27,
onnxruntime 1.32.0); `fit` takes about twice what is counted here."""
ITERATION_NODES: Final = 2
"""A turn of a Scan costs as much as this many nodes beside its own: an execution frame is made for each.
Measured 2026-11-23 on x86-64 with onnxruntime 1.32.0: 1.3 to 2.4 us a turn of two nodes, where a node elsewhere took
0.4 to 0.6 us."""

_REMOVED: Final = frozenset({"Constant", "Identity", "Dropout"})
_ACTIVATIONS: Final = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"})
_JOINED: Final = {
    "MatMul": frozenset({"Add"}),
    "Gemm": _ACTIVATIONS,
    "Conv": _ACTIVATIONS | {"BatchNormalization", "Mul", "Add"},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The work of one row, and what the model keeps in memory."""

    nodes: int = 0
    """Graph nodes that are executed, turns of a Scan included."""
    graph_nodes: int = 0
    """Graph nodes that stay in memory, each once."""
    madds: int = 0
    """Multiply-adds of matrix products, convolutions, linear models and kernels of support vectors; float64 twice."""
    elements: int = 0
    """Elements that go through element-wise nodes: the larger of what a node reads and writes."""
    tree_comparisons: int = 0
    """Steps in trees, leaf weights included (`tree_cost.TreeCost.comparisons`)."""
    support_vectors: int = 0
    weight_bytes: int = 0
    """Constants that every row reads whole: matrices, kernels, support vectors."""
    parameter_bytes: int = 0
    """All constants, trees left out."""
    tree_nodes: int = 0
    leaf_weights: int = 0
    notes: tuple[str, ...] = ()
    """What could not be counted, such as a loop without a fixed number of turns."""


@dataclass(slots=True)
class _Tally:
    nodes: int = 0
    graph_nodes: int = 0
    madds: int = 0
    elements: int = 0
    tree_comparisons: float = 0.0
    support_vectors: int = 0
    weight_bytes: int = 0
    parameter_bytes: int = 0
    tree_nodes: int = 0
    leaf_weights: int = 0
    notes: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is known of the names that a node can see."""

    shapes: dict[str, Shape]
    constants: dict[str, int]
    """Name -> bytes."""


def cost(model: bytes) -> Cost:
    """Counts the work of one row.

    Args:
        model: An ONNX file.

    Raises:
        FormatError: Not an ONNX model, or a tree ensemble that is none.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except Exception as error:  # protobuf's DecodeError, whose module has no types
        raise FormatError("model", "$", "not an ONNX file") from error
    if not proto.graph.node:
        raise FormatError("model", "$.graph", "no node")
    tally = _Tally()
    try:
        _count_graph(_with_shapes(proto, tally).graph, _Scope({}, {}), tally, turns=1)
    except (IndexError, KeyError, TypeError) as error:
        # A node without the inputs of its operator, a tensor of no known type: the checker's business, not ours.
        raise FormatError("model", "$.graph", f"a node or tensor lacks what its kind needs ({error!r})") from error
    return Cost(
        nodes=tally.nodes,
        graph_nodes=tally.graph_nodes,
        madds=tally.madds,
        elements=tally.elements,
        tree_comparisons=round(tally.tree_comparisons),
        support_vectors=tally.support_vectors,
        weight_bytes=tally.weight_bytes,
        parameter_bytes=tally.parameter_bytes,
        tree_nodes=tally.tree_nodes,
        leaf_weights=tally.leaf_weights,
        notes=tuple(sorted(tally.notes)),
    )


def _with_shapes(proto: ModelProto, tally: _Tally) -> ModelProto:
    try:
        # data_prop would follow values through the graph: more work than a file from elsewhere may cause.
        return onnx.shape_inference.infer_shapes(proto, data_prop=False)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        tally.notes.add("shapes could not be inferred")
        return proto


def _count_graph(graph: GraphProto, outer: _Scope, tally: _Tally, *, turns: int) -> None:
    scope = _Scope(dict(outer.shapes), dict(outer.constants))
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            scope.shapes[value.name] = tuple(dim.dim_value if dim.dim_value > 0 else 1 for dim in dims)
    for tensor in graph.initializer:
        _add_constant(tensor.name, tensor, scope, tally)
    joined = _joined(graph, scope)
    for node in graph.node:
        _count_node(node, scope, tally, turns=turns, is_joined=node.output[0] in joined if node.output else False)


def _add_constant(name: str, tensor: TensorProto, scope: _Scope, tally: _Tally) -> None:
    size = node_cost.tensor_bytes(tensor)
    scope.shapes[name], scope.constants[name] = tuple(tensor.dims), size
    tally.parameter_bytes += size


def _joined(graph: GraphProto, scope: _Scope) -> set[str]:
    """Outputs of nodes that the runtime joins with the node before them."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {value.name for value in graph.output}
    joined: set[str] = set()
    for node in graph.node:
        end, kind = node, node.op_type
        # At most one bias or normalization, then one activation: MatMul+Add is a Gemm, which takes an activation.
        while kind in _JOINED and end.output[0] not in kept and len(after := readers.get(end.output[0], [])) == 1:
            end = after[0]
            others = [name for name in end.input if name not in scope.constants]
            if end.op_type not in _JOINED[kind] or len(others) != 1:
                break
            joined.add(end.output[0])
            kind = "Gemm" if kind == "MatMul" else kind if end.op_type not in _ACTIVATIONS else ""
    return joined


def _count_node(node: NodeProto, scope: _Scope, tally: _Tally, *, turns: int, is_joined: bool) -> None:
    constant = all(name in scope.constants for name in node.input if name)
    if node.op_type == "Constant":
        for item in node.attribute:
            if item.type == AttributeProto.TENSOR:
                _add_constant(node.output[0], item.t, scope, tally)
            else:
                scope.constants[node.output[0]] = 0
        return
    for name in node.output:
        # Operators outside the ONNX domain have no shape inference: most keep the shape of what they read.
        scope.shapes.setdefault(name, _read_shape(node, scope))
    if node.input and constant and not _bodies(node):
        scope.constants.update(dict.fromkeys(node.output, 0))
        return
    if node.op_type in _REMOVED:
        return
    if bodies := _bodies(node):
        _count_bodies(node, bodies, scope, tally, turns=turns)
        return
    tally.nodes += 0 if is_joined else turns
    tally.graph_nodes += 0 if is_joined else 1
    if node.op_type in tree_cost.OPERATORS:
        trees = tree_cost.tree_cost(node)
        tally.tree_comparisons += trees.comparisons * turns
        tally.tree_nodes += trees.nodes
        tally.leaf_weights += trees.leaf_weights
        return
    attributes = {item.name: item for item in node.attribute}
    tally.parameter_bytes += sum(
        4 * len(item.floats) + 8 * len(item.ints) + TEXT_BYTES * len(item.strings) for item in node.attribute
    )
    if "support_vectors" in attributes:
        kernels = node_cost.kernel_cost(attributes)
        tally.support_vectors += kernels.vectors
        tally.madds += turns * kernels.madds
        tally.elements += turns * kernels.elements
        tally.weight_bytes += kernels.bytes
    elif "coefficients" in attributes:
        tally.madds += turns * len(attributes["coefficients"].floats)
    elif node.op_type in node_cost.PRODUCTS:
        weights = sum(scope.constants.get(name, 0) for name in node.input)
        numbers = sum(node_cost.size(scope.shapes[name]) for name in node.input if name in scope.constants)
        # A vector register holds half as many float64.
        factor = 2 if numbers and weights >= 8 * numbers else 1
        tally.madds += factor * turns * node_cost.product_madds(node, scope.shapes)
        tally.weight_bytes += weights
    elif not is_joined:
        moving = [name for name in (*node.output, *node.input) if name and name not in scope.constants]
        tally.elements += turns * max((node_cost.size(scope.shapes.get(name, ())) for name in moving), default=1)


def _read_shape(node: NodeProto, scope: _Scope) -> Shape:
    for name in node.input:
        if name not in scope.constants and name in scope.shapes:
            return scope.shapes[name]
    return ()


def _bodies(node: NodeProto) -> list[GraphProto]:
    one = [item.g for item in node.attribute if item.type == AttributeProto.GRAPH]
    return one + [graph for item in node.attribute if item.type == AttributeProto.GRAPHS for graph in item.graphs]


def _count_bodies(node: NodeProto, bodies: list[GraphProto], scope: _Scope, tally: _Tally, *, turns: int) -> None:
    inner = turns
    if node.op_type == "Scan":
        # The scanned inputs come last; each turn takes one slice along the scan axis, which is the first by default.
        attributes = {item.name: item for item in node.attribute}
        axes = list(attributes["scan_input_axes"].ints) if "scan_input_axes" in attributes else [0]
        shape = scope.shapes.get(node.input[-1], ()) if node.input else ()
        inner = turns * (shape[axes[-1]] if -len(shape) <= axes[-1] < len(shape) else 1)
    elif node.op_type == "Loop":
        tally.notes.add("a Loop is counted for one turn: its turns are known only when it runs")
    else:
        tally.notes.add(f"every branch of {node.op_type} is counted: which one runs is known only then")
    tally.graph_nodes += 1
    tally.nodes += turns + (ITERATION_NODES * inner if node.op_type in {"Scan", "Loop"} else 0)
    for body in bodies:
        _count_graph(body, scope, tally, turns=inner)
