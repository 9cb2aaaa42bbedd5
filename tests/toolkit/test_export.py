from __future__ import annotations

import json
import struct
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from edgekit.collector import rolled
from edgekit.collector.export import Exported, Selection, export
from edgekit.collector.ingest import Message, read
from edgekit.collector.rollup import HOUR_MS
from edgekit.collector.store import Store, open_store
from edgekit_contracts import topics
from edgekit_contracts.counts import encode_varints
from edgekit_contracts.errors import EnvironmentFault, StorageFault, UsageError
from edgekit_contracts.reference import latency_edges_us
from edgekit_contracts.telemetry import Envelope, Event, Gap, encode, encode_message
from tests.telemetry_samples import BINS_ID, MODEL, NOW_MS, envelope, reference_parts, window
from tests.toolkit.conftest import Run

DAY_MS = 24 * HOUR_MS
TODAY = datetime.fromtimestamp(NOW_MS / 1000, UTC).date()


def ingest(store: Store, *records: Envelope) -> None:
    for record in records:
        message = Message(str(topics.Up(record.device)), encode_message([encode(record)]), NOW_MS)
        assert store.ingest(read(message, store)).refused == {}


def seen(sequence: int, *, device: str = "pump-1", days_ago: int = 0, model: str = MODEL) -> Envelope:
    body, n = window((sequence, 2, 3, 4), abstained=1, out_of_range=2)
    body = msgspec.structs.replace(
        body,
        model=model,
        moments=struct.pack("<4f", 22.5, 9.0, 18.0, 30.0) if sequence % 2 else b"",
        distances=b"abcd" + encode_varints([n - 1, 1]) if sequence % 2 else b"",
    )
    return envelope(body, sequence=sequence, n=n, device=device, t0_ms=NOW_MS - days_ago * DAY_MS + sequence)


@pytest.fixture
def store(where: str) -> Any:
    with open_store(where) as opened:
        for device in ("pump-1", "pump-2"):
            ingest(opened, *(envelope(one, sequence=i + 1, device=device) for i, one in enumerate(reference_parts())))
        ingest(opened, *(seen(i) for i in (3, 4, 5)), *(seen(i, device="pump-2", days_ago=1) for i in (3, 4)))
        ingest(opened, seen(6, model="other"), envelope(Event("hot", "90 C"), sequence=7))
        ingest(opened, envelope(Gap(8, 9, 2, 30, 400, "outbox full"), sequence=9))
        rolled.roll_up(opened.database, opened.bins)
        yield opened


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    """Every row, as a reader of the whole folder has it."""
    rows: list[dict[str, Any]] = pq.read_table(folder / name, partitioning="hive").to_pylist()
    return rows


def test_each_window_and_feature_is_a_row_with_its_counts(store: Store, tmp_path: Path) -> None:
    done = export(store, tmp_path / "out")
    assert {name: (one.rows, one.files) for name, one in done.items()} == {
        "windows": (6, 2),
        "features": (12, 2),
        "rollups": (20, 2),
        "rollup_features": (40, 2),
        "gaps": (1, 1),
        "events": (1, 1),
    }
    windows = {(one["device"], one["sequence"]): one for one in table(tmp_path / "out", "windows")}
    (first,) = [one for one in store.windows("pump-1", 0) if one.sequence == 3]
    row = windows["pump-1", 3]
    assert (row["epoch"], row["model"], row["rows"], row["bins_id"]) == (7, MODEL, 12, BINS_ID.hex())
    assert row["start"] == datetime.fromtimestamp(first.at_ms / 1000, UTC)
    assert (row["abstained"], row["calls"], row["rss_kb"], row["dt_ms"]) == (1, 1, 90_000, 10_000)
    assert (row["classes"], row["scores"], row["distances"]) == ([6, 6], [3, 3, 6], [11, 1])
    assert row["latency"].index(1) == 30
    assert windows["pump-1", 4]["distances"] == []
    assert str(windows["pump-2", 3]["day"]) == str(date.fromordinal(TODAY.toordinal() - 1))
    features = {(one["device"], one["sequence"], one["feature"]): one for one in table(tmp_path / "out", "features")}
    bmi = features["pump-1", 5, "bmi"]
    assert (bmi["bins"], bmi["null"], bmi["invalid"], bmi["out_of_range"]) == ([5, 2, 3, 4], 0, 0, 2)
    assert [bmi[name] for name in ("values", "mean", "m2", "minimum", "maximum")] == [14, 22.5, 9.0, 18.0, 30.0]
    silent = features["pump-1", 4, "bmi"]
    assert [silent[name] for name in ("values", "mean", "maximum")] == [0, None, None]
    assert (features["pump-1", 5, "sex"]["bins"], features["pump-1", 5, "sex"]["mean"]) == ([7, 7, 0], None)
    (event,) = table(tmp_path / "out", "events")
    assert (event["device"], event["name"], event["detail"]) == ("pump-1", "hot", "90 C")
    (gap,) = table(tmp_path / "out", "gaps")
    assert (gap["records"], gap["rows"], gap["bytes"], gap["reason"]) == (2, 30, 400, "outbox full")


