"""The store in PostgreSQL: what a file cannot suffer."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from edgekit.collector import rolled
from edgekit.collector.blocks import windows_of
from edgekit.collector.postgres import Postgres as Database
from edgekit.collector.postgres_address import parse
from edgekit.collector.schema import WINDOW
from edgekit.collector.store import Store, open_store
from edgekit_contracts.errors import MissingExtra, StorageFault, UnsupportedFormat, UsageError
from edgekit_contracts.telemetry import Ack, Envelope, Event
from edgekit_contracts.topics import partition
from tests.brokers import free_port
from tests.postgres import Postgres
from tests.telemetry_samples import BINS_ID, NOW_MS, envelope
from tests.toolkit.conftest import Run
from tests.toolkit.test_store import CORPUS, ROWS, ack, ingest, reference_records, windows
from tests.toolkit.test_store import WINDOW as BODY

DAY = NOW_MS // 86_400_000


def days(store: Store) -> list[str]:
    with store.database.reading() as db:
        rows = db.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'edgekit.window'::regclass")
    return sorted(name for (name,) in rows)


def test_a_killed_server_is_a_storage_fault_and_nothing_is_lost_or_doubled(own_postgres: Postgres) -> None:
    with open_store(own_postgres.url()) as store:
        ingest(store, *reference_records(), *windows(3, 4))
        own_postgres.kill()
        for _ in range(2):
            with pytest.raises(StorageFault) as caught:
                ingest(store, *windows(5, 6))
            assert caught.value.exit_code == 3
        own_postgres.start()
        assert ack(ingest(store, *windows(4, 6))) == Ack(epoch=7, high=6)
        assert [one.sequence for one in store.windows("pump-1", 0)] == [3, 4, 5, 6]


def test_a_connection_that_is_cut_within_a_batch_undoes_all_of_it(where_postgres: str) -> None:
    def cut(connection: psycopg.Connection[Any], partitions: frozenset[int]) -> None:
        assert partitions == {partition("pump-1")}
        if cuts:
            with psycopg.connect(where_postgres, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (cuts.pop(),))

    cuts: list[int] = []
    with open_store(where_postgres, fence=cut) as store:
        ingest(store, *reference_records())
        with store.database.reading() as db:
            cuts.append(db.rows("SELECT pg_backend_pid()")[0][0])
        with pytest.raises(StorageFault, match="terminating connection"):
            ingest(store, *windows(3, 5))
        assert (store.count("window"), store.highest("pump-1", 7)) == (0, 2)
        assert ingest(store, *windows(3, 5)).stored == 3


def test_a_fence_that_refuses_undoes_the_batch(where_postgres: str) -> None:
    class Fenced(Exception):
        pass

    def fence(connection: psycopg.Connection[Any], partitions: frozenset[int]) -> None:
        raise Fenced

    with open_store(where_postgres, fence=fence) as store, pytest.raises(Fenced):
        ingest(store, *windows(1, 1))
    with open_store(where_postgres, create=False) as store:
        assert store.count("quarantine") == 0


def test_collectors_that_get_the_same_records_store_each_once(where_postgres: str) -> None:
    """And a reader who goes on from the highest number it has seen misses none: numbers follow the commits."""
    records = [windows(number, number + 4) for number in range(3, 203, 5)]
    stored: list[int] = []

    def collect() -> None:
        with open_store(where_postgres) as own:
            stored.append(sum(ingest(own, *some).stored for some in records))

    with open_store(where_postgres) as store:
        ingest(store, *reference_records())
        threads = [threading.Thread(target=collect) for _ in range(3)]
        for thread in threads:
            thread.start()
        seen, mark = set[int](), 0
        while any(thread.is_alive() for thread in threads) or len(seen) < store.count("window"):
            with store.database.reading() as db:
                rows = db.rows('SELECT id, records FROM "window" WHERE p = ? AND id > ?', (partition("pump-1"), mark))
            seen |= {one.sequence for one in windows_of(records for _, records in rows)}
            mark = max([mark, *(number for number, _ in rows)])
        for thread in threads:
            thread.join()
        assert sum(stored) == 200
        assert seen == set(range(3, 203))
        assert store.count("window") == 200


def test_a_window_that_another_collector_s_reference_frees_does_not_stay_in_quarantine(where_postgres: str) -> None:
    with open_store(where_postgres) as one, open_store(where_postgres) as two:
        # Read before the reference came, stored after it.
        waits = envelope(BODY, sequence=1, n=ROWS, device="pump-2")
        assert two.bins(BINS_ID) is None
        ingest(one, *reference_records())
        done = two.ingest([_quarantined(waits)])
        assert (done.stored, two.quarantined(), two.count("window")) == (1, {}, 1)


VERSION_2 = """
DROP TABLE "window";
CREATE TABLE "window" (id bigint NOT NULL DEFAULT nextval('window_id'), p bigint NOT NULL, day bigint NOT NULL,
    dev text NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL, at_ms bigint NOT NULL, t0_ms bigint NOT NULL,
    dt_ms bigint NOT NULL, clock bigint NOT NULL, received_ms bigint NOT NULL, bins_id bytea NOT NULL,
    n bigint NOT NULL, model text NOT NULL, version text NOT NULL, body bytea NOT NULL, merged bigint NOT NULL)
    PARTITION BY LIST (day);
