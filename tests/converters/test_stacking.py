"""Tables one after another: what pandas.concat gives, column by column and type by type."""

from __future__ import annotations

import numpy as np
import pandas as pd

from edgekit_converters.stacking import FEW, changed, replaced, stacked

COUNT = 20


def table() -> pd.DataFrame:
    half = COUNT // 2
    return pd.DataFrame(
        {
            "size": np.arange(COUNT) * 1.5,
            "kind": ["x", None] * half,
            "object": pd.Series(["x", None] * half, dtype=object),
            "level": pd.Categorical(["low", "high"] * half),
            "visits": np.arange(COUNT),
            "area": np.arange(COUNT, dtype=np.float32),
            "maybe": pd.array([1, None] * half, dtype="Int64"),
            "text": pd.array(["q"] * COUNT, dtype="string"),
            "old": [True, False] * half,
            "weight": np.arange(COUNT) * 2.5,
            "day": pd.date_range("2020-01-01", periods=COUNT),
        }
    )


def test_tables_follow_one_another_with_their_types() -> None:
    whole = table()
    parts = [whole.iloc[at : at + 7].assign(size=np.nan) for at in range(0, COUNT, 7)] + [whole.iloc[::-1]]
    found = stacked(parts)
    pd.testing.assert_frame_equal(found, pd.concat(parts, ignore_index=True))
    assert found["object"].iloc[1] is None
    pd.testing.assert_frame_equal(stacked(parts[:1]), parts[0])


def test_columns_of_one_name_stay_apart() -> None:
    whole = table()[["size", "kind", "weight"]]
    whole.columns = pd.Index(["a", "a", "b"])
    pd.testing.assert_frame_equal(stacked([whole, whole]), pd.concat([whole, whole], ignore_index=True))


def test_a_part_of_a_column_is_replaced_and_its_type_stays() -> None:
    whole = table()
    for name in whole.columns:
        values = whole[name].iloc[:3].reset_index(drop=True)
        found = replaced(whole[name], 5, values)
        assert found.dtype == whole[name].dtype
        assert found.iloc[5:8].tolist() == values.tolist() or values.isna().any()
        pd.testing.assert_series_equal(found.drop([5, 6, 7]), whole[name].drop([5, 6, 7]))
    assert whole["size"].iloc[5] == 7.5


def test_many_columns_are_replaced_as_few_are() -> None:
    whole = table()
    values = {name: (at, whole[name].iloc[3:6]) for at, name in enumerate(whole.columns) if name != "weight"}
    assert len(values) > FEW
    expected = whole.assign(**{name: replaced(whole[name], *one) for name, one in values.items()})
    pd.testing.assert_frame_equal(changed(whole, values), expected)
    few = {name: values[name] for name in ("size", "kind")}
    pd.testing.assert_frame_equal(changed(whole, few), whole.assign(size=expected["size"], kind=expected["kind"]))
    assert whole["size"].iloc[0] == 0.0
