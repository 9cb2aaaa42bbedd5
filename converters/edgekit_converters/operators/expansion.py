"""Columns that become several: polynomials, B-splines, bins.

Source: sklearn/preprocessing/_polynomial.py (`PolynomialFeatures.transform`, `SplineTransformer.transform`) and
_discretization.py (`KBinsDiscretizer.transform`); `_deBoor_D` and `find_interval` of
scipy/interpolate/src/__fitpack.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Dtype, GraphBuilder, Table, Value, columns, is_narrow
from edgekit_converters.operators import Transform, on_own_type
from edgekit_converters.operators.composed import count_reached
from edgekit_converters.operators.expression import Expr, concat

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

Rows = NDArray[np.float64]


def polynomial_features(graph: GraphBuilder, step: Any, value: Value, narrow: bool) -> Value:
    """PolynomialFeatures: each degree is the one below times one column, the very products of scikit-learn."""
    x = Expr(graph, value)
    parts = [x.ones()] if step.include_bias else []
    # The terms of a degree, and for each column where those begin that start with it, as `index` in scikit-learn.
    terms, starts = x, [*range(x.width), x.width]
    if step._min_degree <= 1 <= step._max_degree:
        parts.append(x)
    for degree in range(2, step._max_degree + 1):
        left: list[int] = []
        right: list[int] = []
        following = []
        for column in range(x.width):
            start = starts[min(column + step.interaction_only, len(starts) - 1)]
            following.append(len(left))
            left += range(start, starts[-1])
            right += [column] * (starts[-1] - start)
        if not left:
            break
        starts = [*following, len(left)]
        terms = terms.at(*left) * x.at(*right)
        if narrow:
            terms = Expr(graph, graph.rounded(terms.value))
        if degree >= step._min_degree:
            parts.append(terms)
    return concat(parts).value


def k_bins(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """KBinsDiscretizer: the number of inner edges that are reached, or its indicators."""
    graph, value, narrow = walk.graph, walk.matrix(table), is_narrow(table)
    if step.dtype is not None:
        narrow = np.dtype(step.dtype) == np.float32
        value = graph.rounded(value) if narrow else value
    dtype: Dtype = "float32" if narrow else "float64"
    edges = step.bin_edges_
    places = count_reached(Expr(graph, value), [np.asarray(one, dtype=np.float64)[1:-1] for one in edges])
    if step.encode == "ordinal":
        return columns(graph.cast(places.value, dtype))
    spread = places.at(*(column for column, bins in enumerate(step.n_bins_) for _ in range(bins)))
    here = np.concatenate([np.arange(bins, dtype=np.float64) for bins in step.n_bins_])
    return columns(spread.equals(here).cast(dtype).value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """What stands beyond the range [low, high] of each column: value + slope * (x - bound), for each basis."""

    low: Rows
    high: Rows
    below: Rows
    below_slope: Rows
    above: Rows
    above_slope: Rows


def spline_transformer(walk: Walk, step: Any, table: Table, path: Path) -> Table:
    """SplineTransformer: the B-spline bases by de Boor's recursion, in scipy's order of operations."""
    given = Expr(walk.graph, walk.matrix(table))
    splines = step.bsplines_
    knots = np.stack([one.t for one in splines])
    degree, bases, width = step.degree, splines[0].c.shape[1], given.width
    last = knots.shape[1] - degree - 1
    x = given
    if step.extrapolation == "periodic":
        start, period = knots[:, degree], knots[:, last] - knots[:, degree]
        rest = (given - start).apply("Mod", np.where(period > 0, period, 1.0), fmod=1)
        x = start + (rest < 0.0).where(rest + period, rest)
        if (period <= 0).any():
            x = x.constant(period > 0).where(x, 0.0)
    interval = count_reached(x, list(knots[:, degree + 1 : last]))
    local = _de_boor(x, interval, knots, degree)
    column = np.repeat(np.arange(width), bases).tolist()
    place, result = interval.at(*column), None
    number = np.tile(np.arange(bases, dtype=np.float64), width)
    for offset, part in enumerate(local):
        # The basis number interval + offset; those of a periodic spline come round.
        here = place.equals(number - offset)
        if step.extrapolation == "periodic":
            here = here | place.equals(number + bases - offset)
        term = here.where(part.at(*column), 0.0)
        result = term if result is None else result + term
    assert result is not None
    spread = given.at(*column)
    if step.extrapolation in {"constant", "linear"}:
        result = _outside(spread, result, beyond(step), bases)
    if step.handle_missing == "zeros":
        result = spread.is_nan().where(0.0, result)
    if step.extrapolation == "error":
        walk.notes.append(
            f"for a number beyond the knots of {'/'.join(path)}, the original raises an error, and the converted model "
            "answers"
        )
    if not step.include_bias:
        result = result.at(*(index for index in range(width * bases) if (index + 1) % bases))
    return columns(result.value)


def beyond(step: Any) -> Outside:
    """What `extrapolation` "constant" and "linear" give outside; the loop of scikit-learn with its side effect.

    Its degree grows by one at each column where a linear continuation finds it at most 1, and the range of the columns
    after that is narrower.
    """
    degree, bases = step.degree, step.bsplines_[0].c.shape[1]
    found: list[tuple[Any, ...]] = []
    for spline in step.bsplines_:
        low, high = spline.t[degree], spline.t[-degree - 1]
        below, above, below_slope, above_slope = np.zeros((4, bases))
        if step.extrapolation == "constant":
            below[:degree] = spline(low)[:degree]
            if degree or step.sparse_output:
                above[-degree:] = spline(high)[-degree:]
        else:
            degree += degree <= 1
            first, final = slice(0, degree), slice(bases - degree, bases)
            below[first], below_slope[first] = spline(low)[first], spline(low, nu=1)[first]
            above[final], above_slope[final] = spline(high)[final], spline(high, nu=1)[final]
        found.append((low, high, below, below_slope, above, above_slope))
    names = ("low", "high", "below", "below_slope", "above", "above_slope")
    return Outside(**{name: np.array(part).ravel() for name, part in zip(names, zip(*found, strict=True), strict=True)})


def _outside(x: Expr, inside: Expr, found: Outside, bases: int) -> Expr:
    for beyond_it, bound, value, slope in (
        (x < np.repeat(found.low, bases), found.low, found.below, found.below_slope),
        (x > np.repeat(found.high, bases), found.high, found.above, found.above_slope),
    ):
        line = x.constant(value)
        if slope.any():
            line = line + (x - np.repeat(bound, bases)) * slope
        inside = beyond_it.where(line, inside)
    return inside


def _de_boor(x: Expr, interval: Expr, knots: Rows, degree: int) -> list[Expr]:
    """The degree + 1 bases [rows, columns] that are not 0 in each cell's interval."""
    width, length = knots.shape
    start = interval + np.arange(width) * float(length)
    flat = knots.ravel()

    def knot(offset: int) -> Expr:
        # Relative to the interval's own left end, which is the knot number interval + degree.
        return (start + float(degree + offset)).look_up(flat)

    near = {offset: knot(offset) for offset in range(1 - degree, degree + 1)}
    bases = [x.is_nan().where(1.0, 1.0)]
    for order in range(1, degree + 1):
        previous, bases = bases, [x.constant(0.0)]
        for place in range(1, order + 1):
            right, left = near[place], near[place - order]
            same = right.equals(left)
            weight = same.where(0.0, previous[place - 1] / same.where(1.0, right - left))
            bases[place - 1] = bases[place - 1] + weight * (right - x)
            bases.append(weight * (x - left))
    return bases


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "KBinsDiscretizer": k_bins,
    "PolynomialFeatures": on_own_type(polynomial_features),
    "SplineTransformer": spline_transformer,
}
