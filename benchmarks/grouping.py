"""Whether requests that arrive together would be cheaper in one call, and answered alike (ADR 0017).

    .venv/bin/python benchmarks/grouping.py

For each model: microseconds a row in calls of 1, 2, 4, 8, 16 and 32 rows, one thread, the best of interleaved rounds;
and how many of 512 rows are answered with other bits than in a call of their own.
"""

from __future__ import annotations

import time
import warnings
from typing import Any, Final

import numpy as np
import onnxruntime as ort
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for

ROUNDS: Final = 15
SIZES: Final = (1, 2, 4, 8, 16, 32)
ROWS: Final = 512
MODELS: Final[dict[str, Any]] = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "MLP 64-32": make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=30)),
    "MLP 512-512": MLPClassifier((512, 512), max_iter=3),
    "boosting, 100 rounds": HistGradientBoostingClassifier(random_state=0),
    "forest of 100, depth 8": RandomForestClassifier(100, max_depth=8, random_state=0),
    "forest of 500": RandomForestClassifier(500, random_state=0),
    "SVC": make_pipeline(StandardScaler(), SVC()),
    "5 nearest of 3,000": KNeighborsClassifier(),
}


class Model:
    """A session and the rows that it is asked."""

    def __init__(self, onnx: bytes, X: NDArray[Any]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()[0]
        self._name = given.name
        self._rows = X[:ROWS].astype(np.float64 if given.type == "tensor(double)" else np.float32)

    def ask(self, size: int) -> list[NDArray[Any]]:
        """All rows in calls of `size`; each output whole."""
        starts = range(0, ROWS, size)
        calls = [self._session.run(None, {self._name: self._rows[at : at + size]}) for at in starts]
        return [np.concatenate(parts) for parts in zip(*calls, strict=True)]

    def other_rows(self, size: int) -> int:
        """Rows that are answered otherwise than alone."""
        differ = np.zeros(ROWS, bool)
        for alone, together in zip(self.ask(1), self.ask(size), strict=True):
            differ |= (alone != together).reshape(ROWS, -1).any(axis=1)
        return int(differ.sum())


def main() -> None:
    """Measures all."""
    warnings.simplefilter("ignore")
    drawn: Any = make_classification(3000, 30, n_informative=12, random_state=0)
    X, y = drawn
    frame = pd.DataFrame(X).rename(columns=str)
    print(f"{'us a row; rows answered otherwise':34}" + "".join(f"{size:>16}" for size in SIZES))
    for name, estimator in MODELS.items():
        model = Model(SklearnConverter().convert(estimator.fit(frame, y), frame, target_for("1.24")).onnx, X)
        best = dict.fromkeys(SIZES, np.inf)
        for _ in range(ROUNDS):
            for size in SIZES:
                start = time.perf_counter()
                model.ask(size)
                best[size] = min(best[size], (time.perf_counter() - start) / ROWS * 1e6)
        cells = (f"{best[size]:.1f}" + (f" ({other})" if (other := model.other_rows(size)) else "") for size in SIZES)
        print(f"{name:34}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
