"""The inputs of an ONNX file on the contract's two tensors: which columns each one gets, in which type and shape.

A file has one input of all columns, or several: those of one column each whose names are columns of the data are taken
by name (as skl2onnx writes them); all others take the columns in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgekit_contracts.errors import ConversionRefused, DataMismatch
from edgekit_contracts.manifest import Tensor
from edgekit_converters.network import size_of
from edgekit_converters.schema import NUMBERS, TEXT, dtypes, floats

ROWS: Final = "rows"
"""Name of the first dimension in the files that we write."""

BATCH_MAX: Final = 1024
"""Rows that a file may take a call: more are no batch."""

_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
_WHOLE: Final = frozenset(
    {TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One input of the file."""

    name: str
    element: int
    """Its element type, a `TensorProto.DataType`."""
    shape: tuple[int, ...]
    """Of one row."""
    columns: tuple[str, ...]
    """The data's columns that it takes, row-major."""
    batch: int
    """Rows that the file takes a call; 0 for any number."""

    @property
    def is_text(self) -> bool:
        """Whether it takes texts."""
        return self.element == TensorProto.STRING


def places(model: onnx.ModelProto, name: str, frame: pd.DataFrame, shape: tuple[int, ...] | None) -> tuple[Place, ...]:
    """Finds the place of each column.

    Args:
        model: Complete and checked.
        name: The file's, for refusals.
        frame: The data.
        shape: Of one row, where the user says it.

    Raises:
        ConversionRefused: An input that the contract has no place for.
        DataMismatch: The data's columns do not fill the inputs.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in constants]
    if not inputs:
        raise ConversionRefused(name, "it has no input", "give a model that takes rows")
    if shape is not None and len(inputs) > 1:
        raise ConversionRefused(name, f"it has {len(inputs)} inputs, and one shape is given", "leave --shape out")
    found = [_row(info, name, frame.shape[1] if len(inputs) == 1 else None, shape) for info in inputs]
    fixed = {info.type.tensor_type.shape.dim[0].dim_value for info in inputs} - {0}
    if len(fixed) > 1:
        raise ConversionRefused(
            name,
            f"its inputs take {' and '.join(map(str, sorted(fixed)))} rows a call",
            "export it with a dynamic first dimension",
        )
    taken = _columns([one.name for one in inputs], [size_of(one) for one in found], frame)
    for info, columns in zip(inputs, taken, strict=True):
        _check_columns(info, frame[list(columns)])
    return tuple(
        Place(
            name=info.name,
            element=info.type.tensor_type.elem_type,
            shape=one,
            columns=columns,
            batch=info.type.tensor_type.shape.dim[0].dim_value,
        )
        for info, one, columns in zip(inputs, found, taken, strict=True)
    )


def tensors(found: Sequence[Place]) -> tuple[Tensor, ...]:
    """The contract's tensors that fill the places: float32 where no place takes more."""
    numbers = [one for one in found if not one.is_text]
    texts = [one for one in found if one.is_text]
    narrow = all(one.element in {TensorProto.FLOAT, TensorProto.FLOAT16} for one in numbers)
    made = []
    if numbers:
        columns = tuple(column for one in numbers for column in one.columns)
        made.append(Tensor(name=NUMBERS, dtype="float32" if narrow else "float64", features=columns))
    if texts:
        made.append(Tensor(name=TEXT, dtype="text", features=tuple(column for one in texts for column in one.columns)))
    return tuple(made)


