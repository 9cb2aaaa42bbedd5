"""Start to first answer, and memory, of the device's service beside a bare onnxruntime with the same model.

    .venv/bin/python benchmarks/start.py [--short]

The device's wheel is installed alone in a fresh environment, whose interpreter runs both. Bare: a process that imports
onnxruntime, loads the model of the bundle and answers one row. Ours: `edgekit-runtime run` with HTTP, a Unix socket and
telemetry (to an address where no broker answers), to the first answer over the socket. Paired: one after another in
each round; medians. Then so many requests over one connection, and the slope of the resident memory over the second
half of them. Ends by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import edgekit
from benchmarks.footprint import cpu, install
from edgekit_contracts.container import unpack
from edgekit_converters.signing import PRIVATE_NAME, PUBLIC_NAME, SigningKey
from edgekit_runtime.ask import UnixConnection

BARE = """
import sys
import onnxruntime, numpy
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: numpy.zeros((1, int(sys.argv[2])))})
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1], flush=True)
"""


def main() -> None:
    """Builds the bundle, then the rounds, then the slope."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few rounds and requests")
    short = parser.parse_args().short
    rounds, requests = (3, 2_000) if short else (15, 100_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = install(folder)
        request, columns = prepare(folder)
        bare, ours = [], []
        for _ in range(rounds):
            bare.append(run_bare(python, folder, columns))
            service, took = start(python, folder, request)
            ours.append((took, resident_kb(service.pid) / 1024))
            stop(service)
        service, _ = start(python, folder, request)
        try:
            slope = grow(folder, service.pid, request, requests)
        finally:
            stop(service)
    print(f"{platform.machine()}, Python {platform.python_version()}, {cpu()}; medians of {rounds} rounds")
    for what, at, unit in (("start to first answer", 0, "ms"), ("resident memory", 1, "MiB")):
        one, other = (statistics.median(found[at] for found in side) for side in (bare, ours))
        ratio = statistics.median(mine[at] / theirs[at] for mine, theirs in zip(ours, bare, strict=True))
        print(f"{what}: bare {one:.0f} {unit}, edgekit-runtime {other:.0f} {unit}, ratio {ratio:.2f}")
    print(f"memory per 1,000 requests, over the second half of {requests:,}: {slope:+.2f} kB")


def prepare(folder: Path) -> tuple[bytes, int]:
    """A signed bundle, its model beside it and a configuration; gives a request and the count of columns."""
    data: Any = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    SigningKey.create(folder / "keys")
    bundle = folder / "cancer-1.0.edge"
    edgekit.build(model, data.data, out=bundle, key=folder / "keys" / PRIVATE_NAME)
    (folder / "model.onnx").write_bytes(unpack(bundle.read_bytes(), bundle="cancer")["model.onnx"])
    (folder / "device.toml").write_text(
        f'device = "bench"\nbundle = "{bundle}"\nkeys = ["{folder / "keys" / PUBLIC_NAME}"]\n'
        '[serve]\nport = 0\nsocket = "s.sock"\n[telemetry]\nbroker = "mqtt://127.0.0.1:9"\n'
    )
    row = np.asarray(data.data[:1]).ravel().tolist()
    tensor = {"name": "numbers", "shape": [1, len(row)], "datatype": "FP64", "data": row}
    return json.dumps({"inputs": [tensor]}).encode(), len(row)


def run_bare(python: Path, folder: Path, columns: int) -> tuple[float, float]:
    """Milliseconds and MiB."""
    begun = time.perf_counter()
    command = [str(python), "-c", BARE, str(folder / "model.onnx"), str(columns)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = 1000 * (time.perf_counter() - begun)
    return took, int(line) / 1024


def start(python: Path, folder: Path, request: bytes) -> tuple[subprocess.Popen[bytes], float]:
    """The service after its first answer, and the milliseconds until then."""
    begun = time.perf_counter()
    command = [str(python), "-m", "edgekit_runtime", "run", "--config", str(folder / "device.toml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            answer(UnixConnection(str(folder / "s.sock")), request)
        except (ConnectionError, FileNotFoundError) as error:
            if process.poll() is not None:
                raise SystemExit(f"the service ended with {process.returncode}") from error
            time.sleep(0.001)
        else:
            return process, 1000 * (time.perf_counter() - begun)


def answer(connection: UnixConnection, request: bytes) -> None:
    """One request."""
    connection.request("POST", "/v2/models/cancer/infer", request)
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content


def grow(folder: Path, pid: int, request: bytes, requests: int) -> float:
    """Kilobytes of resident memory per 1,000 requests, by least squares over the second half."""
    connection = UnixConnection(str(folder / "s.sock"))
    seen = []
    for number in range(requests):
        answer(connection, request)
        if number >= requests // 2 and number % (requests // 100) == 0:
            seen.append((number / 1000, resident_kb(pid)))
    connection.close()
    at, kilobytes = np.array(seen).T
    return float(np.polyfit(at, kilobytes, 1)[0])


def resident_kb(pid: int) -> int:
    """VmRSS."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def stop(service: subprocess.Popen[bytes]) -> None:
    """Ends it as systemd does."""
    service.terminate()
    service.wait(30)


if __name__ == "__main__":
    main()
