"""The outbox: what the device has produced and the centre has not yet said it stores.

SQLite in WAL mode with `synchronous=FULL`: a record that `append` returned for survives a power cut. A record leaves
only by the collector's `Ack`, never by the broker's PUBACK, because brokers lose what they acknowledged (telemetry
facts, 2.1).

The key of a record is (device, epoch, sequence). The epoch is random and made with the file, so a lost file can never
reuse a key; sequences come from AUTOINCREMENT, which never hands out a number twice, even after deletes. A file that
was put back to an earlier state (a restored image) would use its keys again. An acknowledgement of more than it has
produced gives that away: then what waits gets new keys in a new epoch.

The file is bounded in bytes of records. On overflow the oldest windows and events give way to one GAP record that
stands at the last sequence given up, so `produced = delivered + stored + records of all gaps` holds at every moment.
A gap spans only sequences that were given up: an acknowledgement of it can therefore never remove a record that is
still waiting. Parts of the reference go last, because without them the centre cannot read any window.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.errors import EdgekitError, FormatError, StorageFault, TooLarge, UnsupportedFormat
from edgekit_contracts.names import check_device
from edgekit_contracts.telemetry import (
    ENVELOPE_VERSION,
    Ack,
    Clock,
    Envelope,
    Gap,
    Kind,
    decode_body,
    decode_envelope,
    encode,
)
from edgekit_runtime.transaction import transaction

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
DEFAULT_MAX_BYTES: Final = 64 * limits.MIB

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE meta (device TEXT NOT NULL, epoch INTEGER NOT NULL, session INTEGER NOT NULL);
CREATE TABLE record (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    first INTEGER NOT NULL,  -- the first sequence that it stands for: its own, but for a gap
    kind INTEGER NOT NULL,
    data BLOB NOT NULL
);
PRAGMA user_version = {SCHEMA_VERSION};
"""
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Waiting(NamedTuple):
    """A record that waits."""

    sequence: int
    kind: int
    data: bytes
    """The encoded envelope."""


