# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edgekit import building
from edgekit_contracts.errors import ConversionRefused, DataMismatch, UsageError
from edgekit_contracts.manifest import Parity
from edgekit_converters.onnx_file import OnnxConverter
from edgekit_converters.registry import Conversion, find
from tests.converters.onnx_models import WEIGHTS, graph, linear, saved, tensor

RUNTIME = "1.24.1"
X, y = (np.asarray(part) for part in load_iris(return_X_y=True))
ROWS = X.astype(np.float32)
FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c", "d"])
NAMES = ["setosa", "versicolor", "virginica"]
TEXTS: Any = np.array(NAMES)


def converted(
    model: onnx.ModelProto, tmp_path: Path, data: Any = FRAME, runtime: str = RUNTIME, **said: Any
) -> tuple[Conversion, Parity]:
    return building.convert(saved(model, tmp_path / "model.onnx"), data, runtime, **said)


def run(conversion: Conversion, rows: Any = ROWS) -> dict[str, Any]:
    session = ort.InferenceSession(conversion.onnx, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found: list[Any] = list(session.run(names, {"numbers": rows}))
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_of_skl2onnx_keeps_its_classes_and_probabilities(tmp_path: Path, zipmap: bool) -> None:
    forest = RandomForestClassifier(5, random_state=0).fit(ROWS, TEXTS[y])
    conversion, parity = converted(to_onnx(forest, ROWS[:1], options={"zipmap": zipmap}), tmp_path)
    assert parity.max_difference == 0
    assert conversion.classes == tuple(TEXTS)
    assert [(one.role, one.dtype) for one in conversion.outputs] == [("label", "text"), ("probabilities", "float32")]
    assert not [one for one in conversion.operators if one.endswith("ZipMap")]
    assert [feature.name for feature in conversion.features] == ["a", "b", "c", "d"]
    found = run(conversion)
    assert found["label"].tolist() == forest.predict(ROWS).tolist()
    np.testing.assert_allclose(found["probabilities"], forest.predict_proba(ROWS), atol=1e-6)


def test_inputs_of_one_column_are_taken_by_their_names(tmp_path: Path) -> None:
    frame = FRAME.assign(size=np.where(X[:, 0] > 5.8, "big", "small"))
    columns = make_column_transformer((StandardScaler(), ["c", "a"]), (OneHotEncoder(), ["size"]))
    model = make_pipeline(columns, LogisticRegression()).fit(frame, y)
    conversion, _ = converted(
        to_onnx(model, frame[:1][["a", "c", "size"]], options={"zipmap": False}), tmp_path, frame.iloc[:, ::-1]
    )
    assert [(one.name, one.features) for one in conversion.inputs] == [("numbers", ("a", "c")), ("text", ("size",))]
    size = conversion.features[-1]
    assert (size.categories, size.closed, size.nullable) == (("big", "small"), True, False)


def test_a_regressor_gives_values(tmp_path: Path) -> None:
    model = LinearRegression().fit(ROWS, np.stack([y, -y], axis=1))
    conversion, _ = converted(to_onnx(model, ROWS[:1]), tmp_path)
    assert (conversion.task, [one.role for one in conversion.outputs]) == ("regression", ["value"])
    np.testing.assert_allclose(run(conversion)["value"], model.predict(ROWS), atol=1e-4)


@pytest.mark.parametrize("opset", [9, 18])
def test_bare_scores_become_probabilities_by_softmax(tmp_path: Path, opset: int) -> None:
    conversion, _ = converted(linear(opset=opset), tmp_path, classes=NAMES)
    scores = ROWS @ WEIGHTS
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = run(conversion)
    assert found["label"].tolist() == TEXTS[scores.argmax(axis=1)].tolist()
    np.testing.assert_allclose(found["probabilities"], shares, atol=1e-6)
    assert "softmax" in conversion.notes[0]
    assert conversion.opset == opset


@pytest.mark.parametrize("behind", [[], ["Sigmoid"]])
@pytest.mark.parametrize("opset", [9, 18])
def test_one_score_of_two_classes_is_the_second_ones(tmp_path: Path, behind: list[str], opset: int) -> None:
    weights = WEIGHTS[:, :1]
    conversion, _ = converted(linear(*behind, weights=weights, opset=opset), tmp_path, classes=[False, True])
    found, scores = run(conversion), (ROWS @ weights)[:, 0]
    assert found["label"].astype(bool).tolist() == (scores > 0).tolist()
    assert conversion.outputs[0].dtype == "bool"
    np.testing.assert_allclose(found["probabilities"][:, 1], 1 / (1 + np.exp(-scores)), atol=1e-6)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1)


