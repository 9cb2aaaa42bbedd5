"""The outbox's rows: their file, their keys, and how many there are, taken back together where a step fails."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.errors import EdgekitError, StorageFault
from edgekit_contracts.telemetry import (
    ENVELOPE_VERSION,
    Clock,
    Envelope,
    Gap,
    Kind,
    decode_body,
    decode_envelope,
    encode,
)
from edgekit_runtime.ballast import Ballast
from edgekit_runtime.outfile import open_file
from edgekit_runtime.transaction import stored_in, transaction

log = logging.getLogger(__name__)

GAP_MAX_SPAN: Final = limits.SEQUENCE_MAX_JUMP // 2
"""Sequences that one gap takes; of more records than this the collector would fear a wild number."""
NO_KEY: Final = 2**63 - 1
"""Stands for a sequence in the bytes of a record that has none; no other takes more of them."""

_CHANGED: Final = ("epoch", "count", "size", "new", "produced", "given", "merged", "given_up", "appended_bytes")
"""What a transaction changes and takes back, beside the levels."""


class Row(NamedTuple):
    """A record that waits."""

    id: int
    """In the order of production."""
    epoch: int | None
    sequence: int | None
    """None: it has no key, and never left the device."""
    first: int | None
    """The first sequence that it stands for: its own, but for a gap."""
    kind: int
    stands: int
    """For so many records that were produced."""
    made_s: int
    """When, by the service's own time."""
    data: bytes
    """The encoded envelope."""


class Fill(NamedTuple):
    """How full an outbox is: as it was committed, for those who look on from other threads."""

    records: int
    size: int
    keyed: int
    produced: int


_COLUMNS: Final = ", ".join(Row._fields)


