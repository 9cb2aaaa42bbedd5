"""edgekit's server beside a minimal C server on the same ONNX Runtime, and beside inference servers of others.

    .venv/bin/python benchmarks/serving.py                          # edgekit and the C server: about two minutes
    .venv/bin/python benchmarks/serving.py --peers mlserver,mlserver-sklearn,mosec,litserve,bentoml,mlflow

Logistic regressions of 10 and 30 features, one row a request, JSON of the Open Inference Protocol and, where a server
knows it, its binary extension. All servers are up and are asked in turn, round by round, while the others are stopped;
a figure is the median of its rounds. The load comes from a C program (load.c). Peers run the same ONNX file on the same
release of ONNX Runtime with one thread, each in its own way; only mlserver-sklearn runs scikit-learn's own model, as
MLServer does unless its user writes a class. They are installed into an environment of their own, which `--environment`
keeps.

Needs cc. CPU and memory are sums over a server's processes (memory shared between them counted once, as the kernel's
PSS does). The start is measured once, alone, before all else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import onnxruntime
import sklearn
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import edgekit
from edgekit_converters.signing import SigningKey
from tests.brokers import free_port

HERE: Final = Path(__file__).parent
WIDTHS: Final = (10, 30)
CONNECTIONS: Final = (1, 16)
PACED: Final = 200
"""Requests a second of the measurement of latency."""
PEERS: Final = {
    "mlserver": ("mlserver",),
    "mlserver-sklearn": ("mlserver-sklearn", f"scikit-learn=={sklearn.__version__}"),
    "mosec": ("mosec", "msgspec"),
    "litserve": ("litserve",),
    "bentoml": ("bentoml",),
    "mlflow": ("mlflow", "onnx"),
}
START_S: Final = 120


@dataclass(frozen=True)
class Model:
    """One model, on disk."""

    columns: int
    bundle: Path
    onnx: Path
    joblib: Path
    """The same model for scikit-learn."""
    row: list[float]
    probability: float
    """scikit-learn's answer to the row: of the first class."""

    @property
    def name(self) -> str:
        """In every server."""
        return f"lr{self.columns}"


@dataclass(frozen=True)
class Way:
    """One way to ask one server."""

    server: str
    label: str
    binary: bool
    address: Callable[[Model], str]
    target: Callable[[Model], str]
    own: bool = False
    """MLflow's own JSON in place of the protocol's."""
    outputs: tuple[str, ...] = ()
    """What is to be asked for, probabilities last, where the server doesn't answer everything by itself."""


@dataclass
class Started:
    """A server that runs."""

    name: str
    processes: list[subprocess.Popen[bytes]]
    ways: list[Way]
    start_s: float = 0.0


@dataclass
class Runs:
    """What was measured of one way, one width and one number of connections."""

    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        tools = compiled(folder)
        models = [model(folder, columns) for columns in WIDTHS]
        python = environment(Path(options.environment or folder / "peers"), options.peers)
        servers = [
            stack.enter_context(run(folder, models))
            for run in (edgekit_server, lambda f, m: bare_server(f, m, tools["bare_server"]), *peers(options, python))
        ]
        for server in servers:
            for way in server.ways:
                for one in models:
                    check(way, one, folder)
        results, paced = measure(servers, models, folder, tools["load"], options)
        report(servers, results, paced, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="HTTP servers of one small model, side by side")
    parser.add_argument("--peers", default="", help=f"comma-separated, of {', '.join(PEERS)}")
    parser.add_argument("--environment", help="where the peers are installed, and found again (default: a new one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default 1)")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    if set(options.peers) - set(PEERS):
        parser.error(f"peers are {', '.join(PEERS)}")
    return options


# --- what is served ---------------------------------------------------------------------------------------------------


