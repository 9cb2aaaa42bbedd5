"""A CatBoost model as it describes itself: `save_model(format="json")`, read into values.

Every decision of a CatBoost model is `x > border` in float32, where x is one of three things: a number of the input; 1
or 0 for one category (one-hot); or a statistic of the target over categories of one or several features ("ctr"). So the
trees read one matrix, and `Dump.columns` says what its columns are.

Source: `ConvertModelToJson` of catboost/libs/model/model_export/json_model_helpers.cpp. Numbers are written with 9
digits (float32) and 17 (float64), which read back as they were.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number of the input."""

    position: int
    """Among all features."""
    missing_above: bool
    """A missing value is above every border (nan_mode Max), else below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Above:
    """1 where a number is above a border, else 0; only in a combination."""

    number: Number
    border: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """1 where a feature has one category, else 0."""

    position: int
    code: int
    """The category's hash, a signed 32-bit number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistic:
    """A statistic of the target for each combination, of categories and conditions, that training has seen."""

    features: tuple[int, ...]
    """Positions of the categorical features."""
    conditions: tuple[Above | Category, ...]
    table: Mapping[str, Any]
    """What was counted for each combination: `hash_map`, `hash_stride`, `counter_denominator`."""
    settings: Mapping[str, Any]
    """`ctr_type`, `target_border_idx`, `prior_numerator`, `prior_denomerator`, `shift`, `scale`."""


Column = Number | Category | Statistic


@dataclass(frozen=True, kw_only=True, slots=True)
class Symmetric:
    """A tree with one split a level: bit k of a leaf's number is the outcome of split k."""

    column: NDArray[np.int64]
    """[splits]."""
    border: NDArray[np.float64]
    """[splits]; each is a float32."""
    leaves: NDArray[np.float64]
    """[2 ** splits, targets]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branching:
    """Any other tree: arrays are [nodes], the root first."""

    column: NDArray[np.int64]
    border: NDArray[np.float64]
    below: NDArray[np.int64]
    """The node that follows where x is not above the border."""
    above: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    values: NDArray[np.float64]
    """[nodes, targets]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """A model: scale * (the sum of the leaves, tree by tree) + bias."""

    columns: tuple[Column, ...]
    trees: tuple[Symmetric | Branching, ...]
    scale: float
    bias: NDArray[np.float64]
    """[targets]."""
    loss: str
    class_places: tuple[int, ...]
    """Of each score, its place among the classes; () where there are none."""

    def borders(self) -> dict[int, NDArray[np.float64]]:
        """Position -> the borders of a feature of numbers, ascending."""
        found: dict[int, set[float]] = {}
        for tree in self.trees:
            for column, border in zip(tree.column.tolist(), tree.border.tolist(), strict=True):
                number = self.columns[column]
                if isinstance(number, Number):
                    found.setdefault(number.position, set()).add(border)
        for one in self.columns:
            for test in one.conditions if isinstance(one, Statistic) else ():
                if isinstance(test, Above):
                    found.setdefault(test.number.position, set()).add(test.border)
        return {position: np.array(sorted(borders)) for position, borders in found.items()}


def read(model: Any) -> Dump:
    """The dump of a fitted model.

    Raises:
        Unfaithful: It reads texts or embeddings, or counts targets in several ways at once.
    """
    for kind, places in (
        ("text", model._get_text_feature_indices()),
        ("embedding", model._get_embedding_feature_indices()),
    ):
        if places:
            raise Unfaithful(
                f"it reads the {kind} feature '{model.feature_names_[places[0]]}'",
                "turn it into numbers or categories before the model, and fit again",
            )
    given = _saved(model)
    info, parameters = given["model_info"], given["model_info"]["params"]
    _one_way_to_count(parameters.get("cat_feature_params", {}))
    numbering = _Numbering(given)
    trees: tuple[Symmetric | Branching, ...] = (
        tuple(map(numbering.symmetric, given["oblivious_trees"]))
        if "oblivious_trees" in given
        else tuple(map(numbering.branching, given["trees"]))
    )
    scale, bias = given["scale_and_bias"]
    return Dump(
        columns=tuple(numbering.columns),
        trees=trees,
        scale=float(scale),
        bias=np.asarray(bias, dtype=np.float64),
        loss=str(parameters.get("loss_function", {}).get("type", "")),
        class_places=tuple(map(int, info.get("class_params", {}).get("class_to_label", ()))),
    )


def hashes(model: Any, texts: Sequence[str]) -> dict[str, int]:
    """Each text's hash as a category, a signed 32-bit number: CatBoost tells those of a pool beside a saved model."""
    import pandas as pd
    from catboost import Pool

    categorical = model._get_cat_feature_indices()
    zeros, given = np.zeros(len(texts)), list(texts)
    frame = pd.DataFrame(
        {name: given if place in categorical else zeros for place, name in enumerate(model.feature_names_)}
    )
    found = _saved(model, Pool(frame, cat_features=categorical))["features_info"]["cat_features_hash"]
    return {str(one["value"]): signed(int(one["hash"])) for one in found}


def signed(code: int) -> int:
    """An unsigned 32-bit number read as a signed one."""
    return code - 2**32 if code >= 2**31 else code


