"""Start to first answer, and memory, of the device's service beside a bare onnxruntime with the same model.

    .venv/bin/python benchmarks/start.py [--short]

The device's wheel is installed alone in a fresh environment, whose interpreter runs both. Bare: a process that imports
onnxruntime, loads the model of the bundle and answers one row. Ours: `edgekit-runtime run` with HTTP, a Unix socket and
telemetry to Mosquitto, to the first answer over the socket; memory then, and when it is connected, which is what is
compared. Paired: one after another in each round; medians. Beside the time by the clock, which other work on the
machine lengthens, stands the processor's, of all threads and of the child that verifies. What each step of bare adds is
printed. Then so many requests over one connection, and the slope of the resident memory over the second half of them.
Ends by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
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
from edgekit_converters.signing import PRIVATE_NAME, SigningKey
from edgekit_runtime.ask import UnixConnection
from edgekit_runtime.trust import PUBLIC_NAME
from tests.brokers import Mosquitto

STEPS = {
    "Python": "import sys",
    "numpy": "import numpy",
    "onnxruntime": "import onnxruntime",
    "the model, and one row": """
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: numpy.zeros((1, int(sys.argv[2])))})
""",
}
"""A bare script."""
SIZE = 'print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1], flush=True)'


def main() -> None:
    """Builds the bundle, then the rounds, then the slope."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few rounds and requests")
    short = parser.parse_args().short
    rounds, requests = (3, 2_000) if short else (15, 200_000)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        python = install(folder)
        broker = Mosquitto(folder)
        broker.start()
        stack.callback(broker.kill)
        request, columns = prepare(folder, str(broker.broker))
        steps, ours, first = [], [], []
        for _ in range(rounds):
            # Each step is a process of its own, which goes as far and ends.
            steps.append([run_bare(python, folder, columns, count) for count in range(1, len(STEPS) + 1)])
            service, took = start(python, folder, request)
            processor = processor_ms(service.pid)
            first.append(resident_kb(service.pid) / 1024)
            await_telemetry(folder)
            ours.append((took, processor, resident_kb(service.pid) / 1024))
            stop(service)
        bare = [one[-1] for one in steps]
        service, _ = start(python, folder, request)
        try:
            slope = grow(folder, service.pid, request, requests)
        finally:
            stop(service)
    print(f"{platform.machine()}, Python {platform.python_version()}, {cpu()}; medians of {rounds} rounds")
    for at, name in enumerate(STEPS):
        took, processor, resident = (statistics.median(one[at][unit] for one in steps) for unit in range(3))
        print(f"bare as far as {name}: {took:.0f} ms, {processor:.0f} ms of the processor, {resident:.1f} MiB")
    print(f"edgekit-runtime at its first answer: {statistics.median(first):.1f} MiB")
    compared = ("start to first answer", "ms"), ("the processor's time for it", "ms"), ("resident memory", "MiB")
    for at, (what, unit) in enumerate(compared):
        one, other = (statistics.median(found[at] for found in side) for side in (bare, ours))
        ratio = statistics.median(mine[at] / theirs[at] for mine, theirs in zip(ours, bare, strict=True))
        print(f"{what}: bare {one:.0f} {unit}, edgekit-runtime {other:.0f} {unit}, ratio {ratio:.2f}")
    print(f"memory per 1,000 requests, over the second half of {requests:,}: {slope:+.2f} kB")


def prepare(folder: Path, broker: str) -> tuple[bytes, int]:
    """A signed bundle, its model beside it and a configuration; gives a request and the count of columns."""
    data: Any = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    SigningKey.create(folder / "keys")
    bundle = folder / "cancer-1.0.edge"
    edgekit.build(model, data.data, out=bundle, key=folder / "keys" / PRIVATE_NAME)
    (folder / "model.onnx").write_bytes(unpack(bundle.read_bytes(), bundle="cancer")["model.onnx"])
    (folder / "device.toml").write_text(
        f'device = "bench"\nbundle = "{bundle}"\nkeys = ["{folder / "keys" / PUBLIC_NAME}"]\n'
        f'[serve]\nport = 0\nsocket = "s.sock"\n[telemetry]\nbroker = "{broker}"\n'
    )
    row = np.asarray(data.data[:1]).ravel().tolist()
    tensor = {"name": "numbers", "shape": [1, len(row)], "datatype": "FP64", "data": row}
    return json.dumps({"inputs": [tensor]}).encode(), len(row)


def run_bare(python: Path, folder: Path, columns: int, steps: int) -> tuple[float, float, float]:
    """Milliseconds, milliseconds of the processor, and MiB of a bare script's first steps."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    script = "\n".join([*list(STEPS.values())[:steps], SIZE])
    command = [str(python), "-c", script, str(folder / "model.onnx"), str(columns)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**compiling(), "ORT_DISABLE_TELEMETRY": "1"}
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = 1000 * (time.perf_counter() - begun)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, 1000 * processor_s, int(line) / 1024


def compiling() -> dict[str, str]:
    """The environment, in which Python keeps what it compiles, as it does on a device."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def start(python: Path, folder: Path, request: bytes) -> tuple[subprocess.Popen[bytes], float]:
    """The service after its first answer, and the milliseconds until then."""
    begun = time.perf_counter()
    command = [str(python.with_name("edgekit-runtime")), "run", "--config", str(folder / "device.toml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=compiling())
    while True:
        try:
            answer(UnixConnection(str(folder / "s.sock")), request)
        except (ConnectionError, FileNotFoundError) as error:
            if process.poll() is not None:
                raise SystemExit(f"the service ended with {process.returncode}") from error
            time.sleep(0.001)
        else:
            return process, 1000 * (time.perf_counter() - begun)


def await_telemetry(folder: Path) -> None:
    """Until the service is connected to the broker."""
    connection = UnixConnection(str(folder / "s.sock"))
    while True:
        connection.request("GET", "/edgekit/status")
        telemetry = json.loads(connection.getresponse().read())["telemetry"]
        if isinstance(telemetry, dict) and telemetry["mqtt"]:
            break
        time.sleep(0.05)
    connection.close()


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


def processor_ms(pid: int) -> float:
    """What a process has used so far, and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


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
