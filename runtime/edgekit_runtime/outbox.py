"""The outbox: what the device has produced and the centre has not yet said it stores.

A record that `append` returned for survives a power cut. It leaves only by the collector's `Ack`, never by the broker's
PUBACK, because brokers lose what they acknowledged (telemetry facts, 2.1).

The key of a record is (device, epoch, sequence), and it is given late: when the record is first about to be sent
(`give_keys`), durably, before it is. So a record has either no key and never left the device, or a key under which the
centre may have it for ever. The first may be merged, given up and put in any order; of the second nothing but the
record itself is ever sent. The epoch is random and anew at each start: a lost file, or one that was put back to an
earlier state (a restored image), cannot use a key twice.

The file is bounded in bytes of records. On overflow windows without keys are merged by pairs, the oldest first
(`merging`): rows and counts are kept, resolution in time is not. What cannot be merged gives way, the oldest first, to
gap records, so `produced = delivered + what the waiting records stand for` holds at every moment. Parts of the
reference go last, because without them the centre cannot read any window.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.errors import EdgekitError, FormatError, StorageFault, TooLarge
from edgekit_contracts.names import check_device
from edgekit_contracts.reference import Bins
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
from edgekit_runtime.ballast import Ballast
from edgekit_runtime.merging import Places, Series, merge, places_of, series_of
from edgekit_runtime.outfile import open_file
from edgekit_runtime.transaction import transaction

log = logging.getLogger(__name__)

DEFAULT_MAX_BYTES: Final = 64 * limits.MIB
IN_FLIGHT_MAX: Final = 256
"""Records that have keys at a time: what is on its way can be neither merged nor put in another order."""
PARTS_MAX: Final = limits.REFERENCE_MAX_PARTS
MERGE_WINDOWS: Final = 64
"""Windows that are looked at together for pairs to merge."""
CONDENSE_WINDOWS: Final = 4096
"""Windows that are added up in one step."""
SPAN_SLACK: Final = 1.05
"""A window lasts some milliseconds longer than it was to; twelve of them are no less an hour."""
GAP_MAX_SPAN: Final = limits.SEQUENCE_MAX_JUMP // 2
"""Sequences that one gap takes; of more records than this the collector would fear a wild number."""

EXPIRED_AT_ONCE: Final = 64
"""Records of a kind that are given up as expired in one step."""

_CHANGED: Final = (
    "epoch",
    "merged",
    "given_up",
    "appended_bytes",
    "_records",
    "_size",
    "_new",
    "_produced",
    "_given",
)
"""Of an outbox, what a transaction changes and takes back."""
_NO_KEY: Final = 2**63 - 1
"""Stands for a sequence in the bytes of a record that has none; no other takes more of them."""


class Waiting(NamedTuple):
    """A record that waits."""

    id: int
    """What names it on the device."""
    kind: int
    data: bytes
    """The encoded envelope."""


class _Row(NamedTuple):
    id: int
    epoch: int | None
    sequence: int | None
    first: int | None
    kind: int
    stands: int
    made_s: int
    data: bytes


class _Fill(NamedTuple):
    """How full it is: as it was committed, for those who look on from other threads."""

    records: int
    size: int
    keyed: int
    produced: int


_COLUMNS: Final = ", ".join(_Row._fields)


class Outbox:
    """Records of one device that wait for their acknowledgement; safe to use from several threads.

    Args:
        path: The file, made where it is missing.
        device: The device's name.
        max_bytes: Of all records that wait.
        keep_s: Seconds of the service's own time after which a record of a kind is given up. That time stands still
            while the service does not run, so that a wrong clock expires nothing.
        clock_s: A monotonic clock.

    Attributes:
        epoch: Random 63-bit number of this start.
        session: Grows by one each time the file is opened.
        set_aside: Where a damaged file was moved when this one was begun, or None.
        live: Whether what is appended is sent at once, and may be given its key in the same step; of the uplink.
        merged: Windows that were added into others since the file was opened.
        given_up: Records that were given up since then.
        appended_bytes: Of the records that were appended since then.
        ballast: Room for deleting on a full disk.

    Raises:
        StorageFault: The file cannot be opened or written.
        UnsupportedFormat: A newer release made the file.
    """

    def __init__(
        self,
        path: Path | str,
        device: str,
        max_bytes: int = DEFAULT_MAX_BYTES,
        *,
        keep_s: Mapping[Kind, float] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.device = check_device(device)
        self.max_bytes = max_bytes
        self.live = False
        self.merged = self.given_up = self.appended_bytes = 0
        self._keep_s, self._clock_s = dict(keep_s or {}), clock_s
        self._lock = threading.RLock()
        self.ballast = Ballast(self.path.with_name(self.path.name + ".ballast"), clock_s)
        try:
            self._db, self.set_aside = open_file(self.path, self.device)
        except StorageFault as fault:
            if not (_is_full(fault) and self.ballast.throw_off()):
                raise
            self._db, self.set_aside = open_file(self.path, self.device)
        self.ballast.take_in()
        epoch, session = self._db.execute("SELECT epoch, session FROM meta").fetchone()
        self.epoch, self.session = int(epoch), int(session)
        records, size, new, made_s = self._db.execute(
            "SELECT COUNT(*), TOTAL(LENGTH(data)), COUNT(*) - COUNT(sequence), MAX(made_s) FROM record"
        ).fetchone()
        self._records, self._size, self._new = int(records), int(size), int(new)
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        self._produced: int = row[0] if row else 0
        self._given = 0  # the highest sequence of this epoch
        self._opened_s = clock_s() - (made_s or 0)
        self._standing = self._fill()
        # Of the windows without keys: how many there are of each level, and up to which number they were passed over.
        self._levels, self._passed = Counter[int](), dict[int, int]()
        self._survey(self._db)
        self._places: dict[bytes, Places] = {
            bins_id: msgspec.msgpack.decode(places, type=Places)
            for bins_id, places in self._db.execute("SELECT bins_id, places FROM layout")
        }

    def learn(self, bins_id: bytes, bins: Bins) -> None:
        """Keeps what is needed to merge windows on these bins.

        Raises:
            StorageFault: It is not kept.
        """
        if bins_id not in self._places:
            with self._writing() as db:
                places = places_of(bins)
                db.execute("INSERT INTO layout VALUES (?, ?)", (bins_id, msgspec.msgpack.encode(places)))
            self._places[bins_id] = places

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
        """Stores one record durably: see `append_all`.

        Returns:
            Its number.
        """
        return self.append_all(kind, [body], bins_id=bins_id, n=n, t0_ms=t0_ms, dt_ms=dt_ms, clock=clock)[0]

    def append_all(
        self,
        kind: Kind,
        bodies: Sequence[bytes],
        *,
        bins_id: bytes = bytes(8),
        n: int = 0,
        t0_ms: int,
        dt_ms: int = 0,
        clock: Clock = Clock.UNKNOWN,
    ) -> list[int]:
        """Stores records durably, all or none; parts of one reference, which must have consecutive keys.

        Args:
            kind: What each body is.
            bodies: MessagePack of each.
            bins_id: 8 bytes that name the reference bins.
            n: Rows that each record speaks of.
            t0_ms: Start, milliseconds since 1970.
            dt_ms: Length, milliseconds.
            clock: How far `t0_ms` can be trusted.

        Returns:
            Their numbers: 1 for the first that this file ever took, and so on.

        Raises:
            StorageFault: None is stored (disk full, for one) and no number was used. The caller is the reporter, off
                the serving path: it catches, counts, keeps the window open and tries again.
            TooLarge, FormatError: A record could never travel.
        """
        records = [self._record(kind, body, bins_id, n, t0_ms, dt_ms, clock) for body in bodies]
        with self._writing() as db:
            at_once = self.live and not self._new and self.keyed < IN_FLIGHT_MAX
            numbers = list(range(self._produced + 1, self._produced + 1 + len(records)))
            for number, data in zip(numbers, records, strict=True):
                row = _Row(number, None, None, None, kind, 1, int(self._now_s()), data)
                self._put(db, self._with_key(row) if at_once else row)
                self.appended_bytes += len(data)
            self._expire(db)
            while self._size > self.max_bytes and (self._merge_some(db) or self._give_up_oldest(db)):
                pass
            self._produced = numbers[-1]
            return numbers

    def _record(self, kind: Kind, body: bytes, bins_id: bytes, n: int, t0_ms: int, dt_ms: int, clock: Clock) -> bytes:
        envelope = Envelope(
            version=ENVELOPE_VERSION,
            device=self.device,
            epoch=self.epoch,
            sequence=_NO_KEY,
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
        return data

    def give_keys(self, events: int, others: int) -> int:
        """Gives the next records their keys, in the order in which they are to be sent: events first.

        Args:
            events: Events that get one, at most.
            others: Other records that get one, at most.

        Returns:
            How many got one.

        Raises:
            StorageFault: None got one.
        """
        if not self._new or max(events, others) <= 0:
            return 0
        return self._even_when_full(lambda: self._give_keys(events, others))

    def _give_keys(self, events: int, others: int) -> int:
        with self._writing() as db:
            rows = self._rows(db, "sequence IS NULL AND kind = ? ORDER BY id LIMIT ?", Kind.EVENT, max(0, events))
            where = "sequence IS NULL AND kind <> ? ORDER BY id LIMIT ?"
            rows += self._rows(db, where, Kind.EVENT, max(0, others))
            if rows and rows[-1].kind == Kind.REFERENCE:
                # The keys of the parts of one text are consecutive: by that the collector knows them.
                after = self._rows(db, "sequence IS NULL AND id > ? ORDER BY id LIMIT ?", rows[-1].id, PARTS_MAX)
                rows += takewhile(lambda row: row.kind == Kind.REFERENCE, after)
            for row in rows:
                self._take(db, row.id)
                self._put(db, self._with_key(row))
            return len(rows)

    def condense(self, span_s: float) -> None:
        """Adds windows without keys to those before them, up to this length: rows and counts are kept.

        Raises:
            StorageFault: They are as they were.
        """
        with self._writing() as db:
            where = "sequence IS NULL AND kind = ? ORDER BY id LIMIT ?"
            rows = self._rows(db, where, Kind.WINDOW, CONDENSE_WINDOWS)
            self._merge_pairs(db, rows, span_ms=SPAN_SLACK * 1000 * span_s)

    def pending(self, most: int = 256) -> list[Waiting]:
        """The records that have keys: what may be on its way. The oldest, events before others."""
        with self._reading() as db:
            rows = self._rows(db, "sequence IS NOT NULL ORDER BY id LIMIT ?", most)
            rows.sort(key=lambda row: row.kind != Kind.EVENT)
            return [Waiting(row.id, row.kind, row.data) for row in rows]

    def waiting(self) -> Iterator[Envelope]:
        """The envelopes of all that waits, in order; the sequence of one without a key says nothing."""
        with self._reading() as db:
            rows = self._rows(db, "TRUE ORDER BY id")
        return map(self._envelope, rows)

    def bodies(self, kind: Kind, bins_id: bytes) -> list[bytes]:
        """The bodies of the waiting records of one kind on these bins, in order."""
        with self._reading() as db:
            rows = self._rows(db, "kind = ? ORDER BY id", kind)
            return [bytes(one.body) for one in map(self._envelope, rows) if one.bins_id == bins_id]

    def give_up(self, number: int, reason: str) -> None:
        """Replaces a waiting record that cannot be sent by a gap.

        Raises:
            StorageFault: It still waits.
        """
        with self._writing() as db:
            self._give_up(db, number, reason)

    def acknowledge(self, ack: Ack) -> int:
        """Deletes what the collector stores.

        An acknowledgement of another epoch speaks of an earlier start, or of another file. One of this start that names
        a sequence that was never given says that this memory is an old copy (a virtual machine that was put back, for
        one) whose keys are used up: nothing is deleted, and all that waits with such keys gets new ones.

        Returns:
            How many records left.

        Raises:
            StorageFault: Nothing was deleted; the records will be sent, and acknowledged, again.
        """
        left = self._even_when_full(lambda: self._acknowledge(ack))
        self.ballast.take_in()
        return left

    def _acknowledge(self, ack: Ack) -> int:
        with self._writing() as db:
            highest = max([ack.high, *(last for _, last in ack.ranges)])
            if ack.epoch == self.epoch and highest > self._given:
                self._begin_epoch(db, highest)
                return 0
            # `first`, not `sequence`: a gap leaves only when all that it stands for is known at the centre.
            gone = [
                row
                for first, last in [(1, ack.high), *ack.ranges]
                for row in db.execute(
                    "DELETE FROM record WHERE epoch = ? AND sequence BETWEEN ? AND ? AND first >= ?"
                    " RETURNING LENGTH(data)",
                    (ack.epoch, first, last, first),
                ).fetchall()
            ]
            self._records -= len(gone)
            self._size -= sum(size for (size,) in gone)
            return len(gone)

    @property
    def size(self) -> int:
        """Bytes of the records that wait."""
        return self._standing.size

    @property
    def records(self) -> int:
        """Records that wait."""
        return self._standing.records

    @property
    def keyed(self) -> int:
        """Of these, the records that have keys."""
        return self._standing.keyed

    @property
    def produced(self) -> int:
        """Records that this file ever took."""
        return self._standing.produced

    def _fill(self) -> _Fill:
        return _Fill(self._records, self._size, self._records - self._new, self._produced)

    def close(self) -> None:
        """Closes the file; what waits, waits for the next session."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- rows ---

    def _rows(self, db: sqlite3.Connection, where: str, *values: object) -> list[_Row]:
        return [_Row._make(row) for row in db.execute(f"SELECT {_COLUMNS} FROM record WHERE {where}", values)]

    def _put(self, db: sqlite3.Connection, row: _Row) -> None:
        db.execute(f"INSERT INTO record ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._records += 1
        self._size += len(row.data)
        self._new += row.sequence is None
        if row.sequence is None and row.kind == Kind.WINDOW:
            self._levels[_level(row.stands)] += 1

    def _take(self, db: sqlite3.Connection, number: int) -> _Row | None:
        found = db.execute(f"DELETE FROM record WHERE id = ? RETURNING {_COLUMNS}", (number,)).fetchone()
        if found is None:
            return None
        row = _Row._make(found)
        self._records -= 1
        self._size -= len(row.data)
        self._new -= row.sequence is None
        if row.sequence is None and row.kind == Kind.WINDOW:
            self._levels[_level(row.stands)] -= 1
        return row

    def _envelope(self, row: _Row) -> Envelope:
        """A row's envelope; where the disk spoiled it, that of a gap in its place."""
        try:
            found = decode_envelope(row.data)
            if found.kind is Kind.GAP:
                decode_body(found)
            return found
        except EdgekitError:
            sequence = row.sequence or _NO_KEY
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

    def _with_key(self, row: _Row) -> _Row:
        """A row with the next sequence; a gap takes one for each record that it stands for."""
        envelope, first = self._envelope(row), self._given + 1
        if envelope.kind is Kind.GAP and row.kind != Kind.GAP:
            log.error("record %d of %s is given up: the disk spoiled it", row.id, self.device)
            self.given_up += row.stands
        spans = envelope.kind is Kind.GAP and row.stands <= GAP_MAX_SPAN
        self._given += row.stands if spans else 1
        body = envelope.body
        if envelope.kind is Kind.GAP:
            gap = msgspec.structs.replace(_gap_of(envelope), first=first, last=self._given)
            body = msgspec.Raw(encode(gap))
        envelope = msgspec.structs.replace(envelope, epoch=self.epoch, sequence=self._given, body=body)
        key = {"epoch": self.epoch, "sequence": self._given, "first": first}
        return row._replace(**key, kind=envelope.kind, data=encode(envelope))

    # --- overflow ---

    def _survey(self, db: sqlite3.Connection) -> None:
        """Counts the windows without keys by level; where those of a level begin, those above it end."""
        self._levels, self._passed = Counter(), {}
        found = db.execute(
            "SELECT stands, COUNT(*), MAX(id) FROM record WHERE sequence IS NULL AND kind = ? GROUP BY stands",
            (Kind.WINDOW,),
        ).fetchall()
        for stands, count, last in found:
            self._levels[_level(stands)] += count
            for below in range(_level(stands)):
                self._passed[below] = max(self._passed.get(below, 0), last)

    def _merge_some(self, db: sqlite3.Connection) -> bool:
        """Merges pairs among some windows; False where there is nothing to merge.

        Windows that stand for 2^k to 2^(k+1) - 1 are of level k, and two of one level make one of the next. Pairs are
        made, the oldest first, on the level that has most of them: so all levels come to have about as many, and the
        longer ago, the coarser.

        Source: M. Datar, A. Gionis, P. Indyk, R. Motwani, "Maintaining Stream Statistics over Sliding Windows", SIAM J.
        Comput. 31 (2002), exponential histograms.
        """
        if self._merge_on_some_level(db):
            return True
        # What has been passed over may have got neighbours of its level since.
        self._survey(db)
        return self._merge_on_some_level(db)

    def _merge_on_some_level(self, db: sqlite3.Connection) -> bool:
        for level, count in sorted(self._levels.items(), key=lambda one: (-one[1], one[0])):
            rows = self._rows(
                db,
                "sequence IS NULL AND kind = ? AND id > ? ORDER BY id LIMIT ?",
                Kind.WINDOW,
                self._passed.get(level, 0),
                min(MERGE_WINDOWS, max(8, count // 2)),
            )
            last = self._merge_pairs(db, rows, level=level)
            if last is not None:
                self._passed[level] = last
                return True
            if rows:
                self._passed[level] = rows[-1].id
        return False

    def _merge_pairs(
        self, db: sqlite3.Connection, rows: list[_Row], *, level: int | None = None, span_ms: float | None = None
    ) -> int | None:
        """Merges each window with the one before it on the same bins.

        Args:
            db: In a transaction.
            rows: The windows, in order.
            level: Those above it stay as they are.
            span_ms: Up to this length, as many as fit; None: pairs.

        Returns:
            The number of the last that was made; None for none.
        """
        single: dict[Series, tuple[_Row, Envelope]] = {}
        last = None
        for row in rows:
            envelope = self._envelope(row)
            if (series := series_of(envelope)) is None:
                continue
            row_before, before = single.pop(series, (None, None))
            if level is not None and _level(row.stands) > level:
                continue
            both = None if before is None else merge(before, envelope, self._places.get(envelope.bins_id))
            if both is not None and span_ms is not None and both.dt_ms > span_ms:
                both = None
            if row_before is None or both is None or len(data := encode(both)) > limits.RECORD_MAX_BYTES:
                single[series] = row, envelope
                continue
            for one in (row_before, row):
                self._take(db, one.id)
            merged = row._replace(stands=row_before.stands + row.stands, data=data)
            self._put(db, merged)
            if span_ms is not None:
                single[series] = merged, both
            self.merged += 1
            last = row.id
        return last

    def _give_up_oldest(self, db: sqlite3.Connection) -> bool:
        """Gives up one record, a part of the reference last; False where only gaps are left."""
        for kinds in (f"NOT IN ({Kind.GAP:d}, {Kind.REFERENCE:d})", f"= {Kind.REFERENCE:d}"):
            row = db.execute(f"SELECT id FROM record WHERE kind {kinds} ORDER BY id LIMIT 1").fetchone()
            if row is not None:
                self._give_up(db, row[0], "outbox full")
                return True
        return False

    def _expire(self, db: sqlite3.Connection) -> None:
        """Gives up what has waited too long."""
        for kind, keep_s in self._keep_s.items():
            for state in ("NULL", "NOT NULL"):
                rows = self._rows(db, f"sequence IS {state} AND kind = ? ORDER BY id LIMIT ?", kind, EXPIRED_AT_ONCE)
                for row in rows:
                    if row.made_s >= self._now_s() - keep_s:
                        break
                    self._give_up(db, row.id, "expired")

    def _give_up(self, db: sqlite3.Connection, number: int, reason: str) -> None:
        """Replaces a record by a gap, joined with those of the same reason that have no key either, or stand beside."""
        row = self._take(db, number)
        if row is None:
            return
        envelope = self._envelope(row)
        if envelope.kind is not Kind.GAP:
            sequence = row.sequence or _NO_KEY
            gap = Gap(row.first or sequence, sequence, row.stands, envelope.n, len(row.data), reason)
            envelope = msgspec.structs.replace(
                envelope, kind=Kind.GAP, sequence=sequence, merged=0, body=msgspec.Raw(encode(gap))
            )
        self.given_up += row.stands * (row.kind != Kind.GAP)
        run = [(row, envelope)]
        for other in self._gaps_beside(db, row):
            beside = self._envelope(other)
            if _gap_of(beside).reason == _gap_of(envelope).reason:
                self._take(db, other.id)
                run.append((other, beside))
        run.sort(key=lambda one: one[0].id)
        gaps = [_gap_of(one) for _, one in run]
        whole = Gap(
            first=min(gap.first for gap in gaps),
            last=max(gap.last for gap in gaps),
            records=sum(gap.records for gap in gaps),
            rows=sum(gap.rows for gap in gaps),
            bytes=sum(gap.bytes for gap in gaps),
            reason=gaps[0].reason,
        )
        (_, begin), (last, end) = run[0], run[-1]
        envelope = msgspec.structs.replace(
            end,
            sequence=whole.last,
            kind=Kind.GAP,
            t0_ms=begin.t0_ms,
            dt_ms=max(0, end.t0_ms + end.dt_ms - begin.t0_ms),
            n=min(whole.rows, limits.RECORD_MAX_ROWS),
            body=msgspec.Raw(encode(whole)),
        )
        key = {} if last.sequence is None else {"sequence": whole.last, "first": whole.first}
        stands = sum(one.stands for one, _ in run)
        self._put(db, last._replace(**key, kind=Kind.GAP, stands=stands, data=encode(envelope)))

    def _gaps_beside(self, db: sqlite3.Connection, row: _Row) -> list[_Row]:
        """The gaps that one in a row's place could be joined with."""
        if row.sequence is None or row.first is None:
            return self._rows(db, "sequence IS NULL AND kind = ? ORDER BY id", Kind.GAP)
        # One that stands for more records than it has sequences keeps to itself: of several joined, the centre could
        # not tell how many records had arrived with one that it has.
        if row.stands != row.sequence - row.first + 1:
            return []
        return self._rows(
            db,
            "sequence IS NOT NULL AND epoch = ? AND kind = ? AND (sequence = ? OR first = ?)"
            " AND stands = sequence - first + 1",
            row.epoch,
            Kind.GAP,
            row.first - 1,
            row.sequence + 1,
        )

    def _begin_epoch(self, db: sqlite3.Connection, highest: int) -> None:
        """Takes the keys of this epoch back: they are used up."""
        log.warning(
            "the outbox %s is an old copy (it has given %d keys, the centre knows of %d): what waits with them goes on"
            " in a new epoch",
            self.path,
            self._given,
            highest,
        )
        taken = db.execute(
            "UPDATE record SET epoch = NULL, sequence = NULL, first = NULL WHERE epoch = ?", (self.epoch,)
        ).rowcount
        self.epoch, self._given = secrets.randbits(63), 0
        self._new += taken
        self._survey(db)
        db.execute("UPDATE meta SET epoch = ?", (self.epoch,))

    def _now_s(self) -> float:
        """The service's own time: it goes on where it stood when the newest waiting record was stored."""
        return self._clock_s() - self._opened_s

    def _even_when_full(self, write: Callable[[], int]) -> int:
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
            self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

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
            before = {name: getattr(self, name) for name in _CHANGED}
            levels = self._levels.copy()
            try:
                with transaction(db):
                    yield db
            except BaseException:
                for name, value in before.items():
                    setattr(self, name, value)
                self._levels = levels
                raise
            self._standing = self._fill()


def _level(stands: int) -> int:
    return stands.bit_length() - 1


def _is_full(fault: StorageFault) -> bool:
    cause = fault.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _gap_of(envelope: Envelope) -> Gap:
    body = decode_body(envelope)
    assert isinstance(body, Gap)
    return body
