"""The collector's store: one transaction for a batch, and acknowledgements only after it.

Every record is inserted with `ON CONFLICT DO NOTHING` under (dev, epoch, seq): repeating a batch changes nothing. The
acknowledgements come back from `ingest` after its commit, so a device forgets only what lies safely here.
The file itself, and reading it, is `archive`.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from edgekit.collector.archive import Archive, read_cursor
from edgekit.collector.ingest import HEAD_BYTES, Accepted, Birth, Key, Reading, Refused, advance, check_window
from edgekit_contracts import limits
from edgekit_contracts.errors import EdgekitError, FormatError
from edgekit_contracts.reference import decode_reference
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Ack, Clock, Envelope, Event, Gap, ReferencePart, Window, decode_body, encode
from edgekit_runtime.transaction import transaction

DEAD_MAX_ROWS: Final = 10_000
"""Different refused messages that are kept; beyond, the longest unseen goes."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch, after its commit."""

    acks: tuple[tuple[str, Ack], ...]
    """To send, as (device, acknowledgement)."""
    stored: int
    duplicates: int
    refused: Counter[str]
    """By reason; a repeated refused record is a duplicate."""


@dataclass(slots=True)
class _Batch:
    now_ms: int
    spans: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=dict)
    completed: set[bytes] = field(default_factory=set)
    stored: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def received(self, key: Key, first: int | None = None) -> None:
        span = (key.sequence if first is None else first, key.sequence)
        self.spans.setdefault((key.device, key.epoch), []).append(span)


