from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from edgekit_contracts.errors import BadInput, UsageError
from edgekit_runtime.batch import predict_file
from edgekit_runtime.batch.tables import CHUNK_ROWS
from edgekit_runtime.engine import Engine
from tests import bundles


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), bundles.manifest())


def test_objects_come_back_with_their_answers(engine: Engine, tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": list("abcd"), **bundles.ROWS})
    frame.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    assert predict_file(engine, tmp_path / "in.jsonl", tmp_path / "out.ndjson") == 4
    rows = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [row["id"] for row in rows] == list("abcd")
    assert [row["probability_yes"] for row in rows] == pytest.approx(bundles.answers(bundles.ROWS)[:, 1].tolist())
    assert {row["prediction"] for row in rows} <= {"no", "yes"}


def test_what_the_model_does_not_know_is_carried_byte_for_byte(engine: Engine, tmp_path: Path) -> None:
    known = b'"age": 2.0e1, "bmi": null, "sex": "f"'
    carried = [b'{"n": 12345678901234567890123, %b, "deep": {"a": [1.10, "\\u00e9"]}', b'\t{%b , "x":1']
    data = b"\xef\xbb\xbf" + b" }\r\n\n".join(line % known for line in carried) + b"}"
    (tmp_path / "in.jsonl").write_bytes(data)
    stream = io.StringIO()
    assert predict_file(engine, tmp_path / "in.jsonl", stream) == 2
    for line, given in zip(stream.getvalue().encode().splitlines(), carried, strict=True):
        assert line.startswith((given % known).strip() + b',"prediction":"')
        json.loads(line)


def test_a_file_of_many_chunks_is_answered_whole(engine: Engine, tmp_path: Path) -> None:
    rows = 2 * CHUNK_ROWS + 5
    lines = (f'{{"age":{20 + index % 60},"bmi":22,"sex":"m","i":{index}}}\n' for index in range(rows))
    (tmp_path / "in.jsonl").write_text("".join(lines))
    assert predict_file(engine, tmp_path / "in.jsonl", tmp_path / "out.jsonl") == rows
    found = pd.read_json(tmp_path / "out.jsonl", lines=True)
    assert found["i"].tolist() == list(range(rows))


GOOD = '{"age":20,"bmi":22,"sex":"f"}\n'


@pytest.mark.parametrize(
    ("line", "error", "sentence"),
    [
        ('{"age":20,"bmi":22}', BadInput, r"line 2 of in\.jsonl lacks 'sex'"),
        ('{"age":"20","bmi":22,"sex":"f"}', BadInput, r"feature 'age': '20' is not a number \(row 2 of in\.jsonl\)"),
        ('{"age":[20],"bmi":22,"sex":"f"}', BadInput, r"feature 'age': \[20\] is not a number \(row 2"),
        ('{"age":1e999,"bmi":22,"sex":"f"}', UsageError, r"line 2 of .*in\.jsonl is not JSON"),
        ('{"age":20,"bmi":22,"sex":3}', BadInput, r"feature 'sex': 3 is not text \(row 2"),
        ('{"age":20,"bmi":22,"sex":"f","prediction":1}', UsageError, "a column 'prediction' already"),
        ('{"age":20,', UsageError, r"line 2 of .*in\.jsonl is not JSON"),
        ("[20, 22]", UsageError, r"line 2 of .*in\.jsonl is not a JSON object"),
        ("[" * 100_000, UsageError, r"line 2 of .*in\.jsonl is not JSON"),
    ],
)
def test_a_bad_line_is_named_and_leaves_no_file(
    engine: Engine, tmp_path: Path, line: str, error: type[Exception], sentence: str
) -> None:
    (tmp_path / "in.jsonl").write_text(GOOD + line + "\n" + GOOD)
    with pytest.raises(error, match=sentence):
        predict_file(engine, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl"}
