"""XGBoost's scikit-learn classes: float32 throughout, as XGBoost computes; margins are equal bit for bit.

Numbers are rounded to float32; those equal to `missing` become NaN. Then margin = start + leaf + leaf ..., one float32
sum an output, in the order of the trees, and the objective's transform.

Source: `XGBModel.predict`, `XGBClassifier.predict` and `predict_proba` of xgboost/sklearn.py; `PredictByAllTrees` of
src/predictor/cpu_predictor.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, Value
from edgekit_converters.operators import Predict, Predicted, Unfaithful, encoders, scores, tree_ensemble
from edgekit_converters.operators.expression import Expr, concat
from edgekit_converters.operators.xgboost_dump import Dump, read
from edgekit_converters.operators.xgboost_objectives import linear, scipy_softmax, transformed
from edgekit_converters.schema import Encoding

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

PACKAGE: Final = "xgboost"


def dump_of(step: Any) -> Dump:
    """What the step's own `predict` uses of its Booster: rounds up to the best one, if training stopped early.

    Raises:
        Unfaithful: As `xgboost_dump.read`.
    """
    booster = step.get_booster()
    best = booster.attr("best_iteration")
    return read(booster, None if best is None else int(best) + 1, inplace=True)


def classifier(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    """XGBClassifier and XGBRFClassifier; an objective that is a function leaves the answers as they are by default.

    Of several labels a row each is there above 0.5.

    Raises:
        Unfaithful: It learned one class, or its objective gives no probabilities.
    """
    dump = dump_of(step)
    if dump.objective == "binary:logitraw":
        raise Unfaithful("objective=binary:logitraw gives no probabilities", "train with binary:logistic")
    margin = margins(walk, step, table, dump)
    classes = np.asarray(step.classes_)
    if len(classes) == 1:
        raise Unfaithful("it learned one class, and answers probabilities of two", "train it on two classes")
    if scores.label_count(step):
        shares = transformed(margin, dump.objective)
        return Predicted(label=(shares > 0.5).cast("int64").value, probabilities=shares.value)
    if margin.width > 1 or len(classes) > 2:
        if margin.width != len(classes):
            raise Unfaithful(f"it has {margin.width} outputs for {len(classes)} classes", "train one output a class")
        if dump.objective == "multi:softmax":
            label = scores.best(walk.graph, margin.value, classes)
            return Predicted(label=label, probabilities=scipy_softmax(margin).value, decision=margin.value)
        shares = transformed(margin, dump.objective, bound(dump))
        return Predicted(label=scores.best(walk.graph, shares.value, classes), probabilities=shares.value)
    second = transformed(margin, dump.objective, bound(dump))
    # The label is p > 0.5 there. That is p > 1 - p, in float32 too: rounding keeps 1 - p on its side of 0.5.
    both = concat([1.0 - second, second]).value
    return Predicted(label=scores.best(walk.graph, both, classes), probabilities=both)


def regressor(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    """XGBRegressor, XGBRFRegressor and XGBRanker.

    Raises:
        Unfaithful: A kind of booster or an objective that is not known.
    """
    dump = dump_of(step)
    return Predicted(value=transformed(margins(walk, step, table, dump), dump.objective, bound(dump)).value)


def margins(walk: Walk, step: Any, table: Table, dump: Dump) -> Expr:
    """[rows, outputs] in float32."""
    walk.rounded = True
    x = _numbers(walk, step, table, dump)
    start = dump.start.tolist()
    if dump.weights is not None:
        return linear(x, dump.weights, x.constant(dump.start))
    if dump.vectors:
        trees = [tree_ensemble.constant(*start), *dump.trees]
        return Expr(walk.graph, tree_ensemble.vector_sums(walk.graph, trees, x.value, "float32", "float32"))
    trees = [*map(tree_ensemble.constant, start), *dump.trees]
    return Expr(walk.graph, tree_ensemble.sums(walk.graph, trees, len(start), x.value, "float32", "float32"))


def bound(dump: Dump) -> float:
    """What no margin is beyond, above 0 or below, but for the rounding of its sum."""
    if dump.weights is not None:
        return float("inf")
    return float(np.abs(dump.start).max() + sum(np.abs(tree.values[tree.leaf]).max() for tree in dump.trees))


def _numbers(walk: Walk, step: Any, table: Table, dump: Dump) -> Expr:
    """[rows, features] in float32: categories as codes, and NaN for what is missing."""
    if len(table) != dump.features:
        raise Unfaithful(f"{len(table)} columns reach it, and it learned {dump.features}", "fit the pipeline again")
    missing = float("nan") if step.missing is None else float(step.missing)
    unknown = dump.categorical - set(dump.categories or ())
    if any(table[place].source in walk.categorical for place in unknown):
        raise Unfaithful("it does not hold the categories that it learned", "fit it again with XGBoost 3.1 or later")
    if dump.categories:
        if not np.isnan(missing):
            raise Unfaithful("it has categories and a missing value of its own", "train with missing=np.nan")
        table = _coded(walk, table, dump.categories)
    x = Expr(walk.graph, walk.matrix(table)).cast("float32")
    whole = np.isin(np.arange(len(table)), list(unknown))
    if whole.any():
        codes = Value(walk.graph.constant(whole.reshape(1, -1), "codes"), "bool", len(table))
        x = Expr(walk.graph, codes).apply("Where", x.apply("Floor"), x, dtype="float32")
    if np.isnan(missing):
        return x
    nan = x.constant(np.array([np.nan]))
    return x.equals(missing).apply("Where", nan, x, dtype="float32")


def _coded(walk: Walk, table: Table, categories: Mapping[int, list[Any]]) -> Table:
    """The table with codes in the place of pandas categories; XGBoost raises for one that it has not learned."""
    result = list(table)
    for place, values in categories.items():
        column = table[place]
        if column.source is not None:
            if column.dtype == "text":
                texts = tuple(map(str, values))
                walk.encodings.setdefault(column.source, []).append(Encoding(categories=texts, closed=True))
            else:
                walk.notes.append(
                    f"for a category in '{column.source}' that XGBoost has not learned, the original raises an error, "
                    "and the converted model takes it for missing"
                )
        codes = encoders.Codes(values, [float(code) for code in range(len(values))], np.nan, 1)
        result[place] = encoders.coded(walk.graph, (column,), [codes])[0]
    return tuple(result)


PREDICTORS: Final[Mapping[str, Predict]] = {
    **dict.fromkeys(("XGBClassifier", "XGBRFClassifier"), classifier),
    **dict.fromkeys(("XGBRegressor", "XGBRFRegressor", "XGBRanker"), regressor),
}
