"""Tables of the same columns, one after another, type by type; columns with other values in some rows.

`pandas.concat` plans how each column of each table joins with those of the others, which for hundreds of columns in a
hundred tables takes many times what the copying does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all the frames, numbered from 0.

    Args:
        frames: At least one, with the same names and types of columns.
    """
    first, dtypes = frames[0], frames[0].dtypes.to_numpy()
    blocks, order = [], []
    for dtype in dict.fromkeys(dtypes):
        places = [place for place, one in enumerate(dtypes) if one == dtype]
        parts = [frame.iloc[:, places] for frame in frames]
        if isinstance(dtype, np.dtype):
            rows = np.concatenate([part.to_numpy() for part in parts])
            # Told its type: pandas would make texts with NaN of objects that are texts and None.
            blocks.append(pd.DataFrame(rows, columns=first.columns[places], dtype=dtype, copy=False))
        else:
            blocks.append(pd.concat(parts, ignore_index=True))
        order += places
    return pd.concat(blocks, axis=1).iloc[:, np.argsort(order)]


def replaced(column: pd.Series[Any], at: int, values: pd.Series[Any]) -> pd.Series[Any]:
    """The column with other values from row `at` on; whole, it keeps its type where that holds them."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        column = column.copy()
        column.iloc[at : at + len(values)] = values.to_numpy()
        return column
    return pd.concat([column.iloc[:at], values, column.iloc[at + len(values) :]], ignore_index=True)
