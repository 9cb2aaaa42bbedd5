"""Isotonic regression: a monotone line through fitted points.

Source: `IsotonicRegression._transform` of sklearn/isotonic.py; numpy.interp, which scipy.interpolate.interp1d calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import Table
from edgekit_converters.operators import Predict, Predicted
from edgekit_converters.operators.expression import Expr

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def interpolate(x: Expr, knots: NDArray[np.float64], heights: NDArray[np.float64]) -> Expr:
    """numpy.interp of x [rows, 1] between increasing knots; NaN stays NaN.

    slope[j] * (x - knot[j]) + height[j] with knot[j] <= x < knot[j + 1]; flat beyond both ends.
    """
    knots, heights = np.asarray(knots, dtype=np.float64), np.asarray(heights, dtype=np.float64)
    if len(knots) == 1:
        return (x < 0.0).where(float(heights[0]), float(heights[0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.append(np.diff(heights) / np.diff(knots), 0.0)
    # How many knots are not above x tells the interval; NaN is compared with none, and stays in the product.
    place = (x >= knots[1:]).cast("int64").sum()
    inside = place.look_up(slopes) * (x - place.look_up(knots)) + place.look_up(heights)
    return (x < float(knots[0])).where(float(heights[0]), inside)


def isotonic(x: Expr, step: Any) -> Expr:
    """[rows, 1]: the regression at x [rows, 1]; NaN where the original gives NaN or raises an error."""
    knots = np.asarray(step.X_thresholds_, dtype=np.float64)
    heights = np.asarray(step.y_thresholds_, dtype=np.float64)
    if step.out_of_bounds == "clip" or len(knots) == 1:
        return interpolate(x, knots, heights)
    found = (x < float(knots[0])).where(np.nan, interpolate(x, knots, heights))
    return (x > float(knots[-1])).where(np.nan, found)


def _regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    if step.out_of_bounds == "raise":
        walk.notes.append(
            "outside the range of training, the original isotonic regression raises an error, "
            "and the converted model answers NaN"
        )
    return Predicted(value=isotonic(Expr(walk.graph, walk.matrix(table)), step).value)


PREDICTORS: Final[Mapping[str, Predict]] = {"IsotonicRegression": _regressor}