class Records:
    """The rows of one outbox.

    Args:
        path: The file, made where it is missing.
        device: Whose it is.
        clock_s: A monotonic clock.

    Attributes:
        db: The file.
        ballast: Room for deleting on a full disk.
        epoch: Random 63-bit number of this start.
        session: Grows by one each time the file is opened.
        set_aside: Where a damaged file was moved when this one was begun, or None.
        made_s: The service's own time when the newest of them was stored.
        count: Rows.
        size: Bytes of them.
        new: Those without keys.
        levels: Windows among these by level: of level k are those that stand for 2^k to 2^(k+1) - 1.
        given: The highest sequence of this epoch.
        produced: The highest number ever given.
        merged: Windows that were added into others since the file was opened.
        given_up: Records that were given up since then.
        appended_bytes: Of the records that were appended since then.
        standing: How full it is, as it was committed.

    Raises:
        StorageFault, UnsupportedFormat: As `open_file`.
    """

    def __init__(self, path: Path, device: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.path, self.device = path, device
        self.ballast = Ballast(path.with_name(path.name + ".ballast"), clock_s)
        self._lock = threading.RLock()
        try:
            self.db, self.set_aside = open_file(path, device)
        except StorageFault as fault:
            if not (_is_full(fault) and self.ballast.throw_off()):
                raise
            self.db, self.set_aside = open_file(path, device)
        self.ballast.take_in()
        epoch, session = self.db.execute("SELECT epoch, session FROM meta").fetchone()
        self.epoch, self.session = int(epoch), int(session)
        count, size, new, made_s = self.db.execute(
            "SELECT COUNT(*), TOTAL(LENGTH(data)), COUNT(*) - COUNT(sequence), MAX(made_s) FROM record"
        ).fetchone()
        self.count, self.size, self.new, self.made_s = int(count), int(size), int(new), int(made_s or 0)
        row = self.db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        self.produced: int = row[0] if row else 0
        self.given = self.merged = self.given_up = self.appended_bytes = 0
        self.levels = Counter[int]()
        self.standing = self._fill()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file, for one thread at a time.

        Raises:
            StorageFault: The disk refuses.
        """
        with self._lock, stored_in(self.path):
            yield self.db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it, or nothing, and then the counts are what they were."""
        with self.reading() as db:
            before = {name: getattr(self, name) for name in _CHANGED}
            levels = self.levels.copy()
            try:
                with transaction(db):
                    yield db
            except BaseException:
                for name, value in before.items():
                    setattr(self, name, value)
                self.levels = levels
                raise
            self.standing = self._fill()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self.db.close()

    def rows(self, db: sqlite3.Connection, where: str, *values: object) -> list[Row]:
        """Those of a condition."""
        return [Row._make(row) for row in db.execute(f"SELECT {_COLUMNS} FROM record WHERE {where}", values)]

    def put(self, db: sqlite3.Connection, row: Row) -> None:
        """Inserts one."""
        db.execute(f"INSERT INTO record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self.count += 1
        self.size += len(row.data)
        self.new += row.sequence is None
        if row.sequence is None and row.kind == Kind.WINDOW:
            self.levels[level_of(row.stands)] += 1

    def take(self, db: sqlite3.Connection, number: int) -> Row | None:
        """Removes one, and gives it; None where there is none."""
        found = db.execute(f"DELETE FROM record WHERE id = ? RETURNING {_COLUMNS}", (number,)).fetchone()
        if found is None:
            return None
        row = Row._make(found)
        self.count -= 1
        self.size -= len(row.data)
        self.new -= row.sequence is None
        if row.sequence is None and row.kind == Kind.WINDOW:
            self.levels[level_of(row.stands)] -= 1
        return row

    def envelope(self, row: Row) -> Envelope:
        """A row's envelope; where the disk spoiled it, that of a gap in its place."""
        try:
            found = decode_envelope(row.data)
            if found.kind is Kind.GAP:
                decode_body(found)
            return found
        except EdgekitError:
            sequence = row.sequence or NO_KEY
            lost = Gap(row.first or sequence, sequence, row.stands, rows=0, bytes=len(row.data), reason="unreadable")
            return Envelope(
                version=ENVELOPE_VERSION,
                device=self.device,
                epoch=row.epoch or self.epoch,
                sequence=sequence,
                kind=Kind.GAP,
                t0_ms=0,
                dt_ms=0,
                clock=Clock.UNKNOWN,
                bins_id=bytes(8),
                n=0,
                body=msgspec.Raw(encode(lost)),
            )

    def with_key(self, row: Row) -> Row:
        """A row with the next sequence; a gap takes one for each record that it stands for."""
        envelope, first = self.envelope(row), self.given + 1
        if envelope.kind is Kind.GAP and row.kind != Kind.GAP:
            log.error("record %d of %s is given up: the disk spoiled it", row.id, self.device)
            self.given_up += row.stands
        spans = envelope.kind is Kind.GAP and row.stands <= GAP_MAX_SPAN
        self.given += row.stands if spans else 1
        body = envelope.body
        if envelope.kind is Kind.GAP:
            gap = msgspec.structs.replace(gap_of(envelope), first=first, last=self.given)
            body = msgspec.Raw(encode(gap))
        envelope = msgspec.structs.replace(envelope, epoch=self.epoch, sequence=self.given, body=body)
        key = {"epoch": self.epoch, "sequence": self.given, "first": first}
        return row._replace(**key, kind=envelope.kind, data=encode(envelope))

    def delete(self, db: sqlite3.Connection, epoch: int, first: int, last: int) -> int:
        """Deletes those whose sequences, all of them, lie within a span; gives how many."""
        # `first`, not `sequence`: a gap leaves only when all that it stands for is known at the centre.
        gone = db.execute(
            "DELETE FROM record WHERE epoch = ? AND sequence BETWEEN ? AND ? AND first >= ? RETURNING LENGTH(data)",
            (epoch, first, last, first),
        ).fetchall()
        self.count -= len(gone)
        self.size -= sum(size for (size,) in gone)
        return len(gone)

    def begin_epoch(self, db: sqlite3.Connection, highest: int) -> None:
        """Takes the keys of this epoch back: they are used up."""
        log.warning(
            "the outbox %s is an old copy (it has given %d keys, the centre knows of %d): what waits with them goes on"
            " in a new epoch",
            self.path,
            self.given,
            highest,
        )
        taken = db.execute(
            "UPDATE record SET epoch = NULL, sequence = NULL, first = NULL WHERE epoch = ?", (self.epoch,)
        ).rowcount
        self.epoch, self.given = secrets.randbits(63), 0
        self.new += taken
        db.execute("UPDATE meta SET epoch = ?", (self.epoch,))

    def even_when_full(self, write: Callable[[], int]) -> int:
        """Writes what makes room in the end, with the room of the journal, and then of the ballast."""
        for make_room in (self._checkpoint, self.ballast.throw_off):
            try:
                return write()
            except StorageFault as fault:
                if not _is_full(fault):
                    raise
                make_room()
        self._checkpoint()
        return write()

    def _checkpoint(self) -> None:
        """Moves the journal into the file, as far as the disk allows: then it begins anew in its own place."""
        with self._lock, contextlib.suppress(sqlite3.OperationalError):
            self.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _fill(self) -> Fill:
        return Fill(self.count, self.size, self.count - self.new, self.produced)


def level_of(stands: int) -> int:
    """The level of a window that stands for so many."""
    return stands.bit_length() - 1


def gap_of(envelope: Envelope) -> Gap:
    """The body of a gap."""
    body = decode_body(envelope)
    assert isinstance(body, Gap)
    return body


def _is_full(fault: StorageFault) -> bool:
    cause = fault.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
