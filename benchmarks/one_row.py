"""One row through nearest neighbours and AdaBoost: our graph beside skl2onnx's, a hand-written one and scikit-learn.

    .venv/bin/python benchmarks/one_row.py

One thread, medians of interleaved rounds, each graph warm and in another place of every round: what comes after
scikit-learn's call finds cold caches. The hand-written graphs are what a person would write for speed, and are not
exact: neighbours by one MatMul and TopK, in float64; AdaBoost as one operator in float32 that adds the votes' weights.
The second ones do more of what scikit-learn does: distances from the differences, which no product rounds apart (of
rows that tie any is taken there too), and the sum of votes divided, where the first divides the weights. All give
labels and probabilities.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import onnx.parser
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import AdaBoostClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for

ROUNDS: Final = 60
CALLS: Final = 50
WARM_CALLS: Final = 10
NEIGHBOURS: Final = """
<ir_version: 8, opset_import: ["" : 18]>
neighbours (double[N, F] x) => (int64[N] label, double[N, C] probabilities) {
  shifted = Sub (x, mean)
  part = MatMul (shifted, axes)
  %s
  distance, place = TopK <axis = 1, largest = 0> (apart, k)
  each = Gather (votes, place)
  counted = ReduceSum <keepdims = 0> (each, over)
  probabilities = Div (counted, count)
  place_of_best = ArgMax <axis = 1, keepdims = 0> (counted)
  label = Gather (classes, place_of_best)
}
"""


BY_PRODUCT: Final = """
  product = MatMul (part, doubled)
  apart = Add (product, squares)
"""
BY_DIFFERENCES: Final = """
  wide = Unsqueeze (part, over)
  difference = Sub (wide, rows)
  square = Mul (difference, difference)
  apart = ReduceSum <keepdims = 0> (square, features)
