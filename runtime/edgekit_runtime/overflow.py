"""What an overfull outbox does: windows that never left it are merged, and what cannot be gives way to gaps."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Envelope, Gap, Kind, encode
from edgekit_runtime.merging import Places, Series, merge, places_of, series_of
from edgekit_runtime.records import NO_KEY, Records, Row, gap_of, level_of

MERGE_WINDOWS: Final = 64
"""Windows that are looked at together for pairs to merge."""
CONDENSE_WINDOWS: Final = 1024
"""Windows that are added up in one step."""
SPAN_SLACK: Final = 1.05
"""A window lasts some milliseconds longer than it was to; twelve of them are no less an hour."""
EXPIRED_AT_ONCE: Final = 64
"""Records of a kind that are given up as expired in one step."""


class Overflow:
    """Makes room in one outbox. All methods want a transaction of its records.

    Args:
        records: The outbox's.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._passed: dict[int, int] = {}  # up to which number the windows of a level were passed over
        with records.reading() as db:
            self.survey(db)
            self._places: dict[bytes, Places] = {
                bins_id: msgspec.msgpack.decode(places, type=Places)
                for bins_id, places in db.execute("SELECT bins_id, places FROM layout")
            }

    def learn(self, bins_id: bytes, bins: Bins) -> None:
        """Keeps what is needed to merge windows on these bins."""
        if bins_id not in self._places:
            with self._records.writing() as db:
                places = places_of(bins)
                db.execute("INSERT INTO layout VALUES (?, ?)", (bins_id, msgspec.msgpack.encode(places)))
            self._places[bins_id] = places

    def make_room(self, db: sqlite3.Connection, max_bytes: int) -> None:
        """Merges, and where nothing can be merged gives up, until no more than this waits, or nothing but gaps."""
        while self._records.size > max_bytes and (self._merge_some(db) or self._give_up_oldest(db)):
            pass

    def condense(self, db: sqlite3.Connection, span_s: float, after: int) -> int | None:
        """Adds some windows without keys to those before them, up to this length.

        Args:
            db: In a transaction.
            span_s: The length.
            after: The number behind which they begin.

        Returns:
            Where the next ones begin; None where there are none.
        """
        where = "sequence IS NULL AND kind = ? AND id > ? ORDER BY id LIMIT ?"
        rows = self._records.rows(db, where, Kind.WINDOW, after, CONDENSE_WINDOWS)
        self._merge_pairs(db, rows, span_ms=SPAN_SLACK * 1000 * span_s)
        return rows[-1].id if len(rows) == CONDENSE_WINDOWS else None

    def survey(self, db: sqlite3.Connection) -> None:
        """Counts the windows without keys by level; where those of a level begin, those above it end."""
        self._records.levels, self._passed = Counter(), {}
        found = db.execute(
            "SELECT stands, COUNT(*), MAX(id) FROM record WHERE sequence IS NULL AND kind = ? GROUP BY stands",
            (Kind.WINDOW,),
        ).fetchall()
        for stands, count, last in found:
            self._records.levels[level_of(stands)] += count
            for below in range(level_of(stands)):
                self._passed[below] = max(self._passed.get(below, 0), last)

    def _merge_some(self, db: sqlite3.Connection) -> bool:
        """Merges pairs among some windows; False where there is nothing to merge.

        Windows that stand for 2^k to 2^(k+1) - 1 are of level k, and two of one level make one of the next. Pairs are
        made, the oldest first, on the level that has most of them: so all levels come to have about as many, and the
        longer ago, the coarser.

        Source: M. Datar, A. Gionis, P. Indyk, R. Motwani, "Maintaining Stream Statistics over Sliding Windows", SIAM J.
        Comput. 31 (2002), exponential histograms.
        """
        if self._merge_on_a_level(db):
            return True
        # What has been passed over may have got neighbours of its level since.
        self.survey(db)
        return self._merge_on_a_level(db)

    def _merge_on_a_level(self, db: sqlite3.Connection) -> bool:
        for level, count in sorted(self._records.levels.items(), key=lambda one: (-one[1], one[0])):
            rows = self._records.rows(
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
        self, db: sqlite3.Connection, rows: list[Row], *, level: int | None = None, span_ms: float | None = None
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
        single: dict[Series, tuple[Row, Envelope]] = {}
        last = None
        for row in rows:
            envelope = self._records.envelope(row)
            if (series := series_of(envelope)) is None:
                continue
            row_before, before = single.pop(series, (None, None))
            if level is not None and level_of(row.stands) > level:
                continue
            both = None if before is None else merge(before, envelope, self._places.get(envelope.bins_id))
            if both is not None and span_ms is not None and both.dt_ms > span_ms:
                both = None
            if row_before is None or both is None or len(data := encode(both)) > limits.RECORD_MAX_BYTES:
                single[series] = row, envelope
                continue
            for one in (row_before, row):
                self._records.take(db, one.id)
            merged = row._replace(stands=row_before.stands + row.stands, data=data)
            self._records.put(db, merged)
            if span_ms is not None:
                single[series] = merged, both
            self._records.merged += 1
            last = row.id
        return last

    def _give_up_oldest(self, db: sqlite3.Connection) -> bool:
        """Gives up one record, a part of the reference last; False where only gaps are left."""
        for kinds in (f"NOT IN ({Kind.GAP:d}, {Kind.REFERENCE:d})", f"= {Kind.REFERENCE:d}"):
            row = db.execute(f"SELECT id FROM record WHERE kind {kinds} ORDER BY id LIMIT 1").fetchone()
            if row is not None:
                self.give_up(db, row[0], "outbox full")
                return True
        return False

    def expire(self, db: sqlite3.Connection, keep_s: Mapping[Kind, float], now_s: float) -> None:
        """Gives up what has waited longer than its kind is kept."""
        for kind, longest_s in keep_s.items():
            for state in ("NULL", "NOT NULL"):
                rows = self._records.rows(
                    db, f"sequence IS {state} AND kind = ? ORDER BY id LIMIT ?", kind, EXPIRED_AT_ONCE
                )
                for row in rows:
                    if row.made_s >= now_s - longest_s:
                        break
                    self.give_up(db, row.id, "expired")

    def give_up(self, db: sqlite3.Connection, number: int, reason: str) -> None:
        """Replaces a record by a gap, joined with those of the same reason that have no key either, or stand beside."""
        row = self._records.take(db, number)
        if row is None:
            return
        envelope = self._records.envelope(row)
        if envelope.kind is not Kind.GAP:
            sequence = row.sequence or NO_KEY
            gap = Gap(row.first or sequence, sequence, row.stands, envelope.n, len(row.data), reason)
            envelope = msgspec.structs.replace(
                envelope, kind=Kind.GAP, sequence=sequence, merged=0, body=msgspec.Raw(encode(gap))
            )
        self._records.given_up += row.stands * (row.kind != Kind.GAP)
        run = [(row, envelope)]
        for other in self._gaps_beside(db, row):
            beside = self._records.envelope(other)
            if gap_of(beside).reason == gap_of(envelope).reason:
                self._records.take(db, other.id)
                run.append((other, beside))
        run.sort(key=lambda one: one[0].id)
        gaps = [gap_of(one) for _, one in run]
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
        self._records.put(db, last._replace(**key, kind=Kind.GAP, stands=stands, data=encode(envelope)))

    def _gaps_beside(self, db: sqlite3.Connection, row: Row) -> list[Row]:
        """The gaps that one in a row's place could be joined with."""
        if row.sequence is None or row.first is None:
            return self._records.rows(db, "sequence IS NULL AND kind = ? ORDER BY id", Kind.GAP)
        # One that stands for more records than it has sequences keeps to itself: of several joined, the centre could
        # not tell how many records had arrived with one that it has.
        if row.stands != row.sequence - row.first + 1:
            return []
        return self._records.rows(
            db,
            "sequence IS NOT NULL AND epoch = ? AND kind = ? AND (sequence = ? OR first = ?)"
            " AND stands = sequence - first + 1",
            row.epoch,
            Kind.GAP,
            row.first - 1,
            row.sequence + 1,
        )
