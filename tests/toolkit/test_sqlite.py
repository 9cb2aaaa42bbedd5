"""The store in a file: what other databases cannot suffer."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgekit.collector import migration, rolled
from edgekit.collector.lookback import look_back
from edgekit.collector.store import Store, open_store
from edgekit_contracts.errors import MissingFile, StorageFault, UnsupportedFormat
from edgekit_contracts.telemetry import Ack, Event, encode
from tests.disks import on_a_small_disk
from tests.telemetry_samples import NOW_MS, REFERENCE, envelope
from tests.toolkit.test_store import ack, ingest, reference_records, windows

CORPUS = Path(__file__).parents[1] / "corpus"


def test_a_full_disk_is_a_storage_fault_and_passes(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    big = [envelope(Event("a", "x" * 1000), sequence=i) for i in range(1, 200)]
    with store.database.reading() as db:
        ((pages,),) = db.rows("PRAGMA page_count")
        db.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFault, match="full"):
        ingest(store, *big)
    assert store.count("event") == 0
    with store.database.reading() as db:
        db.rows("PRAGMA max_page_count = 1000000")
    assert ingest(store, *big).stored == 199
    store.close()


def test_files_that_are_not_a_store_of_this_release_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no such file"):
        open_store(tmp_path / "missing.db", create=False)
    (tmp_path / "text.db").write_text("hello" * 1000)
    with pytest.raises(StorageFault, match="not a database"):
        open_store(tmp_path / "text.db")
    with pytest.raises(StorageFault, match="it is a folder"):
        open_store(tmp_path, create=False)
    db = sqlite3.connect(tmp_path / "newer.db")
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(UnsupportedFormat, match="version 7"):
        open_store(tmp_path / "newer.db")


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_a_database_of_another_program_is_left_as_it_is(version: int, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "contacts.db")) as db:
        db.executescript(f"CREATE TABLE device (name); PRAGMA user_version = {version}")
    before = (tmp_path / "contacts.db").read_bytes()
    with pytest.raises(StorageFault, match="no collector's store") as refused:
        open_store(tmp_path / "contacts.db")
    assert "--store" in refused.value.next_step
    assert (tmp_path / "contacts.db").read_bytes() == before


def test_a_file_of_the_first_version_is_brought_up_to_date_and_answers_as_before(tmp_path: Path) -> None:
    shutil.copy(CORPUS / "store-1" / "fleet.db", tmp_path / "old.db")
    with open_store(tmp_path / "new.db") as new:
        fresh = tables(new)
    with open_store(tmp_path / "old.db") as old:
        assert tables(old) == fresh
        assert (old.lost(), old.refused(), old.quarantined()) == (
            {"pump-1": 2},
            {"body": 1, "garbage": 1},
            {"pump-2": 1},
        )
        assert {name: at for name, (_, at) in old.devices().items()} == {"pump-1": NOW_MS, "pump-2": 0}
        assert [old.last_window(name) for name in ("pump-1", "pump-2")] == [
            (NOW_MS + 12_000, 10_000),
            (NOW_MS + 14_000, 0),
        ]
        stored = list(old.windows("pump-1", 0))
        assert sorted(one.sequence for one in stored) == [3, 4, 5, 6, 9, 13, 14, 20]
        found = old.reference(stored[0])
        assert found is not None
        assert (found.bins, found.scores) == (REFERENCE.bins, REFERENCE.scores)
        # Known: what was stored, refused, or a part. Late: 8. New: 11.
        assert ingest(old, *windows(3, 6), *windows(20, 21), *reference_records()).duplicates == 8
        assert (ingest(old, *windows(8, 8)).stored, old.lost()) == (1, {"pump-1": 1})
        assert ack(ingest(old, *windows(11, 11))) == Ack(epoch=7, high=11, ranges=((13, 14), (20, 21)))
    with open_store(tmp_path / "old.db") as again:
        assert again.count("window") == 10


def test_a_file_whose_update_fails_midway_is_still_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(CORPUS / "store-1" / "fleet.db", tmp_path / "old.db")
    with monkeypatch.context() as patch:
        patch.setattr(migration, "RECENT_MAX", "not a number")
        with pytest.raises(StorageFault, match="mismatch"):
            open_store(tmp_path / "old.db")
    with sqlite3.connect(tmp_path / "old.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT COUNT(*) FROM window").fetchone() == (8,)
    db.close()
    with open_store(tmp_path / "old.db") as store:
        assert (store.count("window"), store.lost()) == (8, {"pump-1": 2})


def test_a_file_of_the_second_version_is_brought_up_to_date_and_answers_as_before(tmp_path: Path) -> None:
    shutil.copy(CORPUS / "store-2" / "fleet.db", tmp_path / "old.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        columns = "dev, epoch, seq, at_ms, dt_ms, received_ms, bins_id, n, model, version, body, merged"
        rows = db.execute(f"SELECT id, p, day, {columns} FROM window ORDER BY dev, at_ms, seq").fetchall()
        sums = db.execute("SELECT * FROM rollup").fetchall()
    with open_store(tmp_path / "new.db") as new:
        fresh = tables(new)
    with open_store(tmp_path / "old.db") as old:
        assert tables(old) == fresh
        stored = [one for device in ("pump-1", "pump-2") for one in old.windows(device, 0)]
        assert [(*one[:-2], encode(one.window), one.merged) for one in stored] == [row[3:] for row in rows]
        with old.database.reading() as db:
            assert db.rows('SELECT id, p, day FROM "window" ORDER BY id') == sorted(row[:3] for row in rows)
            assert db.rows("SELECT * FROM rollup") == sums
        assert look_back(old, "pump-1", 0)[0]["windows"] == 12
        assert rolled.roll_up(old.database, old.bins) == 5
        assert look_back(old, "pump-1", 0)[0]["windows"] == 12
        # The number of a window that was removed is not given again: it may be before a mark.
        ingest(old, *windows(30, 30))
        with old.database.reading() as db:
            assert db.rows('SELECT MAX(id) FROM "window"') == [(17,)]
        assert ingest(old, *windows(3, 9), *windows(17, 17)).duplicates == 8


def test_a_file_of_this_version_is_read_as_it_is(tmp_path: Path) -> None:
    shutil.copy(CORPUS / "store-3" / "fleet.db", tmp_path / "fleet.db")
    with open_store(tmp_path / "fleet.db") as store:
        assert [one.sequence for one in store.windows("pump-1", 0)] == [*range(3, 10), 17, 10, 11, 12, 1, 14]
        assert (store.count("window"), store.lost(), store.quarantined()) == (16, {"pump-1": 3}, {"pump-2": 1})
        assert look_back(store, "pump-1", 0)[0]["windows"] == 13
        assert ingest(store, *windows(3, 9)).duplicates == 7


def test_whoever_only_reads_leaves_an_older_store_as_it_is(tmp_path: Path) -> None:
    for version in (1, 2):
        shutil.copy(CORPUS / f"store-{version}" / "fleet.db", tmp_path / "old.db")
        before = (tmp_path / "old.db").read_bytes()
        with pytest.raises(StorageFault, match="of an older release") as refused:
            open_store(tmp_path / "old.db", create=False)
        assert "edgekit collect" in refused.value.next_step
        assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("old.db", before)]


READ_ONLY = """
import os, shutil, subprocess, sys
from pathlib import Path
from edgekit.collector.store import open_store
from edgekit_contracts.errors import StorageFault

