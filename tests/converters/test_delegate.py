"""A user's own classes with converters of skl2onnx: written for any operator set, with trees of any kind inside."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from numpy.typing import NDArray
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.algebra.onnx_operator import OnnxSubEstimator
from skl2onnx.algebra.onnx_ops import (
    OnnxEqual,
    OnnxIdentity,
    OnnxMul,
    OnnxReduceMax_13,
    OnnxScaler,
    OnnxSub,
    OnnxWhere,
)
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from edgekit_contracts.errors import ConversionRefused
from edgekit_converters.operators import Unfaithful
from edgekit_converters.operators.older_trees import OLDER, renewed
from tests.converters.frames import TARGET, assert_same, converted, target
from tests.converters.transforms import numbers, transformed

NEWER = 21
"""An operator set with an `Identity` of its own."""


class Centred(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Subtracts the means of training."""

    def fit(self, X: Any, y: Any = None) -> Centred:
        self.means_ = np.asarray(X).mean(axis=0)
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X) - self.means_.astype(np.asarray(X).dtype)


class Twice(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What nobody has a converter for."""

    def fit(self, X: Any, y: Any = None) -> Twice:
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X) * 2


class Below(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """How far each number is below the largest of its row."""

    def fit(self, X: Any, y: Any = None) -> Below:
        return self

    def transform(self, X: Any) -> Any:
        X = np.asarray(X)
        return X.max(axis=1, keepdims=True) - X


class Same(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Gives texts as they are."""

    def fit(self, X: Any, y: Any = None) -> Same:
        return self

    def transform(self, X: Any) -> Any:
        return np.asarray(X)


class Discounted(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Texts beside numbers: 10 % off for members."""

    def fit(self, X: Any, y: Any = None) -> Discounted:
        return self

    def transform(self, X: Any) -> Any:
        X = pd.DataFrame(X)
        return np.where(X.iloc[:, [1]] == "member", 0.9, 1.0) * X.iloc[:, [0]].to_numpy(dtype=np.float64)


class Wrapped(BaseEstimator, RegressorMixin):  # type: ignore[misc]  # scikit-learn has no types
    """A forest inside, and the bases in the order that scikit-learn overlooks."""

    def __init__(self, regressor: Any = None) -> None:
        self.regressor = regressor

    def fit(self, X: Any, y: Any) -> Wrapped:
        self.regressor_ = self.regressor.fit(X, y)
        return self

    def predict(self, X: Any) -> Any:
        return self.regressor_.predict(X)


class WrappedClassifier(BaseEstimator, ClassifierMixin):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier inside, which alone says the classes."""

    def __init__(self, classifier: Any = None) -> None:
        self.classifier = classifier

    def fit(self, X: Any, y: Any) -> WrappedClassifier:
        self.classifier_ = self.classifier.fit(X, y)
        return self

    def predict(self, X: Any) -> Any:
        return self.classifier_.predict(X)

    def predict_proba(self, X: Any) -> Any:
        return self.classifier_.predict_proba(X)


def _centred(scope: Any, operator: Any, container: Any) -> None:
    x = operator.inputs[0]
    means = operator.raw_operator.means_.astype(np.float32 if isinstance(x.type, FloatTensorType) else np.float64)
    # Written by somebody who works with newer operators, whatever is asked for.
    centred = OnnxSub(x, means, op_version=NEWER)
    OnnxIdentity(centred, op_version=NEWER, output_names=operator.outputs[:1]).add_to(scope, container)


def _below(scope: Any, operator: Any, container: Any) -> None:
    # Written long ago: axes are an attribute; and `Scaler` is of another domain.
    x = OnnxScaler(operator.inputs[0], scale=[1.0], offset=[0.0], op_version=1)
    largest = OnnxReduceMax_13(x, axes=[1], keepdims=1, op_version=13)
    OnnxSub(largest, x, op_version=13, output_names=operator.outputs[:1]).add_to(scope, container)


def _same(scope: Any, operator: Any, container: Any) -> None:
    opset = container.target_opset
    OnnxIdentity(operator.inputs[0], op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def _discounted(scope: Any, operator: Any, container: Any) -> None:
    opset, (price, kind) = container.target_opset, operator.inputs
    factor = OnnxWhere(
        OnnxEqual(kind, np.array(["member"]), op_version=opset), np.array([0.9]), np.array([1.0]), op_version=opset
    )
    OnnxMul(price, factor, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def _wrapped(scope: Any, operator: Any, container: Any) -> None:
    opset = container.target_opset
    inner = OnnxSubEstimator(operator.raw_operator.regressor_, operator.inputs[0], op_version=opset)
    OnnxIdentity(inner, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)


def _wrapped_classifier(scope: Any, operator: Any, container: Any) -> None:
    opset = container.target_opset
    inner = OnnxSubEstimator(
        operator.raw_operator.classifier_, operator.inputs[0], op_version=opset, options={"zipmap": False}
    )
    for place, output in enumerate(operator.outputs):
        OnnxIdentity(inner[place], op_version=opset, output_names=[output]).add_to(scope, container)


def _like_input(operator: Any) -> None:
    operator.outputs[0].type = operator.inputs[0].type.__class__(operator.inputs[0].type.shape)


def _one_target(operator: Any) -> None:
    operator.outputs[0].type = FloatTensorType([None, 1])


def _one_double(operator: Any) -> None:
    operator.outputs[0].type = DoubleTensorType([None, 1])


def _shares(operator: Any) -> None:
    operator.outputs[0].type = Int64TensorType([None])
    operator.outputs[1].type = FloatTensorType([None, len(operator.raw_operator.classifier_.classes_)])


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    update_registered_converter(Below, "EdgekitBelow", _like_input, _below)
    update_registered_converter(Centred, "EdgekitCentred", _like_input, _centred)
    update_registered_converter(Same, "EdgekitSame", _like_input, _same)
    update_registered_converter(Discounted, "EdgekitDiscounted", _one_double, _discounted)
    update_registered_converter(Wrapped, "EdgekitWrapped", _one_target, _wrapped)
    update_registered_converter(WrappedClassifier, "EdgekitWrappedClassifier", _shares, _wrapped_classifier)


def test_a_converter_for_a_newer_operator_set_raises_that_of_the_graph() -> None:
    X = numbers()
    model = make_pipeline(Centred(), Ridge()).fit(X, np.arange(len(X)))
    conversion = assert_same(model, X, exact=True)
    assert conversion.opset == NEWER > TARGET.opset
    assert conversion.delegated


def test_a_converter_for_an_older_operator_set_is_raised_to_that_of_the_graph() -> None:
    X = numbers().astype(np.float32)
    step = Below().fit(X)
    found, _ = transformed(step, X, X)
    np.testing.assert_array_equal(found, step.transform(X).astype(np.float64))


def test_columns_of_float32_reach_the_converter_as_they_reach_the_class() -> None:
    X = numbers().astype(np.float32)
    step = Centred().fit(X)
    found, _ = transformed(step, X, X)
    np.testing.assert_array_equal(found, step.transform(X).astype(np.float64))


def test_texts_pass_through_a_converter_of_texts() -> None:
    X = pd.DataFrame({"size": ["small", "large", "ü"], "lab": ["a", "b", ""]}, dtype=object)
    from edgekit_converters import schema
    from edgekit_converters.graph import GraphBuilder
    from edgekit_converters.walk import Walk

    graph = GraphBuilder(TARGET)
    _, table = schema.inputs(graph, schema.dtypes(X))
    assert {one.dtype for one in Walk(graph, none=False).transform(Same(), table, ("same",))} == {"text"}


def test_a_converter_of_numbers_beside_texts_gets_an_input_for_each_column() -> None:
    X = pd.DataFrame({"price": [10.0, 20.0, 30.0] * 4, "kind": ["member", "guest", "ü"] * 4})
    assert_same(make_pipeline(Discounted(), Ridge()).fit(X, np.arange(12.0)), X, exact=True)


def test_a_class_without_a_converter_is_refused_by_its_path() -> None:
    X = numbers()
    model = make_pipeline(Twice(), Ridge()).fit(X, np.arange(len(X)))
    with pytest.raises(ConversionRefused, match=r"pipeline/twice \(Twice\): skl2onnx has no converter for it"):
        converted(model, X)


def test_a_forest_inside_a_users_regressor_is_written_for_todays_runtimes() -> None:
    X = numbers().astype(np.float32)
    model = Wrapped(ExtraTreesRegressor(5, max_depth=4, random_state=0)).fit(X, X["area"] / 7)
    assert "ai.onnx.ml:TreeEnsemble" in assert_same(model, X).operators


def test_a_users_classifier_has_the_classes_of_the_one_that_it_holds() -> None:
    X, y = numbers(), target() * 3
    conversion = assert_same(WrappedClassifier(LogisticRegression(max_iter=1000)).fit(X, y), X)
    assert conversion.classes == (0, 3)


def test_a_classifier_whose_classes_nobody_says_is_refused_with_what_to_do() -> None:
    model = WrappedClassifier(LogisticRegression(max_iter=1000)).fit(numbers(), target())
    model.other_ = LogisticRegression(max_iter=1000).fit(numbers(), 1 - target())
    with pytest.raises(ConversionRefused, match="it does not say its classes") as refused:
        converted(model, numbers())
    assert "classes_" in refused.value.next_step


def _run(model: onnx.ModelProto, X: NDArray[Any]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {"x": X})
    return list(found)


def _older(model: Any) -> onnx.ModelProto:
    kind = FloatTensorType([None, 3])
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    found: Any = convert_sklearn(model, "older", [("x", kind)], target_opset={"": 18, "ai.onnx.ml": 3}, options=options)
    assert isinstance(found, onnx.ModelProto)
    assert any(node.op_type in OLDER for node in found.graph.node)
    return found


@pytest.mark.parametrize("targets", [1, 2])
def test_renewed_regression_trees_sum_as_the_older_ones(targets: int) -> None:
    X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    y = np.stack([X[:, 0] * X[:, 1], X.sum(axis=1)][:targets], axis=1)
    older = _older(RandomForestRegressor(7, max_depth=5, random_state=0).fit(X, y.squeeze()))
    newer = renewed(older)
    onnx.checker.check_model(newer)
    rows = np.concatenate([X, np.full((1, 3), np.nan, dtype=np.float32)])
    np.testing.assert_array_equal(_run(newer, rows)[0], _run(older, rows)[0])


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"], [3, 7]])
def test_renewed_classification_trees_answer_as_the_older_ones(classes: list[Any]) -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 3)).astype(np.float32)
    y = np.array(classes)[(np.abs(X[:, 0] + X[:, 1]) * 1.5).astype(int) % len(classes)]
    older = _older(RandomForestClassifier(8, max_depth=4, random_state=0).fit(X, y))
    newer = renewed(older)
    onnx.checker.check_model(newer)
    for ours, theirs in zip(_run(newer, X), _run(older, X), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_older_trees_that_transform_their_sums_are_refused() -> None:
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    older = _older(RandomForestRegressor(2, max_depth=2, random_state=0).fit(X, X[:, 0]))
    node = next(one for one in older.graph.node if one.op_type in OLDER)
    node.attribute.append(onnx.helper.make_attribute("post_transform", "LOGISTIC"))
    with pytest.raises(Unfaithful, match="transforms what its trees give"):
        renewed(older)
