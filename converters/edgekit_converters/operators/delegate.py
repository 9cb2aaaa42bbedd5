"""Every step without an emitter of its own, through skl2onnx: float64 where that gives a file that loads, else float32.

What comes out is compared with the original on sample rows by the converter, and on the whole data by
`edgekit_converters.verify`.

A class that is not scikit-learn's has a converter of its user's own: registered with skl2onnx
(`update_registered_converter`), or its method `to_onnx_operator`. That one is given what the class itself gets, which
is float32, whole numbers or texts where all columns are of that type, and an input for each column where there are
texts beside numbers. It may be written for a newer operator set than ours, as far as the runtime knows it, and its
warnings are the user's to read.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from numpy.typing import NDArray

from edgekit_converters.graph import ELEMENT, ML, Dtype, Table, Value
from edgekit_converters.nodes import all_nodes
from edgekit_converters.operators import Predicted, Unfaithful, older_trees, scores
from edgekit_converters.target import loads

if TYPE_CHECKING:
    from edgekit_converters.walk import Walk

WHY_MAX_CHARS: Final = 300
"""Of a foreign error message; skl2onnx prints whole models."""
NEXT_STEP: Final = "replace the step by one with a conversion, or report it as an issue"
ZIPMAP: Final = "ZipMap"

Kind = Literal["transformer", "classifier", "regressor"]
Inputs = Mapping[str, tuple[Dtype, Table]]
"""Name of each input of the converted step -> its element type and its columns."""


def transformer(walk: Walk, step: Any, table: Table) -> Value:
    """The step's `transform`: texts, float32 where the original gives that, else float64.

    Raises:
        Unfaithful: skl2onnx refuses, or its file does not load.
    """
    outputs, given = _leaf(walk, step, table, "transformer")
    if len(outputs) != 1:
        raise Unfaithful("its converted outputs are not one matrix of numbers or texts", NEXT_STEP)
    answer = _asked(step.transform, given)
    shape: Any = getattr(answer, "shape", ())
    width = int(shape[1]) if len(shape) == 2 else outputs[0].width
    if not width:
        raise Unfaithful("it does not say how many columns it gives", NEXT_STEP)
    found = Value(outputs[0].name, outputs[0].dtype, width)
    keeps = found.dtype == "text" or (found.dtype == "float32" and getattr(answer, "dtype", None) == np.float32)
    return found if keeps else walk.graph.cast(found, "float64")


def classifier(walk: Walk, step: Any, table: Table) -> Predicted:
    """The step's `predict` and, where it has one, `predict_proba`.

    Raises:
        Unfaithful: As `transformer`; or several labels at once.
    """
    graph, classes = walk.graph, scores.known_classes(step)
    if isinstance(classes, list) or getattr(step, "multilabel_", False):
        raise Unfaithful("it answers several labels at once", "train one model for each label")
    if classes is None:
        raise Unfaithful("it does not say its classes", "let its fit set classes_, as scikit-learn's classifiers do")
    values, dtype = scores.class_values(classes)
    renumbered = step
    if np.asarray(classes).dtype.kind not in "iuOU" or isinstance(classes[0], bool | np.bool_):
        renumbered = copy.copy(step)  # skl2onnx knows labels of int64 and text only
        try:
            renumbered.classes_ = np.arange(len(values))
        except AttributeError as error:
            raise Unfaithful("its classes are neither whole numbers nor texts", "train with such classes") from error
    outputs, _ = _leaf(walk, renumbered, table, "classifier")
    flat = scores.flat_shape(graph)
    label = graph.value("Reshape", [outputs[0], flat], Value("", outputs[0].dtype, 0))
    if renumbered is not step:
        label = scores.label(graph, label, values)
    elif label.dtype != dtype:
        label = graph.cast(label, dtype)
    if len(outputs) < 2 or not hasattr(step, "predict_proba"):
        return Predicted(label=label)
    return Predicted(label=label, probabilities=Value(outputs[1].name, outputs[1].dtype, len(values)))


def regressor(walk: Walk, step: Any, table: Table) -> Predicted:
    """The step's `predict`, [rows, targets].

    Raises:
        Unfaithful: As `transformer`; or its `predict` does not answer a row of zeros.
    """
    outputs, given = _leaf(walk, step, table, "regressor")
    answer = _asked(step.predict, given)
    if answer is None:
        raise Unfaithful("it does not say how many targets it has", NEXT_STEP)
    targets = int(np.size(answer))
    shape = walk.graph.constant(np.array([-1, targets], dtype=np.int64), "shape")
    return Predicted(value=walk.graph.value("Reshape", [outputs[0], shape], Value("", outputs[0].dtype, targets)))


def _leaf(walk: Walk, step: Any, table: Table, kind: Kind) -> tuple[tuple[Value, ...], NDArray[Any]]:
    """The outputs of the converted step, and a row of the type that it was given."""
    graph, faults = walk.graph, []
    for inputs in _inputs(walk, step, table):
        for opset in _opsets(walk, step):
            try:
                model = _to_onnx(step, inputs, kind, {"": opset, ML: graph.target.ml_opset})
                model = _raised(model, graph.opset)
                _check_loads(model)
            except Exception as error:  # skl2onnx, a user's converter and onnxruntime raise whatever they meet
                faults.append(error)
                continue
            graph.opset = max(graph.opset, *(used.version for used in model.opset_import if not used.domain))
            found = graph.merge(model, {name: graph.matrix(part, dtype) for name, (dtype, part) in inputs.items()})
            return found, _row(inputs)
    raise Unfaithful(_sentence(faults[-1]), NEXT_STEP) from faults[-1]


def _is_own(step: Any) -> bool:
    """Whether the class is its user's own, or another library's."""
    return type(step).__module__.partition(".")[0] != "sklearn"


def _inputs(walk: Walk, step: Any, table: Table) -> Sequence[Inputs]:
    """The inputs to try, the best ones first."""
    kinds: set[Dtype] = {column.dtype for column in table}
    if _is_own(step) and kinds == {"text"}:
        return [{"input": ("text", table)}]
    if _is_own(step) and "text" in kinds:
        return [{f"input_{place}": (column.dtype, (column,)) for place, column in enumerate(table)}]
    walk.matrix(table)  # refuses texts
    first: Dtype = kinds.pop() if _is_own(step) and len(kinds) == 1 else "float64"
    return [{"input": (dtype, table)} for dtype in dict.fromkeys((first, "float64", "float32"))]


def _row(inputs: Inputs) -> NDArray[Any]:
    """A row of zeros and empty texts, of the type that the step gets."""
    kinds = [dtype for dtype, part in inputs.values() for _ in part]
    row = np.array([["" if dtype == "text" else np.zeros((), dtype)[()] for dtype in kinds]], dtype=object)
    return row.astype(kinds[0]) if len(set(kinds)) == 1 and kinds[0] != "text" else row


def _opsets(walk: Walk, step: Any) -> Sequence[int]:
    """The operator sets to try: ours, and the newest one that the runtime and skl2onnx know."""
    import skl2onnx

    target = walk.graph.target
    newest = min(loads(target.onnxruntime).opset, int(skl2onnx.__max_supported_opset__))
    return (target.opset, newest) if _is_own(step) and newest > target.opset else (target.opset,)


def _to_onnx(step: Any, inputs: Inputs, kind: Kind, opsets: dict[str, int]) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common import data_types

    tensors = {
        "bool": data_types.BooleanTensorType,
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "text": data_types.StringTensorType,
    }
    types = [(name, tensors[dtype]([None, len(part)])) for name, (dtype, part) in inputs.items()]

    def convert(options: Any) -> Any:
        return convert_sklearn(step, "leaf", types, target_opset=opsets, options=options)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            model = convert({id(step): {"zipmap": False}} if kind == "classifier" else None)
        except NameError:  # registered without that option
            model = convert(None)
    if _is_own(step):
        for one in heard:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if not isinstance(model, onnx.ModelProto) or len(model.functions) > 0:
        raise Unfaithful("skl2onnx gives no plain graph for it", NEXT_STEP)
    for used in model.opset_import:
        if used.domain not in opsets:
            raise Unfaithful(f"its conversion needs operators of '{used.domain}'", NEXT_STEP)
    _unzip(model)
    if any(info.type.tensor_type.elem_type not in ELEMENT.values() for info in model.graph.output):
        raise Unfaithful("its converted outputs are no tensors of numbers or texts", NEXT_STEP)
    return older_trees.renewed(model) if opsets[ML] >= 5 else model


def _raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in a newer operator set of ai.onnx; itself where its nodes are the same in both, or it is as new.

    A converter may write its nodes as an older set has them, whatever it is asked for.
    """
    written = next((used.version for used in model.opset_import if not used.domain), opset)
    kinds = {node.op_type for node in all_nodes(model.graph) if not node.domain}
    if written >= opset or all(_since(kind, written) == _since(kind, opset) for kind in kinds):
        return model
    return onnx.version_converter.convert_version(model, opset)


