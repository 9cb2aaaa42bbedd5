"""Estimators that hand the question on to one or several others, and what a wrapper may ask of what it wraps.

A wrapper walks on with the table that reached it, so that the pipelines in it may start from the raw columns.

Source: sklearn/feature_selection/_rfe.py, sklearn/semi_supervised/_self_training.py, sklearn/linear_model/_ransac.py,
sklearn/multioutput.py, sklearn/model_selection/_classification_threshold.py, sklearn/dummy.py;
`_get_response_values` of sklearn/utils/_response.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgekit_converters.graph import Table, Value, columns
from edgekit_converters.operators import Predict, Predicted, Unfaithful, scores
from edgekit_converters.operators.expression import Expr, concat, rows_of

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

ONE_LABEL: Final = ("it answers several labels at once", "train one model for each label")


def response(walk: Walk, step: Any, table: Table, path: Path, methods: Sequence[str]) -> tuple[Expr, str]:
    """What the first of the methods that the step has would answer, [rows, columns], and that method's name.

    Args:
        walk: The walk.
        step: Fitted; a Pipeline has the methods of its last step.
        table: The columns that reach it.
        path: Its path.
        methods: Of `decision_function`, `predict_proba`, `predict`.

    Raises:
        Unfaithful: The conversion of the step does not give that answer.
    """
    method = next((one for one in methods if hasattr(step, one)), methods[-1])
    found = walk.predict(step, table, path)
    return answered(walk, found, method, type(step).__name__), method


def answered(walk: Walk, found: Predicted, method: str, kind: str) -> Expr:
    """One of the answers, in float64, [rows, columns].

    Raises:
        Unfaithful: There is none, or it is no number.
    """
    value = {"decision_function": found.decision, "predict_proba": found.probabilities}.get(
        method, found.value or found.label
    )
    if value is None:
        raise Unfaithful(
            f"it needs the {method} of {kind}, which its conversion does not give", "wrap another estimator"
        )
    if value.dtype == "text":
        raise Unfaithful(f"it computes with the texts that {kind} predicts", "train with whole numbers as classes")
    answer = Expr(walk.graph, value).cast("float64")
    return answer if value.width else answer.reshape(-1, 1)


def single_output(step: Any) -> None:
    """Refuses several labels a row.

    Raises:
        Unfaithful: `classes_` is a list, or a label is a row.
    """
    if isinstance(step.classes_, list) or np.ndim(step.classes_) != 1 or getattr(step, "multilabel_", False):
        raise Unfaithful(*ONE_LABEL)


def _selected(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """RFE, RFECV: the estimator's answers to the columns that are left."""
    kept = tuple(column for column, keep in zip(table, step.support_, strict=True) if keep)
    return walk.predict(step.estimator_, kept, (*path, "estimator"))


