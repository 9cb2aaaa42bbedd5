from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgekit_contracts.errors import BadInput, UsageError
from edgekit_runtime.batch import predict, predict_file
from edgekit_runtime.batch.parquet_footer import MAGIC, footer_of, merged
from edgekit_runtime.batch.tables import CHUNK_ROWS
from edgekit_runtime.engine import Engine
from tests import bundles


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), bundles.manifest())


def write(path: Path, columns: dict[str, Any], **settings: Any) -> Path:
    pq.write_table(pa.table(columns), path, **settings)
    return path


def expected(rows: dict[str, list[Any]]) -> list[float]:
    found: list[float] = bundles.answers(rows)[:, 1].tolist()
    return found


AGES, BMIS, SEXES = [20, 31, 40, 80], [22, None, 31, 40], ["f", None, "x", "f"]


@pytest.mark.parametrize(
    "sex",
    [
        pa.array(SEXES),
        pa.array(SEXES, pa.large_string()),
        pa.array(SEXES).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 0], pa.int8()), ["f", "x", "no row has this" * 999]),
    ],
    ids=["string", "large string", "dictionary", "dictionary with more than the rows"],
)
@pytest.mark.parametrize(
    ("age", "bmi"),
    [(pa.float64(), pa.float64()), (pa.int8(), pa.int32()), (pa.uint64(), pa.float32()), (pa.int64(), pa.uint8())],
    ids=str,
)
def test_every_type_of_number_and_text_is_answered_alike(
    engine: Engine, tmp_path: Path, age: Any, bmi: Any, sex: Any
) -> None:
    source = write(tmp_path / "in.parquet", {"age": pa.array(AGES, age), "bmi": pa.array(BMIS, bmi), "sex": sex})
    predict_file(engine, source, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    rows: dict[str, list[Any]] = {
        "age": AGES,
        "bmi": [None if value is None else float(value) for value in BMIS],
        "sex": SEXES,
    }
    assert found["probability_yes"].to_pylist() == pytest.approx(expected(rows))
    assert found.select(["age", "bmi", "sex"]).equals(pq.read_table(source))


def test_truth_values_are_numbers_and_columns_of_nulls_are_missing(engine: Engine, tmp_path: Path) -> None:
    truths = [True, None, False]
    columns = {"age": pa.array([True, False, True]), "bmi": pa.array(truths), "sex": pa.nulls(3)}
    predict_file(engine, write(tmp_path / "in.parquet", columns), tmp_path / "out.parquet")
    rows: dict[str, list[Any]] = {"age": [1, 0, 1], "bmi": [1.0, None, 0.0], "sex": [None] * 3}
    assert pq.read_table(tmp_path / "out.parquet")["probability_yes"].to_pylist() == pytest.approx(expected(rows))


@pytest.mark.parametrize(
    ("name", "column", "sentence"),
    [
        ("age", pa.array(["30"]), "feature 'age': '30' is not a number"),
        ("age", pa.array([datetime.date(2026, 1, 1)]), r"feature 'age': datetime\.date.* is not a number"),
        ("sex", pa.array([5]), "feature 'sex': 5 is not text"),
    ],
)
def test_another_type_is_refused_by_the_feature(
    engine: Engine, tmp_path: Path, name: str, column: Any, sentence: str
) -> None:
    columns = {"age": pa.array([20.0]), "bmi": pa.array([22.0]), "sex": pa.array(["f"])} | {name: column}
    with pytest.raises(BadInput, match=rf"{sentence} \(row 1 of in\.parquet\)"):
        predict_file(engine, write(tmp_path / "in.parquet", columns), tmp_path / "out.parquet")


def test_the_row_that_is_named_is_the_one_that_the_sentence_is_about(engine: Engine, tmp_path: Path) -> None:
    columns = {"age": [20.0, 20.0, None], "bmi": [1.0, 1e39, 1.0], "sex": ["f", "f", "f"]}
    with pytest.raises(BadInput, match=r"feature 'bmi': a value is beyond .* \(row 2 of in\.parquet\)"):
        predict_file(engine, write(tmp_path / "in.parquet", columns), tmp_path / "out.parquet")


def test_many_segments_make_one_file_whatever_the_row_groups_are(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "SEGMENT_ROWS", CHUNK_ROWS)
    rows = 3 * CHUNK_ROWS + 11
    random = np.random.default_rng(0)
    columns = {
        "age": random.integers(18, 90, rows),
        "bmi": pa.array(random.normal(25, 4, rows), mask=random.random(rows) < 0.1),
        "sex": pa.array(random.choice(["f", "m"], rows)).dictionary_encode(),
        "when": pa.array(np.arange(rows), pa.timestamp("us", tz="UTC")),
        "nested": pa.array([[{"a": index}] * (index % 3) for index in range(rows)]),
        "note": pa.array([None] * CHUNK_ROWS + ["late"] * (rows - CHUNK_ROWS)),
    }
    source = write(tmp_path / "in.parquet", columns, row_group_size=997, write_page_index=True)
    assert predict_file(engine, source, tmp_path / "out.parquet") == rows
    given, found = pq.read_table(source), pq.ParquetFile(tmp_path / "out.parquet")
    assert found.metadata.num_row_groups == 4
    table = found.read()
    assert table.select(given.column_names).equals(given)
    values = {name: given[name].to_pylist() for name in ("age", "bmi", "sex")}
    assert table["probability_yes"].to_pylist() == pytest.approx(expected(values))
    statistics = [found.metadata.row_group(index).column(0).statistics for index in range(4)]
    assert (min(one.min for one in statistics), max(one.max for one in statistics)) == (18, 89)
    assert found.read_row_group(2).equals(table.slice(2 * CHUNK_ROWS, CHUNK_ROWS))


def test_what_pandas_notes_in_a_file_is_carried_along(engine: Engine, tmp_path: Path) -> None:
    frame = pd.DataFrame(bundles.ROWS, index=pd.Index(list("wxyz"), name="machine"))
    frame["kind"] = pd.Categorical(["a", "b", "a", "b"])
    frame.to_parquet(tmp_path / "in.parquet")
    predict_file(engine, tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(found[frame.columns], frame)
    assert found["prediction"].tolist() == ["yes" if p > 0.5 else "no" for p in expected(dict(bundles.ROWS))]


def test_a_damaged_file_is_said_to_be_damaged(engine: Engine, tmp_path: Path) -> None:
    columns = {"age": np.arange(20.0, 40.0, 0.001), "bmi": np.full(20_000, 22.0), "sex": ["f"] * 20_000}
    source = write(tmp_path / "in.parquet", columns)
    data = bytearray(source.read_bytes())
    data[4:400] = bytes([255]) * 396
    source.write_bytes(data)
    with pytest.raises(UsageError, match=r"in\.parquet"):
        predict_file(engine, source, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def pages(table: pa.Table, **settings: Any) -> tuple[bytes, bytes]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **settings)
    data, footer = footer_of(sink.getvalue())
    return bytes(data), footer


def joined(parts: list[tuple[bytes, bytes]]) -> pa.Buffer:
    whole, places = MAGIC, []
    for data, footer in parts:
        places.append((len(whole), footer))
        whole += data
    return pa.py_buffer(whole + merged(places))


@pytest.mark.parametrize("settings", [{}, {"write_page_index": True}, {"compression": "zstd", "use_dictionary": False}])
def test_footers_of_parts_make_the_footer_of_the_whole(settings: dict[str, Any]) -> None:
    tables = [
        pa.table({f"c{index}": pa.array(range(start, start + 50)) for index in range(40)} | {"t": ["a", None] * 25})
        for start in range(0, 1000, 50)
    ]
    file = pq.ParquetFile(joined([pages(table, **settings) for table in tables]))
    assert file.read().equals(pa.concat_tables(tables))
    assert file.metadata.num_rows == 1000
    found = file.read_row_group(7, columns=["c3"])
    assert found["c3"].to_pylist() == list(range(350, 400))
    assert file.metadata.row_group(19).column(5).statistics.max == 999


def test_one_part_keeps_its_footer_byte_for_byte() -> None:
    _, footer = pages(pa.table({"a": [1.5, None], "b": ["x", "y"], "c": [True, False]}))
    assert merged([(len(MAGIC), footer)]) == footer + len(footer).to_bytes(4, "little") + MAGIC


def test_parts_of_different_columns_and_torn_footers_are_refused() -> None:
    parts = [pages(pa.table({"a": [1]})), pages(pa.table({"b": [1]}))]
    with pytest.raises(ValueError, match="different columns"):
        joined(parts)
    with pytest.raises(ValueError, match="ends too early"):
        merged([(4, parts[0][1][:40])])
