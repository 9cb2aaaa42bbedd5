"""CatBoost's statistics of the target ("ctr"): for a combination of categories, how its rows fared in training.

A statistic, in float32: ((count + prior) / (total + denominator) + shift) * scale. What is counted:

- `Borders`: the rows whose target is in a class above the border, of all.
- `Buckets`: the rows whose target is in one class, of all.
- `BinarizedTargetMeanValue`, `FloatTargetMeanValue`: the sum of the targets, of the rows.
- `Counter`, `FeatureFreq`: the rows, of a total that is the same for all combinations.

An unknown combination counts 0. All of this is computed here, for each known combination, and the graph looks it up: a
combination is one whole number, whose digits are the codes of its categories.

Source: `TStaticCtrProvider::CalcCtrs` of catboost/libs/model/static_ctr_provider.cpp, `CalcHashes` of ctr_helpers.cpp
and `TModelCtr::Calc` of online_ctr.h there; L. Prokhorenkova et al., CatBoost: unbiased boosting with categorical
features, 2018, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.graph import ML
from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.catboost_categories import Known
from edgekit_converters.operators.catboost_dump import Above, Category, Statistic
from edgekit_converters.operators.expression import Expr, concat

COMBINATIONS_MAX: Final = 2**24
"""Of known categories that are tried for one statistic."""
_FREE: Final = 2**64 - 1
"""The hash of a free place in CatBoost's tables, which its dump lists too."""
_FACTOR: Final = np.uint64(0x4906BA494954CB65)

Condition = Above | Category
Group = tuple[tuple[int, ...], tuple[Condition, ...]]
"""What a combination is of: positions of categorical features, and conditions."""


@dataclass(frozen=True, slots=True)
class Combinations:
    """The combinations of one group that training has seen and that are known here.

    Attributes:
        sizes: How many values each digit has: of a feature one more than its categories, of a condition two.
        numbers: [combinations].
        hashes: [combinations].
    """

    sizes: tuple[int, ...]
    numbers: NDArray[np.int64]
    hashes: NDArray[np.uint64]


def statistics(
    wanted: Sequence[Statistic],
    known: Mapping[int, Known],
    codes: Mapping[int, Expr],
    conditions: Mapping[Condition, Expr],
) -> tuple[Expr, dict[int, int]]:
    """The columns of the statistics.

    Args:
        wanted: The statistics.
        known: Position -> the categories of a feature.
        codes: Position -> [rows, 1], int64.
        conditions: [rows, 1], bool.

    Returns:
        [rows, wanted] in float64; and position -> how many hashes in the tables belong to no known category.

    Raises:
        Unfaithful: A statistic over too many combinations.
    """
    groups: dict[Group, list[Statistic]] = {}
    for one in wanted:
        groups.setdefault((one.features, one.conditions), []).append(one)
    found = {group: _combinations(group, members, known) for group, members in groups.items()}
    digits = [*codes, *conditions]
    given = concat([*codes.values(), *(one.cast("int64") for one in conditions.values())]).cast("float64")
    weights, starts = np.zeros((len(digits), len(found))), np.zeros(len(found))
    start, keys, places = 0, [], []
    for column, ((features, tests), some) in enumerate(found.items()):
        weight = 1
        for digit, size in zip(reversed((*features, *tests)), reversed(some.sizes), strict=True):
            weights[digits.index(digit), column], weight = weight, weight * size
        starts[column] = start
        keys.append(some.numbers + start)
        places.append(np.arange(1, len(some.numbers) + 1))
        start += weight
    numbers = (given @ weights + starts).cast("int64")
    place = numbers.apply(
        "LabelEncoder",
        domain=ML,
        keys_int64s=np.concatenate(keys).tolist(),
        values_int64s=np.concatenate(places).tolist(),
        default_int64=0,
    )
    order = list(found)
    spread = place.at(*(order.index((one.features, one.conditions)) for one in wanted))
    tables = [_values(one, found[one.features, one.conditions].hashes) for one in wanted]
    offsets = np.cumsum([0, *map(len, tables)])[:-1]
    return (spread + offsets).look_up(np.concatenate(tables)), _unexplained(groups, found)


