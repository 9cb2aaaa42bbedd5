"""TransformedTargetRegressor: the regressor's answer, turned back by the inverse of what training did to the target.

Source: `predict` of sklearn/compose/_target.py; `inverse_transform` of sklearn/preprocessing/_data.py and
_function_transformer.py; ndtr.c of Cephes: (1 + erf(x / sqrt(2))) / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table
from edgekit_converters.operators import Predict, Predicted, Unfaithful
from edgekit_converters.operators.composed import expm1, log1p
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.functions import trace
from edgekit_converters.operators.laplace import erf
from edgekit_converters.operators.scaling import EDGE, interpolate
from edgekit_converters.operators.wrappers import response

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


FUNCTIONS: Final[Mapping[str, Callable[[Expr], Expr]]] = {
    "exp": Expr.exp,
    "expm1": expm1,
    "exp2": lambda x: _base(x, 2.0),
    "log": Expr.log,
    "log1p": log1p,
    "log2": lambda x: x.log() / float(np.log(2.0)),
    "log10": lambda x: x.log() / float(np.log(10.0)),
    "sqrt": Expr.sqrt,
    "square": Expr.square,
    "negative": Expr.__neg__,
    "reciprocal": lambda x: 1.0 / x,
    "positive": lambda x: x,
    "tanh": Expr.tanh,
    "absolute": Expr.__abs__,
    "expit": Expr.sigmoid,
}
"""numpy's and scipy.special's functions by name."""


def _base(x: Expr, base: float) -> Expr:
    return Expr(x.graph, x.graph.value("Pow", [x.graph.constant(np.array([base]), "base"), x.value], x.value))


def _regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    answer = response(walk, step.regressor_, table, (*path, "regressor"), ("predict",))[0]
    return Predicted(value=inverse(step.transformer_, answer).value)


def inverse(step: Any, y: Expr) -> Expr:
    """The step's `inverse_transform`.

    Raises:
        Unfaithful: It has no exact conversion.
    """
    kind = type(step).__name__
    if kind == "Pipeline":
        for _, inner in reversed(step.steps):
            y = y if inner is None or inner == "passthrough" else inverse(inner, y)
        return y
    if kind == "FunctionTransformer":
        return _function(step, y)
    if kind in INVERSES and type(step).__module__.startswith("sklearn."):
        return INVERSES[kind](step, y)
    raise Unfaithful(
        f"the inverse of {kind} has no conversion",
        f"use one of {', '.join(sorted(INVERSES))}, or a function of numpy, for the target",
    )


def _function(step: Any, y: Expr) -> Expr:
    function = step.inverse_func
    if function is None:
        return y
    name = getattr(function, "__name__", "")
    if isinstance(function, np.ufunc) and name in FUNCTIONS and not step.inv_kw_args:
        return FUNCTIONS[name](y)
    try:
        return trace(function, y, step.inv_kw_args or {})
    except Unfaithful as error:
        raise Unfaithful(
            f"the target is turned back by '{name or type(function).__name__}': {error.why}",
            f"use a function of numpy for the target's inverse, such as {', '.join(sorted(FUNCTIONS))}",
        ) from error


def _standard(step: Any, y: Expr) -> Expr:
    if step.with_std and step.scale_ is not None:
        y = y * np.asarray(step.scale_)
    return y + np.asarray(step.mean_) if step.with_mean and step.mean_ is not None else y


def _robust(step: Any, y: Expr) -> Expr:
    if step.with_scaling:
        y = y * np.asarray(step.scale_)
    return y + np.asarray(step.center_) if step.with_centering else y


def _power(step: Any, y: Expr) -> Expr:
    """Box-Cox and Yeo-Johnson, a column each."""
    if step.standardize:
        y = _standard(step._scaler, y)
    one = _box_cox if step.method == "box-cox" else _yeo_johnson
    return concat([one(y.at(index), float(power)) for index, power in enumerate(step.lambdas_)])


def _quantile(step: Any, y: Expr) -> Expr:
    """The quantile at y, or at the share of the normal distribution below it."""
    known = np.asarray(step.quantiles_, dtype=np.float64).T
    references = np.broadcast_to(np.asarray(step.references_, dtype=np.float64), known.shape)
    lowest, highest = known[:, 0], known[:, -1]
    if step.output_distribution == "normal":
        y = erf(y * float(np.sqrt(0.5))) * 0.5 + 0.5
        below, above = y - EDGE < 0.0, y + EDGE > 1.0
    else:
        below, above = y.equals(0.0), y.equals(1.0)
    return below.where(lowest, above.where(highest, interpolate(y, references, known)))


def _box_cox(y: Expr, power: float) -> Expr:
    """scipy.special.inv_boxcox: exp(log1p(y power) / power), or exp(y) for power 0."""
    return y.exp() if power == 0 else (log1p(y * power) / power).exp()


def _yeo_johnson(y: Expr, power: float) -> Expr:
    tiny = float(np.spacing(1.0))
    right = y.exp() if abs(power) < tiny else (y * power + 1.0) ** (1.0 / power)
    mirrored = 2.0 - power
    left = (y * -mirrored + 1.0) ** (1.0 / mirrored) if abs(mirrored) > tiny else (-y).exp()
    return (y >= 0.0).where(right - 1.0, 1.0 - left)


INVERSES: Final[Mapping[str, Callable[[Any, Expr], Expr]]] = {
    "StandardScaler": _standard,
    "MinMaxScaler": lambda step, y: (y - np.asarray(step.min_)) / np.asarray(step.scale_),
    "MaxAbsScaler": lambda step, y: y * np.asarray(step.scale_),
    "RobustScaler": _robust,
    "PowerTransformer": _power,
    "QuantileTransformer": _quantile,
}

PREDICTORS: Final[Mapping[str, Predict]] = {"TransformedTargetRegressor": _regressor}
