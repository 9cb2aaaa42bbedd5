"""The collector's store: one transaction for a batch, and acknowledgements only after it.

The cursors say what is new (`cursor`): repeating a batch changes nothing, though its rows may have been removed since.
The acknowledgements come back from `ingest` after its commit, so a device forgets only what lies safely here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.collector.archive import Archive
from edgekit.collector.batch import Batch
from edgekit.collector.database import Database, Fence
from edgekit.collector.ingest import Accepted, Birth, Reading
from edgekit.collector.postgres import Postgres
from edgekit.collector.postgres_address import is_address
from edgekit.collector.sqlite import Sqlite
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Ack, Kind
from edgekit_contracts.topics import partition

UNKNOWN_S: Final = 1.0
UNKNOWN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch, after its commit."""

    acks: tuple[tuple[str, Ack], ...]
    """To send, as (device, acknowledgement)."""
    stored: int
    duplicates: int
    refused: Counter[str]
    """By reason; a repeated refused record is a duplicate."""
    ahead: int = 0
    """Of those stored, with a clock from the future that claimed to be synchronised: dated by their arrival."""


class Store(Archive):
    """The archive, and writing to it.

    Args:
        database: Where the tables are.
        fence: Called in each transaction that ingests, with the partitions of its records; statuses are anybody's.
    """

    def __init__(self, database: Database, *, fence: Fence | None = None) -> None:
        super().__init__(database)
        self._fence = fence
        self._unknown: dict[bytes, float] = {}  # bins -> until when the database is not asked for them again

    def bins(self, bins_id: bytes) -> Bins | None:
        """As of the archive, but what was not here a moment ago is not looked for again.

        A window that is sent into quarantine for that comes out at once: `ingest` looks again.
        """
        now_s = time.monotonic()
        if self._unknown.get(bins_id, 0.0) > now_s:
            return None
        found = super().bins(bins_id)
        if found is None:
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[bins_id] = now_s + UNKNOWN_S
        return found

    def ingest(self, batch: Iterable[Reading]) -> Ingested:
        """Stores a batch in one transaction.

        Returns:
            The acknowledgements to send, and counts.

        Raises:
            StorageFault: Nothing is acknowledged; the batch may be given again.
        """
        readings = list(batch)
        names, born, at_stake = _touched(readings)
        partitions = frozenset({partition(device) for device, _ in names})
        with self.database.writing() as db:
            if self._fence is not None:
                self._fence(db, partitions)
            db.lock(partitions | {partition(device) for device in born}, at_stake)
            work = Batch(db, readings, names)
            acks = work.store()
        for bins_id in at_stake:
            self._unknown.pop(bins_id, None)
        return Ingested(acks, work.stored, work.duplicates, work.refused, work.ahead)


def open_store(where: Path | str, *, create: bool = True, fence: Fence | None = None) -> Store:
    """Opens a store.

    Args:
        where: A file of SQLite, or `postgresql://USER@HOST:PORT/DATABASE`.
        create: Make it where it is missing; a command that only reads says False.
        fence: As of `Store`.

    Raises:
        MissingFile: It does not exist, and is not to be made.
        StorageFault: It cannot be opened.
        UnsupportedFormat: A newer release made it.
        UsageError, MissingExtra: It looks like the address of a PostgreSQL and is none; or psycopg is not installed.
    """
    return Store(open_database(where, create=create), fence=fence)


def open_database(where: Path | str, *, create: bool = True) -> Database:
    """Opens what a store stands on; arguments and errors as of `open_store`."""
    return Postgres(str(where), create=create) if is_address(str(where)) else Sqlite(Path(where), create=create)


def _touched(readings: Iterable[Reading]) -> tuple[set[tuple[str, int]], set[str], set[bytes]]:
    """The devices and epochs of records, the devices of statuses, and the bins that are at stake."""
    names, born, at_stake = set[tuple[str, int]](), set[str](), set[bytes]()
    for one in readings:
        if isinstance(one, Accepted):
            envelope = one.envelope
            names.add((envelope.device, envelope.epoch))
            if one.quarantined or envelope.kind is Kind.REFERENCE:
                at_stake.add(envelope.bins_id)
        elif isinstance(one, Birth):
            born.add(one.status.device)
        elif one.key is not None:
            names.add(one.key[:2])
    return names, born, at_stake
