"""Measures the machine it runs on in the predictor's terms: small graphs through onnxruntime, on one thread.

Each rate is the difference of two graphs, or a graph large enough that its call does not count. The graphs are timed in
turn, several rounds of them, and each rate is the median over the rounds: a burst of other work spoils one round.
Times of a shared machine are worth their ratio (facts, profiles): run it on the board, with the board's usual load.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgekit_contracts.errors import EnvironmentFault
from edgekit_contracts.profile import Board, DeviceProfile, Figure, Limits, Rates, Runtime
from edgekit_converters import calibration_graphs as graphs

Feeds = Mapping[str, npt.NDArray[Any]]

_SIMD: Final = frozenset(
    {"sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "asimd", "asimddp", "asimdhp", "sve"}
)

ROUNDS: Final = 5
"""Of all graphs in turn; about half a second each."""

# What a service has loaded that reports over TLS; it holds 2 to 3 MiB more once it does.
_RSS_OF_RUNTIME: Final = """
import edgekit_runtime.service, edgekit_runtime.telemetry, sqlite3, ssl
from edgekit_runtime.lean import import_paho
import_paho(tls=True)
ssl.create_default_context()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def measure_latency(model: bytes, feeds: Sequence[Feeds], calls: int = 1000) -> tuple[float, float, float]:
    """Times a model here, one row a call, after a warm-up of a tenth of the calls.

    Args:
        model: An ONNX file.
        feeds: One or more rows; several, taken in turn, since the same row again finds its way through a tree
            predicted and cached (half the time, measured with a forest of 100 trees).
        calls: Timed calls.

    Returns:
        Median, 99th percentile and maximum, in microseconds.
    """
    times = np.sort(_times(_session(model), feeds, calls)) / 1000.0
    return float(times[len(times) // 2]), float(times[len(times) * 99 // 100]), float(times[-1])


def this_machine() -> DeviceProfile:
    """Measures this machine in about five seconds.

    Raises:
        EnvironmentFault: Not Linux on x86-64 or aarch64, or a library of the runtime is missing.
    """
    machine = platform.machine()
    architecture: Literal["aarch64", "x86_64"]
    if machine == "x86_64":
        architecture = "x86_64"
    elif machine == "aarch64":
        architecture = "aarch64"
    else:
        raise EnvironmentFault(
            f"there is no onnxruntime wheel for a '{machine}' machine", "measure on Linux x86-64 or aarch64"
        )
    source = f"measured on {datetime.date.today().isoformat()} with onnxruntime {onnxruntime.__version__}"

    def figure(value: float) -> Figure:
        return Figure(value=float(f"{max(value, 1e-6):.3g}"), source=source, kind="measured")

    cpu = _proc("cpuinfo")
    return DeviceProfile(
        name="this-machine",
        title="this machine",
        board=Board(
            soc=cpu.get("model name", cpu.get("CPU part", machine)),
            cores=f"{os.cpu_count()}",
            clock_ghz=figure(_clock_ghz(cpu)),
            simd=" ".join(sorted(_SIMD & set(cpu.get("flags", cpu.get("Features", "")).split()))) or "unknown",
            ram_mb=figure(int(_proc("meminfo")["MemTotal"].split()[0]) / 1024),
            architecture=architecture,
            os=platform.platform(),
        ),
        runtime=Runtime(supported=True, onnxruntime=onnxruntime.__version__),
        limits=Limits(latency_ms=20.0, latency_percentile=99.0, memory_mb=256.0, bundle_mb=64.0),
        rates=_rates(figure),
    )


def _rates(figure: Callable[[float], Figure]) -> Rates:
    rng = np.random.default_rng(0)
    row = [{"x": np.ones((1, graphs.WIDTH), dtype=np.float32)}]
    rows = [{"x": values} for values in rng.random((256, 1, graphs.WIDTH), dtype=np.float32)]
    block = [{"x": np.ones((graphs.PRODUCT_ROWS, 256), dtype=np.float32)}]
    large = [{"x": np.zeros((1, graphs.STREAMED), dtype=np.float32)}]
    work: dict[str, tuple[Any, Sequence[Feeds], int]] = {
        "call": (_session(graphs.identity()), row, 4000),
        "chain": (_session(graphs.chain()), row, 1500),
        "product": (_session(graphs.product()), block, 60),
        "stream": (_session(graphs.stream()), large, 25),
        "forest": (_session(graphs.forest()), rows, 2000),
    }
    rounds = [{name: _times(*timed) for name, timed in work.items()} for _ in range(ROUNDS)]
    calls = [float(np.median(times["call"])) for times in rounds]
    tails = [float(np.quantile(times["call"], 0.99)) for times in rounds]

    def beyond_call(name: str) -> float:
        """Median over the rounds of what a graph takes longer than a call, in nanoseconds."""
        longer = [float(np.median(times[name])) - call for times, call in zip(rounds, calls, strict=True)]
        return max(float(np.median(longer)), 1.0)

    return Rates(
        call_us=figure(float(np.median(calls)) / 1e3),
        node_us=figure(beyond_call("chain") / graphs.CHAINED / 1e3),
        gflops=figure(graphs.PRODUCT_FLOPS / beyond_call("product")),
        element_ns=figure(beyond_call("stream") / graphs.STREAMED / graphs.STREAM_NODES),
        tree_node_ns=figure(beyond_call("forest") / graphs.FOREST_STEPS),
        # Of the call, since all models share it.
        tail_ratio=figure(float(np.median([tail / call for tail, call in zip(tails, calls, strict=True)]))),
        runtime_mb=figure(_runtime_mb()),
    )


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _times(session: Any, feeds: Sequence[Feeds], calls: int) -> npt.NDArray[np.int64]:
    names = [output.name for output in session.get_outputs()]
    times = np.empty(calls, dtype=np.int64)
    for index in range(max(calls // 10, 3)):
        session.run(names, feeds[index % len(feeds)])
    for index in range(calls):
        feed = feeds[index % len(feeds)]
        start = time.perf_counter_ns()
        session.run(names, feed)
        times[index] = time.perf_counter_ns() - start
    return times


def _runtime_mb() -> float:
    # A child, since this process has the build side's libraries loaded too.
    command = [sys.executable, "-c", _RSS_OF_RUNTIME]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(
            f"the runtime's libraries cannot be loaded: {reason}", "pip install 'edgekit-toolkit[runtime]'"
        )
    return int(done.stdout) / 1024


def _proc(name: str) -> dict[str, str]:
    """First value of each key in a file of /proc."""
    found: dict[str, str] = {}
    for line in Path("/proc", name).read_text().splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


def _clock_ghz(cpu: Mapping[str, str]) -> float:
    maximum = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if maximum.exists():
        return int(maximum.read_text()) / 1e6
    # A virtual machine without cpufreq says what it was promised; some boards say nothing.
    return float(cpu.get("cpu MHz", "1000")) / 1000.0