class Outbox:
    """Records of one device that wait for their acknowledgement; safe to use from several threads.

    Only one process at a time can hold the file.

    Attributes:
        device: The device's name.
        epoch: Random 63-bit number made together with the file, and anew where the file proves to be an old copy.
        session: Grows by one each time the file is opened.
        set_aside: Where a damaged file was moved when this one was begun, or None.

    Raises:
        StorageFault: The file cannot be opened or written.
        UnsupportedFormat: A newer release made the file.
    """

    def __init__(self, path: Path | str, device: str, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.path = Path(path)
        self.device = check_device(device)
        self.max_bytes = max_bytes
        self.set_aside: Path | None = None
        self._lock = threading.RLock()
        try:
            self._db = self._open()
        except _Damaged as damage:
            self.set_aside = self._move_away(damage)
            try:
                self._db = self._open()
            except _Damaged as again:
                raise StorageFault(str(self.path), str(again)) from again
        epoch, session = self._db.execute("SELECT epoch, session FROM meta").fetchone()
        self.epoch, self.session = int(epoch), int(session)
        records, size = self._db.execute("SELECT COUNT(*), TOTAL(LENGTH(data)) FROM record").fetchone()
        self._records, self._size = int(records), int(size)
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        self._produced: int = row[0] if row else 0
        self.given_up = 0
        """Records that gave way since it was opened."""

    def append(
        self,
        kind: Kind,
        body: bytes,
        *,
        bins_id: bytes = bytes(8),
        n: int = 0,
        t0_ms: int,
        dt_ms: int = 0,
        clock: Clock = Clock.UNKNOWN,
    ) -> int:
        """Stores one record durably.

        Args:
            kind: What `body` is.
            body: MessagePack of it.
            bins_id: 8 bytes that name the reference bins.
            n: Rows that the record speaks of.
            t0_ms: Start, milliseconds since 1970.
            dt_ms: Length, milliseconds.
            clock: How far `t0_ms` can be trusted.

        Returns:
            Its sequence number.

        Raises:
            StorageFault: It is not stored (disk full, for one) and no number was used. The caller is the reporter, off
                the serving path: it catches, counts, keeps the window open and tries again.
            TooLarge, FormatError: The record could never travel.
        """
        with self._writing() as db:
            sequence = self._produced + 1
            envelope = Envelope(
                version=ENVELOPE_VERSION,
                device=self.device,
                epoch=self.epoch,
                sequence=sequence,
                kind=kind,
                t0_ms=t0_ms,
                dt_ms=dt_ms,
                clock=clock,
                bins_id=bins_id,
                n=n,
                body=msgspec.Raw(body),
            )
            try:
                data = encode(envelope)
            except OverflowError as error:
                raise FormatError("telemetry record", "$", str(error)) from error
            # Refused here, where it can be seen: what the broker or the collector refuses would be sent for ever.
            if len(data) > limits.RECORD_MAX_BYTES:
                raise TooLarge("telemetry record", len(data), limits.RECORD_MAX_BYTES)
            decode_envelope(data)
            self._put(db, sequence, sequence, kind, data)
            while self._size > self.max_bytes and (oldest := self._oldest(db)) is not None:
                self._give_up(db, oldest, "outbox full")
            self._produced = sequence
            return sequence

    def pending(self, after: int = 0, limit: int = 256) -> list[Waiting]:
        """The next records with a sequence above `after`, in order."""
        with self._reading() as db:
            query = "SELECT sequence, kind, data FROM record WHERE sequence > ? ORDER BY sequence LIMIT ?"
            return [Waiting._make(row) for row in db.execute(query, (after, limit))]

    def bodies(self, kind: Kind, bins_id: bytes) -> list[bytes]:
        """The bodies of the waiting records of one kind on these bins, in order."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT sequence, first, kind, data FROM record WHERE kind = ? ORDER BY sequence", (kind,)
            )
            return [bytes(one.body) for one in map(self._envelope, rows) if one.bins_id == bins_id]

    def give_up(self, sequence: int, reason: str) -> None:
        """Replaces a waiting record that cannot be sent by a gap.

        Raises:
            StorageFault: It still waits.
        """
        with self._writing() as db:
            self._give_up(db, sequence, reason)

    def acknowledge(self, ack: Ack) -> int:
        """Deletes what the collector stores.

        An acknowledgement of another epoch speaks of another file and is ignored. One of our epoch and of more than was
        ever produced says that this file is an old copy whose keys are used up: nothing is deleted, and all that waits
        begins a new epoch.

        Returns:
            How many records left.

        Raises:
            StorageFault: Nothing was deleted; the records will be sent, and acknowledged, again.
        """
        with self._writing() as db:
            highest = max([ack.high, *(last for _, last in ack.ranges)])
            if ack.epoch != self.epoch:
                return 0
            if highest > self._produced:
                self._begin_epoch(db, highest)
                return 0
            # `first`, not `sequence`: a gap leaves only when all that it stands for is known at the centre.
            spans = [(0, ack.high), *ack.ranges]
            gone = [
                row
                for first, last in spans
                for row in db.execute(
                    "DELETE FROM record WHERE sequence <= ? AND first >= ? RETURNING LENGTH(data)", (last, first)
                ).fetchall()
            ]
            self._records -= len(gone)
            self._size -= sum(size for (size,) in gone)
            return len(gone)

    @property
    def size(self) -> int:
        """Bytes of the records that wait."""
        return self._size

    @property
    def records(self) -> int:
        """Records that wait."""
        return self._records

    @property
    def produced(self) -> int:
        """The highest sequence ever given."""
        return self._produced

    def close(self) -> None:
        """Closes the file; what waits, waits for the next session."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, db: sqlite3.Connection, sequence: int, first: int, kind: Kind, data: bytes) -> None:
        db.execute("INSERT INTO record VALUES (?, ?, ?, ?)", (sequence, first, kind, data))
        self._records += 1
        self._size += len(data)

    def _take(self, db: sqlite3.Connection, where: str, value: int) -> tuple[Envelope, int] | None:
        """Removes one record; returns its envelope and its size."""
        row = db.execute(f"DELETE FROM record WHERE {where} RETURNING sequence, first, kind, data", (value,)).fetchone()
        if row is None:
            return None
        self._records -= 1
        self._size -= len(row[3])
        return self._envelope(row), len(row[3])

    def _envelope(self, row: tuple[int, int, int, bytes]) -> Envelope:
        """A row's envelope; where the disk spoiled it, that of a gap in its place."""
        sequence, first, _, data = row
        try:
            found = decode_envelope(data)
            if found.kind is Kind.GAP:
                decode_body(found)
            return found
        except EdgekitError:
            records = sequence - first + 1
            lost = Gap(first=first, last=sequence, records=records, rows=0, bytes=len(data), reason="unreadable")
            return Envelope(
                version=ENVELOPE_VERSION,
                device=self.device,
                epoch=self.epoch,
                sequence=sequence,
                kind=Kind.GAP,
                t0_ms=0,
                dt_ms=0,
                clock=Clock.UNKNOWN,
                bins_id=bytes(8),
                n=0,
                body=msgspec.Raw(encode(lost)),
            )

    def _oldest(self, db: sqlite3.Connection) -> int | None:
        """The sequence of what is given up first, the reference last; None when only gaps are left."""
        query = "SELECT sequence FROM record WHERE kind {} ORDER BY sequence LIMIT 1"
        row = db.execute(query.format("NOT IN (?, ?)"), (Kind.GAP, Kind.REFERENCE)).fetchone()
        row = row or db.execute(query.format("= ?"), (Kind.REFERENCE,)).fetchone()
        return None if row is None else int(row[0])

    def _give_up(self, db: sqlite3.Connection, sequence: int, reason: str) -> None:
        """Replaces a record by a gap, joined with the gaps beside it."""
        taken = self._take(db, "sequence = ?", sequence)
        if taken is None:
            return
        lost, size = taken
        before = self._take(db, f"kind = {Kind.GAP:d} AND sequence = ?", sequence - 1)
        after = self._take(db, f"kind = {Kind.GAP:d} AND first = ?", sequence + 1)
        run = [one[0] for one in (before, taken, after) if one is not None]
        gaps = [
            body for envelope in run if envelope.kind is Kind.GAP and isinstance(body := decode_body(envelope), Gap)
        ]
        whole = lost.kind is not Kind.GAP
        self.given_up += whole
        gap = Gap(
            first=min([lost.sequence, *(gap.first for gap in gaps)]),
            last=run[-1].sequence,
            records=whole + sum(gap.records for gap in gaps),
            rows=whole * lost.n + sum(gap.rows for gap in gaps),
            bytes=whole * size + sum(gap.bytes for gap in gaps),
            reason=reason,
        )
        start, end = run[0].t0_ms, run[-1].t0_ms + run[-1].dt_ms
        envelope = msgspec.structs.replace(
            run[-1],
            kind=Kind.GAP,
            t0_ms=start,
            dt_ms=max(0, end - start),
            n=min(gap.rows, limits.RECORD_MAX_ROWS),
            body=msgspec.Raw(encode(gap)),
        )
        self._put(db, gap.last, gap.first, Kind.GAP, encode(envelope))

    def _begin_epoch(self, db: sqlite3.Connection, highest: int) -> None:
        """Gives what waits new keys, in order and from 1, in a new epoch."""
        epoch, last = secrets.randbits(63), 0
        # Each moves down, over numbers that those before it have left.
        for (sequence,) in db.execute("SELECT sequence FROM record ORDER BY sequence").fetchall():
            row = db.execute(
                "SELECT sequence, first, kind, data FROM record WHERE sequence = ?", (sequence,)
            ).fetchone()
            first, last = last + 1, last + 1 + sequence - row[1]
            old = self._envelope(row)
            new = msgspec.structs.replace(old, epoch=epoch, sequence=last)
            if old.kind is Kind.GAP and isinstance(gap := decode_body(old), Gap):
                moved = msgspec.structs.replace(gap, first=first, last=last)
                new = msgspec.structs.replace(new, body=msgspec.Raw(encode(moved)))
            data = encode(new)
            self._size += len(data) - len(row[3])
            db.execute(
                "UPDATE record SET sequence = ?, first = ?, kind = ?, data = ? WHERE sequence = ?",
                (last, first, new.kind, data, sequence),
            )
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'record'", (last,))
        db.execute("UPDATE meta SET epoch = ?", (epoch,))
        log.warning(
            "the outbox %s is an old copy (it has produced %d records, the centre knows of %d): the %d that wait go on"
            " in a new epoch",
            self.path,
            self._produced,
            highest,
            self._records,
        )
        self.epoch, self._produced = epoch, last

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise StorageFault(str(self.path), str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            before = self._records, self._size, self._produced, self.epoch
            try:
                with transaction(db):
                    yield db
            except BaseException:
                self._records, self._size, self._produced, self.epoch = before
                raise

    def _open(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            # Exclusive: two services on one file would both believe that they own its sequences.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise UnsupportedFormat(f"outbox {self.path}", f"version {version}", f"version {SCHEMA_VERSION}")
            if version == 0:
                db.executescript(_SCHEMA)
                db.execute("INSERT INTO meta VALUES (?, ?, 0)", (self.device, secrets.randbits(63)))
                db.execute("COMMIT")
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _Damaged(verdict)
            owner = db.execute("SELECT device FROM meta").fetchone()
            if owner != (self.device,):
                # Its records carry the other name and would be refused on this device's topics.
                raise _Damaged(f"it belongs to device {owner[0] if owner else 'unknown'}")
            db.execute("UPDATE meta SET session = session + 1")
        except BaseException as error:
            if db is not None:
                db.close()
            if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise _Damaged(str(error)) from error
            if isinstance(error, (sqlite3.Error, OSError)):
                raise StorageFault(str(self.path), str(error)) from error
            raise
        return db

    def _move_away(self, damage: _Damaged) -> Path:
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        try:
            self.path.rename(target)
            for suffix in ("-wal", "-shm"):
                side = self.path.with_name(self.path.name + suffix)
                if side.exists():
                    side.rename(target.with_name(target.name + suffix))
        except OSError as error:
            raise StorageFault(str(self.path), str(error)) from error
        log.warning("the outbox %s cannot be used (%s): set aside as %s, a new one is begun", self.path, damage, target)
        return target


class _Damaged(Exception):
    """The file is no outbox of ours any more."""
