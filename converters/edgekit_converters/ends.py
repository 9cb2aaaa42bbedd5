"""How tensors become answers, beside ONNX and in it: labels, probabilities, scores that become them, plain numbers.

Bare scores become probabilities by softmax, p_k = exp(s_k) / sum_j exp(s_j), one score of two classes by the
logistic function, p = 1 / (1 + exp(-s)), both in float64; the label is the class of the largest score, the first one of
equals. Scores that are probabilities already stay as they are.

Source: J. S. Bridle, NeurIPS 1989 (softmax); ONNX operators ArgMax-13, Softmax-13, Sigmoid-13.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit_contracts.errors import DataMismatch
from edgekit_contracts.manifest import ClassLabel, Output
from edgekit_converters.graph import ELEMENT, Dtype
from edgekit_converters.registry import Answers

LABEL: Final = "label"
PROBABILITIES: Final = "probabilities"
VALUE: Final = "value"

Rule = Literal["as it is", "softmax", "logistic", "second"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """Which tensors of the file are the answer, and how."""

    classes: tuple[ClassLabel, ...] | None = None
    """None of a regression."""
    label: str | None = None
    """The file's own labels."""
    counted: bool = False
    """They are places in `classes`."""
    scores: str | None = None
    rule: Rule = "as it is"
    """How scores become probabilities; `second`: one number is the probability of the second class."""
    values: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that are read."""
        return tuple(one for one in (self.label, self.scores, *self.values) if one is not None)

    def prefixed(self, prefix: str) -> Ends:
        """The same in a graph whose names begin with `prefix`."""
        label, scores = (None if one is None else prefix + one for one in (self.label, self.scores))
        return replace(self, label=label, scores=scores, values=tuple(prefix + one for one in self.values))

    def answers(self, found: Mapping[str, NDArray[Any]]) -> Answers:
        """What the tensors say, computed beside ONNX.

        Args:
            found: `names` -> arrays, rows first.

        Raises:
            DataMismatch: A number of a row is none.
        """
        if self.values:
            values = np.concatenate([_flat(found[name]).astype(np.float64) for name in self.values], axis=1)
            return Answers(None, None, _numbers(values))
        assert self.classes is not None
        shares, places = None, None
        if self.scores is not None:
            scores = _numbers(_flat(found[self.scores]))
            shares, places = _numbers(_shares(scores.astype(np.float64), self.rule)), _places(scores, self.rule)
        if self.label is None:
            assert places is not None
            labels = _class_array(self.classes)[places]
        else:
            labels = found[self.label].reshape(-1)
            labels = _class_array(self.classes)[labels.astype(np.int64)] if self.counted else labels
        return Answers(labels, shares, None)

    def declared(self, elements: Mapping[str, int]) -> tuple[list[Any], list[Any], list[Any], tuple[Output, ...]]:
        """The same in ONNX.

        Args:
            elements: The tensors' element types.

        Returns:
            Nodes, constants, graph outputs and their contract.
        """
        made = _Made()
        if self.values:
            self._end_values(made, elements)
        else:
            self._end_classes(made, elements)
        return made.parts()

    def _end_values(self, made: _Made, elements: Mapping[str, int]) -> None:
        same = {elements[name] for name in self.values}
        element = same.pop() if same in ({TensorProto.FLOAT}, {TensorProto.DOUBLE}) else TensorProto.DOUBLE
        flat = [made.cast(made.flat(name), elements[name], element) for name in self.values]
        value = flat[0] if len(flat) == 1 else made.node("Concat", flat, axis=1)
        made.output(VALUE, value, element, ["rows", None])

    def _end_classes(self, made: _Made, elements: Mapping[str, int]) -> None:
        assert self.classes is not None
        array = _class_array(self.classes)
        scores, element = "", 0
        if self.scores is not None:
            scores, element = made.flat(self.scores), elements[self.scores]
            if element == TensorProto.FLOAT16:
                scores, element = made.cast(scores, element, TensorProto.FLOAT), TensorProto.FLOAT
        label = self._label(made, elements, array, scores, element)
        made.output(LABEL, label, ELEMENT[_dtype(array)], ["rows"], bools=isinstance(self.classes[0], bool))
        if self.scores is None:
            return
        if self.rule != "as it is":
            scores, element = made.cast(scores, element, TensorProto.DOUBLE), TensorProto.DOUBLE
        if self.rule == "softmax":
            scores = made.node("Softmax", [scores], axis=1)
        elif self.rule != "as it is":
            second = scores if self.rule == "second" else made.node("Sigmoid", [scores])
            first = made.node("Sub", [made.constant(np.array(1.0)), second])
            scores = made.node("Concat", [first, second], axis=1)
        made.output(PROBABILITIES, scores, element, ["rows", len(self.classes)])

    def _label(self, made: _Made, elements: Mapping[str, int], array: NDArray[Any], scores: str, element: int) -> str:
        """[rows]: the file's own labels, or the class of the largest score."""
        flat = made.constant(np.array([-1]))
        if self.label is not None:
            label = made.node("Reshape", [self.label, flat])
            if self.counted:
                return made.node("Gather", [made.constant(array), label], axis=0)
            return label if array.dtype == object else made.cast(label, elements[self.label], ELEMENT[_dtype(array)])
        if self.rule in ("as it is", "softmax"):
            index = made.node("ArgMax", [scores], axis=1, keepdims=0)
        else:
            bound = np.array(0.5 if self.rule == "second" else 0.0, dtype=helper.tensor_dtype_to_np_dtype(element))
            above = made.node("Greater", [scores, made.constant(bound)])
            index = made.node("Reshape", [made.cast(above, TensorProto.BOOL, TensorProto.INT64), flat])
        return made.node("Gather", [made.constant(array), index], axis=0)


