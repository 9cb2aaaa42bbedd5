from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit_contracts.errors import DataMismatch
from edgekit_contracts.manifest import Quality
from edgekit_converters.quality import describe_worse, quality, worse
from edgekit_runtime.engine import Answers


def accuracy(labels: Any, target: Any) -> float:
    given = np.array(labels)
    return quality(Answers(labels=given, probabilities=None, values=None), np.array(target))[0].model


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        ([0, 1, 1], [0.0, 1.0, 1.0]),
        ([0, 1, 1], ["0", "1", "1"]),
        (["0", "1"], [0, 1]),
        ([False, True], [0, 1]),
        ([False, True], ["False", "true"]),
        ([0, 1], [False, True]),
    ],
)
def test_a_class_is_the_same_as_number_and_as_text(labels: Any, target: Any) -> None:
    assert accuracy(labels, target) == 1.0


def test_a_longer_name_is_another_class() -> None:
    assert accuracy(["grade1", "grade2"], ["grade1", "grade20"]) == 0.5


@pytest.mark.parametrize(
    ("labels", "target", "shown"),
    [
        ([0, 1], ["good", "bad"], "good"),
        ([0, 1], [0.5, 1.0], "0.5"),
        ([False, True], ["no", "yes"], "no"),
        ([False, True], [1, 2], "2"),
    ],
)
def test_a_target_that_holds_other_classes_is_refused(labels: Any, target: Any, shown: str) -> None:
    with pytest.raises(DataMismatch, match=f"has classes .*{shown}.*none of them") as refused:
        accuracy(labels, target)
    assert "--target" in refused.value.next_step


def test_a_model_that_is_worse_than_a_rule_without_one_is_named() -> None:
    def figures(truth: list[float], *, labels: Any = None, values: Any = None) -> tuple[Quality, ...]:
        given = Answers(labels=labels, probabilities=None, values=values)
        return quality(given, np.array(truth))

    assert describe_worse(figures([0, 0, 0, 1], labels=np.array([0, 0, 0, 1]))) == ""
    wrong = figures([0, 0, 0, 1], labels=np.array([1, 1, 0, 1]))
    assert [one.metric for one in worse(wrong)] == ["accuracy"]
    assert describe_worse(wrong) == (
        "the model is worse than a rule without one: accuracy 0.5, and 0.75 by always '0', the most frequent class"
    )
    numbers = np.array([[1.0], [2.0], [30.0]])
    assert worse(figures([1.0, 2.0, 30.5], values=numbers)) == []
    assert [one.metric for one in worse(figures([1.0, 2.0, 30.5], values=-numbers))] == ["mean absolute error"]
