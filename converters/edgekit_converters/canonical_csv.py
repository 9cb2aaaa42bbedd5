"""A frame as canonical CSV, for its hash: what `DataFrame.to_csv` writes, several times as fast for many numbers.

Writing a float64 in as few digits as read back equal is what takes the time. msgspec does it in a tenth of the time of
`repr`; between 0.0001 and 1e15 both write the same digits without an exponent, and all others are left to `repr`.

Source: `float_repr_style` "short" of Python's `repr`; `DataFrame.to_csv` of pandas, whose rows go through csv.writer.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROWS: Final = 4_096
"""Of one piece."""
PLAIN_MIN: Final = 1e-4
PLAIN_MAX: Final = 1e15
_KINDS: Final = frozenset({np.dtype(np.float64), np.dtype(np.int64), np.dtype(bool), np.dtype(object)})


def pieces(frame: pd.DataFrame) -> Iterator[bytes]:
    """The CSV in UTF-8, piece by piece: a header, no index, LF, nothing for a missing value."""
    if any(dtype not in _KINDS and not isinstance(dtype, pd.StringDtype) for dtype in frame.dtypes):
        yield frame.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogatepass")
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(frame.columns)
    for at in range(0, len(frame), ROWS):
        part = frame.iloc[at : at + ROWS]
        writer.writerows(zip(*(_cells(column) for _, column in part.items()), strict=True))
        yield text.getvalue().encode("utf-8", "surrogatepass")
        text.seek(0)
        text.truncate()


def _cells(column: pd.Series[Any]) -> list[Any]:
    """What csv.writer takes for each row."""
    values = column.to_numpy()
    if values.dtype == np.float64:
        return _numbers(values)
    cells = values.astype(object)  # a copy
    cells[column.isna().to_numpy()] = ""
    return cells.tolist()


def _numbers(values: NDArray[np.float64]) -> list[str]:
    size = np.abs(values)
    plain = ((size >= PLAIN_MIN) & (size < PLAIN_MAX)) | (values == 0)
    texts = msgspec.json.encode(np.where(plain, values, 0.0).tolist())[1:-1].decode().split(",")
    for place in np.flatnonzero(~plain):
        texts[place] = "" if np.isnan(values[place]) else repr(float(values[place]))
    return texts
