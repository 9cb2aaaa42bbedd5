"""Tables of the same columns, one after another, type by type; columns with other values in some rows.

`pandas.concat` plans how each column of each table joins with those of the others, which for hundreds of columns in a
hundred tables takes many times what the copying does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

FEW: Final = 8
"""Columns that are replaced one by one: for so few, taking the table apart takes longer."""


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all the frames, numbered from 0.

    Args:
        frames: At least one, with the same names and types of columns.
    """
    first, blocks, order = frames[0], [], []
    for dtype, places in _by_type(first):
        parts = [frame.iloc[:, places] for frame in frames]
        if isinstance(dtype, np.dtype):
            rows = np.concatenate([part.to_numpy() for part in parts])
            # Told its type: pandas would make texts with NaN of objects that are texts and None.
            blocks.append(pd.DataFrame(rows, columns=first.columns[places], dtype=dtype, copy=False))
        else:
            blocks.append(pd.concat(parts, ignore_index=True))
        order += places
    return pd.concat(blocks, axis=1).iloc[:, np.argsort(order)]


def changed(frame: pd.DataFrame, values: Mapping[str, tuple[int, pd.Series[Any]]]) -> pd.DataFrame:
    """The frame with other values in some of its columns.

    Args:
        frame: Its rows numbered from 0.
        values: By column, a row and the values from that one on, of the column's type if it is to keep that.
    """
    if len(values) <= FEW:
        return frame.assign(**{name: replaced(frame[name], *one) for name, one in values.items()})
    blocks, order = [], []
    for dtype, places in _by_type(frame):
        block = frame.iloc[:, places]
        names = block.columns.tolist()
        if isinstance(dtype, np.dtype) and dtype.kind == "f":
            rows = block.to_numpy(copy=True)
            for place, name in enumerate(names):
                if name in values:
                    at, new = values[name]
                    rows[at : at + len(new), place] = new.to_numpy()
            blocks.append(pd.DataFrame(rows, columns=block.columns, copy=False))
        else:
            chosen = {name: values[name] for name in names if name in values}
            blocks.append(block.assign(**{name: replaced(block[name], *one) for name, one in chosen.items()}))
        order += places
    return pd.concat(blocks, axis=1).iloc[:, np.argsort(order)]


def _by_type(frame: pd.DataFrame) -> list[tuple[Any, list[int]]]:
    """The types of its columns, and the places of those that have them."""
    dtypes = frame.dtypes.to_numpy()
    return [(dtype, np.flatnonzero(dtypes == dtype).tolist()) for dtype in dict.fromkeys(dtypes)]


def replaced(column: pd.Series[Any], at: int, values: pd.Series[Any]) -> pd.Series[Any]:
    """The column with other values from row `at` on; whole, it keeps its type where that holds them."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        column = column.copy()
        column.iloc[at : at + len(values)] = values.to_numpy()
        return column
    return pd.concat([column.iloc[:at], values, column.iloc[at + len(values) :]], ignore_index=True)
