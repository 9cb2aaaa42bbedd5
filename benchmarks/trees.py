"""Tree ensembles: file size, load time and speed of our graph beside another's and the model's own predict_proba.

    .venv/bin/python benchmarks/trees.py [MODEL ...]

One thread, 20 features, medians of interleaved runs, in which each graph comes first as often as the others; all of one
line comes from the same seconds of the same machine.
The other graph is skl2onnx's, for LightGBM and XGBoost onnxmltools'; it takes float32 and is not exact; ours takes
float64 and is. onnxmltools is no dependency of ours: install it for this.

What a file can do about its load time is bounded by two graphs that are loaded too: our tree operator without any other
node, and a graph of one node that has no trees.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
from lightgbm import LGBMClassifier
from onnx import helper
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from xgboost import XGBClassifier

from edgekit_converters.certificate import certify
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for

ROUNDS: Final = 15
SINGLE_CALLS: Final = 200
BATCH: Final = 1000
MODELS: Final = {
    "RF100": RandomForestClassifier(100, random_state=0),
    "GBC100": GradientBoostingClassifier(n_estimators=100, random_state=0),
    "HGB200": HistGradientBoostingClassifier(max_iter=200, random_state=0),
    "LGBM300": LGBMClassifier(n_estimators=300, n_jobs=1, verbose=-1),
    "XGB300": XGBClassifier(n_estimators=300, n_jobs=1),
}


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    """Of one call, the mean of `times`."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def session(data: bytes) -> ort.InferenceSession:
    """With one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def theirs(model: Any, width: int) -> bytes:
    """The graph of skl2onnx or onnxmltools."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    name = type(model).__name__
    found: Any
    if name.startswith("XGB"):
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType as Floats

        found = convert_xgboost(model, initial_types=[("numbers", Floats([None, width]))], target_opset=15)
    elif name.startswith("LGBM"):
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType as Floats

        types = [("numbers", Floats([None, width]))]
        found = convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=False)
    else:
        found = convert_sklearn(
            model,
            initial_types=[("numbers", FloatTensorType([None, width]))],
            options={id(model): {"zipmap": False}},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
    return bytes(found.SerializeToString())


def operator_alone(data: bytes) -> bytes:
    """Our tree operator, which reads the graph's input, of the type that it takes, and gives its output."""
    model = onnx.load_model_from_string(data)
    (trees,) = (node for node in model.graph.node if node.op_type == "TreeEnsemble")
    element = next(one.t.data_type for one in trees.attribute if one.name == "nodes_splits")
    width = 1 + max(next(one.ints for one in trees.attribute if one.name == "nodes_featureids"))
    trees.input[0] = "x"
    graph = helper.make_graph(
        [trees],
        "alone",
        [helper.make_tensor_value_info("x", element, [None, width])],
        [helper.make_tensor_value_info(trees.output[0], element, [None, None])],
    )
    return bytes(
        helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version).SerializeToString()
    )


def without_trees() -> bytes:
    """A graph of one node."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [None, 20]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "empty", [x], [y])
    opsets = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def measure(name: str, model: Any, X: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
    """Prints one model's figures."""
    model.fit(X, y)
    peer = "onnxmltools" if name in {"LGBM300", "XGB300"} else "skl2onnx"
    frame = pd.DataFrame(X, columns=[f"x{number}" for number in range(X.shape[1])])
    proof = model.__class__(**model.get_params()).fit(frame, y)
    new = SklearnConverter().convert(proof, frame, target_for("1.24")).onnx
    old = SklearnConverter().convert(proof, frame, target_for("1.20")).onnx
    files = {"ours": new, "ours, ml 3": old, peer: theirs(model, X.shape[1])}
    bounds = {"operator alone": operator_alone(new), "without trees": without_trees()}
    feeds = {kind: X.astype(np.float32) if kind == peer else X for kind in files}
    figures: dict[str, dict[str, list[float]]] = {
        kind: {"load": [], "batch": [], "one": []} for kind in (*files, *bounds, "native")
    }
    kinds = [*files, *bounds]
    for turn in range(ROUNDS):
        for kind in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]:
            data = (files | bounds)[kind]
            figures[kind]["load"].append(seconds(partial(session, data)))
            if kind in bounds:
                continue
            one = session(data)
            all_rows, first = {"numbers": feeds[kind][:BATCH]}, {"numbers": feeds[kind][:1]}
            one.run(None, all_rows)
            figures[kind]["batch"].append(seconds(partial(one.run, None, all_rows)))
            figures[kind]["one"].append(seconds(partial(one.run, None, first), SINGLE_CALLS))
        figures["native"]["batch"].append(seconds(lambda: model.predict_proba(X[:BATCH])))
        figures["native"]["one"].append(seconds(lambda: model.predict_proba(X[:1]), 5))
    names = ["label", "probabilities"]
    found: Any = session(new).run(names, {"numbers": X})
    other: Any = session(files[peer]).run(None, {"numbers": X.astype(np.float32)})
    wrong = [int((labels != model.predict(X)).sum()) for labels in (found[0], other[0])]
    gap = [float(np.abs(shares - model.predict_proba(X)).max()) for shares in (found[1], other[1])]
    certificate = certify(new, proof)
    print(f"\n{name}: {certificate.statement if certificate else 'no certificate'}")
    print(f"  other labels of {len(X):,}: ours {wrong[0]}, {peer} {wrong[1]}; "
          f"largest difference: ours {gap[0]:.1e}, {peer} {gap[1]:.1e}")  # fmt: skip
    print(f"  {'':12}{'kB':>9}{'load ms':>10}{'1000 rows ms':>14}{'1 row us':>11}")
    middle = {kind: {what: float(np.median(runs)) if runs else np.nan for what, runs in by.items()}
              for kind, by in figures.items()}  # fmt: skip
    for kind, by in middle.items():
        size = f"{len(files[kind]) / 1e3:9.0f}" if kind in files else f"{'':9}"
        if kind not in bounds:
            print(f"  {kind:12}{size}{by['load'] * 1e3:10.1f}{by['batch'] * 1e3:14.2f}{by['one'] * 1e6:11.1f}")
    base, us = middle[peer], middle["ours"]
    print(
        f"  ours / {peer}: file {len(new) / len(files[peer]):.2f}, load {us['load'] / base['load']:.2f}, "
        f"1000 rows {us['batch'] / base['batch']:.2f}, 1 row {us['one'] / base['one']:.2f}; "
        f"native / ours: 1000 rows {middle['native']['batch'] / us['batch']:.1f}, "
        f"1 row {middle['native']['one'] / us['one']:.0f}"
    )
    print(
        f"  load / {peer}'s: "
        + ", ".join(f"{kind} {middle[kind]['load'] / base['load']:.2f}" for kind in ("ours", *bounds))
    )


def main() -> None:
    """Measures every model."""
    warnings.simplefilter("ignore")
    ort.set_default_logger_severity(4)
    drawn: Any = make_classification(5000, 20, n_informative=10, random_state=0)
    X, y = drawn
    for name, model in MODELS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        measure(name, model, X, y)


if __name__ == "__main__":
    main()
