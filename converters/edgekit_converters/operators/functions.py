"""FunctionTransformer: the function is called once with a matrix that records what numpy is asked to do with it.

A `Traced` matrix stands for the rows. numpy hands every operation on it to `__array_ufunc__` or `__array_function__`,
and each becomes nodes. Whatever asks for a value, a condition's truth or an operation that is not in the tables stops
the trace, and the step is refused by that name. The function is traced twice: if the two graphs differ, it reads
something else than its argument.

Source: the dispatch protocols of NEP 13 and NEP 18; `FunctionTransformer.transform` of
sklearn/preprocessing/_function_transformer.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from edgekit_converters.graph import GraphBuilder, Table, columns
from edgekit_converters.operators import Transform, Unfaithful
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.traced import NEXT_STEP, Traced, Untraceable
from edgekit_converters.operators.traced_frames import Frames

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def function_transformer(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """FunctionTransformer: the nodes of its function.

    Raises:
        Unfaithful: The function does something that has no ONNX mapping, or not the same thing twice.
    """
    if step.func is None:
        return table
    named = not step.validate and hasattr(step, "feature_names_in_")
    names = [str(one) for one in step.feature_names_in_] if named else None
    x = Expr(walk.graph, walk.matrix(table))
    return columns(walk.graph.cast(trace(step.func, x, step.kw_args or {}, names).value, "float64"))


def trace(function: Any, x: Expr, options: Mapping[str, Any], names: Sequence[str] | None = None) -> Expr:
    """What a function makes of the rows.

    Args:
        function: Somebody's.
        x: [rows, columns]: its argument.
        options: Further arguments, by name.
        names: The columns' names, where it gets a frame.

    Raises:
        Unfaithful: It does something that has no ONNX mapping, or not the same thing twice.
    """
    shapes = []
    for _ in range(2):
        # In a graph of its own: what is traced here is only compared.
        draft = GraphBuilder(x.graph.target)
        value = draft.input("x", "float64", x.width)
        found = _traced(function, Expr(draft, value), options, names)
        draft.output("out", draft.cast(found.value, "float64"))
        shapes.append(draft.build().SerializeToString(deterministic=True))
    if shapes[0] != shapes[1]:
        raise Unfaithful("its function does not do the same thing twice", NEXT_STEP)
    return _traced(function, x, options, names)


def _traced(function: Any, x: Expr, options: Mapping[str, Any], names: Sequence[str] | None) -> Expr:
    given = Traced(x, names=names, writable=False)
    try:
        with np.errstate(all="ignore"):
            result = _called(function, given, options)
    except Untraceable as error:
        raise Unfaithful(str(error), NEXT_STEP) from error
    except Exception as error:  # the function is somebody else's
        fault = (str(error).splitlines() or [""])[0][:160]
        raise Unfaithful(f"its function cannot be traced ({type(error).__name__}: {fault})", NEXT_STEP) from error
    if not isinstance(result, Traced):
        raise Unfaithful("its function gives something that does not come from its argument", NEXT_STEP)
    if result.flat:
        raise Unfaithful("its function gives one number a row, and no column", "reshape its answer to [rows, 1]")
    return result.expr


class _Columns:
    """numpy.c_ of what is traced."""

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        return np.column_stack(parts) if any(isinstance(one, Traced) for one in parts) else np.c_[key]


class _Arrays:
    """numpy, whose `asarray` and `array` leave the matrix that is traced as it is: they would ask for its values."""

    c_ = _Columns()

    def __getattr__(self, name: str) -> Any:
        if name not in {"array", "asanyarray", "asarray"}:
            return getattr(np, name)

        def convert(given: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(given, Traced):
                return getattr(np, name)(given, *args, **options)
            dtype = args[0] if args else options.get("dtype")
            plain = given if given.names is None and not given.flat else given.to_numpy()
            if dtype is not None:
                return plain.astype(dtype)
            return plain.copy() if name == "array" else plain

        return convert


def _called(function: Any, given: Traced, options: Mapping[str, Any]) -> Any:
    """The function's answer; of a Python function with `_Arrays` and `Frames` for its module's numpy and pandas."""
    if not isinstance(function, FunctionType):
        return function(given, **options)
    module = {name: _stand_in(value) for name, value in function.__globals__.items()}
    before = dict(module)
    made = FunctionType(function.__code__, module, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    result = made(given, **options)
    before.setdefault("__builtins__", module.get("__builtins__"))
    if module.keys() != before.keys() or any(module[name] is not before[name] for name in before):
        raise Untraceable("its function writes into its module")
    return result


def _stand_in(value: Any) -> Any:
    return _Arrays() if value is np else Frames() if value is pd else value


TRANSFORMERS: Final[Mapping[str, Transform]] = {"FunctionTransformer": function_transformer}
