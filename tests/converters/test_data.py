from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from edgekit_contracts.errors import DataMismatch, FormatError, MissingFile
from edgekit_converters.data import (
    as_frame,
    check_range,
    file_sha256,
    frame_for,
    frame_sha256,
    read_table,
    split_target,
)

FRAME = pd.DataFrame({"a": [1.5, np.nan, 3.0], "b": ["x", None, "z"], "y": [0, 1, 0]})


def test_csv_and_parquet_are_told_apart_by_content(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "one.csv", index=False)
    FRAME.to_parquet(tmp_path / "two.data")
    for name in ("one.csv", "two.data"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name), FRAME)


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"PAR1 but torn", b'a,b\n1,2\n1,2,3,4\n"', b"\xff\xfe\x00a\n\x80"])
def test_a_damaged_or_empty_data_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(FormatError) as refusal:
        read_table(path)
    assert "\n" not in str(refusal.value)


def test_a_table_in_another_encoding_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(FormatError, match="neither Parquet nor CSV in UTF-8"):
        read_table(tmp_path / "data.csv")


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"nowhere\.csv"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(MissingFile, match="directory"):
        read_table(tmp_path)
    with pytest.raises(MissingFile):
        file_sha256(tmp_path / "nowhere.csv")


def test_the_target_is_split_off() -> None:
    table, truth = split_target(FRAME, "y")
    assert list(table.columns) == ["a", "b"]
    assert truth is not None
    assert truth.tolist() == [0, 1, 0]
    assert split_target(FRAME, None)[1] is None


def test_a_target_that_is_not_there_or_has_gaps_is_refused() -> None:
    with pytest.raises(DataMismatch, match="no column 'z'") as refusal:
        split_target(FRAME, "z")
    assert "'a', 'b', 'y'" in refusal.value.next_step
    with pytest.raises(DataMismatch, match="missing in 1 rows"):
        split_target(FRAME, "a")
    with pytest.raises(DataMismatch, match="the target is a Series"):
        split_target(FRAME, FRAME["y"])  # type: ignore[arg-type]


def test_hashes_are_of_the_bytes_and_of_the_values(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert frame_sha256(FRAME) == frame_sha256(FRAME.copy())
    assert frame_sha256(FRAME) != frame_sha256(FRAME.assign(y=[0, 1, 1]))


def test_the_models_columns_are_taken_in_its_order_and_others_dropped() -> None:
    X = pd.DataFrame({"p": [1.0, 2.0], "q": [3.0, 4.0]})
    model = LinearRegression().fit(X, [1, 2])
    assert list(frame_for(model, X.assign(other=0)[["other", "q", "p"]]).columns) == ["p", "q"]
    with pytest.raises(DataMismatch, match="lacks the column 'q'") as refusal:
        frame_for(model, X[["p"]])
    assert "'p', 'q'" in refusal.value.next_step


@pytest.mark.parametrize(("name", "fault"), [("", "a column has no name"), ("q" * 257, "name has 257 characters")])
def test_a_name_that_a_manifest_cannot_hold_is_refused_before_anything_is_converted(name: str, fault: str) -> None:
    X = pd.DataFrame({"p": [1.0, 2.0], name: [3.0, 4.0]})
    with pytest.raises(DataMismatch, match=fault):
        frame_for(LinearRegression().fit(X, [1, 2]), X)
    assert list(frame_for(LinearRegression().fit(X[["p"]], [1, 2]), X).columns) == ["p"]


def test_numbers_that_devices_refuse_are_named() -> None:
    check_range(FRAME)
    for value in (1e39, -np.inf):
        with pytest.raises(DataMismatch, match=r"column 'a' has a value beyond 3\.4e38"):
            check_range(FRAME.assign(a=[1.0, np.nan, value]))


def test_a_matrix_models_columns_are_numbered() -> None:
    model = LinearRegression().fit(np.eye(3), [1, 2, 3])
    assert list(frame_for(model, np.eye(3)).columns) == ["x0", "x1", "x2"]
    with pytest.raises(DataMismatch, match=r"4 columns.*matrix of 3"):
        frame_for(model, np.eye(4))


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(DataMismatch, match="1 dimensions"):
        as_frame(np.zeros(3))
    with pytest.raises(DataMismatch, match="two columns have the name 'a'"):
        as_frame(pd.DataFrame(np.eye(2), columns=["a", "a"]))
    with pytest.raises(DataMismatch, match="no rows"):
        frame_for(None, FRAME.iloc[:0])