"""


def session(data: bytes) -> ort.InferenceSession:
    """With one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def feed_of(one: ort.InferenceSession, X: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The rows in the type that the graph takes."""
    given = one.get_inputs()[0]
    return {given.name: X.astype(np.float64 if given.type == "tensor(double)" else np.float32)}


def by_hand_neighbours(model: Any, distances: str) -> bytes:
    """PCA and k nearest neighbours in float64."""
    pca, knn = model[0], model[1]
    rows = knn._fit_X
    tensors = {
        "mean": pca.mean_,
        "axes": pca.components_.T,
        "rows": rows,
        "doubled": -2 * rows.T,
        "squares": (rows**2).sum(axis=1),
        "votes": np.eye(len(knn.classes_))[knn._y],
        "count": np.array(float(knn.n_neighbors)),
        "k": np.array([knn.n_neighbors]),
        "over": np.array([1]),
        "features": np.array([2]),
        "classes": knn.classes_.astype(np.int64),
    }
    found = onnx.parser.parse_model(NEIGHBOURS % distances)
    read = {name for node in found.graph.node for name in node.input}
    found.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in tensors.items() if name in read
    )
    return bytes(found.SerializeToString())


def by_hand_boosting(model: Any, folded: bool) -> bytes:
    """The stumps of AdaBoost as one operator of ai.onnx.ml 3: each adds its weight to the class that it votes for.

    The probabilities of two classes are the softmax of twice these sums, over the sum of all weights: by which the
    weights are divided beforehand (`folded`), or each sum, as scikit-learn does.
    """
    half = float(model.estimator_weights_.sum()) / 2
    scale = 1 / half if folded else 1.0
    values: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "mode", "feature", "split", "true", "false")}
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "node", "target", "weight")}
    for number, (one, weight) in enumerate(zip(model.estimators_, model.estimator_weights_, strict=False)):
        tree = one.tree_
        for node in range(tree.node_count):
            leaf = tree.children_left[node] < 0
            row = (number, node, "LEAF" if leaf else "BRANCH_LEQ", max(int(tree.feature[node]), 0),
                   float(tree.threshold[node]), max(int(tree.children_left[node]), 0),
                   max(int(tree.children_right[node]), 0))  # fmt: skip
            for name, value in zip(values, row, strict=True):
                values[name].append(value)
            if leaf:
                for name, value in zip(
                    leaves, (number, node, int(tree.value[node, 0].argmax()), float(weight * scale)), strict=True
                ):
                    leaves[name].append(value)
    summed = "scores" if folded else "sums"
    trees = helper.make_node(
        "TreeEnsembleRegressor", ["x"], [summed], domain="ai.onnx.ml", n_targets=len(model.classes_),
        nodes_treeids=values["tree"], nodes_nodeids=values["node"], nodes_modes=values["mode"],
        nodes_featureids=values["feature"], nodes_values=values["split"], nodes_truenodeids=values["true"],
        nodes_falsenodeids=values["false"], target_treeids=leaves["tree"], target_nodeids=leaves["node"],
        target_ids=leaves["target"], target_weights=leaves["weight"],
    )  # fmt: skip
    divided = [] if folded else [helper.make_node("Div", ["sums", "half"], ["scores"])]
    best = helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0)
    graph = helper.make_graph(
        [trees, *divided, best, helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1)],
        "boosting",
        [helper.make_tensor_value_info("x", 1, [None, model.n_features_in_])],
        [
            helper.make_tensor_value_info("label", 7, [None]),
            helper.make_tensor_value_info("probabilities", 1, [None, 2]),
        ],
        [] if folded else [numpy_helper.from_array(np.array([half], dtype=np.float32), "half")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def by_skl2onnx(model: Any, width: int) -> bytes:
    """At its best: float32, no ZipMap."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    found: Any = convert_sklearn(
        model,
        initial_types=[("x", FloatTensorType([None, width]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    return bytes(found.SerializeToString())


def measure(
    name: str, model: Any, X: NDArray[Any], y: NDArray[Any], by_hand: Mapping[str, Callable[[Any], bytes]]
) -> None:
    """Prints one model's figures."""
    model.fit(X, y)
    frame = pd.DataFrame(X).rename(columns=str)
    ours = SklearnConverter().convert(model, frame, target_for("1.24")).onnx
    files = {"edgekit": ours, "skl2onnx": by_skl2onnx(model, X.shape[1])}
    files |= {f"by hand, {kind}": written(model) for kind, written in by_hand.items()}
    sessions = {kind: session(data) for kind, data in files.items()}
    calls: dict[str, Callable[[], Any]] = {"scikit-learn": lambda: model.predict(X[:1])}
    for kind, one in sessions.items():
        calls[kind] = partial(one.run, None, feed_of(one, X[:1]))
    times: dict[str, list[float]] = {kind: [] for kind in calls}
    for turn in range(ROUNDS):
        kinds = [*calls, *calls][turn % len(calls) :][: len(calls)]
        for kind, call in ((kind, calls[kind]) for kind in kinds):
            count, warm = (1, 0) if kind == "scikit-learn" else (CALLS, WARM_CALLS)
            for _ in range(warm):
                call()
            start = time.perf_counter()
            for _ in range(count):
                call()
            times[kind].append((time.perf_counter() - start) / count * 1e6)
    middle = {kind: float(np.median(found)) for kind, found in times.items()}
    print(f"{name}: " + ", ".join(f"{kind} {found:.1f} us" for kind, found in middle.items()))
    print(
        "  edgekit / "
        + ", ".join(f"{kind} {middle['edgekit'] / middle[kind]:.2f}" for kind in middle if kind != "edgekit")
    )
    wrong = {}
    for kind, one in sessions.items():
        found: Any = one.run(None, feed_of(one, X))
        wrong[kind] = int((np.asarray(found[0]).ravel() != model.predict(X)).sum())
    print(f"  other labels of {len(X):,}: " + ", ".join(f"{kind} {count}" for kind, count in wrong.items()))


def main() -> None:
    """Measures both."""
    warnings.simplefilter("ignore")
    X: Any
    y: Any
    X, y = load_digits(return_X_y=True)
    neighbours = make_pipeline(PCA(16), KNeighborsClassifier())
    by_hand = {
        "product": partial(by_hand_neighbours, distances=BY_PRODUCT),
        "differences": partial(by_hand_neighbours, distances=BY_DIFFERENCES),
    }
    measure("PCA(16) + KNeighbors(5), 1,797 rows stored", neighbours, X, y, by_hand)
    X, y = make_classification(3000, 20, n_informative=10, random_state=0)
    by_hand = {
        "folded": partial(by_hand_boosting, folded=True),
        "divided": partial(by_hand_boosting, folded=False),
    }
    measure("AdaBoost, 50 stumps", AdaBoostClassifier(n_estimators=50, random_state=0), X, y, by_hand)


if __name__ == "__main__":
    main()
