"""Rows at the places where a boosted model decides, and a strict comparison of what comes out there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgekit_converters.registry import Conversion
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import target_for
from tests.converters.frames import run

CONVERTER = SklearnConverter()
TINY = [0.0, -0.0, 1e-35, -1e-35, float(np.float32(1e-35)), 1.0000000180025097e-35, 1e-40, -1e-40, 5e-324]
NAMES = list("abcd")


def data(rows: int = 400) -> pd.DataFrame:
    """Numbers with ties, zeros and missing values."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 4))
    X[:, 3] = X[:, 3].round(1)
    X[random.random(X.shape) < 0.1] = np.nan
    return pd.DataFrame(X, columns=NAMES)


def answer(kind: str, rows: int = 400) -> NDArray[Any]:
    X, random = data(rows).fillna(0).to_numpy(), np.random.default_rng(1)
    value = X[:, 0] * 2 + X[:, 1] + random.normal(size=rows) * 0.7
    kinds: dict[str, NDArray[Any]] = {
        "two": (value > 0).astype(int),
        "three": (value > -1).astype(int) + (value > 1),
        "value": value + 100,
        "positive": np.exp(value / 3),
        "share": 1 / (1 + np.exp(-value)),
        "values": np.stack([value + 100, value, -value], axis=1),
    }
    return kinds[kind]


def adversarial(splits: list[tuple[str, float]], X: pd.DataFrame, rows: int = 1200) -> pd.DataFrame:
    """Rows whose numbers are on thresholds, one step beside them, halfway between float32s, tiny, huge or missing."""
    random = np.random.default_rng(2)
    splits = [one for one in splits if abs(one[1]) < 3e38]
    found = X.iloc[random.integers(0, len(X), rows)].reset_index(drop=True)
    numbers = [str(name) for name in X.columns if X[name].dtype.kind == "f"]
    arrays = {name: found[name].to_numpy(dtype=np.float64, copy=True) for name in numbers}
    for row in range(rows):
        for number in random.integers(0, len(splits), 4) if splits else ():
            name, at = splits[number]
            if name not in arrays:
                continue
            short = np.float32(at)
            sides = [np.nextafter(short, np.float32(side)) for side in (-np.inf, np.inf)]
            values = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), float(short), *map(float, sides)]
            values += [(float(short) + float(side)) / 2 for side in sides]
            arrays[name][row] = values[random.integers(0, len(values))]
        name = numbers[random.integers(0, len(numbers))]
        arrays[name][row] = random.choice([*TINY, 3e38, -3e38, np.nan, arrays[name][row]])
    return pd.concat([X, found.assign(**arrays)], ignore_index=True)


def assert_answers(
    model: Any, X: pd.DataFrame, rows: pd.DataFrame, runtime: str, *, ulps: int = 0, converter: Any = CONVERTER
) -> Conversion:
    """Labels are equal; numbers bit for bit, or within so many ulps, of the type that the original answers in."""
    conversion: Conversion = converter.convert(model, X, target_for(runtime))
    assert conversion.ml_opset == target_for(runtime).ml_opset
    for part in (rows, rows[:1], rows[-7:]):
        ours, theirs = run(conversion, model, part), converter.answers(model, part)
        if theirs.labels is not None:
            assert ours["label"].tolist() == theirs.labels.tolist()
        for given, expected in ((ours.get("probabilities"), theirs.probabilities), (ours.get("value"), theirs.values)):
            assert (given is None) == (expected is None)
            if given is None or expected is None:
                continue
            assert given.shape == expected.shape
            if ulps == 0:
                np.testing.assert_array_equal(given, expected)
            else:
                scale = np.spacing(np.abs(expected).max(axis=1, keepdims=True).astype(given.dtype))
                assert (np.abs(given - expected) <= ulps * scale).all()
    return conversion
