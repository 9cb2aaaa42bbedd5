"""How good the model is on the labelled data that was given, beside a rule that needs no model.

The simplest honest baseline: a model that does not beat it should not be deployed. (A simple model, human level and the
model deployed before come with the quality gates.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import DataMismatch
from edgekit_contracts.manifest import Quality
from edgekit_converters.registry import Answers

_ERROR: Final = "mean absolute error"
"""The one figure of which less is better."""
_TRUTH: Final = {"true": 1, "false": 0, "1": 1, "0": 0}


def quality(answers: Answers, target: NDArray[Any]) -> tuple[Quality, ...]:
    """Quality figures of the original's answers.

    Args:
        answers: To the data's rows.
        target: [rows] (or [rows, targets]) what is true.

    Raises:
        DataMismatch: The target is of another kind than the answers.
    """
    if answers.labels is not None:
        return _classification(answers.labels, target)
    assert answers.values is not None
    return _regression(answers.values, target)


def worse(figures: Iterable[Quality]) -> list[Quality]:
    """Those by which the rule that needs no model does better than the model."""
    return [
        one for one in figures if not (one.model <= one.baseline if one.metric == _ERROR else one.model >= one.baseline)
    ]


def describe_worse(figures: Iterable[Quality]) -> str:
    """A warning, or nothing."""
    found = [f"{one.metric} {one.model:.3g}, and {one.baseline:.3g} by {one.baseline_rule}" for one in worse(figures)]
    return f"the model is worse than a rule without one: {'; '.join(found)}" if found else ""


def _classification(labels: NDArray[Any], target: NDArray[Any]) -> tuple[Quality, ...]:
    labels = np.array(labels.tolist())
    truth = _as_labels(target, labels.dtype)
    classes, counts = np.unique(truth, return_counts=True)
    if not np.isin(labels, classes).any():
        raise _other_classes(classes, labels)
    right = labels == truth
    recalls = [right[truth == one].mean() for one in classes]
    rule = f"always '{classes[counts.argmax()]}', the most frequent class"
    return (
        _entry("accuracy", target, right.mean(), counts.max() / counts.sum(), rule),
        _entry("balanced accuracy", target, float(np.mean(recalls)), 1 / len(classes), rule),
        _entry("lowest recall of a class", target, min(recalls), 0.0 if len(classes) > 1 else 1.0, rule),
    )


def _as_labels(target: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """The target as labels: 1 and 1.0 and '1' are one class; what a type cannot hold exactly is not cut to fit it.

    Raises:
        DataMismatch: A value of it cannot be a label of that kind.
    """
    if kind.kind == "U":
        return target.astype(str)
    given = np.array(target.tolist())  # a column of objects has the type of what is in it
    if kind.kind == "b" and given.dtype.kind == "U":
        given = np.array([_TRUTH.get(one, -1) for one in np.char.lower(given).tolist()])
    try:
        truth = given.astype(kind)
        exact = truth == given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise _other_classes(target, None) from error
    if not exact.all():
        raise _other_classes(target[~exact], None)
    return truth


def _other_classes(found: NDArray[Any], labels: NDArray[Any] | None) -> DataMismatch:
    shown = list(dict.fromkeys(found.tolist()))[:5]
    answers = "none of them" if labels is None else str(np.unique(labels).tolist()[:5])
    return DataMismatch(
        f"the target has classes {shown}, the model answers {answers}",
        "name the column that holds the classes with --target",
    )


def _regression(values: NDArray[Any], target: NDArray[Any]) -> tuple[Quality, ...]:
    try:
        truth = np.asarray(target, dtype=np.float64).reshape(len(target), -1)
    except (TypeError, ValueError) as error:
        raise DataMismatch(
            "the target of a regression must be numbers", "name a numeric column with --target"
        ) from error
    if truth.shape != values.shape:
        raise DataMismatch(
            f"the model answers {values.shape[1]} numbers a row, and the target is one column",
            "leave --target out; where the numbers are scores of classes, name these with --classes",
        )
    errors = np.abs(values - truth).mean()
    baseline = np.abs(np.median(truth, axis=0) - truth).mean()
    return (_entry(_ERROR, target, errors, baseline, "always the median"),)


def _entry(metric: str, target: NDArray[Any], model: float, baseline: float, rule: str) -> Quality:
    return Quality(
        metric=metric,
        rows=len(target),
        model=float(f"{model:.6g}"),
        baseline=float(f"{baseline:.6g}"),
        baseline_rule=rule,
    )
