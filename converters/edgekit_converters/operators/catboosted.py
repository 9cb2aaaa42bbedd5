"""CatBoost: float64 leaves added tree by tree, times a scale, plus a bias, through the loss's link.

Scores, and labels, which are made of them, are CatBoost's bit for bit; probabilities and exponents go through `Exp`,
whose last bits are the mathematics library's own (measured: at most 3 ulps apart).

- A classifier of two classes answers the second one where the score is above the logit of its probability threshold (0
  by default), with the probability 1 / (1 + exp(-score)). One of several answers the class with the largest score, with
  their softmax, or with the logistic function of each (`MultiClassOneVsAll`, whose sum is not 1).
- A classifier of several labels a row (`MultiLogloss`, `MultiCrossEntropy`) decides on each as one of two classes.
- A regressor answers the score; its exponent for `Poisson` and `Tweedie`; the mean and exp(2 * score) for
  `RMSEWithUncertainty`. A ranker and a plain `CatBoost` answer the score.

Source: `CalcTreesBlockedImpl` of catboost/libs/model/cpu/evaluator_impl.cpp for the order of the sums; `PrepareEval` of
catboost/libs/eval_result/eval_helpers.cpp; `CatBoostRegressor.predict` of catboost/python-package/catboost/core.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, Value
from edgekit_converters.operators import Predict, Predicted, Unfaithful, catboost_categories, catboost_dump, scores
from edgekit_converters.operators.catboost_dump import Above, Branching, Category, Dump, Number, Statistic
from edgekit_converters.operators.expression import Expr, concat, rows_of
from edgekit_converters.operators.oblivious import expanded
from edgekit_converters.operators.target_statistics import Condition, statistics
from edgekit_converters.operators.tree_ensemble import sums, vector_sums
from edgekit_converters.operators.tree_nodes import Tree, last

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

PACKAGE: Final = "catboost"
"""Whose classes these are."""


def catboosted(walk: Walk, step: Any, table: Table, _path: Path) -> Predicted:
    """CatBoostClassifier, -Regressor, -Ranker and CatBoost.

    Raises:
        Unfaithful: It reads texts or embeddings, or has categories that are not known.
    """
    dump = catboost_dump.read(step)
    raw = score(walk, step, table, dump)
    kind = type(step).__name__
    if kind == "CatBoostClassifier":
        return _classified(raw, step, dump)
    if kind == "CatBoost" and len(step.classes_):
        raise Unfaithful("inside of another model it answers raw scores, not classes", "train a CatBoostClassifier")
    if kind == "CatBoostRegressor":
        wanted = step._get_default_prediction_type()
        if wanted == "Exponent":
            raw = raw.exp()
        elif wanted == "RMSEWithUncertainty":
            raw = concat([raw.at(0), (raw.at(1) * 2.0).exp()])
    return Predicted(value=raw.value)


def score(walk: Walk, step: Any, table: Table, dump: Dump) -> Expr:
    """[rows, targets]: what CatBoost calls RawFormulaVal."""
    graph, trees = walk.graph, nodes(dump)
    x = _read(walk, step, table, dump)
    count = trees[0].values.shape[1]
    total = Expr(
        graph, (sums(graph, trees, 1, x, "float32") if count == 1 else vector_sums(graph, trees, x, "float32"))
    )
    if dump.scale != 1.0:
        total = total * dump.scale
    return total + dump.bias if dump.bias.any() else total


def nodes(dump: Dump) -> list[Tree]:
    """The trees, as the operator takes them: x > border goes right."""
    above = np.array([isinstance(one, Number) and one.missing_above for one in dump.columns], dtype=bool)
    return [_branching(one, above) if isinstance(one, Branching) else expanded(one, above) for one in dump.trees]


def _branching(tree: Branching, above: Any) -> Tree:
    return Tree(
        feature=tree.column,
        threshold=tree.border,
        left=tree.below,
        right=tree.above,
        leaf=tree.leaf,
        missing_left=~tree.leaf & ~above[tree.column],
        values=tree.values,
    )


def _classified(raw: Expr, step: Any, dump: Dump) -> Predicted:
    graph, classes = raw.graph, np.asarray(step.classes_)
    if scores.label_count(step):
        shares = scores.sigmoid(graph, raw.value)
        return Predicted(label=(raw > _limit(step)).cast("int64").value, probabilities=shares)
    if raw.width == 1 and _limit(step) == 0.0:
        label, shares = scores.of_two(graph, raw.value, classes)
        return Predicted(label=label, probabilities=shares)
    if raw.width == 1:
        place = (raw > _limit(step)).cast("int64").flat()
        p = scores.two_sided(graph, scores.sigmoid(graph, raw.value))
        return Predicted(label=scores.label(graph, place.value, classes), probabilities=p)
    if dump.class_places != tuple(range(len(classes))):
        # A class that no row of training had has no score: -inf.
        every = concat([raw, rows_of(raw.value, graph, np.array([-np.inf]))])
        found = {place: at for at, place in enumerate(dump.class_places)}
        raw = every.at(*(found.get(place, raw.width) for place in range(len(classes))))
    shares = scores.sigmoid(graph, raw.value) if dump.loss == "MultiClassOneVsAll" else scores.softmax(graph, raw.value)
    return Predicted(label=scores.best(graph, raw.value, classes), probabilities=shares)


def _limit(step: Any) -> float:
    """The score of the probability threshold."""
    share = step.get_probability_threshold()
    return 0.0 if share is None or share == 0.5 else float(-np.log(1 / share - 1))


def _read(walk: Walk, step: Any, table: Table, dump: Dump) -> Value:
    """[rows, columns]: what the trees read."""
    numbers = [one for one in dump.columns if isinstance(one, Number)]
    categories = [one for one in dump.columns if isinstance(one, Category)]
    wanted = [one for one in dump.columns if isinstance(one, Statistic)]
    conditions = list(dict.fromkeys(test for one in wanted for test in one.conditions))
    asked = [*categories, *(test for test in conditions if isinstance(test, Category))]
    positions = sorted({one.position for one in asked} | {position for one in wanted for position in one.features})

    known = catboost_categories.known_categories(walk, step, table, positions)
    codes = catboost_categories.coded(walk, known)
    tests: dict[Condition, Expr] = {one: _is_above(walk, table, one) for one in conditions if isinstance(one, Above)}
    unexplained = dict.fromkeys(positions, 0)
    parts = [_numbers(walk, table, numbers)] if numbers else []
    if asked:
        hit = catboost_categories.indicators(codes, known, asked)
        parts += [hit.at(*range(len(categories))).cast("float64")] if categories else []
        tests |= {one: hit.at(place) for place, one in enumerate(asked) if place >= len(categories)}
        for one in asked:
            unexplained[one.position] += catboost_categories.code_of(known[one.position], one.code) < 0
    if wanted:
        found, missing = statistics(wanted, known, codes, tests)
        parts.append(found)
        unexplained |= {position: unexplained[position] + count for position, count in missing.items()}
    catboost_categories.tell(walk, known, unexplained)
    if not parts:  # a model of trees without splits
        return rows_of(table[0].value, walk.graph, np.zeros(1)).value
    order = [*map(id, numbers), *map(id, categories), *map(id, wanted)]
    return concat(parts).at(*(order.index(id(one)) for one in dump.columns)).value


def _numbers(walk: Walk, table: Table, numbers: Sequence[Number]) -> Expr:
    return Expr(walk.graph, walk.matrix(tuple(table[one.position] for one in numbers)))


def _is_above(walk: Walk, table: Table, test: Above) -> Expr:
    """[rows, 1], bool: float32(x) > border is x > the last float64 that rounds to it."""
    x = _numbers(walk, table, [test.number])
    found = x > last(np.array([test.border]))
    return found | x.is_nan() if test.number.missing_above else found


PREDICTORS: Final[Mapping[str, Predict]] = dict.fromkeys(
    ("CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor"), catboosted
)
