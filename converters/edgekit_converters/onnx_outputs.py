"""Which outputs of an ONNX file are labels, probabilities, bare scores, or plain numbers.

A classification is known by labels among the outputs, by a Softmax at the end of the only one, or by the user's word
(`classes`). The sequences of maps that scikit-learn's and boosters' converters write (ZipMap) are read as the tensors
that they were made of.

Source: ONNX operators Softmax-13, Sigmoid-13; ai.onnx.ml ZipMap-1 ("The values of the output map are the input scores
in the order of classlabels").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekit_contracts.errors import ConversionRefused
from edgekit_contracts.manifest import ClassLabel
from edgekit_converters.ends import Ends, Rule

SUM_TOLERANCE: Final = 1e-4
"""By which the probabilities of a row may miss 1: they are float32."""

_PASSIVE: Final = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_CLASSES: Final = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")

Zipped = Mapping[str, tuple[str, tuple[ClassLabel, ...]]]
"""Output that is a sequence of maps -> the tensor that it is made of, and the maps' keys in its order."""


def zipped(model: onnx.ModelProto) -> Zipped:
    """The outputs of a model that ZipMap writes."""
    made = {output: node for node in model.graph.node if node.op_type == "ZipMap" for output in node.output}
    return {
        info.name: (made[info.name].input[0], _named(made[info.name]) or ())
        for info in model.graph.output
        if info.name in made
    }


def arrays(found: Mapping[str, Any], zips: Zipped) -> dict[str, Any]:
    """What onnxruntime gives, the maps as [rows, classes]."""
    given: dict[str, Any] = {}
    for name, answer in found.items():
        if name in zips:
            source, keys = zips[name]
            given[source] = np.array([[row[key] for key in keys] for row in answer], dtype=np.float32)
        else:
            given[name] = answer
    return given


def ends(
    model: onnx.ModelProto,
    name: str,
    found: Mapping[str, Any],
    rows: int,
    classes: tuple[ClassLabel, ...] | None,
) -> Ends:
    """Finds what the outputs say.

    Args:
        model: Complete and checked.
        name: The file's, for refusals.
        found: The answers to sample rows, from `arrays`.
        rows: Number of sample rows.
        classes: The user's.

    Raises:
        ConversionRefused: They fit no answer that the contract knows.
    """
    made = {output: node for node in model.graph.node for output in node.output}
    labels, numbers = [], []
    for output, answer in found.items():
        what = f"{name} (output '{output}')"
        if not isinstance(answer, np.ndarray):
            raise ConversionRefused(what, "it is a sequence", "give a model whose outputs are tensors")
        if answer.ndim == 0 or len(answer) != rows:
            raise ConversionRefused(what, f"it gives {list(answer.shape)} for {rows} rows", "make rows come first")
        if answer.dtype.kind == "f":
            numbers.append(output)
        elif answer.size == rows and answer.dtype.kind in "iubO":
            labels.append(output)
        else:
            raise ConversionRefused(what, f"it is {answer.dtype} {list(answer.shape)}", "give numbers, or one label")
    if labels:
        return _labelled(model, name, found, labels, numbers, classes)
    if len(numbers) == 1:
        return _scores(made, name, numbers[0], found[numbers[0]], classes)
    if classes is not None:
        raise ConversionRefused(name, f"it has the outputs {', '.join(numbers)}", "leave one of them: the scores")
    return Ends(values=tuple(numbers), notes=(f"its outputs {', '.join(numbers)} are the values, in that order",))


def _labelled(
    model: onnx.ModelProto,
    name: str,
    found: Mapping[str, NDArray[Any]],
    labels: list[str],
    numbers: list[str],
    given: tuple[ClassLabel, ...] | None,
) -> Ends:
    """Labels, with or without probabilities."""
    if len(labels) > 1:
        raise ConversionRefused(
            name, f"it has several outputs of labels ({', '.join(labels)})", "keep one, with its probabilities"
        )
    label, answered = labels[0], found[labels[0]].reshape(-1)
    known = _known_classes(model, [label, *numbers])
    classes = given or known
    if classes is None:
        raise ConversionRefused(name, "nothing in it says its classes", "name them with --classes, in their order")
    if answered.dtype.kind == "b":
        classes = tuple(map(bool, classes))
    counted = answered.dtype.kind in "iu" and all(isinstance(one, str) for one in classes)
    allowed = set(range(len(classes))) if counted else set(classes)
    odd = next((one for one in answered.tolist() if one not in allowed), None)
    if odd is not None or (known is not None and len(known) != len(classes)):
        raise ConversionRefused(
            name, f"its own classes are not {list(classes)}: it answers {odd!r}", "name its classes, in their order"
        )
    scores, rule = _probabilities(found, numbers, len(classes))
    left = [one for one in found if one not in {label, scores}]
    notes = (f"its outputs {', '.join(left)} are left out: they are not probabilities of the classes",) if left else ()
    return Ends(classes=classes, label=label, counted=counted, scores=scores, rule=rule, notes=notes)