def _since(kind: str, opset: int) -> int:
    """The operator set that gave an operator the form that it has in `opset`."""
    return int(onnx.defs.get_schema(kind, opset, "").since_version)


def _unzip(model: onnx.ModelProto) -> None:
    """Gives the matrix of probabilities instead of a dictionary a row, in place."""
    zipped = {node.output[0]: node for node in model.graph.node if node.op_type == ZIPMAP}
    for info in model.graph.output:
        if info.name in zipped:
            node = zipped[info.name]
            model.graph.node.remove(node)
            info.CopyFrom(onnx.helper.make_tensor_value_info(node.input[0], ELEMENT["float32"], [None, None]))


def _check_loads(model: onnx.ModelProto) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _sentence(error: Exception) -> str:
    """The first sentence of a foreign error, cut to a bearable length."""
    if isinstance(error, Unfaithful):
        return error.why
    if type(error).__name__ == "MissingShapeCalculator":
        return "skl2onnx has no converter for it"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = " ".join(lines[0].split())
    return f"skl2onnx: {text if len(text) <= WHY_MAX_CHARS else text[: WHY_MAX_CHARS - 3] + '...'}"


def _asked(answer: Any, given: NDArray[Any]) -> Any:
    """What the original says to a row of zeros or empty texts; None where it refuses that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return answer(given)
        except Exception:  # an encoder may not know the row
            return None
