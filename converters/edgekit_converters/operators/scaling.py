"""Transformations towards a shape: powers, quantiles, unit norm, centred kernels.

Source: `PowerTransformer.transform`, `QuantileTransformer._transform_col`, `normalize` and `KernelCenterer.transform`
of sklearn/preprocessing/_data.py; `_yeojohnson_transform` of scipy/stats/_morestats.py; scipy/special/_boxcox.pxd;
`arr_interp` of numpy/_core/src/multiarray/compiled_base.c; ndtri.c of Cephes by S. L. Moshier, as scipy.special.ndtri.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import GraphBuilder, Value
from edgekit_converters.operators import Transform, magnifying, numeric, on_matrix, on_own_type
from edgekit_converters.operators.composed import count_reached, expm1, log1p
from edgekit_converters.operators.expression import Expr

Rows = NDArray[np.float64]

EDGE: Final = 1e-7
"""`BOUNDS_THRESHOLD` of scikit-learn."""
LARGEST_EXPONENT: Final = 709.78
"""`expm1` overflows beyond it; boxcox takes another formula."""

_CENTRE: Final = (
    (
        -5.99633501014107895267e1,
        9.80010754185999661536e1,
        -5.66762857469070293439e1,
        1.39312609387279679503e1,
        -1.23916583867381258016e0,
    ),
    (
        1.0,
        1.95448858338141759834e0,
        4.67627912898881538453e0,
        8.63602421390890590575e1,
        -2.25462687854119370527e2,
        2.00260212380060660359e2,
        -8.20372256168333339912e1,
        1.59056225126211695515e1,
        -1.18331621121330003142e0,
    ),
)
"""P0 and Q0 of ndtri.c."""
_TAIL: Final = (
    (
        4.05544892305962419923e0,
        3.15251094599893866154e1,
        5.71628192246421288162e1,
        4.40805073893200834700e1,
        1.46849561928858024014e1,
        2.18663306850790267539e0,
        -1.40256079171354495875e-1,
        -3.50424626827848203418e-2,
        -8.57456785154685413611e-4,
    ),
    (
        1.0,
        1.57799883256466749731e1,
        4.53907635128879210584e1,
        4.13172038254672030440e1,
        1.50425385692907503408e1,
        2.50464946208309415979e0,
        -1.42182922854787788574e-1,
        -3.80806407691578277194e-2,
        -9.33259480895457427372e-4,
    ),
)
"""P1 and Q1 of ndtri.c: for probabilities from exp(-32) to exp(-2)."""


def power_transformer(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """PowerTransformer: Yeo-Johnson or Box-Cox with the fitted exponents, then standardized."""
    shape = _box_cox if step.method == "box-cox" else _yeo_johnson
    result = shape(Expr(graph, value), np.asarray(step.lambdas_)).value
    return numeric.standard_scaler(graph, step._scaler, result) if step.standardize else result


def _yeo_johnson(x: Expr, power: NDArray[Any]) -> Expr:
    """((x + 1) ** p - 1) / p from 0 on, -((1 - x) ** (2 - p) - 1) / (2 - p) below."""
    tiny = np.finfo(np.float64).eps
    positive = x >= 0.0
    # What the other branch would overflow with is 0 there.
    above = _power_of_log(log1p(positive.where(x, 0.0)), power, np.abs(power) < tiny)
    # Fitted in float32, the power is mirrored in that too.
    below = _power_of_log(log1p(-positive.where(0.0, x)), 2 - power, np.abs(power - 2) <= tiny)
    return positive.where(above, -below)


def _power_of_log(log: Expr, power: NDArray[Any], plain: NDArray[np.bool_]) -> Expr:
    """Expm1(power * log) / power, and the logarithm itself where `plain`."""
    if plain.all():
        return log
    safe = np.where(plain, 1.0, power)
    result = expm1(log * safe) / safe
    return log.constant(plain).where(log, result) if plain.any() else result


def _box_cox(x: Expr, power: NDArray[Any]) -> Expr:
    """(x ** p - 1) / p, and log(x) where p is 0."""
    power = power.astype(np.float64)
    plain = np.abs(power) < 1e-19
    safe = np.where(plain, 1.0, power)
    log = x.log()
    exponent = log * safe
    large = (exponent - np.log(np.abs(safe))).exp() * np.sign(safe) - 1 / safe
    result = (exponent < LARGEST_EXPONENT).where(expm1(exponent) / safe, large)
    return log.constant(plain).where(log, result) if plain.any() else result


def quantile_transformer(graph: GraphBuilder, step: Any, value: Value, narrow: bool) -> Value:
    """QuantileTransformer: the mean of interpolating upwards and downwards, or its normal quantile."""
    x = Expr(graph, value)
    known, references = np.asarray(step.quantiles_, dtype=np.float64).T, np.asarray(step.references_, dtype=np.float64)
    upwards = interpolate(x, known, references)
    downwards = interpolate(-x, -known[:, ::-1], -references[::-1])
    share = _own((upwards - downwards) * 0.5, narrow)
    lowest, highest = known[:, 0], known[:, -1]
    if step.output_distribution == "normal":
        edge = float(np.float32(EDGE)) if narrow else EDGE
        share = (_own(x + edge, narrow) > highest).where(1.0, share)
        share = (_own(x - edge, narrow) < lowest).where(0.0, share)
        return _normal_quantile(share).value
    share = x.equals(highest).where(1.0, share)
    return x.equals(lowest).where(0.0, share).value


def _own(x: Expr, narrow: bool) -> Expr:
    """Rounded to float32 where that is the columns' type."""
    return Expr(x.graph, x.graph.rounded(x.value)) if narrow else x


