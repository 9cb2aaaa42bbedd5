from __future__ import annotations

import csv
import importlib
import io
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from edgekit_contracts.errors import BadInput, MissingFile, UsageError
from edgekit_contracts.manifest import Budget, Feature
from edgekit_runtime.batch import predict_file
from edgekit_runtime.batch.csv_file import MISSING_WORDS
from edgekit_runtime.batch.tables import CHUNK_ROWS, chunk_rows
from edgekit_runtime.engine import Engine
from tests import bundles

CSV = "id,age,bmi,sex\na,20,22.0,f\nb,30.5,,m\nc,40,31.5,\nd,80,40.0,x\n"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), bundles.manifest())


def predict(engine: Engine, source: Path, target: Any) -> int:
    return predict_file(engine, source, target)


def test_csv_rows_come_back_with_their_answers(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(CSV)
    assert predict(engine, tmp_path / "in.csv", tmp_path / "out.csv") == 4
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(rows[0]) == ["id", "age", "bmi", "sex", "prediction", "probability_no", "probability_yes"]
    assert [row["id"] for row in rows] == list("abcd")
    expected = bundles.answers(bundles.ROWS)[:, 1]
    assert [float(row["probability_yes"]) for row in rows] == pytest.approx(expected.tolist())


def test_csv_goes_to_an_open_stream(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(CSV)
    stream = io.StringIO()
    predict(engine, tmp_path / "in.csv", stream)
    assert stream.getvalue().count("\n") == 5


def test_parquet_gives_the_same_answers(engine: Engine, tmp_path: Path) -> None:
    pd.DataFrame({"id": list("abcd"), **bundles.ROWS}).to_parquet(tmp_path / "in.parquet")
    assert predict(engine, tmp_path / "in.parquet", tmp_path / "out.parquet") == 4
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert found["probability_yes"].tolist() == pytest.approx(bundles.answers(bundles.ROWS)[:, 1].tolist())


def test_a_file_of_many_chunks_is_answered_whole(engine: Engine, tmp_path: Path) -> None:
    rows = 2 * CHUNK_ROWS + 5
    (tmp_path / "in.csv").write_text("age,bmi,sex\n" + "".join(f"{20 + i % 60},22,f\n" for i in range(rows)))
    assert predict(engine, tmp_path / "in.csv", tmp_path / "out.csv") == rows
    assert len((tmp_path / "out.csv").read_text().splitlines()) == rows + 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("age,bmi,sex\n20,22,f\nforty,22,f\n", r"feature 'age': 'forty' is not a number \(row 2 of in\.csv\)"),
        ("age,bmi,sex\n20,22,f\n,22,f\n", r"feature 'age': is missing.*\(row 2 of in\.csv\)"),
        ("age,bmi\n20,22\n", "in.csv has no column 'sex'"),
        ("age,bmi,sex\n20,22\n", r"line 2 of in\.csv has 2 cells, not 3"),
    ],
)
def test_a_bad_row_is_named_and_leaves_no_file(engine: Engine, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    (tmp_path / "out.csv").write_text("what was there before")
    with pytest.raises(BadInput, match=sentence):
        predict(engine, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "what was there before"
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}


def test_a_column_that_is_lacking_is_sought_among_those_there(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,bim,sex\n20,22,f\n")
    with pytest.raises(BadInput, match=r"in\.csv has no column 'bmi'") as refused:
        predict(engine, tmp_path / "in.csv", tmp_path / "out.csv")
    assert refused.value.next_step == "give every feature a column; it has age, bim, sex"


def test_the_table_is_not_replaced_by_its_answers(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(CSV)
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    for name in ("in.csv", "link.csv"):
        with pytest.raises(UsageError, match="is the table itself"):
            predict(engine, tmp_path / "in.csv", tmp_path / name)
    assert (tmp_path / "in.csv").read_text() == CSV


def test_columns_that_are_not_separated_by_commas_are_told(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age;bmi;sex\n20;22;f\n")
    with pytest.raises(BadInput, match="no column 'age', 'bmi', 'sex'") as refused:
        predict(engine, tmp_path / "in.csv", tmp_path / "out.csv")
    assert "by commas" in refused.value.next_step


def test_a_file_that_cannot_be_read_is_named(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"cannot read the table .*none\.csv"):
        predict(engine, tmp_path / "none.csv", tmp_path / "out.csv")
    with pytest.raises(UsageError, match=r"neither a \.csv nor"):
        predict(engine, tmp_path / "in.xlsx", tmp_path / "out.csv")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("age,bmi,sex\n")
    with pytest.raises(UsageError, match="has no rows"):
        predict(engine, tmp_path / "header.csv", tmp_path / "out.csv")
    (tmp_path / "twice.csv").write_text("age,bmi,sex,age\n1,2,f,3\n")
    with pytest.raises(UsageError, match="two columns 'age'"):
        predict(engine, tmp_path / "twice.csv", tmp_path / "out.csv")
    (tmp_path / "taken.csv").write_text("age,bmi,sex,prediction\n1,2,f,no\n")
    with pytest.raises(UsageError, match="a column 'prediction' already"):
        predict(engine, tmp_path / "taken.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(UsageError, match="is empty"):
        predict(engine, tmp_path / "empty.csv", tmp_path / "out.csv")
    (tmp_path / "bad.csv").write_bytes(b"age\n\xff\n")
    with pytest.raises(UsageError, match="not a CSV file in UTF-8"):
        predict(engine, tmp_path / "bad.csv", tmp_path / "out.csv")
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(UsageError, match="not a Parquet file"):
        predict(engine, tmp_path / "bad.parquet", tmp_path / "out.parquet")


def test_missing_cells_are_those_of_pandas() -> None:
    words = sorted(MISSING_WORDS)
    assert pd.read_csv(io.StringIO("x,y\n" + "".join(f"{word},1\n" for word in words)))["x"].isna().all()
    parsers: Any = importlib.import_module("pandas._libs.parsers")
    assert set(parsers.STR_NA_VALUES) == MISSING_WORDS


def test_blank_lines_are_passed_over_and_underscores_are_no_digits(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,bmi,sex\n20,22,f\n\n30,22,f\n\n")
    assert predict(engine, tmp_path / "in.csv", tmp_path / "out.csv") == 2
    (tmp_path / "in.csv").write_text("age,bmi,sex\n1_0,22,f\n")
    with pytest.raises(BadInput, match="'1_0' is not a number"):
        predict(engine, tmp_path / "in.csv", tmp_path / "out.csv")


def test_a_carried_parquet_column_may_begin_with_nulls(engine: Engine, tmp_path: Path) -> None:
    rows = CHUNK_ROWS + 3
    note = pd.Series([None] * CHUNK_ROWS + ["late"] * 3, dtype="str")
    frame = pd.DataFrame({"age": [20.0] * rows, "bmi": [None] * rows, "sex": ["f"] * rows, "note": note})
    frame["bmi"] = frame["bmi"].astype("float64")
    frame.to_parquet(tmp_path / "in.parquet")
    assert predict(engine, tmp_path / "in.parquet", tmp_path / "out.parquet") == rows
    assert pd.read_parquet(tmp_path / "out.parquet")["note"].iloc[-1] == "late"


def test_chunks_are_smaller_for_wide_tables_slow_models_and_documents() -> None:
    fast = bundles.manifest()
    budget = Budget(
        profile="board",
        latency_ms=100,
        latency_ms_low=50,
        latency_ms_high=200,
        latency_limit_ms=1000,
        memory_mb=1,
        memory_limit_mb=9,
        bundle_mb=1,
        bundle_limit_mb=9,
        fits=True,
    )
    slow = bundles.manifest(budgets=(budget, msgspec.structs.replace(budget, latency_ms=1)))
    free = bundles.manifest(features=(*bundles.FEATURES[:2], Feature(name="sex", dtype="text", nullable=True)))
    assert [chunk_rows(columns, fast) for columns in (3, 1024, 10_000_000)] == [CHUNK_ROWS, 1024, 1]
    assert chunk_rows(3, slow) == 20
    assert chunk_rows(3, free) == 128
