"""Predicted against real single-row latency on this machine: is the form right where the rates are measured?

    python benchmarks/prediction.py

Prints a table and ends by itself in under a minute. Ratios are worth quoting, times of a shared machine are not.
The memory columns are what loading and running a model adds to a fresh process, at its peak.
Predicted is the median here (the tail ratio is taken out): a tail is the machine's, not the model's.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from edgekit_converters.calibrate import measure_latency, this_machine
from edgekit_converters.fit import cost, latency_us, memory_mb

Rows = npt.NDArray[np.float32]

GROWTH = """
import sys
import numpy, onnxruntime
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
before = peak()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
row = numpy.zeros((1, int(sys.argv[2])), dtype=numpy.float32)
for _ in range(50):
    session.run(None, {"X": row})
print((peak() - before) / 1024)
"""


def models() -> Iterator[tuple[str, bytes, Rows]]:
    cancer: Any = load_breast_cancer(return_X_y=True)
    digits: Any = load_digits(return_X_y=True)
    diabetes: Any = load_diabetes(return_X_y=True)
    cases: list[tuple[str, Any, Any]] = [
        ("logistic regression", make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)), cancer),
        ("MLP 64-32", make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=500, tol=1e-2)), digits),
        ("MLP 1024-1024", MLPClassifier((1024, 1024), max_iter=60, tol=1.0, n_iter_no_change=1), digits),
        ("forest 100", RandomForestClassifier(100, random_state=0), digits),
        ("boosting 100, regression", GradientBoostingRegressor(random_state=0), diabetes),
        ("boosting 50, 10 classes", GradientBoostingClassifier(n_estimators=50, random_state=0), digits),
        ("SVC, 2 classes", make_pipeline(StandardScaler(), SVC()), cancer),
        ("SVC, 10 classes", make_pipeline(StandardScaler(), SVC()), digits),
        ("nearest neighbours", KNeighborsClassifier(5), digits),
    ]
    for name, model, (X, y) in cases:
        rows = np.asarray(X, dtype=np.float32)
        with warnings.catch_warnings():
            # skl2onnx 1.20 reads attributes that scikit-learn 1.9 will remove.
            warnings.simplefilter("ignore", FutureWarning)
            model.fit(rows, y)
            options = {"zipmap": False} if hasattr(model, "classes_") else None
            converted: Any = to_onnx(model, rows[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
        yield name, converted.SerializeToString(), rows


def growth_mb(model: bytes, columns: int) -> float:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model)
        file.flush()
        command = [sys.executable, "-c", GROWTH, file.name, str(columns)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    profile = this_machine()
    board = profile.board
    print(f"{board.soc}, {board.cores} cores, {board.clock_ghz.value:g} GHz, {board.simd}; {board.os}")
    print(f"{datetime.date.today().isoformat()}, onnxruntime {profile.runtime.onnxruntime}")
    print(", ".join(f"{name} {getattr(profile.rates, name).value:g}" for name in profile.rates.__struct_fields__))
    print(
        f"\n{'model':26}{'predicted us':>13}{'real us':>10}{'ratio':>7}{'real p99 us':>13}"
        f"{'predicted MiB':>15}{'real MiB':>10}"
    )
    ratios = []
    for name, model, rows in models():
        feeds = [{"X": rows[index : index + 1]} for index in range(min(len(rows), 400))]
        work = cost(model)
        # Measured anew beside each model: a shared machine is half as fast again from one minute to the next.
        profile = this_machine()
        predicted = latency_us(work, profile)[0] / profile.rates.tail_ratio.value
        calls = 200 if predicted > 1000 else 2000
        rounds = [measure_latency(model, feeds, calls) for _ in range(3)]
        median, tail = float(np.median([p50 for p50, _, _ in rounds])), float(np.median([p99 for _, p99, _ in rounds]))
        ratios.append(predicted / median)
        print(
            f"{name:26}{predicted:13.1f}{median:10.1f}{ratios[-1]:7.2f}{tail:13.1f}"
            f"{memory_mb(work):15.1f}{growth_mb(model, rows.shape[1]):10.1f}"
        )
    within = sum(0.5 <= ratio <= 2.0 for ratio in ratios)
    print(f"\nratio within 0.5 to 2: {within} of {len(ratios)}; geometric mean {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    main()
