"""Rows at the places where a model changes its mind: on every threshold, and one step to each side of it.

Which value of a raw column lies on a threshold is found through the preprocessing as far as that is affine, column by
column (scalers, imputers, choices of columns); where it is not, quantiles of the column stand in. A step is one ulp of
float64, and one of float32, since trees of scikit-learn round to that.

Most of the rows have one column at its values and the others as in the data; in the last, all columns are at theirs at
once, texts at the categories and filled-in texts that the model knows, so that every value finds a row. Where a model
has more than fit, values are left out evenly, and `reached` counts what is there.

The rows are no sample: they say nothing of how often answers differ, and much of where they would.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.manifest import Feature
from edgekit_converters.fitted_trees import fitted_ensembles
from edgekit_converters.operators.catboost_dump import Dump
from edgekit_converters.operators.dictionaries import texts_of
from edgekit_converters.operators.tree_nodes import down, last
from edgekit_converters.stacking import changed
from edgekit_converters.walk import chosen, unwrap, wrapped
from edgekit_runtime.engine import Column

ROWS_MAX: Final = 5_000
"""Rows in which one column is at thresholds, and the least in which all are."""
TOGETHER_MAX: Final = 20_000
"""Rows in which all columns are at thresholds."""
QUANTILES: Final = 9
"""Of a column, where no threshold of it is known."""
STEPS: Final = 11
"""Values that are tried around one threshold."""
CLOSEST: Final = 3
"""Where a column has too many thresholds for that."""
MIXED: Final = 0.2
"""Share of the rows in which all columns are at thresholds at once."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The values of one raw column at which a model decides: splits, edges, categories, filled-in values."""

    numbers: NDArray[np.float64]
    """Each once, in order."""
    texts: frozenset[str] = frozenset()


NONE: Final = Marks(np.zeros(0))


@dataclass(frozen=True, slots=True)
class Line:
    """A column that is affine in a raw one: raw = value * scale + shift."""

    feature: str
    scale: float = 1.0
    shift: float = 0.0

    def through(self, scale: float, shift: float) -> Line:
        """The same after a step whose input is output * scale + shift."""
        return Line(self.feature, scale * self.scale, shift * self.scale + self.shift)

    def raw(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The finite raw values for values of this column."""
        with np.errstate(all="ignore"):
            found = values * self.scale + self.shift
        return np.asarray(found[np.isfinite(found)])


Lines = list[Line | None]


class _Noted:
    """What the walk through a model has found so far."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, list[NDArray[np.float64]]] = defaultdict(list)
        self._texts: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, line: Line, values: NDArray[np.float64], texts: Iterable[str] = ()) -> None:
        """Values of a column that is affine in a raw one, and texts of the raw one."""
        self._numbers[line.feature].append(line.raw(values))
        self._texts[line.feature].update(texts)

    def marks(self) -> dict[str, Marks]:
        """By raw column."""
        return {
            name: Marks(np.unique(np.concatenate(found)), frozenset(self._texts[name]))
            for name, found in self._numbers.items()
        }