class Store(Archive):
    """The archive, and writing to it; one process writes."""

    def ingest(self, batch: Iterable[Reading]) -> Ingested:
        """Stores a batch in one transaction.

        Returns:
            The acknowledgements to send, and counts.

        Raises:
            StorageFault: Nothing of the batch is stored; it may be given again.
        """
        work = _Batch(now_ms=time.time_ns() // 1_000_000)
        with self._transaction() as db:
            for reading in batch:
                if isinstance(reading, Birth):
                    self._put_status(db, reading)
                elif isinstance(reading, Refused):
                    self._put_refused(db, reading, work)
                else:
                    self._put_record(db, reading, work)
            for bins_id in work.completed:
                self._release(db, bins_id, work)
            acks = tuple(
                (device, self._move_cursor(db, device, epoch, spans)) for (device, epoch), spans in work.spans.items()
            )
        return Ingested(acks, work.stored, work.duplicates, work.refused)

    # --- writing ---

    def _put_status(self, db: sqlite3.Connection, birth: Birth) -> None:
        status, data = birth.status, msgspec.json.encode(birth.status)
        row = db.execute("SELECT status FROM device WHERE dev = ?", (status.device,)).fetchone()
        if row is not None:
            if row[0] == data:
                # The retained message, heard again after a reconnect, says nothing new; its first arrival counts.
                return
            last = msgspec.json.decode(row[0], type=Status)
            same_file = status.epoch is None or last.epoch is None or status.epoch == last.epoch
            # "A will of an older session than the last birth is ignored"; so is a will of another outbox's life, whose
            # session numbers cannot be compared. An older birth is an echo just the same.
            if (status.session < last.session) if same_file else status.dead:
                return
        db.execute(
            "INSERT INTO device VALUES (?, ?, ?) ON CONFLICT (dev)"
            " DO UPDATE SET status = excluded.status, received_ms = excluded.received_ms",
            (status.device, data, birth.received_ms),
        )

    def _put_refused(self, db: sqlite3.Connection, refused: Refused, work: _Batch) -> None:
        if refused.key is not None:
            high, ranges = read_cursor(db, refused.key.device, refused.key.epoch)
            work.received(refused.key)
            if refused.key.sequence <= high or any(a <= refused.key.sequence <= b for a, b in ranges):
                work.duplicates += 1
                return
        work.refused[refused.reason] += 1
        self._bury(db, refused)

    def _bury(self, db: sqlite3.Connection, refused: Refused) -> None:
        digest = hashlib.sha256(refused.head).digest()[:16]
        db.execute(
            "INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET"
            " count = count + 1, received_ms = excluded.received_ms",
            (refused.topic, refused.reason, digest, refused.detail, refused.head, refused.received_ms),
        )
        db.execute(
            "DELETE FROM dead WHERE rowid IN (SELECT rowid FROM dead ORDER BY received_ms"
            " LIMIT MAX(0, (SELECT COUNT(*) FROM dead) - ?))",
            (DEAD_MAX_ROWS,),
        )

    def _put_record(self, db: sqlite3.Connection, accepted: Accepted, work: _Batch) -> None:
        envelope, body, received_ms = accepted.envelope, accepted.body, accepted.received_ms
        key = Key(envelope.device, envelope.epoch, envelope.sequence)
        work.received(key, body.first if isinstance(body, Gap) else None)
        if isinstance(body, Window):
            if accepted.quarantined:
                new = _insert(db, "quarantine", (*key, envelope.bins_id, received_ms, encode(envelope)))
            else:
                new = _insert_window(db, envelope, body, received_ms)
        elif isinstance(body, Event):
            new = _insert(db, "event", (*key, _at_ms(envelope, received_ms), received_ms, body.name, body.detail))
        elif isinstance(body, Gap):
            new = self._put_gap(db, key, body, received_ms)
        else:
            new = self._put_part(db, key, envelope.bins_id, body, work)
        work.stored += new
        work.duplicates += not new

    def _put_gap(self, db: sqlite3.Connection, key: Key, gap: Gap, received_ms: int) -> bool:
        # A device's gap grows by swallowing its earlier self: the widest one counts.
        where = "FROM gap WHERE dev = ? AND epoch = ? AND"
        wider = db.execute(
            f"SELECT 1 {where} first <= ? AND last >= ?", (key.device, key.epoch, gap.first, gap.last)
        ).fetchone()
        if wider:
            return False
        db.execute(f"DELETE {where} first >= ? AND last <= ?", (key.device, key.epoch, gap.first, gap.last))
        values = (gap.first, gap.last, gap.records, gap.rows, gap.bytes, gap.reason, received_ms)
        return _insert(db, "gap", (key.device, key.epoch, *values))

    def _put_part(self, db: sqlite3.Connection, key: Key, bins_id: bytes, part: ReferencePart, work: _Batch) -> bool:
        model, version = part.model, part.model_version
        if not _insert(db, "part", (*key, bins_id, model, version, part.part, part.parts, part.data)):
            return False
        # The parts of one text have consecutive sequences: those of another text, or device, cannot mix with them.
        first = key.sequence - part.part
        owner = (key.device, key.epoch, first, first + part.parts - 1, bins_id, model, version, part.parts, first)
        where = (
            "FROM part WHERE dev = ? AND epoch = ? AND seq BETWEEN ? AND ?"
            " AND bins_id = ? AND model = ? AND version = ? AND parts = ? AND seq - part = ?"
        )
        pieces = [data for (data,) in db.execute(f"SELECT data {where} ORDER BY seq", owner)]
        if len(pieces) < part.parts:
            return True
        # A part is kept as a mark without its bytes: so that it is known when repeated.
        db.execute(f"UPDATE part SET data = x'' WHERE rowid IN (SELECT rowid {where})", owner)
        text = b"".join(pieces)
        digest = hashlib.sha256(text).digest()
        if db.execute("SELECT 1 FROM reference WHERE digest = ? AND bins_id = ?", (digest, bins_id)).fetchone() is None:
            try:
                if decode_reference(text).bins_id != bins_id:
                    raise FormatError("reference", "$.bins", "these are not the bins that its records name")
            except EdgekitError as error:
                topic = f"reference of {key.device}"[:256]
                self._bury(db, Refused(topic, "body", str(error), text[:HEAD_BYTES], work.now_ms))
                work.refused["body"] += 1
                return True
            _insert(db, "reference", (digest, bins_id, text, work.now_ms))
            work.completed.add(bins_id)
        db.execute(
            "INSERT INTO standing VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " digest = excluded.digest, received_ms = excluded.received_ms",
            (key.device, key.epoch, bins_id, model, version, digest, work.now_ms),
        )
        return True

    def _release(self, db: sqlite3.Connection, bins_id: bytes, work: _Batch) -> None:
        """Moves the windows that waited for these bins to their place."""
        bins = self._read_bins(bins_id)
        assert bins is not None
        rows = db.execute(
            "DELETE FROM quarantine WHERE bins_id = ? RETURNING received_ms, record", (bins_id,)
        ).fetchall()
        for received_ms, record in rows:
            envelope = msgspec.msgpack.decode(record, type=Envelope)
            try:
                body = decode_body(envelope)
                assert isinstance(body, Window)
                check_window(envelope, body, bins)
            except EdgekitError as error:
                work.refused["body"] += 1
                self._bury(
                    db,
                    Refused(f"quarantine of {envelope.device}", "body", str(error), record[:HEAD_BYTES], received_ms),
                )
            else:
                _insert_window(db, envelope, body, received_ms)

    def _move_cursor(self, db: sqlite3.Connection, device: str, epoch: int, spans: list[tuple[int, int]]) -> Ack:
        high, ranges = advance(*read_cursor(db, device, epoch), spans)
        db.execute(
            "INSERT INTO cursor VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET high = excluded.high, ranges = excluded.ranges",
            (device, epoch, high, msgspec.msgpack.encode(ranges)),
        )
        return Ack(epoch=epoch, high=high, ranges=ranges)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db, transaction(db):
            yield db


def _insert(db: sqlite3.Connection, table: str, values: tuple[object, ...]) -> bool:
    marks = ", ".join("?" * len(values))
    return db.execute(f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING", values).rowcount == 1


def _insert_window(db: sqlite3.Connection, envelope: Envelope, window: Window, received_ms: int) -> bool:
    key = (envelope.device, envelope.epoch, envelope.sequence)
    times = (_at_ms(envelope, received_ms), envelope.t0_ms, envelope.dt_ms, int(envelope.clock), received_ms)
    content = (envelope.bins_id, envelope.n, window.model, window.model_version, bytes(envelope.body))
    return _insert(db, "window", (*key, *times, *content))


def _at_ms(envelope: Envelope, received_ms: int) -> int:
    """When it was, for people: by the device's clock where that is synchronised and not plainly wrong."""
    trusted = envelope.clock is Clock.SYNCED and envelope.t0_ms <= received_ms + limits.CLOCK_MAX_FUTURE_MS
    return envelope.t0_ms if trusted else received_ms