def model(folder: Path, columns: int) -> Model:
    data: Any = load_breast_cancer(as_frame=True)
    X = data.data.iloc[:, :columns]
    X.columns = [name.replace(" ", "_") for name in X.columns]
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X, data.target)
    if not (folder / "keys").exists():
        SigningKey.create(folder / "keys")
    bundle = folder / f"lr{columns}.edge"
    edgekit.build(
        fitted,
        X.assign(benign=data.target),
        target="benign",
        name=f"lr{columns}",
        version="1.0",
        out=bundle,
        key=folder / "keys" / "edgekit.pem",
    )
    onnx = folder / f"lr{columns}.onnx"
    onnx.write_bytes(zipfile.ZipFile(bundle).read("model.onnx"))
    pickled = folder / f"lr{columns}.joblib"
    joblib.dump(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X.to_numpy(), data.target), pickled
    )
    return Model(columns, bundle, onnx, pickled, X.iloc[0].tolist(), float(fitted.predict_proba(X.iloc[:1])[0, 0]))


def request(one: Model, way: Way) -> bytes:
    tensor: dict[str, Any] = {"name": "numbers", "shape": [1, one.columns], "datatype": "FP64"}
    lines = ["Content-Type: application/json"]
    behind = b""
    if way.own:
        text = json.dumps({"inputs": {"numbers": [one.row]}}).encode()
    elif way.binary:
        behind = np.array(one.row, dtype="<f8").tobytes()
        text = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(behind)}}]}).encode()
        lines = ["Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {len(text)}"]
    else:
        asked = {"outputs": [{"name": name} for name in way.outputs]} if way.outputs else {}
        text = json.dumps({"inputs": [tensor | {"data": one.row}], **asked}).encode()
    body = text + behind
    head = [f"POST {way.target(one)} HTTP/1.1", "Host: localhost", *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


# --- the servers ------------------------------------------------------------------------------------------------------


def oip(one: Model) -> str:
    return f"/v2/models/{one.name}/infer"


@contextmanager
def edgekit_server(folder: Path, models: list[Model]) -> Iterator[Started]:
    port = free_port()
    listed = "".join(f'[[models]]\nbundle = "{one.bundle}"\n' for one in models)
    (folder / "device.toml").write_text(
        f'device = "bench"\nkeys = ["keys/edgekit.pub.pem"]\n{listed}[serve]\nport = {port}\nsocket = "edgekit.sock"\n'
    )
    command = [sys.executable, "-m", "edgekit_runtime", "run", "--config", str(folder / "device.toml")]
    tcp, unix = (lambda one: f"127.0.0.1:{port}"), (lambda one: str(folder / "edgekit.sock"))
    ways = [
        Way("edgekit", f"{name}, {kind}", kind == "binary", address, oip)
        for name, address in (("TCP", tcp), ("Unix socket", unix))
        for kind in ("JSON", "binary")
    ]
    with started("edgekit", [command], ways, models, folder) as server:
        yield server


@contextmanager
def bare_server(folder: Path, models: list[Model], binary: Path) -> Iterator[Started]:
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    ports = {one.name: free_port() for one in models}

    def tcp(one: Model) -> str:
        return f"127.0.0.1:{ports[one.name]}"

    def unix(one: Model) -> str:
        return str(folder / f"bare-{one.name}.sock")

    commands = [
        [str(binary), str(library), str(one.onnx), "numbers", str(one.columns), "label", "probabilities", "2", at(one)]
        for one in models
        for at in (tcp, unix)
    ]
    ways = [
        Way("C", f"{name}, {kind}", kind == "binary", address, oip)
        for name, address in (("TCP", tcp), ("Unix socket", unix))
        for kind in ("JSON", "binary")
    ]
    with started("C", commands, ways, models, folder) as server:
        yield server


Run = Callable[[Path, list[Model]], Any]


def peers(options: argparse.Namespace, python: Path) -> Iterator[Run]:
    for name in options.peers:
        yield {
            "mlserver": mlserver,
            "mlserver-sklearn": mlserver_sklearn,
            "mosec": mosec,
            "litserve": litserve,
            "bentoml": bentoml,
            "mlflow": mlflow,
        }[name](python)


def mlserver(python: Path) -> Run:
    return mlserver_of(python, "MLServer", "mlserver_model.OrtModel", lambda one: one.onnx)


def mlserver_sklearn(python: Path) -> Run:
    outputs = ("predict", "predict_proba")
    return mlserver_of(
        python, "MLServer, scikit-learn", "mlserver_sklearn.SKLearnModel", lambda one: one.joblib, outputs
    )


def mlserver_of(
    python: Path, name: str, implementation: str, file: Callable[[Model], Path], outputs: tuple[str, ...] = ()
) -> Run:
    @contextmanager
    def run(folder: Path, models: list[Model]) -> Iterator[Started]:
        home, port = folder / name, free_port()
        # Workers of its own crash with uvloop 0.22 and newer (SeldonIO/MLServer#2286), and are slower.
        settings = {"parallel_workers": 0, "host": "127.0.0.1", "http_port": port, "grpc_port": free_port()}
        settings |= {"metrics_port": free_port(), "debug": False}
        home.mkdir()
        (home / "settings.json").write_text(json.dumps(settings))
        (home / "mlserver_model.py").write_text((HERE / "peers" / "mlserver_model.py").read_text())
        for one in models:
            (home / one.name).mkdir()
            described = {
                "name": one.name,
                "implementation": implementation,
                "parameters": {"uri": str(file(one))},
            }
            (home / one.name / "model-settings.json").write_text(json.dumps(described))
        ways = [Way(name, "TCP, JSON", False, lambda one: f"127.0.0.1:{port}", oip, outputs=outputs)]
        command = [str(python.parent / "mlserver"), "start", str(home)]
        with started(name, [command], ways, models, home, PYTHONPATH=str(home)) as server:
            yield server

    return run


def mosec(python: Path) -> Run:
    @contextmanager
    def run(folder: Path, models: list[Model]) -> Iterator[Started]:
        port = free_port()
        command = [str(python), str(HERE / "peers" / "mosec_app.py"), "--port", str(port), "--address", "127.0.0.1"]
        ways = [Way("mosec", "TCP, JSON", False, lambda one: f"127.0.0.1:{port}", oip)]
        listed = ",".join(f"{one.name}={one.onnx}" for one in models)
        with started("mosec", [command], ways, models, folder, MODELS=listed) as server:
            yield server

    return run


def litserve(python: Path) -> Run:
    @contextmanager
    def run(folder: Path, models: list[Model]) -> Iterator[Started]:
        ports = {one.name: free_port() for one in models}
        app = str(HERE / "peers" / "litserve_app.py")
        commands = [[str(python), app, str(ports[one.name]), str(one.onnx), oip(one)] for one in models]
        ways = [Way("LitServe", "TCP, JSON", False, lambda one: f"127.0.0.1:{ports[one.name]}", oip)]
        with started("LitServe", commands, ways, models, folder) as server:
            yield server

    return run


def bentoml(python: Path) -> Run:
    @contextmanager
    def run(folder: Path, models: list[Model]) -> Iterator[Started]:
        ports = {one.name: free_port() for one in models}
        serve = [str(python.parent / "bentoml"), "serve", "bentoml_app:Ort", "--working-dir", str(HERE / "peers")]
        local = ["--host", "127.0.0.1", "--api-workers", "1", "--port"]
        commands = [["env", f"MODEL={one.onnx}", *serve, *local, str(ports[one.name])] for one in models]
        ways = [Way("BentoML", "TCP, JSON", False, lambda one: f"127.0.0.1:{ports[one.name]}", lambda one: "/infer")]
        with started("BentoML", commands, ways, models, folder, BENTOML_DO_NOT_TRACK="True") as server:
            yield server

    return run


def mlflow(python: Path) -> Run:
    @contextmanager
    def run(folder: Path, models: list[Model]) -> Iterator[Started]:
        ports = {one.name: free_port() for one in models}
        serve = [str(python.parent / "mlflow"), "models", "serve", "--env-manager", "local", "--workers", "1"]
        commands = []
        for one in models:
            made = folder / f"mlflow-{one.name}"
            subprocess.run(
                [str(python), str(HERE / "peers" / "mlflow_app.py"), str(one.onnx), str(made)],
                check=True,
                capture_output=True,
            )
            commands.append([*serve, "--host", "127.0.0.1", "--port", str(ports[one.name]), "--model-uri", str(made)])
        ways = [
            Way(
                "MLflow",
                "TCP, JSON",
                False,
                lambda one: f"127.0.0.1:{ports[one.name]}",
                lambda one: "/invocations",
                own=True,
            )
        ]
        path = f"{python.parent}:{os.environ['PATH']}"
        with started("MLflow", commands, ways, models, folder, PATH=path, MLFLOW_DISABLE_TELEMETRY="true") as server:
            yield server

    return run


@contextmanager
def started(
    name: str, commands: list[list[str]], ways: list[Way], models: list[Model], folder: Path, **variables: str
) -> Iterator[Started]:
    """Starts a server, and measures how long it takes to the first answers of all models."""
    began = time.perf_counter()
    with (folder / f"{name}.log").open("wb") as log:
        processes = [
            subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
                start_new_session=True,
            )
            for command in commands
        ]
    took = math.nan
    try:
        for way in ways:
            for one in models:
                deadline = began + START_S
                while not answers(way, one, folder):
                    if time.perf_counter() > deadline or any(process.poll() is not None for process in processes):
                        raise SystemExit(f"{name} does not answer:\n{(folder / f'{name}.log').read_text()[-2000:]}")
                    time.sleep(0.005)
            if way is ways[0]:
                took = time.perf_counter() - began
        yield Started(name, processes, ways, took)
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def environment(folder: Path, names: list[str]) -> Path:
    """The interpreter of an environment with these peers and our release of ONNX Runtime."""
    python = folder / "bin" / "python"
    if names:
        if not python.exists():
            venv.create(folder, with_pip=True)
        wanted = {package for name in names for package in PEERS[name]} | {f"onnxruntime=={onnxruntime.__version__}"}
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), "-m", "pip", "install", *quiet, *sorted(wanted)], check=True)
    return python