def _probabilities(found: Mapping[str, NDArray[Any]], names: Sequence[str], classes: int) -> tuple[str | None, Rule]:
    """The first output that holds probabilities of so many classes."""
    for name in names:
        scores = found[name].reshape(len(found[name]), -1)
        if scores.shape[1] == classes and _is_distribution(scores):
            return name, "as it is"
        if scores.shape[1] == 1 and classes == 2 and _within(scores):
            return name, "second"
    return None, "as it is"


def _scores(
    made: Mapping[str, onnx.NodeProto],
    name: str,
    output: str,
    answered: NDArray[Any],
    given: tuple[ClassLabel, ...] | None,
) -> Ends:
    """One output of numbers: scores of classes if the user or a Softmax says so, else values."""
    scores, ended = answered.reshape(len(answered), -1), _source(made, output)
    kind = ended.op_type if ended is not None else ""
    width = scores.shape[1]
    soft = ended is not None and _is_softmax(ended) and answered.ndim == 2 and width > 1
    if given is None:
        if not soft:
            return Ends(values=(output,))
        note = f"it ends in a Softmax: its classes are 0 to {width - 1}, unless --classes names them"
        return Ends(classes=tuple(range(width)), scores=output, notes=(note,))
    if width == 1 and len(given) == 2:
        if kind == "Sigmoid":
            return Ends(classes=given, scores=output, rule="second")
        if _within(scores):
            raise ConversionRefused(
                name,
                "its one score is from 0 to 1 in all rows: it may be a probability or not",
                "end the model in a Sigmoid, or give a score for each class",
            )
        note = "its score becomes the second class's probability by the logistic function"
        return Ends(classes=given, scores=output, rule="logistic", notes=(note,))
    if width != len(given):
        raise ConversionRefused(
            name, f"it gives {width} scores a row, and {len(given)} classes are named", "name one class for each score"
        )
    if soft or _is_distribution(scores):
        return Ends(classes=given, scores=output)
    if kind == "Sigmoid":
        raise ConversionRefused(
            name,
            "it ends in a Sigmoid: each class has a probability of its own",
            "leave the classes out; its numbers are values then",
        )
    return Ends(classes=given, scores=output, rule="softmax", notes=("its scores become probabilities by softmax",))


def _known_classes(model: onnx.ModelProto, names: Sequence[str]) -> tuple[ClassLabel, ...] | None:
    """The classes that the nodes before or behind some tensors name."""
    made = {output: node for node in model.graph.node for output in node.output}
    before = [_source(made, name) for name in names]
    behind = [node for node in model.graph.node if node.op_type == "ZipMap" and node.input[0] in names]
    for node in (*behind, *before):
        if node is not None and (found := _named(node)) is not None:
            return found
    return None


def _named(node: onnx.NodeProto) -> tuple[ClassLabel, ...] | None:
    for attribute in node.attribute:
        if attribute.name in _CLASSES and (attribute.ints or attribute.strings):
            return tuple(attribute.ints) or tuple(one.decode() for one in attribute.strings)
    return None


def _source(made: Mapping[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    """The node that computes a tensor, behind those that only pass it on."""
    node = made.get(name)
    while node is not None and node.op_type in _PASSIVE:
        node = made.get(node.input[0])
    return node


def _is_softmax(node: onnx.NodeProto) -> bool:
    axis = next((one.i for one in node.attribute if one.name == "axis"), -1)
    return node.op_type == "Softmax" and axis in {-1, 1}


def _is_distribution(scores: NDArray[Any]) -> bool:
    return _within(scores) and bool((np.abs(scores.sum(axis=1, dtype=np.float64) - 1) <= SUM_TOLERANCE).all())


def _within(scores: NDArray[Any]) -> bool:
    return bool(((scores >= 0) & (scores <= 1 + SUM_TOLERANCE)).all())