class _Made:
    """Nodes that end a graph."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._infos: list[onnx.ValueInfoProto] = []
        self._outputs: list[Output] = []

    def parts(self) -> tuple[list[Any], list[Any], list[Any], tuple[Output, ...]]:
        return self._nodes, self._constants, self._infos, tuple(self._outputs)

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"edgekit_out_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        name = f"edgekit_const_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def cast(self, name: str, element: int, to: int) -> str:
        return name if element == to else self.node("Cast", [name], to=to)

    def flat(self, name: str) -> str:
        """[rows, numbers]."""
        return self.node("Reshape", [name, self.constant(np.array([0, -1]))])

    def output(self, name: Any, value: str, element: int, shape: list[Any], bools: bool = False) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"edgekit_{name}"))
        self._infos.append(helper.make_tensor_value_info(name, element, shape))
        dtype: Dtype = next(kind for kind, one in ELEMENT.items() if one == element)
        self._outputs.append(Output(name=name, role=name, dtype="bool" if bools else dtype))


def _shares(scores: NDArray[np.float64], rule: Rule) -> NDArray[np.float64]:
    if rule == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if rule == "as it is":
        return scores
    if rule == "logistic":
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-scores))
    return np.concatenate([1 - scores, scores], axis=1)


def _places(scores: NDArray[Any], rule: Rule) -> NDArray[np.int64]:
    if rule in ("as it is", "softmax"):
        return np.asarray(scores.argmax(axis=1))
    return np.asarray(scores[:, 0] > (0.5 if rule == "second" else 0.0)).astype(np.int64)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(len(array), -1)


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    if np.isnan(array).any():
        rows = int(np.isnan(array).any(axis=1).sum())
        raise DataMismatch(f"the model gives no number for {rows} of {len(array)} rows", "remove rows it cannot answer")
    return array


def _class_array(classes: tuple[ClassLabel, ...]) -> NDArray[Any]:
    if any(isinstance(one, str) for one in classes):
        return np.array(classes, dtype=object)
    return np.array(classes, dtype=np.float64 if any(isinstance(one, float) for one in classes) else np.int64)


def _dtype(array: NDArray[Any]) -> Dtype:
    return "text" if array.dtype == object else "float64" if array.dtype == np.float64 else "int64"
