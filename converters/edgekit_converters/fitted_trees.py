"""The trees of a fitted model as scikit-learn itself holds them, in the order in which a conversion meets them.

Of XGBoost and LightGBM, as those write them (`fitted_boosters`).

Source: `Tree` of sklearn/tree/_tree.pyx; `TreePredictor` of sklearn/ensemble/_hist_gradient_boosting/predictor.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit_converters import fitted_boosters
from edgekit_converters.operators import catboost_dump, xgboost_dump
from edgekit_converters.operators.catboost_dump import Dump
from edgekit_converters.walk import unwrap

LONE: Final = frozenset(
    ["DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor"]
)
FORESTS: Final = frozenset(
    ["ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """All nodes of all trees of one estimator, one after another; arrays are [nodes] but `values` and `roots`."""

    name: str
    reads: Literal["float32", "float64"]
    """What x is rounded to before it is compared."""
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    """A missing value goes left."""
    values: NDArray[np.float64]
    """[nodes, targets]: what a leaf adds to each."""
    members: dict[int, frozenset[float]]
    starts: int = 0
    """How many of the trees are no trees, but the start of a score."""


def fitted_ensembles(model: Any) -> list[Ensemble | Dump]:
    """The ensembles of a model, those inside of pipelines and wrappers too; of CatBoost what it says of itself."""
    return list(_found(model))


def _found(model: Any) -> Iterator[Ensemble | Dump]:
    model = unwrap(model)
    kind = type(model).__name__
    if hasattr(model, "steps"):
        for _, step in model.steps:
            yield from _found(step)
    elif kind in LONE:
        yield _plain(kind, [model.tree_], [_shares(model)])
    elif kind in FORESTS:
        yield _plain(kind, [one.tree_ for one in model.estimators_], [_shares(one) for one in model.estimators_])
    elif kind.startswith("GradientBoosting"):
        yield _boosted(kind, model)
        yield from _found(model.init_)
    elif kind.startswith("HistGradientBoosting"):
        yield _histogram(kind, model)
    elif kind.startswith("CatBoost"):
        yield catboost_dump.read(model)
    elif kind.startswith("XGB"):
        best = model.get_booster().attr("best_iteration")
        yield from _xgboost(kind, model.get_booster(), None if best is None else int(best) + 1)
    elif kind.startswith("LGBM"):
        yield from _lightgbm(kind, model.booster_)
    elif kind == "Booster" and type(model).__module__.startswith("xgboost."):
        yield from _xgboost(kind, model, None)
    elif kind == "Booster" and type(model).__module__.startswith("lightgbm."):
        yield from _lightgbm(kind, model)
    elif hasattr(model, "calibrated_classifiers_"):
        for one in model.calibrated_classifiers_:
            yield from _found(one.estimator)
    elif kind == "OneLabel":
        yield from _found(model.estimator)
    elif kind in {"VotingClassifier", "VotingRegressor"}:
        for one in model.estimators_:
            yield from _found(one)


def _shares(one: Any) -> NDArray[np.float64]:
    """[nodes, classes or targets]; the classes of several targets side by side."""
    values = np.asarray(one.tree_.value, dtype=np.float64)
    if not hasattr(one, "classes_"):
        return values[:, :, 0]
    counts = np.atleast_1d(one.n_classes_)
    return np.concatenate([values[:, target, :count] for target, count in enumerate(counts)], axis=1)


def _plain(name: str, trees: Sequence[Any], values: Sequence[NDArray[np.float64]]) -> Ensemble:
    first = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    return Ensemble(
        name=name,
        reads="float32",
        roots=first.astype(np.int64),
        feature=np.concatenate([tree.feature for tree in trees]).astype(np.int64),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=np.concatenate([tree.children_left + at for tree, at in zip(trees, first, strict=True)]),
        right=np.concatenate([tree.children_right + at for tree, at in zip(trees, first, strict=True)]),
        leaf=np.concatenate([tree.children_left == tree.children_right for tree in trees]),
        missing=np.concatenate([tree.missing_go_to_left for tree in trees]).astype(bool),
        values=np.concatenate(values),
        members={},
    )


def _boosted(name: str, model: Any) -> Ensemble:
    count = model.estimators_.shape[1]
    trees, values = [], []
    for stage in model.estimators_:
        for target, one in enumerate(stage):
            trees.append(one.tree_)
            values.append(np.zeros((one.tree_.node_count, count)))
            values[-1][:, target] = model.learning_rate * one.tree_.value[:, 0, 0]
    found = _plain(name, trees, values)
    if model.init_ != "zero" and not type(model.init_).__name__.startswith("Dummy"):
        return found  # an estimator's start is another one for each row
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))
    return _started(found, np.asarray(start, dtype=np.float64).ravel())


def _histogram(name: str, model: Any) -> Ensemble:
    count = model.n_trees_per_iteration_
    at = 0
    roots, values, parts, members = [], [], [], {}
    for stage in model._predictors:
        for target, predictor in enumerate(stage):
            nodes = predictor.nodes
            roots.append(at)
            parts.append((at, nodes))
            values.append(np.zeros((len(nodes), count)))
            values[-1][:, target] = nodes["value"]
            for node in np.flatnonzero(nodes["is_categorical"] & ~nodes["is_leaf"].astype(bool)):
                words = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
                # `in_bitset`: word val // 32, bit val % 32.
                members[at + int(node)] = frozenset(
                    float(code) for code in range(256) if int(words[code // 32]) >> (code % 32) & 1
                )
            at += len(nodes)
    joined = np.concatenate([nodes for _, nodes in parts])
    offset = np.concatenate([np.full(len(nodes), first) for first, nodes in parts])
    found = Ensemble(
        name=name,
        reads="float64",
        roots=np.array(roots, dtype=np.int64),
        feature=joined["feature_idx"].astype(np.int64),
        threshold=joined["num_threshold"].astype(np.float64),
        left=joined["left"].astype(np.int64) + offset,
        right=joined["right"].astype(np.int64) + offset,
        leaf=joined["is_leaf"].astype(bool),
        missing=joined["missing_go_to_left"].astype(bool),
        values=np.concatenate(values),
        members=members,
    )
    return _started(found, np.asarray(model._baseline_prediction, dtype=np.float64).ravel())


def _xgboost(name: str, booster: Any, rounds: int | None) -> Iterator[Ensemble]:
    start = xgboost_dump.start(json.loads(booster.save_raw("json")))
    trees = fitted_boosters.xgboost_trees(booster, rounds, start)
    if trees:
        vectors = any(len(np.unique(np.nonzero(tree.values)[1])) > 1 for tree in trees)
        yield _started(_joined(name, "float32", trees), start, vectors=vectors)


def _lightgbm(name: str, booster: Any) -> Iterator[Ensemble]:
    trees = fitted_boosters.lightgbm_trees(booster)
    if trees:
        yield _joined(name, "float64", trees)


def _joined(name: str, reads: Literal["float32", "float64"], trees: Sequence[fitted_boosters.Nodes]) -> Ensemble:
    first = np.cumsum([0, *(len(tree.leaf) for tree in trees)])[:-1]

    def whole(field: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, field) for tree in trees])

    return Ensemble(
        name=name,
        reads=reads,
        roots=first.astype(np.int64),
        feature=whole("feature"),
        threshold=whole("threshold"),
        left=np.concatenate([tree.left + at for tree, at in zip(trees, first, strict=True)]),
        right=np.concatenate([tree.right + at for tree, at in zip(trees, first, strict=True)]),
        leaf=whole("leaf"),
        missing=whole("missing"),
        values=whole("values"),
        members={
            int(at) + node: codes for tree, at in zip(trees, first, strict=True) for node, codes in tree.members.items()
        },
    )


def _started(found: Ensemble, start: NDArray[np.float64], *, vectors: bool = False) -> Ensemble:
    """With the start of each score as a first tree of one leaf, or where `vectors`, all in one."""
    first = start[None, :] if vectors else np.diag(start)
    count, zeros = len(first), np.zeros(len(first), dtype=np.int64)
    return Ensemble(
        name=found.name,
        reads=found.reads,
        roots=np.concatenate([np.arange(count), found.roots + count]),
        feature=np.concatenate([zeros, found.feature]),
        threshold=np.concatenate([zeros.astype(np.float64), found.threshold]),
        left=np.concatenate([zeros, found.left + count]),
        right=np.concatenate([zeros, found.right + count]),
        leaf=np.concatenate([zeros == 0, found.leaf]),
        missing=np.concatenate([zeros != 0, found.missing]),
        values=np.concatenate([first, found.values]),
        members={node + count: codes for node, codes in found.members.items()},
        starts=count,
    )