def test_what_a_place_in_a_list_means_stands_in_the_table_of_bins(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out")
    rows = {(one["kind"], one["name"]): one for one in table(tmp_path / "out", "bins")}
    assert rows["feature", "bmi"]["edges"] == [20.0, 25.0, 30.0]
    assert rows["feature", "sex"]["categories"] == ["f", "m"]
    assert rows["classes", None]["categories"] == ["no", "yes"]
    assert rows["scores", None]["edges"] == [0.7, 0.9]
    assert rows["latency_us", None]["edges"] == list(latency_edges_us())


def test_roll_ups_of_devices_and_of_all_are_exported(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out")
    rows = table(tmp_path / "out", "rollups")
    day = {one["device"]: one for one in rows if one["hours"] == 24 and one["model"] == MODEL and one["distances"]}
    assert day["pump-1"]["rows"] == 12 + 14
    assert (day["pump-1"]["windows"], day["pump-1"]["classes"], day["pump-1"]["devices"]) == (2, [13, 13], 1)
    assert {one["device"] for one in rows} == {None, "pump-1", "pump-2"}
    (bmi,) = [
        one
        for one in table(tmp_path / "out", "rollup_features")
        if (one["hours"], one["device"], one["feature"], one["bins"]) == (24, "pump-1", "bmi", [8, 4, 6, 8])
    ]
    assert [bmi[name] for name in ("values", "mean", "m2", "minimum", "maximum")] == [26, 22.5, 18.0, 18.0, 30.0]


def test_days_devices_and_models_can_be_chosen(store: Store, tmp_path: Path) -> None:
    yesterday = date.fromordinal(TODAY.toordinal() - 1)
    export(store, tmp_path / "a", until=yesterday)
    assert {one["device"] for one in table(tmp_path / "a", "windows")} == {"pump-2"}
    export(store, tmp_path / "b", since=TODAY)
    assert {one["device"] for one in table(tmp_path / "b", "windows")} == {"pump-1"}
    export(store, tmp_path / "c", selection=Selection(devices=("pump-1",), models=("other",)))
    assert [one["sequence"] for one in table(tmp_path / "c", "windows")] == [6]
    assert {one["device"] for one in table(tmp_path / "c", "rollups")} == {"pump-1"}
    with pytest.raises(UsageError, match="no device 'pump-9'"):
        export(store, tmp_path / "d", selection=Selection(devices=("pump-9",)))
    with pytest.raises(UsageError, match="holds an export of other devices"):
        export(store, tmp_path / "c")


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet") if path.parent.name != "bins"}


def test_only_days_that_changed_are_written_again(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(store, out)
    before = state(out)
    assert export(store, out)["windows"] == Exported(rows=0, files=0, unchanged=2)
    assert state(out) == before
    ingest(store, seen(20))
    assert export(store, out)["windows"] == Exported(rows=5, files=1, unchanged=1)
    changed = {path.parts[-3] for path, time in state(out).items() if before[path] != time}
    assert changed == {"windows", "features"}
    assert len(table(out, "windows")) == 7


def test_a_day_that_the_store_no_longer_has_all_of_is_kept(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(store, out)
    with store.database.writing() as db:
        db.run('DELETE FROM "window" WHERE id IN (SELECT MIN(id) FROM "window" GROUP BY dev)')
        db.run("DELETE FROM reference")
        db.run("DELETE FROM rollup WHERE hours = 1")
    ingest(store, seen(30))
    done = export(store, out)
    assert (done["windows"], done["rollups"]) == (Exported(kept=2), Exported(kept=2))
    assert len(table(out, "windows")) == 6
    assert {one["bins_id"] for one in table(out, "bins")} == {BINS_ID.hex()}


def test_a_killed_export_leaves_whole_files_and_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.collector import tables

    out, whole = tmp_path / "out", tables.window_tables

    def torn(windows: Any, rows: Any, bins: Any) -> Any:
        if rows.keys[0].device == "pump-1":
            raise KeyboardInterrupt
        return whole(windows, rows, bins)

    monkeypatch.setattr(tables, "window_tables", torn)
    with pytest.raises(KeyboardInterrupt):
        export(store, out)
    assert {one["device"] for one in table(out, "windows")} == {"pump-2"}
    assert not list(out.rglob("*.part"))
    monkeypatch.undo()
    # As after kill -9: nobody cleaned up.
    (out / "windows" / f"day={TODAY}").mkdir(parents=True, exist_ok=True)
    (out / "windows" / f"day={TODAY}" / ".windows.parquet.part").write_bytes(b"half")
    assert export(store, out)["windows"] == Exported(rows=4, files=1, unchanged=1)
    assert len(table(out, "windows")) == 6
    assert not list(out.rglob("*.part"))


def test_an_empty_store_gives_an_empty_export(tmp_path: Path) -> None:
    with open_store(tmp_path / "empty.db") as empty:
        assert export(empty, tmp_path / "out") == {}
    assert table(tmp_path / "out", "bins") == []


def test_a_full_disk_is_a_storage_fault_and_leaves_no_half_file(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "windows" / f"day={TODAY}").mkdir(parents=True)
    (out / "windows" / f"day={TODAY}" / ".windows.parquet.part").symlink_to("/dev/full")
    with pytest.raises(StorageFault, match="No space left"):
        export(store, out)
    assert not list(out.rglob(f"day={TODAY}/windows.parquet"))
    assert not list(out.rglob("*.part"))
    assert export(store, out)["windows"].rows == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        export(store, tmp_path / "file")


def test_two_exports_into_one_folder_do_not_meet(store: Store, tmp_path: Path) -> None:
    def again(_: str) -> None:
        with pytest.raises(EnvironmentFault, match="another process exports"):
            export(store, tmp_path / "out")

    assert export(store, tmp_path / "out", progress=again)["windows"].rows == 6


def test_the_command_says_what_it_wrote_and_goes_on(store: Store, tmp_path: Path, run: Run) -> None:
    out, where = tmp_path / "out", store.database.name
    code, text, _ = run("collect", "export", "--parquet", out, "--store", where, "--device", "pump-2")
    assert (code, text.splitlines()[1].split()) == (0, ["windows", "2", "1", "0", "0"])
    code, text, _ = run("collect", "--store", where, "export", "--parquet", out, "--device", "pump-2", "--json")
    assert json.loads(text)["tables"]["windows"] == {"rows": 0, "files": 0, "unchanged": 1, "kept": 0}
    code, text, error = run("collect", "export", "--parquet", out, "--store", where)
    assert (code, text) == (2, "")
    assert error.startswith(f"Error: {out} holds an export of")
    code, text, error = run(
        "collect", "export", "--parquet", tmp_path / "new", "--store", where, "--until", "2020-01-01"
    )
    assert (code, text, error) == (0, "", "nothing to export: the store has no such windows, gaps or events\n")


def test_a_store_that_is_not_there_and_a_library_that_is_missing_are_one_sentence(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, error = run("collect", "export", "--parquet", tmp_path / "out", "--store", tmp_path / "none.db")
    assert (code, error.splitlines()[0]) == (2, f"Error: cannot read the store {tmp_path / 'none.db'}: no such file")
    assert not (tmp_path / "out").exists()
    for name in [
        name for name in sys.modules if name.startswith(("edgekit.collector.export", "edgekit.collector.tables"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    code, _, error = run("collect", "export", "--parquet", tmp_path / "out", "--store", tmp_path / "none.db")
    assert (code, error.splitlines()[-1]) == (2, "Try:   pip install 'edgekit-toolkit[export]'")
