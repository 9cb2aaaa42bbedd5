"""numpy's functions of a matrix that is traced (`traced`), by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgekit_converters.operators.composed import count_reached
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.traced import Traced, Untraceable, chosen, combined, product, replace_nan
from edgekit_converters.operators.ufuncs import UFUNCS, truth


def _clip(a: Traced, a_min: Any = None, a_max: Any = None) -> Traced:
    for name, bound in (("maximum", a_min), ("minimum", a_max)):
        if bound is not None:
            a = combined(name, (a, bound))
    return a


def _reduced(a: Traced, axis: Any, keepdims: bool, emit: Callable[[Expr], Expr]) -> Traced:
    if a.flat or axis not in {1, -1}:
        raise Untraceable("its function adds up several rows")
    return Traced(emit(a.expr.cast("float64")), flat=not keepdims)


def _sum(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
    """numpy.sum; pandas leaves NaN out."""
    known = replace_nan(a.astype(float), 0.0) if a.names is not None else a
    return _reduced(known, axis, bool(keepdims), Expr.sum)


def _mean(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
    """numpy.mean; pandas leaves NaN out."""
    if a.names is None:
        return _reduced(a, axis, bool(keepdims), Expr.mean)
    total = _sum(a, axis, keepdims=keepdims)
    return Traced(total.expr / (~a.expr.cast("float64").is_nan()).cast("float64").sum(), flat=total.flat)


def _folded(name: str) -> Callable[..., Traced]:
    """The fold of a ufunc over a row; pandas leaves NaN out of its largest and least."""

    def fold(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
        known = {"maximum": "fmax", "minimum": "fmin"}.get(name) if a.names is not None else name
        if known is None:
            raise Untraceable("its function reduces a frame by something else than its sum, mean, least or largest")
        return _reduced(a, axis, bool(keepdims), lambda x: _joined(x, UFUNCS[known]))

    return fold


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Traced:
    if axis not in {1, -1}:
        raise Untraceable("its function joins rows")
    if not all(isinstance(one, Traced) and not one.flat for one in arrays):
        raise Untraceable("its function joins its argument with constants or with one number a row")
    return Traced(concat([one.expr.cast("float64") for one in arrays]))


def _hstack(arrays: Sequence[Any]) -> Traced:
    return _concatenate(arrays, axis=1)


def _column_stack(arrays: Sequence[Any]) -> Traced:
    if not all(isinstance(one, Traced) for one in arrays):
        raise Untraceable("its function joins its argument with constants")
    return Traced(concat([one.expr.cast("float64") for one in arrays]))


def _stack(arrays: Sequence[Any], axis: int = 0) -> Traced:
    if axis not in {1, -1} or not all(isinstance(one, Traced) and one.flat for one in arrays):
        raise Untraceable("its function stacks rows or matrices")
    return _column_stack(arrays)


def _nan_to_num(x: Traced, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Traced:
    largest = float(np.finfo(np.float64).max)
    expr = replace_nan(x, float(nan)).expr
    expr = expr.equals(np.inf).where(largest if posinf is None else float(posinf), expr)
    expr = expr.equals(-np.inf).where(-largest if neginf is None else float(neginf), expr)
    return Traced(expr, flat=x.flat)


def _round(a: Traced, decimals: int = 0) -> Traced:
    if decimals == 0:
        return Traced(a.expr.apply("Round"), flat=a.flat)
    factor = float(10.0 ** abs(decimals))
    if decimals > 0:
        return Traced((a.expr * factor).apply("Round") / factor, flat=a.flat)
    return Traced((a.expr / factor).apply("Round") * factor, flat=a.flat)


def _ones(a: Traced, value: float) -> Traced:
    return Traced(a.expr.cast("float64").is_nan().where(value, value), flat=a.flat)


def _full(a: Traced, fill_value: float) -> Traced:
    return _ones(a, float(fill_value))


def _norm(x: Traced, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Traced:
    """numpy.linalg.norm of each row."""
    if ord not in {None, 1, 2}:
        raise Untraceable(f"numpy.linalg.norm with ord={ord} has no ONNX mapping")
    sizes = combined("absolute", (x,)) if ord == 1 else combined("square", (x,))
    total = _reduced(sizes, axis, keepdims, Expr.sum)
    return total if ord == 1 else combined("sqrt", (total,))


def _var(a: Traced, axis: Any = None, *, ddof: float = 0, keepdims: Any = False) -> Traced:
    if a.names is not None:
        raise Untraceable("its function reduces a frame by something else than its sum, mean, least or largest")
    return _reduced(a, axis, bool(keepdims), lambda x: (x - x.mean()).square().sum() / (float(x.width) - ddof))


def _std(a: Traced, axis: Any = None, *, ddof: float = 0, keepdims: Any = False) -> Traced:
    return combined("sqrt", (_var(a, axis, ddof=ddof, keepdims=keepdims),))


def _every(op: Callable[[Expr, Expr], Expr]) -> Callable[..., Traced]:
    """numpy.all and numpy.any of each row."""

    def fold(a: Traced, axis: Any = None, *, keepdims: Any = False) -> Traced:
        return _reduced(a, axis, bool(keepdims), lambda x: _joined(truth(a.expr), op))

    return fold


def _joined(x: Expr, op: Callable[[Expr, Expr], Expr]) -> Expr:
    result = x.at(0)
    for index in range(1, x.width):
        result = op(result, x.at(index))
    return result


def _diff(a: Traced, n: int = 1, axis: int = -1) -> Traced:
    if n != 1 or axis not in {1, -1} or a.flat:
        raise Untraceable("its function takes differences between rows, or of differences")
    x, width = a.expr.cast("float64"), a.expr.width
    return Traced(x.at(*range(1, width)) - x.at(*range(width - 1)))


def _cumsum(a: Traced, axis: Any = None) -> Traced:
    if axis not in {1, -1} or a.flat:
        raise Untraceable("its function adds up several rows")
    x = a.expr.cast("float64")
    sums = [x.at(0)]
    for index in range(1, x.width):
        sums.append(sums[-1] + x.at(index))
    return Traced(concat(sums), names=a.names)


def _digitize(x: Traced, bins: Any, right: bool = False) -> Traced:
    """The number of the bin; NaN lies behind the last one."""
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or (np.diff(edges) < 0).any():
        raise Untraceable("numpy.digitize over bins that do not ascend has no ONNX mapping")
    given = x.expr.cast("float64")
    limits = np.nextafter(edges, np.inf) if right else edges
    found = count_reached(given, [limits] * given.width)
    return Traced(given.is_nan().where(float(len(edges)), found), flat=x.flat)


def _isin(element: Traced, test_elements: Any, *, invert: bool = False) -> Traced:
    if isinstance(test_elements, Traced) or np.size(test_elements) == 0:
        raise Untraceable("numpy.isin of what is not constant has no ONNX mapping")
    wanted = np.ravel(np.asarray(list(test_elements) if isinstance(test_elements, set) else test_elements))
    given = element.expr.cast("float64")
    found = given.equals(float(wanted[0]))
    for one in wanted[1:]:
        found = found | given.equals(float(one))
    return Traced(~found if invert else found, flat=element.flat, names=element.names)


def _select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Traced:
    """numpy.select: the choice of the first condition that holds."""
    found = default
    for condition, choice in list(zip(condlist, choicelist, strict=True))[::-1]:
        found = chosen(condition, choice, found)
    assert isinstance(found, Traced)
    return found


def _expanded(a: Traced, axis: int) -> Traced:
    if not a.flat or axis not in {1, -1}:
        raise Untraceable("its function adds an axis other than that of the columns")
    return Traced(a.expr, whole=a)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "all": _every(Expr.__and__),
    "any": _every(Expr.__or__),
    "amax": _folded("maximum"),
    "amin": _folded("minimum"),
    "around": _round,
    "clip": _clip,
    "column_stack": _column_stack,
    "concatenate": _concatenate,
    "copy": lambda a: a.copy(),
    "cumsum": _cumsum,
    "diff": _diff,
    "digitize": _digitize,
    "dot": product,
    "expand_dims": _expanded,
    "full_like": _full,
    "hstack": _hstack,
    "isin": _isin,
    "max": _folded("maximum"),
    "mean": _mean,
    "min": _folded("minimum"),
    "nan_to_num": _nan_to_num,
    "ndim": lambda a: a.ndim,
    "norm": _norm,
    "ones_like": lambda a: _ones(a, 1.0),
    "prod": _folded("multiply"),
    "reshape": lambda a, shape: a.reshape(shape),
    "round": _round,
    "select": _select,
    "stack": _stack,
    "std": _std,
    "sum": _sum,
    "var": _var,
    "where": chosen,
    "zeros_like": lambda a: _ones(a, 0.0),
}
"""numpy's other functions."""
