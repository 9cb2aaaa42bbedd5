"""What XGBoost itself says of a trained Booster: trees, start, weights, categories, objective.

Read is the JSON of `Booster.save_raw`. XGBoost compares float32: `x < t` goes left. For float32 numbers that is
`x <= p` with p the float32 before t, so trees here have the same form as those of all others. A split by category holds
the codes that go right; here the children change places.

The margin starts at the objective's image of `base_score`, in float32; which number that is we ask XGBoost, with a copy
of the model whose leaves are all 0.

Source: the model schema of XGBoost (doc/model.schema); `GetNextNode` of src/predictor/predict_fn.h and `Decision` of
src/common/categorical.h; for dart, `PredictBatchImpl` and `InplacePredict` of src/gbm/gbtree.cc.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.tree_nodes import Tree

VERSIONS: Final = (2, 3)
"""Major versions of XGBoost whose dump is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dump:
    """A Booster, as far as its answers depend on it. All numbers are float32 held in float64."""

    objective: str
    start: NDArray[np.float64]
    """[outputs]: the margin before the first tree."""
    features: int
    trees: tuple[Tree, ...] = ()
    """Tree j adds to output j % outputs; or, where `vectors`, each one to all."""
    vectors: bool = False
    weights: NDArray[np.float64] | None = None
    """[features + 1, outputs] of gblinear: the last row is the bias."""
    categorical: frozenset[int] = frozenset()
    """Features that are codes."""
    categories: Mapping[int, list[Any]] | None = None
    """Of those that were pandas categories: the values, in the order of their codes."""


def read(booster: Any, rounds: int | None, *, inplace: bool) -> Dump:
    """Reads a trained Booster.

    Args:
        booster: An `xgboost.Booster`.
        rounds: How many of its rounds count; None: all.
        inplace: The original predicts with `inplace_predict`, in which dart rounds otherwise.

    Raises:
        Unfaithful: A version or a kind of booster that is not known.
    """
    dump = json.loads(booster.save_raw("json"))
    if dump["version"][0] not in VERSIONS:
        raise Unfaithful(
            f"XGBoost {'.'.join(map(str, dump['version']))} is not known here",
            "use XGBoost 2.1 or a later one before 4",
        )
    learner = dump["learner"]
    gradient = learner["gradient_booster"]
    found: dict[str, Any] = {
        "objective": str(learner["objective"]["name"]),
        "start": start(dump),
        "features": int(learner["learner_model_param"]["num_feature"]),
    }
    if gradient["name"] == "gblinear":
        weights = np.array(gradient["model"]["weights"], dtype=np.float32).astype(np.float64)
        return Dump(**found, weights=weights.reshape(found["features"] + 1, -1))
    if gradient["name"] not in {"gbtree", "dart"}:
        raise Unfaithful(f"booster={gradient['name']} is not known here", "train with gbtree, dart or gblinear")
    model = gradient.get("gbtree", gradient)["model"]
    count = len(model["trees"]) if rounds is None else int(model["iteration_indptr"][rounds])
    kept = model["trees"][:count]
    categorical = frozenset(place for place, kind in enumerate(learner["feature_types"]) if kind == "c")
    coded = _categories(model.get("cats", {}))
    if any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in kept):
        trees = tuple(_tree(tree, _vectors(tree)) for tree in kept)
        return Dump(**found, trees=trees, vectors=True, categorical=categorical, categories=coded)
    values = [np.array(tree["split_conditions"], dtype=np.float32)[:, None] for tree in kept]
    if gradient["name"] == "dart":
        for number, factor in enumerate(gradient["weight_drop"][:count]):
            base = np.float32(found["start"][model["tree_info"][number]])
            given = (values[number] + base) - base if inplace else values[number]
            values[number] = given * np.float32(factor)
    # The trees of one round come output by output; each output keeps its own order.
    outputs = np.argsort(model["tree_info"][:count], kind="stable").reshape(len(found["start"]), -1)
    trees = tuple(_tree(kept[number], values[number]) for number in outputs.T.ravel())
    return Dump(**found, trees=trees, categorical=categorical, categories=coded)