def test_a_softmax_at_the_end_makes_a_classification_and_is_not_applied_twice(tmp_path: Path) -> None:
    unnamed, _ = converted(linear("Softmax"), tmp_path)
    named, _ = converted(linear("Softmax"), tmp_path, classes=NAMES)
    assert unnamed.classes == (0, 1, 2)
    assert "0 to 2" in unnamed.notes[0]
    scores = ROWS @ WEIGHTS
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(named)["probabilities"], shares, atol=1e-6)


def test_probabilities_whose_softmax_is_written_out_are_known_by_their_sum(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["s"]),
        helper.make_node("Exp", ["s"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["t"], keepdims=1),
        helper.make_node("Div", ["e", "t"], ["y"]),
    ]
    conversion, _ = converted(graph(nodes, {"W": WEIGHTS, "axes": np.array([1])}), tmp_path, classes=[0, 1, 2])
    assert not [one for one in conversion.operators if one.endswith("Softmax")]


def test_several_outputs_are_the_values_in_their_order(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"]), helper.make_node("Relu", ["y"], ["value"])]
    model = graph(nodes, {"W": WEIGHTS}, outputs=[tensor("y", [None, 3]), tensor("value", [None, 3])])
    conversion, _ = converted(model, tmp_path)
    scores = ROWS @ WEIGHTS
    np.testing.assert_allclose(run(conversion)["value"], np.hstack([scores, np.maximum(scores, 0)]), atol=1e-5)
    assert "y, value" in conversion.notes[0]


def test_rows_are_put_into_the_shape_of_an_image(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(2, 1, 2, 2)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "K"], ["c"]), helper.make_node("Flatten", ["c"], ["y"])]
    fixed = graph(nodes, {"K": kernel}, inputs=[tensor("x", ["n", 1, 2, 2])])
    free = graph(nodes, {"K": kernel}, inputs=[tensor("x", ["n", 1, "h", "w"])])
    conversion, _ = converted(fixed, tmp_path)
    assert conversion.inputs[0].features == ("a", "b", "c", "d")
    np.testing.assert_allclose(run(conversion)["value"], ROWS @ kernel.reshape(2, 4).T, atol=1e-5)
    with pytest.raises(ConversionRefused, match="shape of its rows") as refusal:
        converted(free, tmp_path)
    assert "--shape" in refusal.value.next_step
    assert run(converted(free, tmp_path, shape=(1, 2, 2))[0])["value"].shape == (150, 2)


def test_whole_numbers_reach_an_input_of_whole_numbers(tmp_path: Path) -> None:
    table = np.arange(30, dtype=np.float32).reshape(10, 3)
    nodes = [helper.make_node("Gather", ["E", "x"], ["g"]), helper.make_node("Flatten", ["g"], ["y"])]
    model = graph(nodes, {"E": table}, inputs=[tensor("x", ["n", 2], TensorProto.INT64)])
    ids = np.random.default_rng(0).integers(0, 10, (20, 2))
    conversion, _ = converted(model, tmp_path, pd.DataFrame(ids, columns=["first", "second"]))
    assert (conversion.inputs[0].dtype, conversion.features[0].dtype) == ("float64", "int64")
    np.testing.assert_array_equal(run(conversion, ids.astype(float))["value"], table[ids].reshape(20, 6))
    with pytest.raises(DataMismatch, match="whole numbers"):
        converted(model, tmp_path, ids + 0.5)


def test_a_batch_fixed_at_one_row_is_freed_where_the_answers_stay_and_refused_where_not(tmp_path: Path) -> None:
    conversion, _ = converted(linear(rows=1), tmp_path)
    assert "one row a call" in conversion.notes[0]
    np.testing.assert_allclose(run(conversion)["value"], ROWS @ WEIGHTS, atol=1e-5)
    nodes = [helper.make_node("ReduceMax", ["x"], ["m"], axes=[0]), helper.make_node("Add", ["x", "m"], ["y"])]
    mixed = graph(nodes, inputs=[tensor("x", [1, 4])], opset=13)
    with pytest.raises(ConversionRefused, match="fixed at one row, and it fails or answers otherwise"):
        converted(mixed, tmp_path)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_shapes_that_hold_a_fixed_batch_are_freed(tmp_path: Path, batch: int) -> None:
    nodes = [
        helper.make_node("Constant", [], ["open"], value=numpy_helper.from_array(np.array([batch, -1]))),
        helper.make_node("Reshape", ["x", "open"], ["o"]),
        helper.make_node("Reshape", ["o", "pairs"], ["p"]),  # [2 * batch, 2]: a multiple of the batch
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Reshape", ["r", "rows"], ["f"]),  # [batch, 4]
        helper.make_node("MatMul", ["f", "W"], ["y"]),
    ]
    shapes = {"pairs": np.array([2 * batch, 2]), "rows": np.array([batch, 4])}
    conversion, _ = converted(graph(nodes, {"W": WEIGHTS, **shapes}, inputs=[tensor("x", [batch, 4])]), tmp_path)
    rows = "one row" if batch == 1 else f"{batch} rows"
    assert conversion.notes == (f"it took {rows} a call, and takes any number now",)
    np.testing.assert_allclose(run(conversion)["value"], np.maximum(ROWS, 0) @ WEIGHTS, atol=1e-5)


