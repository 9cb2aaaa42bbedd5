"""An ONNX file between the contract's inputs and outputs: how a frame is fed to it, and the file that a bundle holds.

The file's own nodes, opset and constants stay as they are. Before them come the nodes that take columns out of the
contract's tensors; behind them those that make labels, probabilities or values of its outputs. Only operators that mean
the same in every opset since 7 are added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnx.compose
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgekit_contracts.errors import ConversionRefused, DataMismatch, EdgekitError
from edgekit_converters import onnx_inputs, schema
from edgekit_converters.ends import LABEL, PROBABILITIES, VALUE, Ends
from edgekit_converters.faults import first_line
from edgekit_converters.freed import freed
from edgekit_converters.graph import ML
from edgekit_converters.nodes import needed_nodes, operators, serialize
from edgekit_converters.nullable import agree, nullable
from edgekit_converters.onnx_inputs import Place
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.schema import Encoding, FeatureDtype
from edgekit_converters.target import WRITTEN, Target, loads
from edgekit_converters.verify import UNKNOWN_TEXT

OLDEST_OPSET: Final = 7
"""The oldest that onnxruntime promises to run."""
OWN: Final = "com.microsoft"
SAMPLE_ROWS: Final = 8
"""Rows on which a file whose batch was fixed is compared with itself."""

NULLABLE_MAX: Final = 256
"""Columns of which each is tried without a value; where there are more, none may be missing."""
TEXTS_MAX: Final = 1_000
"""Texts of the file that are tried for each column of texts."""

_TAKEN: Final = frozenset({schema.NUMBERS, schema.TEXT, LABEL, PROBABILITIES, VALUE})


@dataclass(frozen=True, kw_only=True)
class Interface:
    """A file whose inputs and outputs have a place in the contract."""

    name: str
    """The file's or module's, for refusals."""
    model: onnx.ModelProto
    places: tuple[Place, ...]
    ends: Ends
    elements: Mapping[str, int]
    """The element types of the outputs that are read."""

    @property
    def batch(self) -> int:
        """Rows that the unchanged file takes a call; 0 for any number."""
        return max(place.batch for place in self.places)

    def conversion(
        self, frame: pd.DataFrame, target: Target, original: Callable[[pd.DataFrame], Answers], notes: tuple[str, ...]
    ) -> Conversion:
        """The file for a bundle, and what the manifest says of it.

        Raises:
            ConversionRefused: It does not fit the target, or a fixed batch cannot be freed.
        """
        if not target_fits(self.model, target):
            raise ConversionRefused(
                self.name,
                f"it needs opset {opset(self.model)}, and onnxruntime {target.onnxruntime} loads {OLDEST_OPSET} to "
                f"{loads(target.onnxruntime).opset}",
                "export it for such an opset, or aim at another runtime",
            )
        written, outputs = self._written(target)
        data = serialize(written)
        try:
            session = session_of(data, self.name)
        except ConversionRefused as error:
            if self.batch:
                raise self._stuck() from error
            raise

        def converted(rows: pd.DataFrame) -> Answers:
            feed, names = self._contract_feed(rows), [one.name for one in outputs]
            try:
                results: list[Any] = list(session.run(names, feed))
            except Exception as error:  # onnxruntime raises several unrelated classes
                raise DataMismatch(f"the converted model fails: {first_line(error)}") from error
            found = dict(zip(names, results, strict=True))
            return Answers(found.get(LABEL), found.get(PROBABILITIES), found.get(VALUE))

        if self.batch:
            self._check_freed(frame.head(SAMPLE_ROWS), original, converted)
            notes = (*notes, f"it took {_counted(self.batch)} a call, and takes any number now")
        columns = [column for place in self.places for column in place.columns]
        kinds = schema.dtypes(frame[columns])
        tried = columns if len(columns) <= NULLABLE_MAX else []
        missing = dict.fromkeys(columns, False) | nullable(frame, tried, original, converted)
        classes = self.ends.classes
        own = [one for one in operators(written) if one.startswith(f"{OWN}:")]
        if own:
            notes = (*notes, f"{', '.join(own[:5])}: onnxruntime's own operators, which no standard holds still")
        return Conversion(
            onnx=data,
            task="regression" if classes is None else "classification",
            classes=classes or (),
            features=schema.features(frame, kinds, self._closed(frame, kinds, original), missing),
            inputs=onnx_inputs.tensors(self.places),
            outputs=outputs,
            precision=_precision(written),
            opset=opset(written),
            ml_opset=_version(written, ML) or target.ml_opset,
            ir=written.ir_version,
            operators=operators(written),
            notes=(*notes, *self.ends.notes),
        )

    def _written(self, target: Target) -> tuple[onnx.ModelProto, Any]:
        model, places, ends, elements = self.model, self.places, self.ends, dict(self.elements)
        model = freed(model, self.batch) if self.batch else model
        names = {name for node in model.graph.node for name in (*node.input, *node.output)}
        if names & _TAKEN:
            prefix = "own_"
            model = onnx.compose.add_prefix(model, prefix)
            places = tuple(replace(place, name=prefix + place.name) for place in places)
            ends, elements = ends.prefixed(prefix), {prefix + name: kind for name, kind in elements.items()}
        inputs, before, constants = onnx_inputs.declared(places)
        behind, more, infos, outputs = ends.declared(elements)
        nodes, needed = needed_nodes([*before, *model.graph.node, *behind], {info.name for info in infos})
        kept = [tensor for tensor in (*model.graph.initializer, *constants, *more) if tensor.name in needed]
        sparse = [tensor for tensor in model.graph.sparse_initializer if tensor.values.name in needed]
        graph = helper.make_graph(nodes, "edgekit", inputs, infos, kept, sparse_initializer=sparse)
        domains = {node.domain for node in nodes}
        opsets = [one for one in model.opset_import if one.domain in domains and one.domain not in ("", "ai.onnx")]
        opsets.insert(0, helper.make_opsetid("", opset(model) or target.opset))
        newest = loads(target.onnxruntime).ir
        written = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=min(max(model.ir_version, WRITTEN.ir), newest),
            producer_name="edgekit",
            producer_version="",
        )
        _strip(written.graph)
        try:
            onnx.checker.check_model(written)
        except onnx.checker.ValidationError as error:
            raise ConversionRefused(self.name, f"it is not valid: {first_line(error)}", "report it") from error
        return written, outputs

    def _contract_feed(self, rows: pd.DataFrame) -> dict[str, NDArray[Any]]:
        onnx_inputs.feed(rows, self.places)  # for what it refuses
        return {
            tensor.name: rows[list(tensor.features)].to_numpy(dtype=object)
            if tensor.dtype == "text"
            else onnx_inputs.numbers(rows, tensor.features).astype(tensor.dtype)
            for tensor in onnx_inputs.tensors(self.places)
        }

    def _closed(
        self, frame: pd.DataFrame, kinds: Mapping[str, FeatureDtype], original: Callable[[pd.DataFrame], Answers]
    ) -> dict[str, list[Encoding]]:
        """The texts that the file answers, for each column of which it does not answer all."""
        found: dict[str, list[Encoding]] = {}
        named = sorted(_texts(self.model.graph))[:TEXTS_MAX]
        for name in (one for one, dtype in kinds.items() if dtype == "text"):

            def answered(text: str, name: str = name) -> bool:
                try:
                    original(frame.head(1).assign(**{name: text}))
                except EdgekitError:
                    return False
                return True

            if not answered(UNKNOWN_TEXT):
                known = {*named, *frame[name].dropna().unique().tolist()}
                found[name] = [Encoding(categories=tuple(filter(answered, sorted(known))), closed=True)]
        return found

    def _check_freed(
        self,
        rows: pd.DataFrame,
        original: Callable[[pd.DataFrame], Answers],
        dynamic: Callable[[pd.DataFrame], Answers],
    ) -> None:
        backwards, first = rows.iloc[::-1], rows.head(1)
        try:
            same = all(
                agree(expected, found) and _same_labels(expected, found)
                for expected, found in ((original(part), dynamic(part)) for part in (rows, backwards, first))
            )
        except EdgekitError:
            same = False
        if not same:
            raise self._stuck()

    def _stuck(self) -> ConversionRefused:
        return ConversionRefused(
            self.name,
            f"its batch is fixed at {_counted(self.batch)}, and it fails or answers otherwise when that is freed",
            "export it with a dynamic first dimension (torch.onnx.export: dynamic_axes={'input': {0: 'rows'}})",
        )


def _counted(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows"


def _same_labels(one: Answers, other: Answers) -> bool:
    return np.array_equal(np.asarray(one.labels), np.asarray(other.labels))


def session_of(data: bytes, name: str) -> ort.InferenceSession:
    """A session of one thread, as the device has it.

    Raises:
        ConversionRefused: onnxruntime does not load it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises several unrelated classes
        raise ConversionRefused(
            name, f"onnxruntime {ort.__version__} does not load it: {first_line(error)}", "export it for an older opset"
        ) from error


