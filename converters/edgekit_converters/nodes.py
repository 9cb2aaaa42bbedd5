"""Nodes of ONNX graphs as they are: walking them, renaming what they read and write, keeping those that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx


def serialize(model: onnx.ModelProto) -> bytes:
    """The model's bytes: the same for equal models."""
    return bytes(model.SerializeToString(deterministic=True))


def operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """`domain:Operator` of each node, sorted; those inside Loop, Scan and If too."""
    return tuple(sorted({f"{node.domain or 'ai.onnx'}:{node.op_type}" for node in all_nodes(model.graph)}))


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Renames what a node reads and writes, in its subgraphs too."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                rename(inner, names)
            for info in attribute.g.output:
                info.name = names.get(info.name, info.name)


def needed_nodes(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, in order, and every name that they read; an If loses what nobody reads."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            found.append(_without_unread(node, needed) if node.op_type == "If" else node)
            needed.update(_reads(found[-1]))
    return found[::-1], needed


def _without_unread(node: onnx.NodeProto, needed: set[str]) -> onnx.NodeProto:
    """An If without the outputs whose names are not among those, and its branches without what only they need."""
    kept = [place for place, name in enumerate(node.output) if name in needed]
    if len(kept) == len(node.output):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [node.output[place] for place in kept]
    for given, attribute in zip(node.attribute, copy.attribute, strict=True):
        infos, branch = [given.g.output[place] for place in kept], attribute.g
        nodes, _ = needed_nodes(given.g.node, {info.name for info in infos})
        del branch.node[:], branch.output[:]
        branch.node.extend(nodes)
        branch.output.extend(infos)
    return copy


def _reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, in its subgraphs too."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names |= _reads(inner)
            names |= {info.name for info in attribute.g.output}
    return names
