"""scikit-learn: whatever predicts or transforms new rows, whole pipelines over a DataFrame or a matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from edgekit_contracts.errors import ConversionRefused, DataMismatch, EnvironmentFault
from edgekit_contracts.manifest import LABELLED, ClassLabel, Output, Tensor
from edgekit_converters import argmax, schema
from edgekit_converters.data import feature_names, frame_for
from edgekit_converters.faults import first_line
from edgekit_converters.forests import predicted
from edgekit_converters.graph import ML, Dtype, GraphBuilder, Value
from edgekit_converters.load import check_fitted
from edgekit_converters.nodes import operators, serialize
from edgekit_converters.nullable import agree, nullable
from edgekit_converters.nulls import knows_none, with_known_nulls
from edgekit_converters.operators import Predicted
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.schema import FeatureDtype
from edgekit_converters.steadiness import widened
from edgekit_converters.target import Target
from edgekit_converters.tasks import classes_of, targets_of, task_of, why_not
from edgekit_converters.walk import (
    Walk,
    first_steps,
    last_step,
    takes_dictionaries,
    takes_documents,
    takes_labels,
    unwrap,
    used_columns,
    wrapped,
)
from edgekit_runtime.session import SessionSettings, session_of

LABEL: Final = "label"
PROBABILITIES: Final = "probabilities"
VALUE: Final = "value"

MEASURED_ROWS: Final = 200
EXACT: Final = 1e-11

_EXACT_ML: Final = frozenset({"LabelEncoder", "ArrayFeatureExtractor"})
"""Operators of ai.onnx.ml that do no arithmetic in float32."""


class SklearnConverter:
    """The converter of scikit-learn models."""

    framework: str = "scikit-learn"
    supported: str = (
        "a fitted scikit-learn classifier, regressor, clusterer, outlier detector or transformer, or a Pipeline of them"
    )
    ensures: str = (
        "one graph of at most two inputs, `numbers` (float64) and `text`; outputs `label` with `probabilities` or "
        "`value` (the decision), or `value` alone; preprocessing in float64; the same bytes for the same model and "
        "data; whatever has no faithful conversion is refused by the path of its step"
    )

    def requires(self, model: Any) -> bool:
        """An estimator that predicts or transforms, fitted or not; of scikit-learn's own the others too, to say why."""
        if not isinstance(model, BaseEstimator) or isinstance(model, type):
            return False
        return type(model).__module__.startswith("sklearn.") or task_of(model) is not None

    def describe(self, model: Any) -> str:
        """Such as `scikit-learn Pipeline ending in Ridge`."""
        outer, last = type(unwrap(model)).__name__, type(last_step(model)).__name__
        return f"scikit-learn {outer}" + (f" ending in {last}" if outer != last else "")

    def convert(self, model: Any, X: pd.DataFrame | NDArray[Any], target: Target) -> Conversion:
        """Writes the model as ONNX; see `Converter.convert`.

        Raises:
            NotAModel: Not fitted.
            DataMismatch: The rows lack columns, or the model does not answer them.
            ConversionRefused: A step has no faithful conversion.
        """
        root, task = type(model).__name__.lower(), task_of(model)
        if task is None:
            raise _refusal(model, *why_not(model))
        check_fitted(model)
        frame = frame_for(model, X)
        names = list(frame.columns)
        read = used_columns(model, len(names))
        kinds = schema.dtypes(frame[[name for index, name in enumerate(names) if index in read]])
        if not kinds:
            raise ConversionRefused(root, "it reads no column", "check the selection of columns")
        classes, targets = classes_of(model), targets_of(model)
        labels = self.answers(model, frame.head(2)).labels
        if task == "classification":
            _check_labels(model, labels, classes, targets)

        graph = GraphBuilder(target)
        typed = feature_names(model) is not None or all(dtype == np.float32 for dtype in frame.dtypes)
        tensors, table = schema.inputs(graph, kinds, typed=typed)
        at = dict(zip(kinds, table, strict=True))
        # A column that no step reads has no place in the graph; it stands in the table as the first one that has.
        full = tuple(at.get(name, table[0]) for name in names)
        categorical = frozenset(name for name in kinds if isinstance(frame[name].dtype, pd.CategoricalDtype))
        walk = Walk(graph, none=_knows_none(model), categorical=categorical, frame=frame)
        found = (
            walk.transformed(model, full, (root,)) if task == "transformation" else walk.predict(model, full, (root,))
        )
        outputs = _declare(graph, _answered(model, found), [classes] if classes is not None else targets)
        built = graph.build()
        data = serialize(built)
        run = _Session(data, tensors)

        magnifying = tuple(walk.magnifying) if "float32" in kinds.values() else ()

        def original(rows: pd.DataFrame) -> Answers:
            return self.answers(model, widened(rows) if magnifying else rows)

        known = nullable(frame, list(kinds), original, run.answers, nan=task == "transformation")
        return Conversion(
            onnx=data,
            task=task,
            classes=() if classes is None else _labels(classes),
            targets=() if targets is None else tuple(map(_labels, targets)),
            features=schema.features(frame, kinds, walk.encodings, known, walk.documents),
            inputs=tensors,
            outputs=outputs,
            precision="mixed"
            if walk.rounded or (walk.delegated and not self._exact(model, frame, run))
            else _precision(built, kinds),
            opset=graph.opset,
            ml_opset=target.ml_opset,
            ir=target.ir,
            operators=operators(built),
            delegated=walk.delegated,
            magnifying=magnifying,
            notes=tuple(dict.fromkeys(walk.notes)),
            session=run.session,
        )

    def answers(self, model: Any, X: pd.DataFrame | NDArray[Any]) -> Answers:
        """The original's own answers.

        A model that takes the largest probability by definition is asked for its labels on some rows and all ties only.
        A missing text is handed to it as the one that it knows (None or NaN): a device knows one missing value.

        Raises:
            DataMismatch: The original raises an error for these rows.
            ConversionRefused: It answers texts that are no labels.
        """
        frame = with_known_nulls(frame_for(model, X), _knows_none(model))
        rows = _rows(model, frame)
        task = task_of(model)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = shares = decision = None
                if task in LABELLED and hasattr(model, "predict_proba"):
                    found = predicted(model, "predict_proba", rows)
                    shares = np.asarray(np.hstack(found) if isinstance(found, list) else found, dtype=np.float64)
                classes = classes_of(model)
                if shares is not None and classes is not None and argmax.by_argmax(model):
                    answer = argmax.labels(classes, shares, lambda chosen: model.predict(_taken(rows, chosen)))
                if answer is None:
                    answer = _dense(
                        _transformed(model, rows) if task == "transformation" else predicted(model, "predict", rows)
                    )
                if answer.ndim == 2 and answer.shape[1] == 1 and targets_of(model) is None:
                    answer = answer[:, 0]  # CatBoost of several classes
                if task in LABELLED and answer.ndim == 1 and _decides(model):
                    decision = np.asarray(model.decision_function(rows), dtype=np.float64).reshape(len(frame), -1)
        except Exception as error:  # scikit-learn and what it calls raise whatever they meet
            fault = first_line(error)
            raise DataMismatch(f"the original model does not answer these rows: {fault}") from error
        if task not in LABELLED:
            return Answers(None, None, _numbers(answer, model).reshape(len(frame), -1))
        return Answers(answer.astype(object) if answer.dtype.kind in "OU" else answer, shares, decision)

    def _exact(self, model: Any, frame: pd.DataFrame, run: _Session) -> bool:
        """Whether the first rows agree as float64 does: what others wrote may hide float32 inside."""
        rows = frame.head(MEASURED_ROWS)
        return agree(self.answers(model, rows), run.answers(rows), tolerance=EXACT)


