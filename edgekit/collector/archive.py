"""What can be read of a collector's store.

A gap says which sequences a device gave up. Some of them may have come before (their acknowledgement was lost), or may
come yet: what is really lost is counted with the cursor, and outlives the rows that retention removes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final, Protocol, Self

import msgspec

from edgekit.collector.blocks import StoredWindow, in_time, windows_of
from edgekit.collector.cursor import Range, merge_recent
from edgekit.collector.database import Database
from edgekit.collector.keep import HOUR_MS
from edgekit.collector.schema import TABLES
from edgekit_contracts.reference import Bins, Reference, decode_reference
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Labels

PAIRS: Final = msgspec.msgpack.Decoder(tuple[Range, ...])
"""Reads the columns of a cursor that hold pairs of numbers."""


class Standing(Protocol):
    """What stands on a reference: a window, or what several add up to."""

    @property
    def device(self) -> str:
        """Who counted."""
        ...

    @property
    def epoch(self) -> int:
        """Of its outbox."""
        ...

    @property
    def bins_id(self) -> bytes:
        """On which bins."""
        ...

    @property
    def model(self) -> str:
        """What was asked."""
        ...

    @property
    def version(self) -> str:
        """Of it."""
        ...


class Archive:
    """Reading; safe to use from several threads.

    Args:
        database: Where the tables are.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._bins: dict[bytes, Bins] = {}

    def bins(self, bins_id: bytes) -> Bins | None:
        """The bins of that name, or None while their reference is not complete."""
        found = self._bins.get(bins_id)
        if found is None:
            with self.database.reading() as db:
                # Whose text it is does not matter: their bins are what `bins_id` was made of.
                rows = db.rows("SELECT json FROM reference WHERE bins_id = ? LIMIT 1", (bins_id,))
            if rows:
                found = self._bins[bins_id] = decode_reference(rows[0][0]).bins
        return found

    def reference(self, window: Standing) -> Reference | None:
        """The reference that a window stands on, as its own device sent it; None where that is not here.

        That of the model's version where the device sent it, else its last other one on equal bins.
        """
        with self.database.reading() as db:
            rows = db.rows(
                "SELECT r.json FROM standing s JOIN reference r ON r.digest = s.digest"
                " WHERE s.dev = ? AND s.bins_id = ?"
                " ORDER BY (s.model = ? AND s.version = ?) DESC, s.epoch = ? DESC, s.received_ms DESC LIMIT 1",
                (window.device, window.bins_id, window.model, window.version, window.epoch),
            )
        return decode_reference(rows[0][0]) if rows else None

    def devices(self) -> dict[str, tuple[Status | None, int]]:
        """Every device that was ever heard of, by name: its last status and when that came (0 without one)."""
        with self.database.reading() as db:
            rows = db.rows(
                "SELECT c.dev, d.status, d.received_ms FROM"
                " (SELECT dev FROM device UNION SELECT dev FROM cursor) c LEFT JOIN device d ON d.dev = c.dev"
            )
        # Sorted here: the order of texts in a database is a matter of its locale.
        return {
            dev: (msgspec.json.decode(data, type=Status) if data else None, at or 0)
            for dev, data, at in sorted(rows, key=lambda row: str(row[0]))
        }

    def windows(self, device: str, since_ms: int, until_ms: int = 2**63 - 1) -> Iterator[StoredWindow]:
        """A device's windows that are dated `since_ms` or later, and before `until_ms`, in order of time."""
        hour_ms = since_ms // HOUR_MS * HOUR_MS
        with self.database.reading() as db:
            rows = db.rows(
                'SELECT hour_ms, records FROM "window" WHERE dev = ? AND hour_ms >= ? AND hour_ms < ? ORDER BY hour_ms',
                (device, hour_ms, until_ms),
            )
        for _, blocks in groupby(rows, key=itemgetter(0)):
            windows = windows_of(records for _, records in blocks)
            yield from sorted((one for one in windows if since_ms <= one.at_ms < until_ms), key=in_time)

    def last_window(self, device: str) -> tuple[int, int] | None:
        """When a device's last window came, and the longest of the last few, in milliseconds; quarantine counts.

        The longest, because a service that stops sends a short one.
        """
        with self.database.reading() as db:
            rows = db.rows("SELECT recent FROM cursor WHERE dev = ?", (device,))
        recent = merge_recent(PAIRS.decode(data) for (data,) in rows)
        return (recent[0][0], max(dt_ms for _, dt_ms in recent)) if recent else None

    def epochs(self, device: str, since_ms: int) -> list[int]:
        """Those of which windows came since."""
        with self.database.reading() as db:
            rows = db.rows("SELECT epoch, recent FROM cursor WHERE dev = ?", (device,))
        return [epoch for epoch, data in rows if (recent := PAIRS.decode(data)) and recent[0][0] >= since_ms]

    def highest(self, device: str, epoch: int) -> int:
        """The highest sequence received of a device's epoch; 0 for none."""
        with self.database.reading() as db:
            rows = db.rows("SELECT high, ranges FROM cursor WHERE dev = ? AND epoch = ?", (device, epoch))
        return max([rows[0][0], *(last for _, last in PAIRS.decode(rows[0][1]))]) if rows else 0

    def lost(self) -> dict[str, int]:
        """Records that devices gave up and that have not come either, of each that has some; over all time."""
        with self.database.reading() as db:
            rows = db.rows("SELECT dev, SUM(lost) FROM cursor WHERE lost > 0 GROUP BY dev")
        return {dev: int(count) for dev, count in rows}

    def quarantined(self) -> dict[str, int]:
        """Windows of each device that wait for their reference."""
        with self.database.reading() as db:
            return dict(db.rows("SELECT dev, COUNT(*) FROM quarantine GROUP BY dev"))

    def labels(self) -> dict[str, list[Labels]]:
        """What people said of the answers of each device's models, in all."""
        found: dict[str, list[Labels]] = {}
        with self.database.reading() as db:
            for dev, body in db.rows("SELECT dev, body FROM labels ORDER BY dev, model, version"):
                found.setdefault(dev, []).append(msgspec.msgpack.decode(body, type=Labels))
        return found

    def refused(self) -> Counter[str]:
        """How many messages and records were refused, by reason; over all time."""
        with self.database.reading() as db:
            return Counter(dict(db.rows("SELECT reason, count FROM refusal")))

    def count(self, table: str) -> int:
        """Rows of one of the tables; of `window`, the windows."""
        numbered = {one.name: one.numbered for one in TABLES}
        if table not in numbered:
            raise ValueError(f"no table '{table}'")
        what = "COALESCE(SUM(windows), 0)" if numbered[table] else "COUNT(*)"
        with self.database.reading() as db:
            return int(db.rows(f'SELECT {what} FROM "{table}"')[0][0])

    def close(self) -> None:
        """Lets the database go."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