def interpolate(x: Expr, known: Rows, values: Rows) -> Expr:
    """`numpy.interp` of each column: linear between the points, constant outside; NaN stays.

    Args:
        x: [rows, columns].
        known: [columns, points]; ascending, repeated ones too.
        values: [points], or [columns, points].
    """
    values = np.broadcast_to(values, known.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.diff(values) / np.diff(known)
    flat = np.zeros((len(known), 1))
    # Entry 0 of a column is for what lies below its first point; a cell beyond the last one has no slope.
    tables = (
        np.hstack([known[:, :1], known]),
        np.hstack([values[:, :1], values]),
        np.hstack([flat, slopes, flat]),
    )
    starts = np.arange(len(known)) * float(known.shape[1] + 1)
    place = count_reached(x, list(known)) + starts
    left, value, slope = (place.look_up(table.ravel()) for table in tables)
    return x.equals(left).where(value, slope * (x - left) + value)


def _normal_quantile(share: Expr) -> Expr:
    """Cephes' ndtri of numbers in [0, 1], cut to the range that scikit-learn cuts it to."""
    from scipy.special import ndtri

    lowest, highest = float(ndtri(EDGE - np.spacing(1))), float(ndtri(1 - (EDGE - np.spacing(1))))
    upper = share > 1 - 0.13533528323661269189
    tail = upper.where(1.0 - share, share)
    centred = tail - 0.5
    square = centred * centred
    centre = centred + centred * (square * _polynomial(square, _CENTRE[0]) / _polynomial(square, _CENTRE[1]))
    ends = tail < EDGE / 2
    root = (ends.where(0.1, tail).log() * -2.0).sqrt()
    inverse = 1.0 / root
    far = root - root.log() / root - inverse * _polynomial(inverse, _TAIL[0]) / _polynomial(inverse, _TAIL[1])
    far = ends.where(6.0, far)
    # A NaN is in neither part; it goes the way of the centre.
    outer = tail <= 0.13533528323661269189
    result = outer.where(upper.where(far, -far), centre * 2.50662827463100050242)
    return result.minimum(highest).maximum(lowest)


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme from the highest power on."""
    result = x * coefficients[0] + coefficients[1]
    for one in coefficients[2:]:
        result = result * x + one
    return result


def normalizer(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """Normalizer: each row over its norm."""
    return unit_norm(Expr(graph, value), step.norm).value


def unit_norm(x: Expr, kind: str) -> Expr:
    """Each row over its norm (`l1`, `l2` or `max`), which counts as 1 where it is next to nothing."""
    if kind == "l1":
        norm = abs(x).sum()
    elif kind == "l2":
        norm = (x * x).sum().sqrt()
    else:
        norm = abs(x).max()
    nothing = norm < 10 * np.finfo(np.float64).eps
    return x / nothing.where(1.0, norm)


def kernel_centerer(graph: GraphBuilder, step: Any, value: Value) -> Value:
    """KernelCenterer: K - the training rows' means - the row's mean + the mean of all."""
    rows = np.asarray(step.K_fit_rows_, dtype=np.float64)
    kernel = Expr(graph, value)
    return (kernel - rows - kernel.sum() / float(len(rows)) + float(step.K_fit_all_)).value


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "KernelCenterer": on_matrix(kernel_centerer),
    "Normalizer": on_matrix(normalizer),
    "PowerTransformer": magnifying(on_matrix(power_transformer)),
    "QuantileTransformer": on_own_type(quantile_transformer),
}