def declared(found: Sequence[Place]) -> tuple[list[onnx.ValueInfoProto], list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The graph's inputs as the contract has them, and the nodes and constants that make the file's own of them."""
    infos: list[onnx.ValueInfoProto] = []
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for tensor in tensors(found):
        element = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "text": TensorProto.STRING}
        infos.append(helper.make_tensor_value_info(tensor.name, element[tensor.dtype], [ROWS, len(tensor.features)]))
        start = 0
        for place in (one for one in found if one.is_text == (tensor.dtype == "text")):
            steps: list[tuple[str, NDArray[np.int64] | None, dict[str, Any]]] = []
            width = len(place.columns)
            if width < len(tensor.features):
                steps.append(("Gather", np.arange(start, start + width), {"axis": 1}))
            if place.element != element[tensor.dtype]:
                if place.element in _WHOLE and place.element != TensorProto.INT64:
                    # Through int64, as `feed`: a direct cast of a number out of range is undefined.
                    steps.append(("Cast", None, {"to": TensorProto.INT64}))
                steps.append(("Cast", None, {"to": place.element}))
            if place.shape != (width,):
                steps.append(("Reshape", np.array([-1, *place.shape], dtype=np.int64), {}))
            at = tensor.name
            for number, (kind, constant, attributes) in enumerate(steps or [("Identity", None, {})], start=1):
                names = [at]
                if constant is not None:
                    names.append(f"edgekit_{place.name}_{number}")
                    constants.append(onnx.numpy_helper.from_array(constant.astype(np.int64), names[1]))
                at = place.name if number == max(1, len(steps)) else f"edgekit_{place.name}_step_{number}"
                nodes.append(helper.make_node(kind, names, [at], name=f"edgekit_in_{len(nodes)}", **attributes))
            start += width
    return infos, nodes, constants


def feed(frame: pd.DataFrame, found: Sequence[Place]) -> dict[str, NDArray[Any]]:
    """The frame's rows as the unchanged file takes them.

    Raises:
        DataMismatch: A text or a whole number is missing, or a number is not whole.
    """
    narrow = next((one.dtype for one in tensors(found) if one.name == NUMBERS), "float64")
    given: dict[str, NDArray[Any]] = {}
    for place in found:
        if place.is_text:
            block: NDArray[Any] = frame[list(place.columns)].to_numpy(dtype=object)
            if pd.isna(block).any():
                raise DataMismatch(f"a text of '{place.columns[0]}' is missing, and the file knows no missing text")
        else:
            block = numbers(frame, place.columns).astype(narrow)
            if place.element in _WHOLE:
                if not np.isfinite(block).all() or (block != np.trunc(block)).any():
                    raise DataMismatch(f"input '{place.name}' takes whole numbers, and a value is missing or none")
                block = block.astype(np.int64)
            block = block.astype(helper.tensor_dtype_to_np_dtype(place.element))
        given[place.name] = block.reshape(len(frame), *place.shape)
    return given


def numbers(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """[rows, columns]: missing values as NaN."""
    table = frame[list(columns)]
    if all(isinstance(dtype, np.dtype) and dtype.kind in "fiub" for dtype in table.dtypes):
        return table.to_numpy(dtype=np.float64)
    return np.stack([floats(table[name]) for name in columns], axis=1)


def _row(info: onnx.ValueInfoProto, name: str, columns: int | None, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one row of an input."""
    kind, what = info.type.tensor_type, f"{name} (input '{info.name}')"
    if not info.type.HasField("tensor_type") or kind.elem_type not in _FLOATS | _WHOLE | {TensorProto.STRING}:
        raise ConversionRefused(what, "it takes neither numbers nor texts", "give a model that takes tensors of these")
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
    if not dims or (len(dims) == 1 and dims[0] is not None):
        raise ConversionRefused(what, "its shape has no dimension for the rows", "export it with rows first: [rows, n]")
    if dims[0] is not None and dims[0] > BATCH_MAX:
        raise ConversionRefused(
            what, f"it takes exactly {dims[0]} rows a call", "export it with a dynamic first dimension"
        )
    shape = dims[1:]
    if given is not None:
        if len(given) != len(shape) or any(one not in (None, two) for one, two in zip(shape, given, strict=True)):
            raise ConversionRefused(what, f"its rows have the shape {shape}, not {list(given)}", "correct --shape")
        return given
    if shape == [None] and columns is not None:
        return (columns,)
    if None in shape:
        raise ConversionRefused(what, "the shape of its rows is not known", "say it with --shape, such as 1x28x28")
    return tuple(one for one in shape if one is not None)


def _columns(names: list[str], widths: list[int], frame: pd.DataFrame) -> list[tuple[str, ...]]:
    known = [str(column) for column in frame.columns]
    if len(names) > 1 and set(widths) == {1} and set(names) <= set(known):
        return [(name,) for name in names]
    if sum(widths) != len(known):
        raise DataMismatch(
            f"it has {len(known)} columns, and the model takes {sum(widths)}",
            "give the model's features only, in its order, and name the target's column with --target",
        )
    taken, start = [], 0
    for width in widths:
        taken.append(tuple(known[start : start + width]))
        start += width
    return taken


def _check_columns(info: onnx.ValueInfoProto, columns: pd.DataFrame) -> None:
    """Texts to texts, numbers to numbers."""
    text = info.type.tensor_type.elem_type == TensorProto.STRING
    for name, kind in dtypes(columns).items():
        if (kind == "text") != text:
            holds, takes = ("numbers", "texts") if text else ("text", "numbers")
            raise DataMismatch(f"column '{name}' holds {holds}, and the model's input '{info.name}' takes {takes}")