# --- asking -----------------------------------------------------------------------------------------------------------


def ask(way: Way, one: Model, folder: Path) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    address = way.address(one)
    unix = address.startswith("/")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as opened:
        opened.settimeout(10)
        host, _, port = address.partition(":")
        opened.connect(address if unix else (host, int(port)))
        opened.sendall(request(one, way))
        data = b""
        while b"\r\n\r\n" not in data:
            data += received(opened)
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += received(opened)
        return int(head.split(b" ")[1]), body


def received(opened: socket.socket) -> bytes:
    data = opened.recv(65536)
    if not data:
        raise ConnectionError("the server ended the connection")
    return data


def answers(way: Way, one: Model, folder: Path) -> bool:
    try:
        return ask(way, one, folder)[0] == 200
    except (OSError, ValueError, IndexError):
        return False


def check(way: Way, one: Model, folder: Path) -> None:
    """Speed of a wrong answer is none."""
    status, body = ask(way, one, folder)
    said = json.loads(body)
    if way.own:
        found = said["predictions"]["probabilities"][0][0]
    else:
        probabilities = (way.outputs or ("probabilities",))[-1]
        (found,) = [tensor["data"][0] for tensor in said["outputs"] if tensor["name"] == probabilities]
    if status != 200 or abs(found - one.probability) > 1e-9:
        raise SystemExit(f"{way.server} answers {found} where scikit-learn answers {one.probability}")