class _Session:
    """The converted model, asked with a frame."""

    def __init__(self, data: bytes, tensors: tuple[Tensor, ...]) -> None:
        try:
            self.session = session_of(data, SessionSettings())
        except EnvironmentFault:
            raise
        except Exception as error:  # onnxruntime raises several unrelated classes
            fault = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConversionRefused(
                "the model", f"onnxruntime {ort.__version__} does not load what was written: {fault}", "report it"
            ) from error
        self._names = [output.name for output in self.session.get_outputs()]
        self._tensors = tensors
        self._silent = ort.RunOptions()
        self._silent.log_severity_level = 4

    def answers(self, frame: pd.DataFrame) -> Answers:
        try:
            found: Any = self.session.run(self._names, schema.tensors_of(frame, self._tensors), self._silent)
        except Exception as error:  # onnxruntime raises several unrelated classes
            raise DataMismatch(f"the converted model fails: {str(error)[:200]}") from error
        results = dict(zip(self._names, found, strict=True))
        return Answers(results.get(LABEL), results.get(PROBABILITIES), results.get(VALUE))


def _refusal(model: Any, why: str, next_step: str) -> ConversionRefused:
    """Of the model as a whole: such as `pipeline (Ridge)`."""
    return ConversionRefused(f"{type(model).__name__.lower()} ({type(last_step(model)).__name__})", why, next_step)


def _check_labels(
    model: Any, labels: NDArray[Any] | None, classes: NDArray[Any] | None, targets: Sequence[NDArray[Any]] | None
) -> None:
    """Checks that a classifier says its classes, and answers as many labels a row.

    Raises:
        ConversionRefused: It does not.
    """
    if classes is None and targets is None:
        raise _refusal(
            model, "it does not say its classes", "let its fit set classes_, as scikit-learn's classifiers do"
        )
    if labels is not None and labels.ndim != (1 if targets is None else 2):
        several = "one label" if labels.ndim == 1 else "several labels"
        raise _refusal(
            model,
            f"it answers {several} a row, and its classes_ are those of {1 if targets is None else len(targets)}",
            "train it on one label a row, or one model for each label",
        )


def _decides(model: Any) -> bool:
    """Whether the decision function is among the answers: where there are no probabilities."""
    return hasattr(model, "decision_function") and not hasattr(model, "predict_proba")