def opset(model: onnx.ModelProto) -> int:
    """Of the domain `ai.onnx`; 0 where a model has no node of it."""
    return _version(model, "") or _version(model, "ai.onnx")


def target_fits(model: onnx.ModelProto, target: Target) -> bool:
    """Whether the target's runtime loads the operator sets of a model."""
    newest = loads(target.onnxruntime)
    return (opset(model) == 0 or OLDEST_OPSET <= opset(model) <= newest.opset) and _version(
        model, ML
    ) <= newest.ml_opset


def _version(model: onnx.ModelProto, domain: str) -> int:
    return max((one.version for one in model.opset_import if one.domain == domain), default=0)


def _precision(model: onnx.ModelProto) -> Literal["float64", "float32", "mixed"]:
    """By the floats of its constants, inputs and casts."""
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    kinds |= {info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        kinds |= {one.i for one in node.attribute if node.op_type == "Cast" and one.name == "to"}
        kinds |= {one.t.data_type for one in node.attribute if one.HasField("t")}
        kinds |= {TensorProto.FLOAT} if node.domain in (ML, OWN) else set()
    narrow = kinds & {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    if not narrow:
        return "float64"
    return "mixed" if TensorProto.DOUBLE in kinds else "float32"


def _texts(graph: onnx.GraphProto) -> set[str]:
    """The texts in a graph: categories, keys, classes."""
    found = {text for tensor in graph.initializer for text in tensor.string_data}
    for node in graph.node:
        for attribute in node.attribute:
            found.update(attribute.strings, attribute.t.string_data)
    return {text.decode("utf-8", "replace") for text in found}


def _strip(graph: onnx.GraphProto) -> None:
    """Removes what only its maker needs: names of source files, traces, remarks."""
    for part in (graph, *graph.input, *graph.output, *graph.initializer, *graph.node):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _strip(inner)
                del inner.value_info[:]