def start(dump: dict[str, Any]) -> NDArray[np.float64]:
    """[outputs]: the margin that XGBoost answers where every leaf, or every weight, is 0.

    Args:
        dump: The JSON model.
    """
    import xgboost

    learner = dump["learner"]
    gradient = dict(learner["gradient_booster"])
    if gradient["name"] == "gblinear":
        gradient["model"] = {**gradient["model"], "weights": [0.0] * len(gradient["model"]["weights"])}
    else:
        holder = gradient.get("gbtree", gradient)
        model = holder["model"]
        first = int(model["iteration_indptr"][1])
        cut = {
            **model,
            "trees": [_without_values(tree) for tree in model["trees"][:first]],
            "tree_info": model["tree_info"][:first],
            "iteration_indptr": model["iteration_indptr"][:2],
            "gbtree_model_param": {**model["gbtree_model_param"], "num_trees": str(first)},
        }
        gradient = {"name": "gbtree", "model": cut}
    copy = {**dump, "learner": {**learner, "gradient_booster": gradient}}
    with xgboost.config_context(verbosity=0):
        booster = xgboost.Booster()
        booster.load_model(bytearray(json.dumps(copy).encode()))
        row = xgboost.DMatrix(np.full((1, booster.num_features()), np.nan))
        found = booster.predict(row, output_margin=True, validate_features=False)
    return np.asarray(found, dtype=np.float64).ravel()


def _without_values(tree: dict[str, Any]) -> dict[str, Any]:
    leaf = np.array(tree["left_children"]) == -1
    changed = {"split_conditions": np.where(leaf, 0.0, tree["split_conditions"]).tolist()}
    if "leaf_weights" in tree:
        changed = {"leaf_weights": [0.0] * len(tree["leaf_weights"])}
    return {**tree, **changed}


def _vectors(tree: dict[str, Any]) -> NDArray[np.float32]:
    """[nodes, outputs]: the vector of each leaf; its place stands where a right child would."""
    if "leaf_weights" not in tree:
        raise Unfaithful("its leaves are vectors in an old form", "save it again with XGBoost 3.1 or later")
    weights = np.array(tree["leaf_weights"], dtype=np.float32)
    table = weights.reshape(-1, int(tree["tree_param"]["size_leaf_vector"]))
    leaf = np.array(tree["left_children"]) == -1
    return table[np.where(leaf, tree["right_children"], 0)]


def _tree(tree: dict[str, Any], values: NDArray[np.float32]) -> Tree:
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    leaf = left == -1
    missing = np.array(tree["default_left"], dtype=bool)
    condition = np.array(tree["split_conditions"], dtype=np.float32)
    members = {
        node: np.sort(np.array(tree["categories"][at : at + size], dtype=np.float64))
        for node, at, size in zip(
            tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
        )
    }
    turned = np.array(tree["split_type"]) == 1
    left, right = np.where(turned, right, left), np.where(turned, left, right)
    rows = np.array(tree["sum_hessian"])
    kept = _reached(left, right, leaf)
    number = np.cumsum(kept) - 1
    return Tree(
        feature=np.where(leaf, 0, tree["split_indices"])[kept].astype(np.int64),
        threshold=np.nextafter(condition, np.float32(-np.inf))[kept].astype(np.float64),
        left=np.where(leaf, 0, number[left])[kept],
        right=np.where(leaf, 0, number[right])[kept],
        leaf=leaf[kept],
        missing_left=(missing ^ turned)[kept],
        values=values[kept].astype(np.float64),
        members={int(number[node]): codes for node, codes in members.items() if kept[node]},
        mostly_left=(~leaf & (rows[left] > rows[right]))[kept],
    )


def _reached(left: NDArray[np.int64], right: NDArray[np.int64], leaf: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Nodes under the root: what pruning took away stays in the arrays."""
    reached = np.zeros(len(leaf), dtype=bool)
    level = np.zeros(1, dtype=np.int64)
    while len(level):
        reached[level] = True
        inner = level[~leaf[level]]
        level = np.concatenate([left[inner], right[inner]])
    return reached


def _categories(cats: dict[str, Any]) -> dict[int, list[Any]]:
    """Feature -> its values; texts are bytes, one after another.

    Raises:
        Unfaithful: Texts that are not ASCII: XGBoost counts characters where it stores bytes, and cuts them.
    """
    found: dict[int, list[Any]] = {}
    for feature, one in enumerate(cats.get("enc", ())):
        if "offsets" not in one:
            found[feature] = list(one["values"])
        elif len(one["offsets"]) > 1:
            if min(one["values"], default=0) < 0:
                raise Unfaithful(
                    f"XGBoost has cut the names of the categories of feature {feature}, for they are not all ASCII",
                    "rename the categories, or encode them in a step before",
                )
            data, ends = bytes(one["values"]).decode("ascii"), one["offsets"]
            found[feature] = [data[start:end] for start, end in pairwise(ends)]
    return found
