"""numpy's elementwise functions as formulas.

Source: the ufuncs of https://numpy.org/doc/stable/reference/ufuncs.html; expit of scipy.special.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from edgekit_converters.operators.composed import cos, expm1, log1p
from edgekit_converters.operators.expression import Expr


def truth(x: Expr) -> Expr:
    """As bool: whatever is not 0 is true."""
    return x if x.value.dtype == "bool" else ~x.equals(0.0)


def _sign(x: Expr) -> Expr:
    return x.is_nan().where(x, (x > 0.0).cast("float64") - (x < 0.0).cast("float64"))


def _log_of(base: float) -> Callable[[Expr], Expr]:
    """The logarithm of a base: log(x) / log(base), and the whole number itself of its powers."""

    def emit(x: Expr) -> Expr:
        quotient = x.log() / float(np.log(base))
        whole = quotient.apply("Round")
        return (x.constant(base) ** whole).equals(x).where(whole, quotient)

    return emit


def _cbrt(x: Expr) -> Expr:
    """The power 1/3 of |x|, and one step of Newton's method that makes up for its rounding."""
    size = abs(x)
    root = size ** (1.0 / 3.0)
    plain = x.equals(0.0) | size.equals(np.inf) | x.is_nan()
    root = plain.where(root, root - (root * root * root - size) / (root * root * 3.0))
    return (x < 0.0).where(-root, root)


def _fmod(x: Expr, y: Expr) -> Expr:
    return x.apply("Mod", y, fmod=1)


def _wraps(rest: Expr, y: Expr) -> Expr:
    """Where the remainder of the division that truncates has the other sign than the divisor."""
    return ~rest.equals(0.0) & (y < 0.0).apply("Xor", rest < 0.0)


def _remainder(x: Expr, y: Expr) -> Expr:
    rest = _fmod(x, y)
    return _wraps(rest, y).where(rest + y, rest)


def _floor_divide(x: Expr, y: Expr) -> Expr:
    """The largest whole number below x / y, from the exact remainder.

    Source: `npy_divmod` of numpy/_core/src/npymath/npy_math_internal.h.src.
    """
    rest = _fmod(x, y)
    quotient = (x - rest) / y
    quotient = _wraps(rest, y).where(quotient - 1.0, quotient)
    whole = quotient.apply("Floor")
    whole = ((quotient - whole) > 0.5).where(whole + 1.0, whole)
    return y.equals(0.0).where(x / y, whole)


OF_TRUTH: Final[Mapping[str, Callable[..., Expr]]] = {
    "add": Expr.__or__,
    "bitwise_and": Expr.__and__,
    "bitwise_or": Expr.__or__,
    "bitwise_xor": lambda x, y: x.apply("Xor", y),
    "invert": Expr.__invert__,
    "multiply": Expr.__and__,
}
"""ufuncs that mean something else for truth values."""

UFUNCS: Final[Mapping[str, Callable[..., Expr]]] = {
    "absolute": Expr.__abs__,
    "add": Expr.__add__,
    "cbrt": _cbrt,
    "ceil": lambda x: x.apply("Ceil"),
    "deg2rad": lambda x: x * (np.pi / 180.0),
    "degrees": lambda x: x * (180.0 / np.pi),
    "divide": Expr.__truediv__,
    "equal": Expr.equals,
    "exp": Expr.exp,
    "expit": Expr.sigmoid,
    "exp2": lambda x: x.constant(2.0) ** x,
    "expm1": expm1,
    "fabs": Expr.__abs__,
    "floor": lambda x: x.apply("Floor"),
    "floor_divide": _floor_divide,
    "fmax": lambda x, y: x.is_nan().where(y, y.is_nan().where(x, x.maximum(y))),
    "fmin": lambda x, y: x.is_nan().where(y, y.is_nan().where(x, x.minimum(y))),
    "fmod": _fmod,
    "greater": Expr.__gt__,
    "greater_equal": Expr.__ge__,
    "hypot": lambda x, y: (x * x + y * y).sqrt(),
    "isfinite": lambda x: abs(x) < np.inf,
    "isinf": lambda x: abs(x).equals(np.inf),
    "isnan": Expr.is_nan,
    "less": Expr.__lt__,
    "less_equal": Expr.__le__,
    "log": Expr.log,
    "log10": _log_of(10.0),
    "log1p": log1p,
    "log2": _log_of(2.0),
    "logical_and": Expr.__and__,
    "logical_not": Expr.__invert__,
    "logical_or": Expr.__or__,
    "logical_xor": lambda x, y: x.apply("Xor", y),
    "maximum": Expr.maximum,
    "minimum": Expr.minimum,
    "multiply": Expr.__mul__,
    "negative": Expr.__neg__,
    "not_equal": lambda x, y: ~x.equals(y),
    "positive": lambda x: x,
    "power": Expr.__pow__,
    "float_power": Expr.__pow__,
    "rad2deg": lambda x: x * (180.0 / np.pi),
    "radians": lambda x: x * (np.pi / 180.0),
    "reciprocal": lambda x: 1.0 / x,
    "remainder": _remainder,
    "rint": lambda x: x.apply("Round"),
    "sign": _sign,
    "sin": lambda x: x.apply("Sin"),
    "cos": cos,
    "sqrt": Expr.sqrt,
    "square": Expr.square,
    "subtract": Expr.__sub__,
    "tanh": Expr.tanh,
    "trunc": lambda x: (x < 0.0).where(x.apply("Ceil"), x.apply("Floor")),
}
"""numpy's elementwise functions; the operators of Python call them too."""