def _saved(model: Any, pool: Any = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json", pool=pool)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


def _one_way_to_count(settings: Mapping[str, Any]) -> None:
    """Refuses one statistic over two divisions of the target into classes: the dump names both alike, and holds one.

    Raises:
        Unfaithful: There are two.
    """
    lists = [settings.get("simple_ctrs", ()), settings.get("combinations_ctrs", ())]
    for described in (*lists, *settings.get("per_feature_ctrs", {}).values()):
        known: dict[str, Any] = {}
        for one in described:
            kind, division = one["ctr_type"], one.get("target_binarization")
            if known.setdefault(kind, division) != division:
                raise Unfaithful(
                    f"it counts {kind} over two divisions of the target",
                    "give each kind of simple_ctr and combinations_ctr one TargetBorderCount and TargetBorderType",
                )


class _Numbering:
    """Gives each thing that a split reads a column, in the order of the splits."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        info = given["features_info"]
        self.columns: list[Column] = []
        self._numbers = {
            one["feature_index"]: Number(
                position=one["flat_feature_index"],
                missing_above=bool(one["has_nans"]) and one["nan_value_treatment"] == "AsTrue",
            )
            for one in info.get("float_features") or ()
        }
        categorical = info.get("categorical_features") or ()
        self._positions = {one["feature_index"]: int(one["flat_feature_index"]) for one in categorical}
        # The splits count all borders of the numbers, then all categories, then all borders of the statistics.
        place = sum(len(one["borders"]) for one in info.get("float_features") or ())
        place += sum(len(one.get("values", ())) for one in categorical)
        self._of_split: dict[int, Statistic] = {}
        for one in info.get("ctrs") or ():
            found = self._statistic(one, given["ctr_data"])
            self._of_split |= dict.fromkeys(range(place, place + len(one["borders"])), found)
            place += len(one["borders"])
        self._known: dict[object, int] = {}

    def symmetric(self, tree: Mapping[str, Any]) -> Symmetric:
        """A tree of `oblivious_trees`."""
        splits = [self._split(one) for one in tree["splits"] or ()]
        leaves = np.asarray(tree["leaf_values"], dtype=np.float64)
        return Symmetric(
            column=np.array([column for column, _ in splits], dtype=np.int64),
            border=np.array([border for _, border in splits], dtype=np.float64),
            leaves=leaves.reshape(2 ** len(splits), -1),
        )

    def branching(self, tree: Mapping[str, Any]) -> Branching:
        """A tree of `trees`: `split`, `left` (not above) and `right`, or a leaf's `value`."""
        nodes: list[tuple[int, float, int, int, Any]] = []
        waiting = [(tree, -1, False)]
        while waiting:
            node, parent, is_above = waiting.pop()
            here = len(nodes)
            if parent >= 0:
                column, border, below, above, value = nodes[parent]
                nodes[parent] = column, border, *((below, here) if is_above else (here, above)), value
            if "split" in node:
                nodes.append((*self._split(node["split"]), 0, 0, None))
                waiting += [(node["right"], here, True), (node["left"], here, False)]
            else:
                nodes.append((0, 0.0, 0, 0, node["value"]))
        columns, borders, below_, above_, values = zip(*nodes, strict=True)
        width = np.size(next(one for one in values if one is not None))
        return Branching(
            column=np.array(columns, dtype=np.int64),
            border=np.array(borders, dtype=np.float64),
            below=np.array(below_, dtype=np.int64),
            above=np.array(above_, dtype=np.int64),
            leaf=np.array([one is not None for one in values]),
            values=np.array([np.zeros(width) if one is None else np.ravel(one) for one in values], dtype=np.float64),
        )

    def _split(self, split: Mapping[str, Any]) -> tuple[int, float]:
        kind = split["split_type"]
        if kind == "FloatFeature":
            number = self._numbers[split["float_feature_index"]]
            return self._column(number, number), float(np.float32(split["border"]))
        if kind == "OneHotFeature":
            category = Category(position=self._positions[split["cat_feature_index"]], code=int(split["value"]))
            return self._column(category, category), 0.5
        statistic = self._of_split[split["split_index"]]
        return self._column(id(statistic), statistic), float(np.float32(split["border"]))

    def _column(self, key: object, column: Column) -> int:
        if key not in self._known:
            self._known[key] = len(self.columns)
            self.columns.append(column)
        return self._known[key]

    def _statistic(self, given: Mapping[str, Any], tables: Mapping[str, Any]) -> Statistic:
        features: list[int] = []
        conditions: list[Above | Category] = []
        for one in given["elements"]:
            kind = one["combination_element"]
            if kind == "cat_feature_value":
                features.append(self._positions[one["cat_feature_index"]])
            elif kind == "float_feature":
                number = self._numbers[one["float_feature_index"]]
                conditions.append(Above(number=number, border=float(np.float32(one["border"]))))
            else:
                position = self._positions[one["cat_feature_index"]]
                conditions.append(Category(position=position, code=int(one["value"])))
        return Statistic(
            features=tuple(features),
            conditions=tuple(conditions),
            table=tables[given["identifier"]],
            settings=given,
        )