def _combinations(group: Group, some: Sequence[Statistic], known: Mapping[int, Known]) -> Combinations:
    features, conditions = group
    # A digit's values and the first of them: the codes of a feature begin with 1.
    digits = [*((known[one].hashes, 1) for one in features), *((np.array([0, 1]), 0) for _ in conditions)]
    if prod(len(values) for values, _ in digits) > COMBINATIONS_MAX:
        names = ", ".join(f"'{known[one].name}'" for one in features)
        raise Unfaithful(
            f"it counts combinations of {names}, of which there are more than {COMBINATIONS_MAX:,}",
            "train with a smaller max_ctr_complexity, or with fewer categories",
        )
    hashes, numbers = np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.int64)
    for values, first in digits:
        with np.errstate(over="ignore"):  # modulo 2^64, as CatBoost
            hashes = (_FACTOR * (hashes[:, None] + _FACTOR * values.astype(np.uint64))).reshape(-1)
        size = first + len(values)
        numbers = (numbers[:, None] * size + np.arange(first, size)).reshape(-1)
    seen = np.isin(hashes, np.concatenate([_rows(one)[0] for one in some]))
    return Combinations(tuple(first + len(values) for values, first in digits), numbers[seen], hashes[seen])


def _rows(one: Statistic) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """The hashes of a table, and [hashes, counts]."""
    flat, width = one.table["hash_map"], int(one.table["hash_stride"])
    rows = [flat[at : at + width] for at in range(0, len(flat), width) if int(flat[at]) != _FREE]
    counts = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), width - 1)
    return np.array([int(row[0]) for row in rows], dtype=np.uint64), counts


def _values(one: Statistic, wanted: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The value of an unknown combination, then those of the wanted hashes."""
    hashes, counts = _rows(one)
    kind, border = one.settings["ctr_type"], int(one.settings["target_border_idx"])
    zero = np.zeros(1)
    if kind in {"BinarizedTargetMeanValue", "FloatTargetMeanValue"}:
        good, total = counts[:, 0], counts[:, 1]
    elif kind in {"Counter", "FeatureFreq"}:
        total = np.full(len(counts), float(one.table["counter_denominator"]))
        good, zero = counts[:, 0], total[:1]
    elif kind == "Buckets":
        good, total = counts[:, border], counts.sum(axis=1)
    else:
        good, total = counts[:, border + 1 :].sum(axis=1), counts.sum(axis=1)
    setting = {
        name: np.float32(one.settings[name]) for name in ("prior_numerator", "prior_denomerator", "shift", "scale")
    }

    def value(good: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.float64]:
        share = (good.astype(np.float32) + setting["prior_numerator"]) / (
            total.astype(np.float32) + setting["prior_denomerator"]
        )
        return ((share + setting["shift"]) * setting["scale"]).astype(np.float64)

    unknown = value(np.zeros(1), zero)
    order = np.argsort(hashes)
    at = order[np.searchsorted(hashes[order], wanted).clip(max=len(order) - 1)]
    found = np.where(hashes[at] == wanted, value(good, total)[at], unknown)
    return np.concatenate([unknown, found])


def _unexplained(groups: Mapping[Group, Sequence[Statistic]], found: Mapping[Group, Combinations]) -> dict[int, int]:
    """Position -> how many hashes belong to no known category; of a combination, where it alone has the feature."""
    left = {
        group: max(int((~np.isin(_rows(one)[0], found[group].hashes)).sum()) for one in some)
        for group, some in groups.items()
    }
    alone = {features[0]: count for (features, tests), count in left.items() if len(features) == 1 and not tests}
    result = dict(alone)
    for (features, _), count in left.items():
        if count and not any(result.get(one) for one in features):
            # A combination does not say whose category is missing; a feature with a table of its own has them all.
            result |= dict.fromkeys([one for one in features if one not in alone] or features, count)
    return result