def read(name):
    with open_store(locked / name, create=False) as store:
        return store.count("window")

folder = Path(sys.argv[1])
disk, locked = folder / "disk", folder / "locked"
disk.mkdir(), locked.mkdir()
for name in ("closed.db", "open.db"):
    shutil.copy(sys.argv[2], disk / name)
writer = open_store(disk / "open.db")
with writer.database.writing() as db:
    db.run("DELETE FROM window WHERE id = (SELECT MIN(id) FROM window)")
for suffix in ("", "-wal"):
    shutil.copy(disk / f"open.db{suffix}", disk / f"killed.db{suffix}")
subprocess.run(["mount", "--bind", disk, locked], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", locked], check=True)
before = sorted(os.listdir(disk))
print(read("closed.db"), read("open.db"))
try:
    read("killed.db")
except StorageFault as fault:
    print(fault.sentence)
try:
    open_store(locked / "closed.db")
except StorageFault as fault:
    print(fault.sentence)
assert sorted(os.listdir(disk)) == before
"""


def test_a_store_on_a_medium_that_cannot_be_written_is_read_all_the_same(tmp_path: Path) -> None:
    said = on_a_small_disk(tmp_path, READ_ONLY, str(CORPUS / "store-3" / "fleet.db")).splitlines()
    assert said[0] == "16 13"  # the second one as its collector has it
    assert "its journal killed.db-wal cannot be read where nothing can be written" in said[1]
    assert "readonly" in said[2]


def test_windows_are_counted_and_their_days_named_without_reading_them(tmp_path: Path) -> None:
    with open_store(tmp_path / "fleet.db") as store, store.database.reading() as db:
        for sql in (
            "SELECT SUM(windows) FROM window",
            "SELECT hour_ms / 86400000, SUM(windows), MIN(id), MAX(id) FROM window WHERE hour_ms >= 0 AND hour_ms < 9"
            " GROUP BY hour_ms / 86400000",
            "SELECT MAX(id) FROM window WHERE p = 3 AND id > 7",
            "SELECT MIN(day) FROM window WHERE day > 5",
        ):
            plan = [detail for *_, detail in db.rows(f"EXPLAIN QUERY PLAN {sql}")]
            assert "USING COVERING INDEX" in plan[0], plan


def tables(store: Store) -> list[tuple[str, str]]:
    with store.database.reading() as db:
        return db.rows("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