def _answered(model: Any, found: Predicted) -> Predicted:
    """What the model answers: the decision only where it is asked for.

    Raises:
        ConversionRefused: The conversion lacks it.
    """
    if found.label is None or found.label.width or not _decides(model):
        return found
    if found.decision is None:
        raise _refusal(model, "its conversion gives no decision function", "use an estimator with predict_proba")
    return replace(found, value=found.decision)


def _declare(graph: GraphBuilder, found: Predicted, targets: Sequence[NDArray[Any]] | None) -> tuple[Output, ...]:
    """The graph's outputs and their contract."""
    outputs = []
    answered: tuple[tuple[str, Literal["label", "probabilities", "value"], Value | None], ...] = (
        (LABEL, "label", found.label),
        (PROBABILITIES, "probabilities", found.probabilities),
        (VALUE, "value", found.value),
    )
    for name, role, value in answered:
        if value is not None:
            graph.output(name, value)
            dtype: Dtype = "bool" if role == "label" and _is_bool(targets) else value.dtype
            outputs.append(Output(name=name, role=role, dtype=dtype))
    return tuple(outputs)


def _knows_none(model: Any) -> bool:
    """Whether some part of it, inside of wrappers too, has None as its missing value."""
    return any(knows_none(one) for one in wrapped(model))


def _labels(classes: NDArray[Any]) -> tuple[ClassLabel, ...]:
    return tuple(one.item() if isinstance(one, np.generic) else one for one in classes)


def _is_bool(targets: Sequence[NDArray[Any]] | None) -> bool:
    return targets is not None and all(isinstance(one, bool | np.bool_) for classes in targets for one in classes)


def _numbers(answer: NDArray[Any], model: Any) -> NDArray[np.float64]:
    try:
        return answer.astype(np.float64)
    except ValueError as error:
        raise _refusal(
            model,
            "its answer holds texts, and only labels may be texts",
            "encode text with an OneHotEncoder or OrdinalEncoder",
        ) from error


def _dense(answer: Any) -> NDArray[Any]:
    return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer)


def _rows(model: Any, frame: pd.DataFrame) -> Any:
    """The frame as what the model was fitted on: a frame, documents, labels, dictionaries, or a matrix.

    Raises:
        DataMismatch: It wants one column, and there are several.
    """
    if feature_names(model) is not None:
        return frame
    if takes_documents(model):
        return _column(frame, "documents").to_numpy(dtype=object)
    if takes_labels(model):
        return _column(frame, "labels").to_numpy()
    if takes_dictionaries(model):
        return _dictionaries(frame, first_steps(model))
    return _matrix(frame)


def _column(frame: pd.DataFrame, what: str) -> pd.Series[Any]:
    if frame.shape[1] != 1:
        raise DataMismatch(
            f"the model reads one column of {what}, and there are {frame.shape[1]} columns",
            "give that column only, and name the target's column with --target",
        )
    return frame.iloc[:, 0]


def _transformed(model: Any, rows: Any) -> Any:
    """The transformer's answer; of labels, to each one alone: beside a third one, two classes have another shape."""
    if not takes_labels(model):
        return model.transform(rows)
    known, places = np.unique(rows, return_inverse=True)
    return np.concatenate([_dense(model.transform(known[place : place + 1])) for place in range(len(known))])[places]


def _dictionaries(frame: pd.DataFrame, steps: Sequence[Any]) -> NDArray[np.object_]:
    """[rows] of dictionaries, each without what is missing, under the keys that the steps were fitted on."""
    keys = {str(name): name for step in steps for name in getattr(step, "vocabulary_", ())}
    found: list[dict[Any, Any]] = [{} for _ in range(len(frame))]
    for name in frame.columns:
        for one, value, there in zip(found, frame[name].tolist(), frame[name].notna(), strict=True):
            if there:
                one[keys.get(name, name)] = value
    return np.array(found, dtype=object)


def _matrix(frame: pd.DataFrame) -> NDArray[Any]:
    """The frame as the matrix that the model was fitted on: numbers, or objects where there is text."""
    matrix = np.array(frame)  # a copy: pandas gives a view that some kernels refuse, for it is read-only
    if matrix.dtype == object and "text" not in schema.dtypes(frame).values():
        return np.stack([schema.floats(frame[name]) for name in frame.columns], axis=1)
    return matrix


def _taken(rows: Any, chosen: NDArray[np.int64]) -> Any:
    return rows.iloc[chosen] if isinstance(rows, pd.DataFrame) else rows[chosen]


def _precision(model: onnx.ModelProto, kinds: Mapping[str, FeatureDtype]) -> Literal["float64", "mixed"]:
    """`mixed` where something is computed in float32: by the graph, or by the original for float32 columns."""
    if "float32" in kinds.values():
        return "mixed"
    if any(tensor.data_type == onnx.TensorProto.FLOAT for tensor in model.graph.initializer):
        return "mixed"
    for node in model.graph.node:
        if node.domain == ML and node.op_type not in _EXACT_ML:
            return "mixed"
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                return "mixed"
            if attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.FLOAT:
                return "mixed"
    return "float64"
