"""One row through the public API: what an answer costs beside ONNX Runtime's bare call, observed and not.

    .venv/bin/python -m benchmarks.engine [--rounds 21] [--slope-calls 100000]

Bundles are built and loaded as a user would. Every way answers the same rows, in turns of some hundred calls; a figure
is the median over the rounds, a ratio the median of the rounds' ratios. A round has as many calls as fill the
observer's blocks, so that counting them is in it. All use one session, as one process would: a second copy of a forest
would be out of the core's cache whenever its turn comes. The bare calls are

- `sess.run(None, feed)`, the feed made before;
- IO binding: one row copied into memory that was bound once, outputs bound too.

Then the resident memory of 100,000 observed calls, after as many to warm up. The goal: observed predict at most 0.75 of
`sess.run(None, feed)` at 10 and 30 features, observation at most 1.5 us a call.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import onnxruntime
import pandas as pd
import sklearn
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import edgekit
import edgekit_runtime
from benchmarks.footprint import cpu
from edgekit_converters.signing import PRIVATE_NAME, SigningKey
from edgekit_runtime.model import Model
from edgekit_runtime.trust import PUBLIC_NAME

WIDTHS: Final = (10, 30, 100)
BLOCKS: Final = 4
"""Blocks of the observer that a round fills."""
GOAL: Final = 0.75
GOAL_US: Final = 1.5
TURN: Final = 192
"""Calls of one way, then of the next: a machine that others use changes its pace within a round."""
PEER_CALLS: Final = 10
BARE, BOUND, UNOBSERVED, OBSERVED, PEER = (
    "sess.run(None, feed)",
    "IO binding",
    "predict",
    "predict, observed",
    "sklearn",
)


def bundle(folder: Path, name: str, width: int) -> tuple[Any, Path, NDArray[np.float64]]:
    """A fitted model, its bundle, and rows for it."""
    X, y = make_classification(800, width, n_informative=8, random_state=0)
    model: Any = (
        make_pipeline(StandardScaler(), LogisticRegression())
        if name == "logistic regression"
        else RandomForestClassifier(100, random_state=0)
    )
    frame = pd.DataFrame(X, columns=[f"x{at}" for at in range(width)])
    model.fit(X, y)
    path = folder / f"{name.replace(' ', '-')}-{width}.edge"
    edgekit.build(model, frame.assign(y=y), target="y", out=path, key=folder / "keys" / PRIVATE_NAME)
    return model, path, np.asarray(X)


def ways(model: Any, plain: Model, observed: Model, X: NDArray[np.float64]) -> dict[str, Callable[[int], object]]:
    """Each way to answer a row, by the row's number."""
    session: Any = plain.engine._session
    tensor = plain.manifest.inputs[0]
    rows = np.ascontiguousarray(X, dtype=plain.engine.encoder.dtype)
    feeds = [{tensor.name: rows[at : at + 1]} for at in range(len(rows))]
    place = rows[:1].copy()
    binding = session.io_binding()
    binding.bind_cpu_input(tensor.name, place)
    kept = [np.empty_like(array) for array in session.run(None, feeds[0])]
    for output, array in zip(session.get_outputs(), kept, strict=True):
        binding.bind_output(output.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def bound(at: int) -> object:
        place[0] = rows[at]
        session.run_with_iobinding(binding)
        return kept

    singles = list(X)
    return {
        BARE: lambda at: session.run(None, feeds[at]),
        BOUND: bound,
        UNOBSERVED: lambda at: plain.predict(singles[at]),
        OBSERVED: lambda at: observed.predict(singles[at]),
        PEER: lambda at: model.predict_proba(X[at : at + 1]),
    }


def timed(call: Callable[[int], object], rows: Sequence[int]) -> float:
    """Seconds for these rows."""
    start = time.perf_counter()
    for at in rows:
        call(at)
    return time.perf_counter() - start


def measure(name: str, width: int, rounds: int, folder: Path) -> Model:
    """Prints one model's lines, and returns it, observed."""
    fitted, path, X = bundle(folder, name, width)
    opened = partial(edgekit_runtime.load, path, keys=[folder / "keys" / PUBLIC_NAME])
    plain, counting = opened(), opened(observe=True)
    observed = Model(plain.engine, counting.observer)
    counting.close()
    each = ways(fitted, plain, observed, X)
    assert observed.observer is not None
    calls = BLOCKS * observed.observer.block_rows
    times: dict[str, list[float]] = {way: [] for way in each}
    for number in range(rounds + 1):
        took = dict.fromkeys(each, 0.0)
        took[PEER] = timed(each[PEER], range(PEER_CALLS)) * calls / PEER_CALLS
        for turn, start in enumerate(range(0, calls, TURN)):
            rows = [at % len(X) for at in range(start, min(start + TURN, calls))]
            quick = [way for way in each if way != PEER]
            for way in quick[turn % len(quick) :] + quick[: turn % len(quick)]:
                took[way] += timed(each[way], rows)
        if number:  # the first round warms up
            for way in each:
                times[way].append(1e6 * took[way] / calls)
    ratios = {way: median(a / b for a, b in zip(times[way], times[BARE], strict=True)) for way in each}
    print(f"\n{name}, {width} features ({calls} calls a round)")
    for way in each:
        print(f"  {way:<22}{median(times[way]):>10.2f} us{ratios[way]:>10.2f} of the bare call")
    cost = median(a - b for a, b in zip(times[OBSERVED], times[UNOBSERVED], strict=True))
    print(f"  observation {cost:.2f} us a call (goal {GOAL_US}); observed predict {ratios[OBSERVED]:.2f} (goal {GOAL})")
    return observed


def slope(model: Model, calls: int) -> None:
    """Prints how much the process grows while it answers."""
    rows = list(np.random.default_rng(0).normal(size=(1000, len(model.features))))
    kept = []
    for number in range(2 * calls + 1):
        if number in {calls, 2 * calls}:
            kept.append(resident_kb())
        model.predict(rows[number % 1000])
    grown = kept[1] - kept[0]
    print(
        f"\nresident memory: {kept[1]:,} kB after {2 * calls:,} observed calls, {grown:+,} kB over the last {calls:,}"
    )


def resident_kb() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--slope-calls", type=int, default=100_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        f"{platform.machine()}, Python {platform.python_version()}, {cpu()}, onnxruntime {onnxruntime.__version__}, "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}; one thread; medians of {options.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as name:
        SigningKey.create(Path(name) / "keys")
        last = None
        for kind in ("logistic regression", "forest of 100 trees"):
            for width in WIDTHS:
                last = measure(kind, width, options.rounds, Path(name))
        assert last is not None
        slope(last, options.slope_calls)


if __name__ == "__main__":
    main()
