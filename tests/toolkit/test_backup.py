from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edgekit.collector import rolled
from edgekit.collector.ingest import Message, read
from edgekit.collector.store import Ingested, Store, open_store
from edgekit.fleet.status import fleet_status
from edgekit_contracts import topics
from edgekit_contracts.telemetry import Ack, Envelope, encode, encode_message
from tests.telemetry_samples import NOW_MS, envelope, reference_parts, window

WINDOW, ROWS = window()


def ingest(store: Store, *records: Envelope) -> Ingested:
    message = Message(str(topics.Up("pump-1")), encode_message([encode(one) for one in records]), NOW_MS)
    return store.ingest(read(message, store))


def windows(first: int, last: int) -> list[Envelope]:
    return [envelope(WINDOW, sequence=number, n=ROWS) for number in range(first, last + 1)]


def test_a_backup_of_a_running_store_goes_on_where_it_was_made(tmp_path: Path) -> None:
    path, backup = tmp_path / "fleet.db", tmp_path / "backup.db"
    with open_store(path) as store:
        ingest(store, *(envelope(one, sequence=i + 1) for i, one in enumerate(reference_parts())), *windows(3, 5))
        rolled.roll_up(store.database, store.bins)
        ingest(store, *windows(6, 7))
        # As docs/operations.md says.
        with closing(sqlite3.connect(path)) as other:
            other.execute("VACUUM INTO ?", (str(backup),))
        then = fleet_status(store, NOW_MS + 1000)
        ingest(store, *windows(8, 10))
    with open_store(backup) as store:
        assert fleet_status(store, NOW_MS + 1000) == then
        assert ingest(store, *windows(6, 7)).duplicates == 2
        # 8 to 10 are gone from here and from the device, which goes on all the same.
        assert ingest(store, *windows(11, 12)).acks == (("pump-1", Ack(epoch=7, high=7, ranges=((11, 12),))),)
        assert rolled.roll_up(store.database, store.bins) == 4
        assert fleet_status(store, NOW_MS + 1000)[0].rows == 7 * ROWS
