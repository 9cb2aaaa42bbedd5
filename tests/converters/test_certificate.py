# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper, numpy_helper
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from edgekit_contracts.errors import ParityBroken
from edgekit_converters.certificate import certify
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for

OLD, NEW = "1.20", "1.24.1"


def data() -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(300, 4)), columns=list("abcd"))
    y = (X["a"] + random.normal(size=300) > 0).astype(int) + (X["b"] > 1).astype(int)
    return X, y.to_numpy()


def written(model: Any, runtime: str = NEW) -> tuple[bytes, Any]:
    X, y = data()
    if "Hist" in type(model).__name__:
        X = X.mask(np.random.default_rng(1).random(X.shape) < 0.1)
    model.fit(X, y)
    return SklearnConverter().convert(model, X, target_for(runtime)).onnx, model


@pytest.mark.parametrize("runtime", [OLD, NEW])
@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeClassifier(random_state=0),
        DecisionTreeClassifier(min_samples_leaf=200),
        RandomForestClassifier(6, max_depth=5, random_state=0),
        RandomForestClassifier(6, random_state=0),
        RandomForestRegressor(5, random_state=0),
        GradientBoostingClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
        HistGradientBoostingRegressor(max_iter=5),
        make_pipeline(StandardScaler(), RandomForestClassifier(4, random_state=0)),
        VotingClassifier([("a", RandomForestClassifier(3)), ("b", DecisionTreeClassifier())], voting="soft"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_node_of_an_honest_file_is_certified(model: Any, runtime: str) -> None:
    onnx_bytes, fitted = written(model, runtime)
    found = certify(onnx_bytes, fitted)
    assert found is not None
    assert found.exact
    assert found.nodes > 0
    assert "as the original's" in found.statement


@pytest.mark.parametrize("size", [5, 100])
def test_sets_of_categories_are_certified(size: int) -> None:
    random = np.random.default_rng(0)
    X = pd.DataFrame({"code": random.integers(0, size, 2000).astype(float), "x": random.normal(size=2000)})
    y = random.normal(size=size)[X["code"].astype(int)] + X["x"]
    model = HistGradientBoostingRegressor(max_iter=8, categorical_features=["code"]).fit(X, y)
    onnx_bytes = SklearnConverter().convert(model, X, target_for(NEW)).onnx
    found = certify(onnx_bytes, model)
    assert found is not None
    with pytest.raises(ParityBroken, match="decides otherwise"):
        certify(mutated(onnx_bytes, drop_member), model)


def test_a_model_without_trees_has_no_certificate() -> None:
    onnx_bytes, model = written(LogisticRegression())
    assert certify(onnx_bytes, model) is None


Change = Callable[[dict[str, Any]], None]


def mutated(data: bytes, change: Change) -> bytes:
    """The file with the first tree operator's attributes changed."""
    model = onnx.load_model_from_string(data)
    node = next(one for one in model.graph.node if one.domain == "ai.onnx.ml" and "TreeEnsemble" in one.op_type)
    values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    values = {name: list(value) if not isinstance(value, onnx.TensorProto | int | bytes) else value
              for name, value in values.items()}  # fmt: skip
    change(values)
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())
    return bytes(model.SerializeToString())


def next_threshold(direction: float) -> Change:
    def change(values: dict[str, Any]) -> None:
        name = next(one for one in ("nodes_splits", "nodes_values_as_tensor", "nodes_values") if one in values)
        given = values[name]
        array = np.array(given, dtype=np.float32) if isinstance(given, list) else numpy_helper.to_array(given).copy()
        at = int(np.flatnonzero(array)[-1])
        array[at] = np.nextafter(array[at], array.dtype.type(direction))
        values[name] = array.tolist() if isinstance(given, list) else numpy_helper.from_array(array, "changed")

    return change


def swap_children(values: dict[str, Any]) -> None:
    at = len(values["nodes_truenodeids"]) - 1
    if "nodes_modes" in values and isinstance(values["nodes_modes"], list):
        at = max(place for place, mode in enumerate(values["nodes_modes"]) if mode != b"LEAF")
    for one, other in (("nodes_truenodeids", "nodes_falsenodeids"), ("nodes_trueleafs", "nodes_falseleafs")):
        if one in values:
            values[one][at], values[other][at] = values[other][at], values[one][at]


def change_leaf(values: dict[str, Any]) -> None:
    name = next(one for one in ("leaf_weights", "target_weights_as_tensor", "target_weights") if one in values)
    given = values[name]
    array = np.array(given, dtype=np.float32) if isinstance(given, list) else numpy_helper.to_array(given).copy()
    array[-1] = array[0] if array[-1] != array[0] else array[-1] + 1
    values[name] = array.tolist() if isinstance(given, list) else numpy_helper.from_array(array, "changed")


def last_bit_of_a_leaf(values: dict[str, Any]) -> None:
    array = numpy_helper.to_array(values["leaf_weights"]).copy()
    array[-1] = np.nextafter(array[-1], np.inf)
    values["leaf_weights"] = numpy_helper.from_array(array, "changed")


def flip_missing(values: dict[str, Any]) -> None:
    name = "nodes_missing_value_tracks_true"
    # In the version 3 leaves have the flag too, and it means nothing there.
    modes = values["nodes_modes"]
    inner = [place for place, mode in enumerate(modes) if mode != b"LEAF"] if isinstance(modes, list) else None
    bits = values.get(name) or [0] * len(values["nodes_featureids"])
    at = inner[-1] if inner else len(bits) - 1
    bits[at] = 1 - bits[at]
    values[name] = bits


def change_feature(values: dict[str, Any]) -> None:
    modes = values["nodes_modes"]
    at = len(values["nodes_featureids"]) - 1
    if isinstance(modes, list):
        at = max(place for place, mode in enumerate(modes) if mode != b"LEAF")
    values["nodes_featureids"][at] = (values["nodes_featureids"][at] + 1) % 4


def drop_member(values: dict[str, Any]) -> None:
    array = numpy_helper.to_array(values["membership_values"]).copy()
    array[0] += 200
    values["membership_values"] = numpy_helper.from_array(array, "changed")


CHANGES: list[tuple[str, Change]] = [
    ("a threshold one ulp up", next_threshold(np.inf)),
    ("a threshold one ulp down", next_threshold(-np.inf)),
    ("two children swapped", swap_children),
    ("another leaf", change_leaf),
    ("a missing bit", flip_missing),
    ("another column", change_feature),
]


@pytest.mark.parametrize("runtime", [OLD, NEW])
@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3, max_depth=4, random_state=0),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_small_change_of_the_file_is_caught(model: Any, name: str, change: Change, runtime: str) -> None:
    onnx_bytes, fitted = written(model, runtime)
    with pytest.raises(ParityBroken):
        certify(mutated(onnx_bytes, change), fitted)


def test_the_last_bit_of_a_leaf_is_caught() -> None:
    onnx_bytes, fitted = written(HistGradientBoostingClassifier(max_iter=3))
    with pytest.raises(ParityBroken, match=r"HistGradientBoostingClassifier, tree \d+: node \d+ adds another value"):
        certify(mutated(onnx_bytes, last_bit_of_a_leaf), fitted)