def _inner(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """The answers of `estimator_`: SelfTrainingClassifier, RANSACRegressor."""
    return walk.predict(step.estimator_, table, (*path, "estimator"))


def _fixed_threshold(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    return _threshold(walk, step, table, path, step.threshold, step.pos_label)


def _tuned_threshold(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    return _threshold(walk, step, table, path, step.best_threshold_, step._curve_scorer._get_pos_label())


def _threshold(walk: Walk, step: Any, table: Table, path: Path, threshold: Any, positive: Any) -> Predicted:
    """The positive class where its score >= threshold: 0.5 of a probability or 0 of a decision by default."""
    inner = getattr(step, "estimator_", None) or step.estimator
    path = (*path, "estimator")
    wanted = ["predict_proba", "decision_function"] if step.response_method == "auto" else [step.response_method]
    method = next((one for one in wanted if hasattr(inner, one)), wanted[-1])
    found = walk.predict(inner, table, path)
    score = answered(walk, found, method, type(inner).__name__)
    first = positive is not None and positive == step.classes_[0]
    if method == "predict_proba":
        score = score.at(0 if first else 1)
    elif first:
        score = score * -1.0
    limit = (0.5 if method == "predict_proba" else 0.0) if isinstance(threshold, str) else float(threshold)
    above = (score >= limit).cast("int64").flat()
    classes = step.classes_[::-1] if first else step.classes_
    return Predicted(
        label=scores.label(walk.graph, above.value, classes), probabilities=found.probabilities, decision=found.decision
    )


def _each_target(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """MultiOutputRegressor: one regressor for each target."""
    return Predicted(value=concat(predicted_each(walk, step.estimators_, table, path, ("predict",))).value)


def _each_label(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """MultiOutputClassifier: one classifier for each target."""
    found = [walk.predict(one, table, (*path, str(index))) for index, one in enumerate(step.estimators_)]
    labels = [one.label for one in found if one.label is not None]
    shares = [one.probabilities for one in found if one.probabilities is not None]
    if len(labels) < len(found) or (len(shares) < len(found) and hasattr(step, "predict_proba")):
        raise Unfaithful("the conversion of one of its classifiers lacks an answer", "wrap another classifier")
    whole = scores.side_by_side(walk.graph, shares) if hasattr(step, "predict_proba") else None
    return Predicted(label=scores.side_by_side(walk.graph, labels), probabilities=whole)


def predicted_each(
    walk: Walk, estimators: Sequence[Any], table: Table, path: Path, methods: Sequence[str]
) -> list[Expr]:
    """The response of each estimator to the same columns."""
    return [response(walk, one, table, (*path, str(index)), methods)[0] for index, one in enumerate(estimators)]


def _regressor_chain(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """Each regressor sees what those before it predicted, after its own columns; the targets in their own order."""
    seen = columns(walk.matrix(table))
    found: list[Expr] = []
    for index, one in enumerate(step.estimators_):
        answer = response(walk, one, seen, (*path, str(index)), ("predict",))[0]
        found.append(answer)
        seen = (*seen, *columns(answer.value))
    return Predicted(value=concat([found[place] for place in np.argsort(step.order_)]).value)


def _classifier_chain(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """Each classifier sees the responses of those before it, after its own columns; the targets in their own order.

    The response is the label, the second class's probability (or its logarithm) or the decision; all are numbers.
    """
    method = getattr(step, "chain_method_", "predict")
    seen = columns(walk.matrix(table))
    labels: list[Expr] = []
    shares: list[Expr] = []
    for index, one in enumerate(step.estimators_):
        found, kind = walk.predict(one, seen, (*path, str(index))), type(one).__name__
        labels.append(answered(walk, found, "predict", kind))
        if hasattr(step, "predict_proba"):
            shares.append(answered(walk, found, "predict_proba", kind).at(1))
        answer = labels[-1] if method == "predict" else answered(walk, found, method.replace("_log", ""), kind)
        if method.endswith("_proba"):
            answer = answer.at(1).log() if "_log" in method else answer.at(1)
        seen = (*seen, *columns(answer.value))
    order = np.argsort(step.order_)
    return Predicted(
        label=concat([labels[place] for place in order]).value,
        probabilities=concat([shares[place] for place in order]).value if shares else None,
    )


def _dummy_classifier(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """DummyClassifier: the most frequent or a given class, with the shares of training for `prior`.

    Raises:
        Unfaithful: A random strategy.
    """
    if step._strategy in {"stratified", "uniform"}:
        raise Unfaithful(f"strategy='{step._strategy}' answers at random", "use strategy='prior'")
    several = step.n_outputs_ > 1
    classes, priors = (step.classes_, step.class_prior_) if several else ([step.classes_], [step.class_prior_])
    labels, shares = [], []
    for target, (known, prior) in enumerate(zip(classes, priors, strict=True)):
        place = int(np.argmax(prior))
        if step._strategy == "constant":
            place = int(np.flatnonzero(known == np.ravel(step.constant)[target])[0])
        row = np.asarray(prior, dtype=np.float64) if step._strategy == "prior" else np.eye(len(known))[place]
        shares.append(rows_of(_any_value(table), walk.graph, row).value)
        # The label is a constant, whatever the shares: a share of training's may be given by a tie.
        at = rows_of(_any_value(table), walk.graph, np.array([float(place)])).flat().cast("int64")
        labels.append(scores.label(walk.graph, at.value, known))
    return Predicted(
        label=scores.side_by_side(walk.graph, labels) if several else labels[0],
        probabilities=scores.side_by_side(walk.graph, shares),
    )


def _dummy_regressor(walk: Walk, step: Any, table: Table, path: Path) -> Predicted:
    """DummyRegressor: the same targets for each row."""
    return Predicted(value=rows_of(_any_value(table), walk.graph, np.ravel(step.constant_)).value)


def _any_value(table: Table) -> Value:
    return table[0].value


PREDICTORS: Final[Mapping[str, Predict]] = {
    "RFE": _selected,
    "RFECV": _selected,
    "SelfTrainingClassifier": _inner,
    "RANSACRegressor": _inner,
    "FixedThresholdClassifier": _fixed_threshold,
    "TunedThresholdClassifierCV": _tuned_threshold,
    "ClassifierChain": _classifier_chain,
    "MultiOutputClassifier": _each_label,
    "MultiOutputRegressor": _each_target,
    "RegressorChain": _regressor_chain,
    "DummyClassifier": _dummy_classifier,
    "DummyRegressor": _dummy_regressor,
}
