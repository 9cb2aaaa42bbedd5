"""How good the model is on the labelled data that was given, beside a rule that needs no model.

The simplest honest baseline: a model that does not beat it should not be deployed. (A simple model, human level and the
model deployed before come with the quality gates.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import DataMismatch
from edgekit_contracts.manifest import Quality
from edgekit_converters.registry import Answers


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


def _classification(labels: NDArray[Any], target: NDArray[Any]) -> tuple[Quality, ...]:
    classes, counts = np.unique(target.astype(labels.dtype), return_counts=True)
    if not np.isin(labels, classes).any():
        raise DataMismatch(
            f"the target has classes {classes.tolist()[:5]}, the model answers {np.unique(labels).tolist()[:5]}",
            "name the column that holds the classes with --target",
        )
    right = labels == target.astype(labels.dtype)
    recalls = [right[target.astype(labels.dtype) == one].mean() for one in classes]
    rule = f"always '{classes[counts.argmax()]}', the most frequent class"
    return (
        _entry("accuracy", target, right.mean(), counts.max() / counts.sum(), rule),
        _entry("balanced accuracy", target, float(np.mean(recalls)), 1 / len(classes), rule),
        _entry("lowest recall of a class", target, min(recalls), 0.0 if len(classes) > 1 else 1.0, rule),
    )


def _regression(values: NDArray[Any], target: NDArray[Any]) -> tuple[Quality, ...]:
    try:
        truth = np.asarray(target, dtype=np.float64).reshape(len(target), -1)
    except (TypeError, ValueError) as error:
        raise DataMismatch(
            "the target of a regression must be numbers", "name a numeric column with --target"
        ) from error
    if truth.shape != values.shape:
        raise DataMismatch(f"the model answers {values.shape[1]} numbers a row, and the target is one column")
    errors = np.abs(values - truth).mean()
    baseline = np.abs(np.median(truth, axis=0) - truth).mean()
    return (_entry("mean absolute error", target, errors, baseline, "always the median"),)


def _entry(metric: str, target: NDArray[Any], model: float, baseline: float, rule: str) -> Quality:
    return Quality(
        metric=metric,
        rows=len(target),
        model=float(f"{model:.6g}"),
        baseline=float(f"{baseline:.6g}"),
        baseline_rule=rule,
    )