def test_a_shape_that_moves_the_batch_is_not_freed_but_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Reshape", ["t", "turned"], ["r"]),
        helper.make_node("MatMul", ["r", "W"], ["y"]),
    ]
    turned = graph(nodes, {"W": WEIGHTS, "turned": np.array([4, 4])}, inputs=[tensor("x", [4, 4])])
    with pytest.raises(ConversionRefused, match=r"depends on the other rows|fixed at 4 rows"):
        converted(turned, tmp_path)


def test_an_output_without_rows_of_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    whole = graph(nodes, inputs=[tensor("x", [1, 4])], outputs=[tensor("y", [])])
    with pytest.raises(ConversionRefused, match="for 1 rows"):
        converted(whole, tmp_path)


@pytest.mark.parametrize(
    ("model", "said", "why"),
    [
        (linear(rows=5000), {}, "exactly 5000 rows"),
        (linear(), {"classes": ["a", "b"]}, "gives 3 scores a row, and 2 classes"),
        (linear("Sigmoid"), {"classes": ["a", "b", "c"]}, "a probability of its own"),
        (linear(), {"shape": (2, 2)}, "rows have the shape"),
        (linear("Transpose"), {}, "gives .* for 150 rows"),
        (linear(opset=25), {"runtime": "1.20.1"}, "needs opset 25, and onnxruntime 1.20.1 loads 7 to 21"),
        (graph([helper.make_node("RandomNormalLike", ["x"], ["y"])]), {}, "at random"),
        (
            graph(
                [helper.make_node("ReduceMax", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])],
                opset=13,
            ),
            {},
            "depends on the other rows",
        ),
    ],
    ids=["batch", "classes", "sigmoid", "shape", "rows", "opset", "random", "mixed"],
)
def test_what_has_no_place_in_the_contract_is_refused_by_name(
    tmp_path: Path, model: onnx.ModelProto, said: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConversionRefused, match=why) as refusal:
        converted(model, tmp_path, **said)
    assert "model.onnx" in refusal.value.sentence
    assert len(str(refusal.value)) < 600


def test_one_score_that_might_be_a_probability_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConversionRefused, match="may be a probability or not"):
        converted(linear("Relu", "Tanh", weights=WEIGHTS[:, :1]), tmp_path, classes=[0, 1])


def test_data_that_does_not_fill_the_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataMismatch, match="it has 3 columns, and the model takes 4"):
        converted(linear(), tmp_path, FRAME[["a", "b", "c"]])
    with pytest.raises(DataMismatch, match="'a' holds text"):
        converted(linear(), tmp_path, FRAME.assign(a="one"))
    missing = FRAME.copy()
    missing.loc[3, "a"] = np.nan
    with pytest.raises(DataMismatch, match="no number for 1 of"):
        converted(linear(), tmp_path, missing)


def test_a_class_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="each once"):
        converted(linear(), tmp_path, classes=["a", "a", "b"])


def test_the_same_file_gives_the_same_bytes_and_nothing_of_its_maker(tmp_path: Path) -> None:
    model = linear("Softmax")
    model.graph.node[0].doc_string = "at /home/someone/train.py"
    model.doc_string = "made by someone"
    first, second = (converted(model, tmp_path)[0].onnx for _ in range(2))
    assert first == second
    assert b"someone" not in first


def test_more_columns_than_a_device_counts_convert_and_do_not_build(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).normal(size=(1100, 2)).astype(np.float32)
    model = graph([helper.make_node("MatMul", ["x", "W"], ["y"])], {"W": wide}, inputs=[tensor("x", ["n", 1100])])
    rows = np.random.default_rng(1).normal(size=(8, 1100))
    assert len(converted(model, tmp_path, rows)[0].features) == 1100
    with pytest.raises(ConversionRefused, match="1100 features, and a device counts at most 1024"):
        building.build(tmp_path / "model.onnx", rows, device="raspberry-pi-4", out=tmp_path / "a-1.edge")
    assert not (tmp_path / "a-1.edge").exists()


def test_a_model_in_memory_is_found_by_its_type() -> None:
    assert isinstance(find(linear()), OnnxConverter)
    conversion, _ = building.convert(linear(), FRAME, RUNTIME)
    assert conversion.task == "regression"
