"""The outbox: what the device has produced and the centre has not yet said it stores.

A record that `append` returned for survives a power cut. It leaves only by the collector's `Ack`, never by the broker's
PUBACK, because brokers lose what they acknowledged (telemetry facts, 2.1).

The key of a record is (device, epoch, sequence), and it is given late: when the record is first about to be sent
(`give_keys`), durably, before it is. So a record has either no key and never left the device, or a key under which the
centre may have it for ever. The first may be merged, given up and put in any order; of the second nothing but the
record itself is ever sent. The epoch is random and anew at each start: a lost file, or one that was put back to an
earlier state (a restored image), cannot use a key twice.

The file is bounded in bytes of records. On overflow (`overflow`) windows without keys are merged by pairs, the oldest
first: rows and counts are kept, resolution in time is not. What cannot be merged gives way, the oldest first, to gap
records, so `produced = delivered + what the waiting records stand for` holds at every moment. Parts of the
reference go last, because without them the centre cannot read any window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError, TooLarge
from edgekit_contracts.names import check_device
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import ENVELOPE_VERSION, Ack, Clock, Envelope, Kind, decode_envelope, encode
from edgekit_runtime.ballast import Ballast
from edgekit_runtime.overflow import Overflow
from edgekit_runtime.records import NO_KEY, Records, Row

DEFAULT_MAX_BYTES: Final = 64 * limits.MIB
IN_FLIGHT_MAX: Final = 256
"""Records that have keys at a time: what is on its way can be neither merged nor put in another order."""


class Waiting(NamedTuple):
    """A record that waits."""

    id: int
    """What names it on the device."""
    kind: int
    data: bytes
    """The encoded envelope."""


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
        live: Whether what is appended is sent at once, and is given its key in the same step, beside what has piled up;
            of the uplink.

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
        self.path, self.device = Path(path), check_device(device)
        self.max_bytes, self.live = max_bytes, False
        self._keep_s, self._clock_s = dict(keep_s or {}), clock_s
        self._records = Records(self.path, self.device, clock_s)
        self._overflow = Overflow(self._records)
        self._opened_s = clock_s() - self._records.made_s

    def learn(self, bins_id: bytes, bins: Bins) -> None:
        """Keeps what is needed to merge windows on these bins.

        Raises:
            StorageFault: It is not kept.
        """
        self._overflow.learn(bins_id, bins)

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
        records, data = self._records, [self._record(kind, body, bins_id, n, t0_ms, dt_ms, clock) for body in bodies]
        with records.writing() as db:
            at_once = self.live and records.count - records.new < IN_FLIGHT_MAX
            numbers = list(range(records.produced + 1, records.produced + 1 + len(data)))
            # The service's own time goes on where it stood when the newest waiting record was stored.
            now_s = self._clock_s() - self._opened_s
            for number, one in zip(numbers, data, strict=True):
                row = Row(number, None, None, None, kind, 1, int(now_s), one)
                records.put(db, records.with_key(row) if at_once else row)
                records.appended_bytes += len(one)
            self._overflow.expire(db, self._keep_s, now_s)
            self._overflow.make_room(db, self.max_bytes)
            records.produced = numbers[-1]
            return numbers

    def give_keys(self, events: int, others: int) -> int:
        """Gives the next records their keys, in the order in which they are to be sent.

        Events come first, then references: without them the centre cannot read what is produced now.

        Args:
            events: Events that get one, at most.
            others: Windows and gaps that get one, at most; where any may, all parts of references do.

        Returns:
            How many got one.

        Raises:
            StorageFault: None got one.
        """
        if not self._records.new or max(events, others) <= 0:
            return 0
        return self._records.even_when_full(lambda: self._give_keys(events, others))

    def _give_keys(self, events: int, others: int) -> int:
        with self._records.writing() as db:
            kind, others_kinds = "sequence IS NULL AND kind = ?", "sequence IS NULL AND kind NOT IN (?, ?)"
            rows = self._records.rows(db, f"{kind} ORDER BY id LIMIT ?", Kind.EVENT, max(0, events))
            if others > 0:
                # The keys of the parts of one text are consecutive, by that the collector knows them: all at once.
                rows += self._records.rows(db, f"{kind} ORDER BY id", Kind.REFERENCE)
                rows += self._records.rows(
                    db, f"{others_kinds} ORDER BY id LIMIT ?", Kind.EVENT, Kind.REFERENCE, others
                )
            for row in rows:
                self._records.take(db, row.id)
                self._records.put(db, self._records.with_key(row))
            return len(rows)

    def condense(self, span_s: float) -> None:
        """Adds windows without keys to those before them, up to this length: rows and counts are kept.

        Raises:
            StorageFault: Some are as they were.
        """
        after: int | None = 0
        while after is not None:
            with self._records.writing() as db:
                after = self._overflow.condense(db, span_s, after)

    def pending(self, most: int = 256) -> list[Waiting]:
        """The records that have keys: what may be on its way.

        Events come before references before windows that were produced meanwhile before what has piled up.
        """
        with self._records.reading() as db:
            rows = self._records.rows(db, "sequence IS NOT NULL ORDER BY id LIMIT ?", most)
            (piled_up,) = db.execute(
                "SELECT MIN(id) FROM record WHERE sequence IS NULL AND kind = ?", (Kind.WINDOW,)
            ).fetchone()
        ranks = {Kind.EVENT: 0, Kind.REFERENCE: 1}
        rows.sort(key=lambda row: ranks.get(Kind(row.kind), 2 + (piled_up is not None and row.id < piled_up)))
        return [Waiting(row.id, row.kind, row.data) for row in rows]

    def waiting(self) -> Iterator[Envelope]:
        """The envelopes of all that waits, in order; the sequence of one without a key says nothing."""
        with self._records.reading() as db:
            rows = self._records.rows(db, "TRUE ORDER BY id")
        return map(self._records.envelope, rows)

    def bodies(self, kind: Kind, bins_id: bytes) -> list[bytes]:
        """The bodies of the waiting records of one kind on these bins, in order."""
        with self._records.reading() as db:
            rows = self._records.rows(db, "kind = ? ORDER BY id", kind)
            return [bytes(one.body) for one in map(self._records.envelope, rows) if one.bins_id == bins_id]

    def give_up(self, number: int, reason: str) -> None:
        """Replaces a waiting record that cannot be sent by a gap.

        Raises:
            StorageFault: It still waits.
        """
        with self._records.writing() as db:
            self._overflow.give_up(db, number, reason)

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
        left = self._records.even_when_full(lambda: self._acknowledge(ack))
        self.ballast.take_in()
        return left

    def _acknowledge(self, ack: Ack) -> int:
        records = self._records
        with records.writing() as db:
            highest = max([ack.high, *(last for _, last in ack.ranges)])
            if ack.epoch == records.epoch and highest > records.given:
                records.begin_epoch(db, highest)
                self._overflow.survey(db)
                return 0
            spans = [(1, ack.high), *ack.ranges]
            return sum(records.delete(db, ack.epoch, first, last) for first, last in spans)

    @property
    def epoch(self) -> int:
        """Random 63-bit number of this start."""
        return self._records.epoch

    @property
    def session(self) -> int:
        """Grows by one each time the file is opened."""
        return self._records.session

    @property
    def set_aside(self) -> Path | None:
        """Where a damaged file was moved when this one was begun."""
        return self._records.set_aside

    @property
    def ballast(self) -> Ballast:
        """Room for deleting on a full disk."""
        return self._records.ballast

    @property
    def merged(self) -> int:
        """Windows that were added into others since the file was opened."""
        return self._records.merged

    @property
    def given_up(self) -> int:
        """Records that were given up since then."""
        return self._records.given_up

    @property
    def appended_bytes(self) -> int:
        """Of the records that were appended since then."""
        return self._records.appended_bytes

    @property
    def size(self) -> int:
        """Bytes of the records that wait."""
        return self._records.standing.size

    @property
    def records(self) -> int:
        """Records that wait."""
        return self._records.standing.records

    @property
    def keyed(self) -> int:
        """Of these, the records that have keys."""
        return self._records.standing.keyed

    @property
    def produced(self) -> int:
        """Records that this file ever took."""
        return self._records.standing.produced

    def close(self) -> None:
        """Closes the file; what waits, waits for the next session."""
        self._records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, kind: Kind, body: bytes, bins_id: bytes, n: int, t0_ms: int, dt_ms: int, clock: Clock) -> bytes:
        envelope = Envelope(
            version=ENVELOPE_VERSION,
            device=self.device,
            epoch=self._records.epoch,
            sequence=NO_KEY,
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
