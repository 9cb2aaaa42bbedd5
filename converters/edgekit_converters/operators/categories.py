"""Encoders that learn from the target.

Text goes through one `LabelEncoder` and one table, as in `encoders`; numbers are looked up by bisection.

Source: `TargetEncoder.transform` of sklearn/preprocessing/_target_encoder.py; `_BaseEncoder._transform` of
_encoders.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Column, Table, columns
from edgekit_converters.nulls import is_null
from edgekit_converters.operators import Transform, Unfaithful, encoders
from edgekit_converters.operators.composed import count_reached
from edgekit_converters.operators.expression import Expr
from edgekit_converters.schema import Encoding

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk


def target_encoder(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    """TargetEncoder: the mean target learned for each category; the mean of all for an unknown one.

    Of several classes, each column gives as many.

    Raises:
        Unfaithful: A column learned None and NaN as two categories, or mixes numbers and texts.
    """
    classes = len(step.classes_) if step.target_type_ == "multiclass" else 1
    means = [float(one) for one in np.ravel(step.target_mean_)]
    found = []
    for index, column in enumerate(table):
        categories = list(step.categories_[index])
        if sum(map(is_null, categories)) > 1:
            raise Unfaithful(
                f"column {index} learned both None and NaN as categories, and a device knows one missing value",
                "replace None by NaN in the training data and fit again",
            )
        if column.source is not None and column.dtype == "text":
            texts = tuple(str(one) for one in categories if not is_null(one))
            walk.encodings.setdefault(column.source, []).append(Encoding(categories=texts, closed=False))
        for place in range(classes):
            codes = [float(one) for one in step.encodings_[index * classes + place]]
            found.append((column, encoders.Codes(categories, codes, means[place], 1)))
    result: list[Column] = []
    for text, run in groupby(found, key=lambda one: one[0].dtype == "text"):
        part = list(run)
        given, codes_of = tuple(column for column, _ in part), [codes for _, codes in part]
        result += encoders._ordinal(walk.graph, given, codes_of) if text else _numbers(walk, given, codes_of)
    return tuple(result)


def _numbers(walk: Walk, part: Table, found: Sequence[encoders.Codes]) -> Table:
    """Each number's code: that of the category it is equal to."""
    x = Expr(walk.graph, walk.matrix(part))
    known, values, nulls = [], [], []
    for codes in found:
        if any(isinstance(one, str) for one in codes.categories):
            raise Unfaithful("a text category in a column of numbers", "give the column the type it had in training")
        pairs = [(np.nan if is_null(c) else float(c), v) for c, v in zip(codes.categories, codes.codes, strict=True)]
        finite = sorted(pair for pair in pairs if not np.isnan(pair[0]))
        known.append(np.array([one for one, _ in finite]))
        values.append([value for _, value in finite])
        nulls.append(next((value for one, value in pairs if np.isnan(one)), codes.unknown))
    deepest = max(map(len, known)) + 1
    keys, answers = np.full((len(found), deepest), np.nan), np.zeros((len(found), deepest))
    for row, (one, value) in enumerate(zip(known, values, strict=True)):
        keys[row, 1 : 1 + len(one)], answers[row, 1 : 1 + len(one)] = one, value
    place = count_reached(x, known) + np.arange(len(found)) * float(deepest)
    unknown = np.array([codes.unknown for codes in found])
    result = x.equals(place.look_up(keys.ravel())).where(place.look_up(answers.ravel()), unknown)
    return columns(x.is_nan().where(np.array(nulls), result).value)


TRANSFORMERS: Final[Mapping[str, Transform]] = {"TargetEncoder": target_encoder}
