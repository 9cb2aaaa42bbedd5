"""LightGBM's scikit-learn classes: float64 throughout; raw scores are LightGBM's bit for bit.

raw = leaf + leaf + ... in the order of the trees (the start lies in the first one), divided by the count of rounds for
boosting=rf; then the objective's transform. The leaf of a linear tree adds const + coefficient * x for its features,
and its plain value where one of those is missing.

Source: `GBDT::PredictRaw` and `Predict` of src/boosting/gbdt_prediction.cpp; `ConvertOutput` of src/objective/*.hpp;
`Common::Softmax` of utils/common.h; `LGBMClassifier.predict` of lightgbm/sklearn.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, Value, columns
from edgekit_converters.operators import Predict, Predicted, Unfaithful, encoders, scores, tree_ensemble
from edgekit_converters.operators.composed import log1p
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.lightgbm_dump import ZERO, Dump, read
from edgekit_converters.schema import Encoding

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

PACKAGE: Final = "lightgbm"

IDENTITY: Final = frozenset(
    ["", "custom", "fair", "huber", "lambdarank", "mape", "none", "quantile", "rank_xendcg", "regression",
     "regression_l1"]
)  # fmt: skip
EXP: Final = frozenset({"gamma", "poisson", "tweedie"})
CHANGED: Final = frozenset(
    ["num_iteration_predict", "pred_early_stop", "predict_contrib", "predict_leaf_index", "predict_raw_score",
     "raw_score", "start_iteration_predict"]
)  # fmt: skip
"""Parameters with which `predict` answers something else."""


def classifier(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    """LGBMClassifier; of an objective that is a function, LightGBM answers raw scores, and neither label nor share.

    Raises:
        Unfaithful: An objective that is not known.
    """
    _plain(step)
    if callable(step.objective_):
        return valued(walk, step.booster_, table)
    return classified(walk, step.booster_, table, np.asarray(step.classes_))


def classified(walk: Walk, booster: Any, table: Table, classes: Any) -> Predicted:
    """A Booster that tells classes apart: the label is that of the largest probability, the first one of equals."""
    dump = read(booster)
    raw = _raw(walk, table, dump)
    shares = transformed(raw, dump.objective).value
    if shares.width == 1:
        shares = scores.two_sided(walk.graph, shares)
    if shares.width != len(classes):
        raise Unfaithful(f"it has {shares.width} outputs for {len(classes)} classes", "fit it again")
    return Predicted(label=scores.best(walk.graph, shares, classes), probabilities=shares, decision=raw.value)


def regressor(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    """LGBMRegressor and LGBMRanker.

    Raises:
        Unfaithful: An objective that is not known.
    """
    _plain(step)
    return valued(walk, step.booster_, table)


def valued(walk: Walk, booster: Any, table: Table) -> Predicted:
    """A Booster that answers numbers."""
    dump = read(booster)
    return Predicted(value=transformed(_raw(walk, table, dump), dump.objective).value)


def transformed(raw: Expr, objective: str) -> Expr:
    """What `predict` of a Booster answers for its raw score [rows, outputs].

    Raises:
        Unfaithful: An objective that is not known.
    """
    name, *given = objective.split() or [""]  # none is written where it is a function
    parameters = {key: value for key, _, value in (one.partition(":") for one in given)}
    if name.startswith("regression") and "sqrt" in given:
        return (raw >= 0.0).where(raw * raw, -(raw * raw))
    if name in IDENTITY:
        return raw
    if name in EXP:
        return raw.exp()
    if name in {"binary", "cross_entropy", "multiclassova"}:
        factor = -float(parameters.get("sigmoid", 1.0))
        return 1.0 / ((-raw if factor == -1.0 else raw * factor).exp() + 1.0)
    if name == "cross_entropy_lambda":
        return log1p(raw.exp())
    if name == "multiclass":
        shares = (raw - raw.max()).exp()
        return shares / shares.sum()
    raise Unfaithful(f"objective={name} is not known here", "train with another objective, or report it")


def _plain(step: Any) -> None:
    changed = sorted(CHANGED & {name for name, value in step.get_params().items() if value})
    if changed:
        raise Unfaithful(f"{changed[0]} changes what it answers", f"remove the parameter {changed[0]}")


def _raw(walk: Walk, table: Table, dump: Dump) -> Expr:
    """[rows, outputs]: the sum of the leaves."""
    x = _numbers(walk, table, dump)
    if dump.lines is None:
        raw = Expr(walk.graph, tree_ensemble.sums(walk.graph, dump.trees, dump.outputs, x.value, "float64"))
    else:
        raw = _linear(walk, x, dump)
    return raw / float(len(dump.trees) // dump.outputs) if dump.average else raw


def _numbers(walk: Walk, table: Table, dump: Dump) -> Expr:
    """[rows, features] in float64: categories as codes, NaN for what is missing."""
    if len(table) != dump.features:
        raise Unfaithful(f"{len(table)} columns reach it, and it learned {dump.features}", "fit the pipeline again")
    coded: frozenset[int] = frozenset()
    if dump.categories:
        table, coded = _coded(walk, table, dump)
    x = Expr(walk.graph, walk.matrix(table))
    if dump.zero_is_missing or dump.lines is not None:
        zero = abs(x) <= ZERO
        if dump.lines is not None:
            x = zero.where(0.0, x)
        if dump.zero_is_missing:
            x = (zero & _among(x, dump.zero_is_missing)).where(np.nan, x)
    whole = dump.categorical - coded
    if whole:
        cut = (x < 0.0).where(x.apply("Ceil"), x.apply("Floor"))
        x = _among(x, whole).where(cut, x)
    return x


def _among(x: Expr, features: frozenset[int]) -> Expr:
    """[1, features]: whether a column is one of these."""
    mask = np.isin(np.arange(x.width), list(features)).reshape(1, -1)
    return Expr(x.graph, Value(x.graph.constant(mask, "features"), "bool", x.width))


def _coded(walk: Walk, table: Table, dump: Dump) -> tuple[Table, frozenset[int]]:
    """The table with codes in the place of pandas categories, NaN for an unknown one, and where those are."""
    places = [place for place, column in enumerate(table) if column.source in walk.categorical]
    if len(places) != len(dump.categories):
        raise Unfaithful(
            f"{len(places)} columns of categories reach it, and it learned {len(dump.categories)}",
            "give the data the types that it had in training: the columns as pandas categories",
        )
    result = list(table)
    for place, values in zip(places, dump.categories, strict=True):
        column = table[place]
        if column.source is not None and column.dtype == "text":
            walk.encodings.setdefault(column.source, []).append(Encoding(categories=tuple(values), closed=False))
        codes = encoders.Codes(values, [float(code) for code in range(len(values))], np.nan, 1)
        result[place] = encoders.coded(walk.graph, (column,), [codes])[0]
    return tuple(result), frozenset(places)


def _linear(walk: Walk, x: Expr, dump: Dump) -> Expr:
    """[rows, outputs] of linear trees: every leaf's line, laid out in tables with one row a leaf."""
    assert dump.lines is not None
    graph = walk.graph
    first = np.cumsum([0, *(len(tree.leaf) for tree in dump.trees)])
    flat = [(at + node, line) for at, by_node in zip(first, dump.lines, strict=False) for node, line in by_node.items()]
    deepest = max((len(line.features) for _, line in flat), default=0)
    const, value = np.zeros(first[-1]), np.concatenate([tree.values[:, 0] for tree in dump.trees])
    # A line with fewer features reads a column of zeros that is put behind the others.
    feature, factor = np.full((first[-1], deepest), x.width), np.zeros((first[-1], deepest))
    for place, line in flat:
        const[place] = line.const
        feature[place, : len(line.features)], factor[place, : len(line.features)] = line.features, line.coefficients
    number = Expr(graph, tree_ensemble.leaf_nodes(graph, dump.trees, x.value, "float64")) + first[:-1].astype(float)
    nothing = x.at(0).is_nan().where(0.0, 0.0)
    wide = Expr(graph, graph.matrix((*columns(x.value), *columns(nothing.value))))
    total = number.look_up(const)
    missing = number < 0.0
    for place in range(deepest):
        at = number.look_up(feature[:, place].astype(float)).cast("int64")
        given = Expr(graph, graph.value("GatherElements", [wide.value, at.value], number.value, axis=1))
        missing = missing | given.is_nan()
        total = total + number.look_up(factor[:, place]) * given
    leaves = missing.where(number.look_up(value), total)
    by_tree = graph.node("Transpose", [leaves.value], perm=[1, 0])[0]
    shape = graph.constant(np.array([len(dump.trees) // dump.outputs, dump.outputs, -1], dtype=np.int64), "shape")
    stages = graph.node("Reshape", [by_tree, shape])[0]
    axes = graph.constant(np.array([0], dtype=np.int64), "first")
    summed = graph.node("ReduceSum", [stages, axes], keepdims=0)[0]
    return Expr(graph, graph.value("Transpose", [summed], Value("", "float64", dump.outputs), perm=[1, 0]))


PREDICTORS: Final[Mapping[str, Predict]] = {
    "LGBMClassifier": classifier,
    **dict.fromkeys(("LGBMRegressor", "LGBMRanker"), regressor),
}
