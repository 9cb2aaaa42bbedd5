# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from edgekit_contracts.errors import DataMismatch, ParityBroken
from edgekit_converters import asking, verify
from edgekit_converters.argmax import by_argmax
from edgekit_converters.asking import answered, ask, columns_of, rows_at_once
from edgekit_converters.data import as_frame
from edgekit_converters.draft import draft_manifest
from edgekit_converters.nullable import nullable
from edgekit_converters.registry import Answers
from edgekit_runtime.engine import Engine
from tests.converters.frames import CONVERTER, converted, features, target, textbook

SMALL = RandomForestClassifier(5, random_state=0)


def engine(model: Any, X: pd.DataFrame) -> Engine:
    conversion = converted(model, X)
    return Engine(conversion.onnx, draft_manifest("m", "1", conversion, "1.24.1"))


def test_blocks_are_asked_in_order_on_one_thread_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_ROWS", 10)
    monkeypatch.setattr(asking, "BLOCK_ROWS", 100)
    monkeypatch.setattr(asking, "ENGINE_ROWS", 33)
    X = features()
    model = textbook(SMALL).fit(X, target())
    sizes, threads, told = [], set(), []

    def original(rows: pd.DataFrame) -> Answers:
        sizes.append(len(rows))
        threads.add(threading.get_ident())
        return CONVERTER.answers(model, rows)

    found = ask(engine(model, X), original, [X, X.iloc[::-1]], progress=lambda *rows: told.append(rows))
    assert sizes == [10, 100, 100, 100, 100, 70]
    assert threads == {threading.get_ident()}
    assert told == [(10, 480), (110, 480), (210, 480), (310, 480), (410, 480), (480, 480)]
    whole = CONVERTER.answers(model, X)
    assert found.theirs.probabilities is not None
    assert found.ours.probabilities is not None
    assert whole.probabilities is not None
    assert found.theirs.probabilities.tolist() == [*whole.probabilities.tolist(), *whole.probabilities[::-1].tolist()]
    assert found.ours.probabilities.tolist() == found.theirs.probabilities.tolist()
    assert list(found.columns["area"]) == [*X["area"], *X["area"][::-1]]


def test_rows_that_are_wide_inside_of_the_graph_are_asked_few_at_once() -> None:
    rows = [{"a": float(number), "b": str(number % 3)} for number in range(40)]
    model = make_pipeline(FeatureHasher(n_features=2**18), LogisticRegression()).fit(rows, np.arange(40) % 2)
    frame = as_frame(rows)
    conversion = converted(model, frame)
    assert rows_at_once(conversion.onnx) < 20
    assert rows_at_once(converted(textbook(SMALL).fit(features(), target()), features()).onnx) == asking.ENGINE_ROWS
    wide = Engine(conversion.onnx, draft_manifest("m", "1", conversion, "1.24.1"))
    found = answered(wide, columns_of(frame, wide.manifest.features), 3)
    assert found.labels is not None
    assert found.labels.tolist() == model.predict(rows).tolist()


def test_of_optional_rows_only_those_are_left_out_that_the_original_refuses() -> None:
    X = features()[["area", "visits"]]
    model = RandomForestClassifier(5, random_state=0).fit(X, target())
    refused = X["area"].nlargest(3).index

    def original(rows: pd.DataFrame) -> Answers:
        if rows["area"].isin(X["area"][refused]).any():
            raise DataMismatch("an area that it does not like")
        return CONVERTER.answers(model, rows)

    found = ask(engine(model, X), original, [X.drop(refused)], [X])
    assert len(found.columns["area"]) == 2 * (len(X) - 3)
    with pytest.raises(DataMismatch):
        ask(engine(model, X), original, [X])


def test_a_row_that_only_the_converted_model_refuses_breaks_parity() -> None:
    X = features()[["area", "visits"]]
    model = RandomForestClassifier(5, random_state=0).fit(X, target())
    with pytest.raises(ParityBroken, match="refuses a row"):
        ask(engine(model, X), lambda rows: CONVERTER.answers(model, X), [X.assign(area=1e39)])


def test_of_very_many_rows_so_many_are_compared_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MAX_ROWS", 100)
    X = features()
    model = textbook(SMALL).fit(X, target())
    parity = verify.verify(engine(model, X), lambda rows: CONVERTER.answers(model, rows), X, precision="float64").parity
    assert parity.method.startswith("100 of 240 data rows, evenly spaced")
    assert parity.disagreement_bound == pytest.approx(1 - 0.05 ** (1 / 100), rel=1e-2)


@pytest.mark.parametrize(
    ("model", "once"),
    [
        (RandomForestClassifier(3), True),
        (ExtraTreesClassifier(3), True),
        (DecisionTreeClassifier(), True),
        (BaggingClassifier(n_estimators=3), True),
        (VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier())], voting="soft"), True),
        (VotingClassifier([("a", GaussianNB())], voting="hard"), False),
        (GridSearchCV(RandomForestClassifier(3), {"max_depth": [2]}, cv=2), True),
        (GradientBoostingClassifier(n_estimators=3), False),
        (LogisticRegression(), False),
    ],
    ids=str,
)
def test_a_model_of_the_largest_probability_is_asked_once_and_answers_the_same(model: Any, once: bool) -> None:
    fitted = textbook(model).fit(features(), target("three"))
    assert by_argmax(fitted) == once
    labels = CONVERTER.answers(fitted, features()).labels
    assert labels is not None
    assert labels.tolist() == fitted.predict(features()).tolist()


class Own(RandomForestClassifier):  # type: ignore[misc]
    """A class that may have a rule of its own."""


def test_a_rule_of_its_own_is_found_by_its_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    X = features()[["visits"]]
    assert not by_argmax(Own(2).fit(X, target()))
    model = RandomForestClassifier(2, max_depth=1, random_state=0).fit(X, target())
    for tree in model.estimators_:
        tree.tree_.value[:] = 0.5

    def last(rows: pd.DataFrame) -> Any:
        return np.full(len(rows), model.classes_[-1])

    monkeypatch.setattr(model, "predict", last)
    labels = CONVERTER.answers(model, X).labels
    assert labels is not None
    assert labels.tolist() == [1] * len(X)


def test_features_are_tried_together_and_one_by_one_only_where_some_have_no_answer() -> None:
    X = features()
    model = textbook(SMALL).fit(X, target())
    calls: list[int] = []

    def answers(rows: pd.DataFrame) -> Answers:
        calls.append(len(rows))
        if rows["lab"].isna().any():
            raise DataMismatch("no lab")
        return CONVERTER.answers(model, rows)

    def other(rows: pd.DataFrame) -> Answers:
        found = CONVERTER.answers(model, rows)
        assert found.probabilities is not None
        return Answers(found.labels, found.probabilities + rows["area"].isna().to_numpy()[:, None], None)

    names = list(X.columns)
    found = nullable(X, names, answers, other)
    assert found == {name: name not in {"lab", "area"} for name in names}
    # Five whose type a missing value keeps, of which one is refused; two of other types, at once.
    assert len(calls) < 2 * len(names)
    assert calls[-1] == 2 * 4
    # Where the data lack it too, the verification is to say how the answers differ.
    X.loc[0, "area"] = np.nan
    assert nullable(X, names, answers, other)["area"]
