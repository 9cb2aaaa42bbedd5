"""Whether requests that arrive together are cheaper in one call, and answered alike (ADR 0017, 0043).

    .venv/bin/python benchmarks/grouping.py             # calls of the model
    .venv/bin/python benchmarks/grouping.py service     # the service, with group_rows and without

For each model: microseconds a row in calls of 1, 2, 4, 8, 16 and 32 rows, one thread, the best of interleaved rounds;
and how many of 512 rows are answered with other bits than in a call of their own. Of the service: requests a second of
1 and of 16 clients that each wait for their answer, group_rows = 32 over 1, the median of interleaved rounds.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
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

import edgekit
from edgekit_converters.signing import PRIVATE_NAME, SigningKey
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for
from edgekit_runtime.trust import PUBLIC_NAME

ROUNDS: Final = 15
SERVICE_ROUNDS: Final = 7
SERVICE_S: Final = 1.0
CLIENTS: Final = (1, 16)
SERVED: Final = ("MLP 64-32", "MLP 512-512", "forest of 500")
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
    """Measures what is asked for."""
    warnings.simplefilter("ignore")
    drawn: Any = make_classification(3000, 30, n_informative=12, random_state=0)
    X, y = drawn
    frame = pd.DataFrame(X).rename(columns=str)
    measure_service(frame, y) if sys.argv[1:] == ["service"] else measure_calls(frame, y)


def measure_calls(frame: pd.DataFrame, y: NDArray[Any]) -> None:
    """Of each model, without a service."""
    X = frame.to_numpy()
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


def measure_service(frame: pd.DataFrame, y: NDArray[Any]) -> None:
    """Of some models, behind the service."""
    print(f"{'group_rows = 32 over 1':34}" + "".join(f"{clients:>12} clients" for clients in CLIENTS))
    for name in SERVED:
        with TemporaryDirectory() as folder, ExitStack() as stack:
            SigningKey.create(Path(folder) / "keys")
            built = edgekit.build(
                MODELS[name].fit(frame, y),
                frame,
                device="intel-n100",
                out=Path(folder) / "model-1.0.edge",
                key=Path(folder) / "keys" / PRIVATE_NAME,
                allow_unfit=True,
                check_runtimes=None,
            )
            ports = [stack.enter_context(service(built.path, group_rows)) for group_rows in (1, 32)]
            requests = [request_of(row) for row in frame.to_numpy()[:64]]
            rates: dict[tuple[int, int], list[float]] = {}
            for _ in range(SERVICE_ROUNDS):
                for clients in CLIENTS:
                    for port in ports:
                        rates.setdefault((clients, port), []).append(rate(port, requests, clients))
            ratios = [
                statistics.median(
                    b / a for a, b in zip(rates[clients, ports[0]], rates[clients, ports[1]], strict=True)
                )
                for clients in CLIENTS
            ]
            print(f"{name:34}" + "".join(f"{ratio:>20.2f}" for ratio in ratios), flush=True)


@contextmanager
def service(bundle: Path, group_rows: int) -> Iterator[int]:
    """The port of a service of its own."""
    settings, log = bundle.with_name(f"{group_rows}.toml"), bundle.with_name(f"{group_rows}.log")
    settings.write_text(
        f'keys = ["keys/{PUBLIC_NAME}"]\nstate_dir = "state-{group_rows}"\n[serve]\nport = 0\n'
        f'[[models]]\nbundle = "{bundle.name}"\ngroup_rows = {group_rows}\n'
    )
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit_runtime", "run", "--config", str(settings)], stderr=file
        )
    try:
        while "serving" not in (words := log.read_text()):
            if process.poll() is not None:
                raise SystemExit(words)
            time.sleep(0.05)
        yield int(words.partition("http://127.0.0.1:")[2].partition("\n")[0])
    finally:
        process.terminate()
        process.wait()


def request_of(row: NDArray[Any]) -> bytes:
    """One row, as most clients send it."""
    tensor = {"name": "numbers", "shape": [1, len(row)], "datatype": "FP64", "data": row.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    return b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def rate(port: int, requests: list[bytes], clients: int) -> float:
    """Requests a second: all clients send, then all read, and again."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(clients)]
        sent, start = 0, time.perf_counter()
        while time.perf_counter() - start < SERVICE_S:
            for at, client in enumerate(opened):
                client.sendall(requests[(sent + at) % len(requests)])
            for client in opened:
                read(client)
            sent += clients
        return sent / (time.perf_counter() - start)


def read(client: socket.socket) -> None:
    """One whole answer."""
    data = b""
    while True:
        data += client.recv(65536)
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            assert head.startswith(b"HTTP/1.1 200"), data
            return


if __name__ == "__main__":
    main()
