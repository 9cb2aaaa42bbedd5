"""A batch on its way into the tables: what is new is collected as sets of rows, and each set is written at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from edgekit.collector import references
from edgekit.collector.archive import PAIRS
from edgekit.collector.blocks import Blocks
from edgekit.collector.cursor import Cursor, Taken, merge_recent
from edgekit.collector.database import Row, Table, Transaction
from edgekit.collector.ingest import HEAD_BYTES, Accepted, Birth, Reading, Refused
from edgekit.collector.schema import CURSOR, DEAD, DEVICE, EVENT, GAP, LABELS, QUARANTINE, REFUSAL, WINDOW
from edgekit_contracts import limits
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Ack, Clock, Envelope, Event, Gap, Labels, ReferencePart, Window, encode
from edgekit_contracts.topics import Up

DEAD_MAX_ROWS: Final = 10_000
"""Different refused messages that are kept; beyond, the longest unseen goes."""
DAY_MS: Final = 86_400_000

_encode: Final = msgspec.msgpack.Encoder().encode


class Batch:
    """Some readings, within one transaction.

    Args:
        db: The transaction.
        readings: In the order of their arrival.
        names: The devices and epochs of their records.
    """

    def __init__(self, db: Transaction, readings: Sequence[Reading], names: Iterable[tuple[str, int]]) -> None:
        self.stored = self.duplicates = self.ahead = 0
        self._db, self._readings, self._names = db, readings, names
        self._now_ms = max((one.received_ms for one in readings), default=0)
        self._cursors: dict[tuple[str, int], Cursor] = {}
        self._moved: dict[tuple[str, int], list[tuple[int, int]]] = {}  # with the windows that came
        self._rows: dict[str, list[Row]] = {table.name: [] for table in (EVENT, QUARANTINE)}
        self._blocks = Blocks(self._now_ms // DAY_MS)
        self._labels: dict[Row, Row] = {}
        self._buried: list[Refused] = []
        self._completed: set[bytes] = set()

    @property
    def refused(self) -> Counter[str]:
        """How much of it was refused, by reason."""
        return Counter(one.reason for one in self._buried)

    def store(self) -> tuple[tuple[str, Ack], ...]:
        """Writes it all.

        Returns:
            What is to be acknowledged once it is committed, as (device, acknowledgement).
        """
        for dev, epoch, high, ranges, missing, lost, recent in self._db.pick(CURSOR, sorted(self._names)):
            pairs = (PAIRS.decode(ranges), PAIRS.decode(missing))
            self._cursors[dev, epoch] = Cursor(high, *pairs, lost, PAIRS.decode(recent))
        for reading in self._readings:
            if isinstance(reading, Accepted):
                self._take(reading)
            elif isinstance(reading, Refused):
                self._refuse(reading)
        self._put_statuses([one for one in self._readings if isinstance(one, Birth)])
        self._insert(EVENT)
        self._insert(QUARANTINE)
        self._release()
        self._db.insert(WINDOW, self._blocks.rows())
        self._put_labels()
        self._bury()
        return self._move_cursors()

    # --- one by one: what is new ---

    def _take(self, accepted: Accepted) -> None:
        envelope, body, received_ms = accepted.envelope, accepted.body, accepted.received_ms
        name = (envelope.device, envelope.epoch)
        cursor = self._cursors.get(name)
        if cursor is None:
            cursor = self._cursors[name] = Cursor()
        ahead = envelope.sequence - cursor.highest
        if ahead > limits.SEQUENCE_MAX_JUMP:
            # Not acknowledged: the cursor must not be led away by one wild number.
            topic = str(Up(envelope.device, "e" if isinstance(body, Event) else "w"))
            detail = f"sequence {envelope.sequence} is {ahead} ahead"
            self._buried.append(Refused(topic, "jump", detail, encode(envelope)[:HEAD_BYTES], received_ms))
            return
        windows = self._moved.get(name)
        if windows is None:
            windows = self._moved[name] = []
        if isinstance(body, Gap):
            taken = self._take_gap(cursor, envelope, body, received_ms)
        else:
            taken = cursor.take(envelope.sequence)
        if taken is not Taken.NEW:
            self.duplicates += taken is Taken.KNOWN
            if taken is not Taken.LATE:
                return
        self.stored += 1
        if taken is Taken.LATE:
            self._come_late(cursor, *name, envelope.sequence, 1 + envelope.merged)
        if isinstance(body, Window):
            windows.append((received_ms, envelope.dt_ms))
            if accepted.quarantined:
                waiting = (envelope.bins_id, received_ms, encode(envelope))
                self._rows[QUARANTINE.name].append((*name, envelope.sequence, *waiting))
            else:
                self._add_window(envelope, received_ms)
        elif isinstance(body, Event):
            texts = (_text(body.name), _text(body.detail))
            times = (self._date(envelope, received_ms), received_ms)
            self._rows[EVENT.name].append((*name, envelope.sequence, *times, *texts))
        elif isinstance(body, Labels):
            key = (envelope.device, body.model, body.model_version)
            row = (*key, envelope.epoch, envelope.sequence, received_ms, bytes(envelope.body))
            self._labels[key] = _newer(row, self._labels.get(key))
        elif isinstance(body, ReferencePart):
            self._take_part(envelope, body, received_ms)

    def _take_gap(self, cursor: Cursor, envelope: Envelope, gap: Gap, received_ms: int) -> Taken:
        taken, lost, fresh = cursor.give_up(gap)
        if taken is Taken.NEW:
            # A device's gap grows by swallowing its earlier self: the widest one counts.
            swallowed = self._db.rows(
                "DELETE FROM gap WHERE dev = ? AND epoch = ? AND first >= ? AND last <= ? RETURNING lost",
                (envelope.device, envelope.epoch, gap.first, gap.last),
            )
            values = (gap.first, gap.last, gap.records, gap.rows, gap.bytes, _text(gap.reason))
            self._db.insert(GAP, [(envelope.device, envelope.epoch, *values, received_ms, lost)])
            # Where every sequence is a record, the new ones are newly lost, whatever rows of gaps are still here.
            whole = gap.records == gap.last - gap.first + 1
            cursor.lost += fresh if whole else lost - sum(before for (before,) in swallowed)
        return taken

    def _come_late(self, cursor: Cursor, device: str, epoch: int, sequence: int, records: int) -> None:
        self._db.run(
            "UPDATE gap SET lost = lost - ? WHERE dev = ? AND epoch = ? AND first <= ? AND last >= ? AND lost >= ?",
            (records, device, epoch, sequence, sequence, records),
        )
        cursor.lost = max(0, cursor.lost - records)

    def _take_part(self, envelope: Envelope, part: ReferencePart, received_ms: int) -> None:
        try:
            if references.take(self._db, envelope, part, received_ms):
                self._completed.add(envelope.bins_id)
        except references.Untrue as untrue:
            topic = f"reference of {envelope.device}"
            self._buried.append(Refused(topic, "body", str(untrue), untrue.text[:HEAD_BYTES], received_ms))

    def _refuse(self, refused: Refused) -> None:
        if refused.key is not None:
            device, epoch, sequence = refused.key
            cursor = self._cursors.setdefault((device, epoch), Cursor())
            if sequence - cursor.highest <= limits.SEQUENCE_MAX_JUMP:
                self._moved.setdefault((device, epoch), [])
                taken = cursor.take(sequence)
                if taken is Taken.KNOWN:
                    self.duplicates += 1
                    return
                if taken is Taken.LATE:
                    self._come_late(cursor, device, epoch, sequence, 1)
        self._buried.append(refused)

    # --- set by set: writing ---

    def _insert(self, table: Table) -> None:
        rows = self._rows[table.name]
        known = len(rows) - self._db.insert(table, rows)
        self.stored -= known
        self.duplicates += known

    def _add_window(self, envelope: Envelope, received_ms: int) -> None:
        self._blocks.add(envelope, self._date(envelope, received_ms), received_ms)

    def _date(self, envelope: Envelope, received_ms: int) -> int:
        """When it was, for people: by the device's clock where that is synchronised and not plainly wrong."""
        if envelope.clock is not Clock.SYNCED:
            return received_ms
        if envelope.t0_ms <= received_ms + limits.CLOCK_MAX_FUTURE_MS:
            return envelope.t0_ms
        self.ahead += 1
        return received_ms

    def _release(self) -> None:
        """Moves windows that wait for bins which are here now to their place."""
        waiting = {row[3] for row in self._rows[QUARANTINE.name]} - self._completed
        for found in references.release(self._db, self._completed | references.here(self._db, waiting)):
            if isinstance(found, Refused):
                self._buried.append(found)
            else:
                self._add_window(*found)

    def _put_labels(self) -> None:
        before = {row[:3]: row for row in self._db.pick(LABELS, sorted(self._labels))}
        self._db.put(LABELS, [_newer(row, before.get(key)) for key, row in self._labels.items()])

    def _put_statuses(self, births: Sequence[Birth]) -> None:
        before = {row[0]: row for row in self._db.pick(DEVICE, sorted({(one.status.device,) for one in births}))}
        after: dict[str, Row] = {}
        for birth in births:
            status, data = birth.status, msgspec.json.encode(birth.status)
            last = after.get(status.device) or before.get(status.device)
            if last is None or (last[1] != data and _is_newer(status, msgspec.json.decode(last[1], type=Status))):
                after[status.device] = (status.device, data, birth.received_ms)
        self._db.put(DEVICE, list(after.values()))

    def _bury(self) -> None:
        if not self._buried:
            return
        found: dict[Row, Row] = {}
        for one in self._buried:
            topic, head = _text(one.topic[:256]), one.head
            key = (topic, one.reason, hashlib.sha256(head).digest()[:16])
            count = found[key][-1] + 1 if key in found else 1
            first = found.get(key) or (*key, _text(one.detail), head)
            found[key] = (*first[:5], one.received_ms, count)
        for row in self._db.pick(DEAD, sorted(found)):
            key = row[:3]
            found[key] = (*row[:5], found[key][5], found[key][6] + row[6])
        self._db.put(DEAD, [found[key] for key in sorted(found)])
        totals = self.refused + Counter(dict(self._db.pick(REFUSAL, [(reason,) for reason in sorted(self.refused)])))
        self._db.put(REFUSAL, sorted(totals.items()))
        ((rows,),) = self._db.rows("SELECT COUNT(*) FROM dead")
        if rows > DEAD_MAX_ROWS:
            self._db.run(
                "DELETE FROM dead WHERE (topic, reason, digest) IN"
                " (SELECT topic, reason, digest FROM dead ORDER BY received_ms LIMIT ?)",
                (rows - DEAD_MAX_ROWS,),
            )

    def _move_cursors(self) -> tuple[tuple[str, Ack], ...]:
        rows: list[Row] = []
        acks = []
        for (device, epoch), windows in self._moved.items():
            cursor = self._cursors[device, epoch]
            recent = merge_recent([cursor.recent, windows]) if windows else cursor.recent
            high, ranges, missing = cursor.high, cursor.ranges, tuple(cursor.missing)
            rows.append((device, epoch, high, _encode(ranges), _encode(missing), cursor.lost, _encode(recent)))
            acks.append((device, Ack(epoch=epoch, high=high, ranges=ranges)))
        self._db.put(CURSOR, rows)
        return tuple(acks)


def _newer(row: Row, other: Row | None) -> Row:
    """Of two totals the later ones: by their sequence within an epoch, else as they came."""
    return other if other is not None and other[3] == row[3] and other[4] > row[4] else row


def _text(value: str) -> str:
    """A text that every database holds: PostgreSQL's cannot have a NUL."""
    return value.replace("\0", "\ufffd")


def _is_newer(status: Status, last: Status) -> bool:
    """Whether a status takes the place of another; one that says the same never does: its first arrival counts."""
    # An epoch is of one start of the service. "A will of an older session than the last birth is ignored", and an older
    # birth is an echo just the same. Of another start only a will would come late; a refusal to start is none.
    same_start = status.epoch is None or last.epoch is None or status.epoch == last.epoch
    return status.session >= last.session if same_start else not status.dead or status.refused is not None