# --- measuring --------------------------------------------------------------------------------------------------------

Results = dict[tuple[Way, int, int], Runs]


def measure(
    servers: list[Started], models: list[Model], folder: Path, load: Path, options: argparse.Namespace
) -> tuple[Results, dict[Way, Runs]]:
    results: Results = defaultdict(Runs)
    paced: dict[Way, Runs] = defaultdict(Runs)
    for number in range(options.rounds + 1):
        for one in models:
            for connections in CONNECTIONS:
                for server in servers:
                    for way in server.ways:
                        # The first round is there to warm up.
                        runs = results[way, one.columns, connections] if number else Runs()
                        seconds = options.seconds if number else 0.3
                        with alone(server, servers):
                            loaded(server, way, one, runs, load, folder, connections, seconds)
        for server in servers[:2]:
            with alone(server, servers):
                loaded(server, server.ways[0], models[-1], paced[server.ways[0]], load, folder, 4, 2.0, PACED)
    return results, paced


@contextmanager
def alone(server: Started, servers: list[Started]) -> Iterator[None]:
    """The others stand still meanwhile: some of them are busy though nobody asks them."""
    others = [pid for other in servers if other is not server for pid in family(other)]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def loaded(
    server: Started,
    way: Way,
    one: Model,
    runs: Runs,
    load: Path,
    folder: Path,
    connections: int,
    seconds: float,
    rate: int = 0,
) -> None:
    file = folder / "request.bin"
    file.write_bytes(request(one, way))
    before = cpu_s(server)
    command = [str(load), way.address(one), str(connections), str(seconds), str(rate), str(file)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if told["errors"]:
        raise SystemExit(f"{way.server}, {way.label}: {told['errors']} of {told['requests']} answers are errors")
    runs.rate.append(told["requests"] / told["seconds"])
    runs.p50.append(told["p50_us"])
    runs.p99.append(told["p99_us"])
    runs.cpu.append(1e6 * (cpu_s(server) - before) / told["requests"])


def family(server: Started) -> list[int]:
    """The server's processes: each was started as a session of its own, and BentoML's begin further ones."""
    roots = {process.pid for process in server.processes}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(values[3]) if int(values[3]) in roots else int(values[1])

    def belongs(pid: int) -> bool:
        while pid in parents and pid not in roots:
            pid = parents[pid]
        return pid in roots

    return [pid for pid in parents if belongs(pid)]


def cpu_s(server: Started) -> float:
    ticks = 0
    for process in family(server):
        try:
            values = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(server: Started) -> float:
    kb = 0
    for process in family(server):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        kb += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kb * 1024 / 1e6


# --- saying -----------------------------------------------------------------------------------------------------------


def report(servers: list[Started], results: Results, paced: dict[Way, Runs], options: argparse.Namespace) -> None:
    median = statistics.median
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {processor()}; Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}; medians of {options.rounds} rounds of {options.seconds:g} s\n"
    )
    for columns in WIDTHS:
        print(f"logistic regression, {columns} features, one row a request\n")
        print("| server | way | requests/s, 1 | p50 us | p99 us | requests/s, 16 | p50 us | p99 us | CPU us |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
        for server in servers:
            for way in server.ways:
                one, many = (results[way, columns, connections] for connections in CONNECTIONS)
                figures = [median(v) for v in (one.rate, one.p50, one.p99, many.rate, many.p50, many.p99, one.cpu)]
                print(f"| {server.name} | {way.label} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |")
        print()
    print("| server | start to first answers s | resident MB |\n|---|---:|---:|")
    for server in servers:
        print(f"| {server.name} | {server.start_s:.2f} | {memory_mb(server):.0f} |")
    print("\nratios, JSON over TCP (medians of the rounds' ratios)\n")
    ours = servers[0].ways[0]
    for server in servers[1:]:
        theirs = server.ways[0]
        for columns in WIDTHS:
            ratios = [
                median(
                    a / b
                    for a, b in zip(
                        results[ours, columns, width].rate, results[theirs, columns, width].rate, strict=True
                    )
                )
                for width in CONNECTIONS
            ]
            print(
                f"edgekit / {server.name}, {columns} features: "
                + ", ".join(f"{ratio:.2f} at {width}" for ratio, width in zip(ratios, CONNECTIONS, strict=True))
            )
    mine, bare = (paced[server.ways[0]] for server in servers[:2])
    print(
        f"\np99 at {PACED} requests/s over 4 connections: edgekit {median(mine.p99) / 1000:.2f} ms, "
        f"C {median(bare.p99) / 1000:.2f} ms"
    )


def compiled(folder: Path) -> dict[str, Path]:
    made = {}
    for name in ("load", "bare_server"):
        made[name] = folder / name
        subprocess.run(["cc", "-O2", "-o", str(made[name]), str(HERE / f"{name}.c"), "-ldl"], check=True)
    return made


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
