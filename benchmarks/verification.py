"""The desk's time: converting and verifying a pipeline, beside two of scikit-learn's own predictions of the same rows.

    .venv/bin/python benchmarks/verification.py            # 100,000 rows, 100 trees; 600 columns
    .venv/bin/python benchmarks/verification.py --short

Paired: each round times `predict` twice and `edgekit.building.convert` once, one after another; medians of the rounds'
ratios. The forest is trained on the first rows, as one is that must fit a device; all rows are verified.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from edgekit import building

RUNTIME: Final = "1.32.0"


def table(rows: int, numbers: int) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Numbers and two texts, 5 % of some missing, and a class that depends on a few of them, with noise."""
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(size=(rows, numbers)), columns=[f"x{number}" for number in range(numbers)])
    X["site"] = random.choice(["north", "south", "east", "west"], rows)
    X["kind"] = random.choice(["a", "b", "c"], rows)
    score = X["x0"] + X["x1"] * X["x2"] + (X["site"] == "north") + random.normal(size=rows) / 2
    for name in ("x0", "x3", "site"):
        X.loc[random.random(rows) < 0.05, name] = None
    return X, (score > 0).to_numpy().astype(int)


def pipeline(X: pd.DataFrame, trees: int) -> Any:
    """Impute, scale and encode, then a forest."""
    numbers = [name for name in X.columns if name not in {"site", "kind"}]
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return make_pipeline(
        ColumnTransformer(
            [("n", make_pipeline(SimpleImputer(), StandardScaler()), numbers), ("t", texts, ["site", "kind"])]
        ),
        RandomForestClassifier(trees, random_state=0),
    )


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(rows: int, numbers: int, trees: int, trained: int, rounds: int) -> None:
    """Prints one pipeline's figures."""
    X, y = table(rows, numbers)
    model = pipeline(X, trees).fit(X[:trained], y[:trained])
    twice, desk, ratios, parity = [], [], [], None
    for _ in range(rounds):
        twice.append(seconds(lambda: model.predict(X)) + seconds(lambda: model.predict(X)))
        start = time.perf_counter()
        _, parity = building.convert(model, X, RUNTIME)
        desk.append(time.perf_counter() - start)
        ratios.append(desk[-1] / twice[-1])
    assert parity is not None
    print(
        f"{rows:,} rows, {numbers + 2} columns, {trees} trees of {trained:,} rows: "
        f"predict twice {np.median(twice):.2f} s, convert and verify {np.median(desk):.2f} s "
        f"({parity.rows:,} rows compared, largest difference {parity.max_difference:g}), "
        f"ratio {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    """Measures the forest and a wide table."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small, in seconds")
    short = parser.parse_args().short
    print(f"{os.cpu_count()} cores")
    if short:
        measure(5_000, 10, 20, 1_000, 3)
        measure(500, 60, 10, 400, 1)
    else:
        measure(100_000, 10, 100, 5_000, 7)
        measure(100_000, 10, 100, 20_000, 3)
        measure(5_000, 600, 50, 2_000, 3)


if __name__ == "__main__":
    main()
