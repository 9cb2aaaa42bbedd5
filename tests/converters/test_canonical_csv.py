from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from edgekit_converters import canonical_csv

ROWS = 10_000


def numbers() -> pd.DataFrame:
    """Float64 of every size and sign, whole ones, both sides of where an exponent is written, and none."""
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**64, ROWS, dtype=np.uint64).view(np.float64)
    powers = 10.0 ** random.integers(-6, 18, ROWS)
    return pd.DataFrame(
        {
            "bits": bits,
            "sizes": random.normal(size=ROWS) * powers,
            "powers": powers,
            "beside": np.nextafter(powers, random.choice([-np.inf, np.inf], ROWS)),
            "whole": random.integers(-(2**53), 2**53, ROWS).astype(np.float64),
            "rounded": (random.normal(size=ROWS) * 1000).round(2),
            "special": random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e-4, 9.999999999999999e-05], ROWS),
        }
    )


def texts() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "text": ["plain", "a,b", 'a "word"', "two\nlines", "", None, "tab\t", "ü", " ", "1.50"],
            "half": pd.Series(np.array(["plain", "\ud800", *"abcdefg", None], dtype=object), dtype=object),
            "mixed": [1, 2.5, "x", None, True, np.nan, 1e-7, -0.0, 10**20, "y"],
            "whole": np.arange(10),
            "true": np.arange(10) % 2 == 0,
            "x, y": np.linspace(0, 1, 10),
        }
    )


@pytest.mark.parametrize(
    "frame",
    [
        numbers(),
        texts(),
        texts()[["text"]],
        pd.DataFrame({"a": [1.5, np.nan]}),
        pd.DataFrame({"a": np.array([0.1, 3e38], dtype=np.float32), "b": pd.array([1, None], dtype="Int64")}),
        pd.DataFrame({"a": pd.Categorical(["x", None]), "b": pd.to_datetime(["2026-01-01", "2026-01-02"])}),
        pd.DataFrame([[1.0, 2.0]], columns=[0, 1]),
        pd.DataFrame([[1.0, "x"]], columns=["a", "a"]),
    ],
    ids=["numbers", "texts", "one text", "one number", "short", "other types", "no names", "one name twice"],
)
def test_the_bytes_are_those_of_pandas(frame: pd.DataFrame) -> None:
    expected = frame.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogatepass")
    assert b"".join(canonical_csv.pieces(frame)) == expected
