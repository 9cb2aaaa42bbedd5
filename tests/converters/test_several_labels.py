"""Classifiers that answer several labels a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from edgekit_contracts.errors import UsageError
from edgekit_converters.certificate import certify
from edgekit_converters.extended import OneLabel
from tests.converters.frames import CONVERTER, assert_same, converted
from tests.converters.test_tasks import X, proved

CLASSES = np.stack([np.digitize(X[:, 0], [-2, 2]), np.digitize(X[:, 1], [0]) + 3], axis=1)
TEXTS = np.array(["a", "b", "c", "d", "e"], dtype=object)[CLASSES]
THERE = (X[:, :3] > 0).astype(int)


@pytest.mark.filterwarnings("ignore")  # the network is stopped early
@pytest.mark.parametrize(
    ("model", "target"),
    [
        (MultiOutputClassifier(LogisticRegression()), CLASSES),
        (MultiOutputClassifier(LogisticRegression()), TEXTS),
        (MultiOutputClassifier(LinearSVC()), CLASSES),
        (MultiOutputClassifier(make_pipeline(StandardScaler(), LogisticRegression())), CLASSES),
        (ClassifierChain(LogisticRegression(), order=[2, 0, 1]), THERE),
        (ClassifierChain(LogisticRegression(), chain_method="predict_proba"), THERE),
        (ClassifierChain(LogisticRegression(), chain_method="predict_log_proba"), THERE),
        (ClassifierChain(SVC(), chain_method="decision_function"), THERE),
        (DecisionTreeClassifier(max_depth=3), CLASSES),
        (DecisionTreeClassifier(max_depth=3), TEXTS),
        (RandomForestClassifier(10, random_state=0), CLASSES),
        (ExtraTreesClassifier(10, max_depth=4, random_state=0), THERE.astype(bool)),
        (KNeighborsClassifier(), CLASSES),
        (KNeighborsClassifier(7, weights="distance"), THERE),
        (RadiusNeighborsClassifier(3.0, outlier_label="most_frequent"), CLASSES),
        (MLPClassifier((5,), max_iter=20, random_state=0), THERE),
        (DummyClassifier(), CLASSES),
        (DummyClassifier(strategy="constant", constant=[1, 4]), CLASSES),
        (DummyClassifier(strategy="most_frequent"), TEXTS),
        (OneVsRestClassifier(LogisticRegression()), THERE),
        (OneVsRestClassifier(LinearSVC()), THERE),
        (RidgeClassifier(), THERE),
        (make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)), CLASSES),
        (GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}, cv=2), CLASSES),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_label_of_every_row_is_the_original_s(model: Any, target: Any) -> None:
    conversion = proved(model.fit(X, target), X)
    assert_same(model, X, rows=X[::2] + 0.05)
    assert (conversion.task, conversion.classes, len(conversion.targets)) == ("classification", (), target.shape[1])
    answers = CONVERTER.answers(model, X)
    assert answers.labels is not None
    assert answers.labels.shape == target.shape
    for column, classes in zip(target.T, conversion.targets, strict=True):
        assert set(column) == set(classes)


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (RandomForestClassifier(5, random_state=0), CLASSES),
        (RandomForestClassifier(5, random_state=0), TEXTS),
        (MultiOutputClassifier(LogisticRegression()), CLASSES),
        (MultiOutputClassifier(LinearSVC()), CLASSES),
        (ClassifierChain(LogisticRegression(), order=[2, 0, 1]), THERE),
        (OneVsRestClassifier(LogisticRegression()), THERE),
        (XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1), THERE),
        (RidgeClassifier(), THERE),
        (DummyClassifier(), CLASSES),
    ],
    ids=lambda one: type(one).__name__,
)
def test_one_of_the_labels_is_a_model_of_its_own(model: Any, target: Any) -> None:
    model.fit(X, target)
    for place in range(target.shape[1]):
        one = OneLabel(model, place)
        conversion = proved(one, X)
        assert_same(one, X, rows=X[::2] + 0.05)
        assert (set(conversion.classes), conversion.targets) == (set(target[:, place]), ())
        np.testing.assert_array_equal(one.predict(X), model.predict(X)[:, place])


def test_the_classifiers_of_other_labels_are_left_out_of_the_graph() -> None:
    model = make_pipeline(StandardScaler(), MultiOutputClassifier(RandomForestClassifier(20, random_state=0))).fit(
        X, THERE
    )
    one = proved(OneLabel(model, 1), X)
    assert_same(OneLabel(model, 1), X)
    assert len(one.onnx) < 0.5 * len(converted(model, X).onnx)


def test_a_label_that_is_not_there_is_named() -> None:
    model = DecisionTreeClassifier(max_depth=2).fit(X, CLASSES)
    with pytest.raises(UsageError, match="2 labels a row, and no label 2"):
        converted(OneLabel(model, 2), X)
    with pytest.raises(UsageError, match="does not answer several a row"):
        converted(OneLabel(DecisionTreeClassifier(max_depth=2).fit(X, CLASSES[:, 0]), 0), X)


def test_a_forest_of_several_labels_is_certified() -> None:
    model = RandomForestClassifier(10, random_state=0).fit(X, CLASSES)
    certificate = certify(converted(model, X).onnx, model)
    assert certificate is not None
    assert certificate.exact
    assert certify(converted(OneLabel(model, 1), X).onnx, OneLabel(model, 1)) == certificate