CREATE INDEX ON "window" (dev, at_ms);
CREATE INDEX ON "window" (p, id);
CREATE INDEX ON "window" (day);
CREATE TABLE window_20270115 (LIKE "window" INCLUDING DEFAULTS INCLUDING INDEXES);
CREATE TABLE window_20270116 (LIKE "window" INCLUDING DEFAULTS INCLUDING INDEXES);
ALTER TABLE "window" ATTACH PARTITION window_20270115 FOR VALUES IN (20833);
ALTER TABLE "window" ATTACH PARTITION window_20270116 FOR VALUES IN (20834);
UPDATE version SET version = 2
"""


def test_a_database_of_the_second_version_is_brought_up_to_date_and_answers_as_before(
    tmp_path: Path, where_postgres: str
) -> None:
    """With the rows of the corpus, as that version laid them out."""
    corpus = CORPUS / "store-2" / "fleet.db"
    open_store(where_postgres).close()
    with psycopg.connect(where_postgres, options="-c search_path=edgekit") as link, link.cursor() as cursor:
        cursor.execute(VERSION_2)
        with closing(sqlite3.connect(corpus)) as db:
            for table in ("window", "cursor", "reference", "standing", "part", "rollup_mark"):
                rows = db.execute(f'SELECT * FROM "{table}"').fetchall()
                marks = ", ".join(["%s"] * len(rows[0]))
                cursor.executemany(f'INSERT INTO "{table}" VALUES ({marks})'.encode(), rows)
        cursor.execute("SELECT setval('window_id', 16)")
    with pytest.raises(StorageFault, match="of an older release"):
        open_store(where_postgres, create=False)
    shutil.copy(corpus, tmp_path / "old.db")
    with open_store(tmp_path / "old.db") as file, open_store(where_postgres) as server:
        for device in ("pump-1", "pump-2"):
            assert list(server.windows(device, 0)) == list(file.windows(device, 0))
        found = []
        for store in (file, server):
            ingest(store, *windows(3, 9), *windows(30, 30))
            with store.database.reading() as db:
                found.append(db.rows('SELECT id, p, day, dev, hour_ms, windows, records FROM "window" ORDER BY id'))
        assert found[0] == found[1]
        assert rolled.roll_up(server.database, server.bins) == 6
    with open_store(where_postgres, create=False) as again:
        assert again.count("window") == 15


def _quarantined(record: Envelope) -> Any:
    from edgekit.collector.ingest import Accepted
    from edgekit_contracts.telemetry import decode_body

    return Accepted(record, decode_body(record), NOW_MS, quarantined=True)


def test_windows_lie_in_a_partition_for_each_day(where_postgres: str) -> None:
    with open_store(where_postgres) as store:
        ingest(store, *reference_records(), *windows(3, 4))
        assert days(store) == ["window_20270115"]
        with store.database.writing() as db:
            db.make_day(WINDOW, DAY + 1)
        assert days(store) == ["window_20270115", "window_20270116"]
        with store.database.reading() as db:
            sql = (
                "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'window_20270116'::regclass AND attname = ?"
            )
            assert db.rows(sql, ("records",)) == [("e",)], "not compressed"
        with open_store(where_postgres) as second:
            assert ingest(second, *windows(5, 5)).stored == 1


def test_a_day_that_somebody_dropped_is_made_again(where_postgres: str) -> None:
    with open_store(where_postgres) as store, psycopg.connect(where_postgres, autocommit=True) as other:
        ingest(store, *reference_records(), *windows(3, 4))
        other.execute("DROP TABLE edgekit.window_20270115")
        with pytest.raises(StorageFault):
            ingest(store, *windows(5, 5))
        assert ingest(store, *windows(3, 5)).stored == 1
        assert store.count("window") == 1


def test_a_text_with_a_nul_is_stored_without_it(where: str) -> None:
    with open_store(where) as store:
        assert ingest(store, envelope(Event("a\0b", "c\0d"))).stored == 1
        with store.database.reading() as db:
            assert db.rows("SELECT name, detail FROM event") == [("a\ufffdb", "c\ufffdd")]


def test_tables_of_a_newer_release_are_refused(where_postgres: str) -> None:
    with pytest.raises(StorageFault, match="no collector's store"):
        open_store(where_postgres, create=False)
    open_store(where_postgres).close()
    with psycopg.connect(where_postgres) as other:
        other.execute("UPDATE edgekit.version SET version = 7")
    with pytest.raises(UnsupportedFormat, match="version 7"):
        open_store(where_postgres)


def test_what_is_acknowledged_is_on_the_disk_whatever_the_server_s_default(
    where_postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(f"{where_postgres}?options=-csynchronous_commit%3Doff")
    with database.reading() as db:
        assert db.rows("SHOW synchronous_commit") == [("on",)]
        assert db.rows("SHOW search_path") == [("edgekit",)]
    database.close()


def test_a_database_of_another_encoding_is_refused(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as other:
        other.execute("DROP DATABASE IF EXISTS latin")
        other.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StorageFault, match="encoding is LATIN1"):
        open_store(postgres.url("latin"))


def test_a_server_that_does_not_answer_is_one_sentence(run: Run) -> None:
    address = f"postgresql://edgekit:s3cret@127.0.0.1:{free_port()}/fleet"
    code, out, err = run("fleet", "status", "--store", address)
    assert (code, out) == (3, "")
    sentence, step = err.splitlines()
    assert "cannot use postgresql://edgekit@127.0.0.1:" in sentence
    assert "Connection refused" in sentence
    assert "server" in step
    assert "s3cret" not in err


def test_a_database_that_is_not_there_is_one_sentence(postgres: Postgres, run: Run) -> None:
    code, _, err = run("fleet", "status", "--store", postgres.url("missing"))
    assert code == 3
    assert 'database "missing" does not exist' in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:s3cr@et@host/db",
        "postgresql://user:s3/cr@host/db",
        "postgresql://user:s3#cr@host/db",
        "postgresql://user:s3?cr@host/db",
        "postgresql://user:s3%cr@host/db",
        "postgresql://user:s3cr@host:port/db",
        "postgresql://host/db?s3cr=1",
    ],
)
def test_an_address_that_cannot_be_read_says_nothing_of_the_password(address: str) -> None:
    with pytest.raises((UsageError, StorageFault)) as caught:
        open_store(address, create=False)
    words = f"{caught.value} {caught.value.next_step}"
    assert not any(part in words for part in ("s3", "cr@", "et@"))


def test_the_address_that_is_shown_has_no_password_and_no_settings() -> None:
    told, shown = parse("postgres://me:s3cret@one,two:5433/fleet?sslmode=require")
    assert "password=s3cret" in told
    assert shown == "postgresql://me@one,two:5433/fleet"


def test_without_psycopg_the_step_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra) as caught:
        open_store("postgresql://host/db")
    assert caught.value.next_step == "pip install 'edgekit-toolkit[postgresql]'"