def mined(
    marks: Mapping[str, Marks], frame: pd.DataFrame, features: Sequence[Feature], rows: int = ROWS_MAX
) -> list[pd.DataFrame]:
    """Rows of the data with values at thresholds: a frame with those of one numeric feature each, and one of all.

    Args:
        marks: The model's, as `thresholds` gives them.
        frame: The data: all the columns that the model was fitted on, in their order.
        features: Those of them that the model reads.
        rows: At most about so many.
    """
    numeric = [one for one in features if one.dtype not in {"text", "bool"}]
    if not len(frame):
        return []
    share = max(2 * STEPS, int(rows * (1 - MIXED)) // max(1, len(numeric)))
    at_most = max(1, int(rows * (1 - MIXED)) // share)
    alone = {
        feature.name: _values(marks.get(feature.name, NONE), frame[feature.name], feature, share)
        for feature in _spread(numeric, at_most)
    }
    parts = [_alone(frame, alone)] if any(map(len, alone.values())) else []
    values: dict[str, NDArray[Any]] = {}
    for feature in features:
        at, data = marks.get(feature.name, NONE), frame[feature.name]
        if feature.dtype != "bool":
            found = _texts(at, data) if feature.dtype == "text" else _values(at, data, feature, TOGETHER_MAX)
            values |= {feature.name: found} if len(found) else {}
    if values:
        count = min(TOGETHER_MAX, max(int(rows * MIXED), *map(len, values.values())))
        turned = {name: _turned(column, count, place) for place, (name, column) in enumerate(values.items())}
        parts.append(_with(frame.iloc[_places(frame, count, 0)].reset_index(drop=True), turned))
    return parts


def reached(marks: Mapping[str, Marks], features: Sequence[Feature], columns: Mapping[str, Column]) -> tuple[int, int]:
    """Of how many of the model's values there is a row on it and one beside it on each side, and how many there are.

    Args:
        marks: The model's, as `thresholds` gives them.
        features: The columns that it reads.
        columns: The mined rows, as the Engine takes them.

    Returns:
        The count of values that were reached, and of all that lead to a raw column; a text is reached by a row of it.
    """
    found = total = 0
    for feature in features:
        at = marks.get(feature.name, NONE)
        if feature.dtype == "text":
            found += len(at.texts & set(columns[feature.name]))
            total += len(at.texts)
            continue
        numbers = _numbers(at)
        total += len(numbers)
        there = np.unique(np.asarray(columns[feature.name], dtype=np.float64))
        low, high = _neighbours(numbers, feature.dtype)
        found += int((np.isin(low, there) & np.isin(high, there)).sum())
    return found, total


def thresholds(model: Any, names: Sequence[str]) -> dict[str, Marks]:
    """The values at which the fitted model decides.

    Args:
        model: Fitted.
        names: The columns that it was fitted on, in their order.
    """
    noted = _Noted()
    _step(model, [Line(name) for name in names], noted)
    return noted.marks()


def _step(step: Any, lines: Lines, noted: _Noted) -> Lines:
    """Notes a step's values, and gives its columns."""
    step = unwrap(step)
    if step is None or isinstance(step, str):
        return lines if step in (None, "passthrough") else []
    if hasattr(step, "steps"):
        for _, inner in step.steps:
            lines = _step(inner, lines, noted)
        return lines
    if type(step).__name__ == "ColumnTransformer":
        found: Lines = []
        for _, inner, indices in chosen(step):
            found += _step(inner, [lines[index] for index in indices], noted)
        return found
    if hasattr(step, "transformer_list"):
        return [line for _, inner in step.transformer_list for line in _step(inner, lines, noted)]
    inside = wrapped(step)
    if inside != [step]:
        for one in inside:
            _step(one, lines, noted)
        return []
    if not hasattr(step, "transform"):
        _splits(step, lines, noted)
        return []
    return _transformed(step, lines, noted)


def _transformed(step: Any, lines: Lines, noted: _Noted) -> Lines:
    kind = type(step).__name__
    width = len(lines)
    one, zero = np.ones(width), np.zeros(width)
    if kind == "StandardScaler":
        return _through(lines, one if step.scale_ is None else step.scale_, step.mean_ if step.with_mean else zero)
    if kind == "MinMaxScaler":
        return _through(lines, 1 / step.scale_, -step.min_ / step.scale_)
    if kind == "MaxAbsScaler":
        return _through(lines, step.scale_, zero)
    if kind == "RobustScaler":
        return _through(lines, step.scale_ if step.with_scaling else one, step.center_ if step.with_centering else zero)
    if kind == "SimpleImputer":
        _note(lines, [[value] for value in step.statistics_], noted)
        kept = [
            line
            for line, value in zip(lines, step.statistics_, strict=False)
            if step.keep_empty_features or not (isinstance(value, float) and np.isnan(value))
        ]
        return kept + [None] * (len(step.indicator_.features_) if step.add_indicator else 0)
    if hasattr(step, "get_support"):
        return [line for line, taken in zip(lines, step.get_support(), strict=False) if taken]
    if kind == "FunctionTransformer" and step.func is None:
        return lines
    if kind == "DictVectorizer":
        _note(lines, [[] if line is None else list(texts_of(step, line.feature)) for line in lines], noted)
        keys = {line.feature: line for line in lines if line is not None}
        return [keys.get(str(name)) for name in step.feature_names_]
    if hasattr(step, "categories_"):
        _note(lines, step.categories_, noted)
    elif hasattr(step, "bin_edges_"):
        _note(lines, step.bin_edges_, noted)
    elif kind == "QuantileTransformer":
        _note(lines, step.quantiles_.T, noted)
    elif kind == "SplineTransformer":
        _note(lines, [spline.t for spline in step.bsplines_], noted)
    elif kind == "PowerTransformer":
        _note(lines, [[0.0]] * width, noted)
    elif kind == "Binarizer":
        _note(lines, [[step.threshold]] * width, noted)
    try:
        return [None] * len(step.get_feature_names_out())
    except Exception:  # not every step can name its columns: a function mostly keeps their number
        return [None] * width


def _splits(step: Any, lines: Lines, noted: _Noted) -> None:
    inside = getattr(step, "_preprocessor", None)
    if inside is not None:
        indices = inside._transformer_to_input_indices
        order = [*indices["encoder"], *indices["numerical"]]
        if max(order, default=0) < len(lines):
            lines = [lines[index] for index in order]
            _note(lines[: len(indices["encoder"])], inside.named_transformers_["encoder"].categories_, noted)
    for one in fitted_ensembles(step):
        if isinstance(one, Dump):
            for position, borders in one.borders().items():
                line = lines[position] if position < len(lines) else None
                if line is not None:
                    noted.add(line, np.concatenate([borders, last(borders)]))
            continue
        inner = np.flatnonzero(~one.leaf & np.isfinite(one.threshold))
        inner = inner[~np.isin(inner, list(one.members))]
        for index in np.unique(one.feature[inner]):
            line = lines[index] if index < len(lines) else None
            if line is None:
                continue
            found = np.unique(one.threshold[inner[one.feature[inner] == index]])
            noted.add(line, found)
            if one.reads == "float32":
                noted.add(line, last(found))
        for node, codes in one.members.items():
            line = lines[one.feature[node]] if one.feature[node] < len(lines) else None
            if line is not None:
                noted.add(line, np.array(sorted(codes)))


def _through(lines: Lines, scale: Any, shift: Any) -> Lines:
    # A step before that cannot name its columns may have given more or fewer.
    return [
        None if line is None else line.through(float(factor), float(offset))
        for line, factor, offset in zip(lines, scale, shift, strict=False)
    ]


def _note(lines: Lines, values: Iterable[Iterable[Any]], noted: _Noted) -> None:
    for line, column in zip(lines, values, strict=False):
        if line is not None:
            known = [one for one in column if not isinstance(one, bool | np.bool_)]
            numbers = [float(one) for one in known if isinstance(one, int | float | np.number)]
            texts = [str(one) for one in known if isinstance(one, str)]
            noted.add(line, np.array(numbers, dtype=np.float64), texts)


def _numbers(marks: Marks) -> NDArray[np.float64]:
    return np.asarray(marks.numbers[np.abs(marks.numbers) < np.finfo(np.float32).max / 4])


def _neighbours(at: NDArray[np.float64], dtype: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values of a column of that type that are nearest to each mark: not above it, and above it."""
    if dtype in {"int64", "bool"}:
        return np.floor(at), np.floor(at) + 1
    if dtype == "float32":
        short = down(at)
        return short.astype(np.float64), np.nextafter(short, np.float32(np.inf)).astype(np.float64)
    return at, np.nextafter(at, np.inf)


def _texts(marks: Marks, series: pd.Series[Any]) -> NDArray[np.object_]:
    known = sorted(marks.texts)
    if isinstance(series.dtype, pd.CategoricalDtype):
        known = [one for one in known if one in series.dtype.categories]
    return np.array(known, dtype=object)


def _values(marks: Marks, series: pd.Series[Any], feature: Feature, count: int) -> NDArray[np.float64]:
    """At most `count` values around the marks, and a little beyond the data."""
    data = np.asarray(series.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))
    data = data[np.isfinite(data)]
    if not len(data):
        return np.zeros(0)
    at = _numbers(marks)
    if not len(at):
        at = np.unique(np.quantile(data, np.linspace(0, 1, QUANTILES)))
    steps = STEPS if len(at) * STEPS <= count else CLOSEST
    at = np.array(_spread(at.tolist(), max(1, count // steps - 1)))
    low, high = data.min(), data.max()
    if feature.dtype == "int64":
        whole = np.unique(np.concatenate([*_neighbours(at, feature.dtype), [low, high]]))
        return np.array(_spread(whole.tolist(), count))
    beyond = np.array([low, high, low - (high - low), high + (high - low)])
    beside = _around(at) if steps == STEPS else [*_neighbours(at, feature.dtype), np.nextafter(at, -np.inf)]
    found = np.unique(np.concatenate([beyond, *beside]))
    if feature.dtype == "float32":
        found = np.unique(found.astype(np.float32).astype(np.float64))
    return np.array(_spread(found.tolist(), count))


def _around(at: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The values, and up to two steps to each side in float64, one in float32."""
    found = [at]
    for direction in (-np.inf, np.inf):
        once = np.nextafter(at, direction)
        short = at.astype(np.float32)
        beside = np.nextafter(short, np.float32(direction)).astype(np.float64)
        found += [once, np.nextafter(once, direction), beside, (short.astype(np.float64) + beside) / 2]
    return [*found, at.astype(np.float32).astype(np.float64)]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _alone(frame: pd.DataFrame, values: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """For each feature rows of the data, one for each of its values, with that."""
    whole = frame.iloc[np.concatenate([_places(frame, len(one), start) for start, one in enumerate(values.values())])]
    whole = whole.reset_index(drop=True)
    others: dict[str, tuple[int, pd.Series[Any]]] = {}
    at = 0
    for name, column in values.items():
        others[name] = at, pd.Series(column).astype(frame[name].dtype)
        at += len(column)
    return changed(whole, others)


def _places(frame: pd.DataFrame, count: int, start: int) -> NDArray[np.int64]:
    """So many rows of the data, in turn, from another place for each feature."""
    step = max(1, len(frame) // max(1, count))
    return (np.arange(count) * step + start) % len(frame)


def _turned(column: NDArray[Any], count: int, place: int) -> NDArray[Any]:
    """All the values over and over, with a stride of their own, so that columns meet in many combinations."""
    stride = 2 * place + 1
    while math.gcd(stride, len(column)) > 1:
        stride += 2
    return np.asarray(column[(np.arange(count) * stride + place) % len(column)])


def _with(rows: pd.DataFrame, values: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    return changed(rows, {name: (0, pd.Series(column).astype(rows[name].dtype)) for name, column in values.items()})
