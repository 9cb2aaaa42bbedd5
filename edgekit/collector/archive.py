"""The collector's file, and what can be read of it: SQLite in WAL mode with `synchronous=FULL`.

A gap says which sequences a device gave up. Some of them may have been stored before (their acknowledgement was lost),
so what is really lost is counted when it is asked for: the gap's records less those of its span that are here.

`bins_id` names bins, not the counts of a reference: whoever knows the bins can write other counts on them. So texts of
references are kept by their SHA-256, equal ones once, and each device's windows stand on the text that it sent itself.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from edgekit_contracts.errors import MissingFile, StorageFault, UnsupportedFormat
from edgekit_contracts.reference import Bins, Reference, decode_reference
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Window

SCHEMA_VERSION: Final = 1
LAST_WINDOWS: Final = 5

# `at_ms` is the time of a record for people: the device's own clock where it is synchronised, else when it came.
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE device (dev TEXT PRIMARY KEY, status BLOB NOT NULL, received_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE cursor (
    dev TEXT, epoch INTEGER, high INTEGER NOT NULL, ranges BLOB NOT NULL, PRIMARY KEY (dev, epoch)
) WITHOUT ROWID;
CREATE TABLE window (
    dev TEXT, epoch INTEGER, seq INTEGER, at_ms INTEGER NOT NULL, t0_ms INTEGER NOT NULL, dt_ms INTEGER NOT NULL,
    clock INTEGER NOT NULL, received_ms INTEGER NOT NULL, bins_id BLOB NOT NULL, n INTEGER NOT NULL,
    model TEXT NOT NULL, version TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (dev, epoch, seq)
);
CREATE INDEX window_at ON window (dev, at_ms);
CREATE INDEX window_received ON window (dev, received_ms);
CREATE TABLE quarantine (
    dev TEXT, epoch INTEGER, seq INTEGER, bins_id BLOB NOT NULL, received_ms INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (dev, epoch, seq)
);
CREATE INDEX quarantine_bins ON quarantine (bins_id);
CREATE TABLE gap (
    dev TEXT, epoch INTEGER, first INTEGER, last INTEGER, records INTEGER NOT NULL, rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL, reason TEXT NOT NULL, received_ms INTEGER NOT NULL, PRIMARY KEY (dev, epoch, last)
);
CREATE TABLE event (
    dev TEXT, epoch INTEGER, seq INTEGER, at_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, name TEXT NOT NULL,
    detail TEXT NOT NULL, PRIMARY KEY (dev, epoch, seq)
);
CREATE TABLE part (
    dev TEXT, epoch INTEGER, seq INTEGER, bins_id BLOB NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
    part INTEGER NOT NULL, parts INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (dev, epoch, seq)
);
CREATE TABLE reference (
    digest BLOB PRIMARY KEY, bins_id BLOB NOT NULL, json BLOB NOT NULL, received_ms INTEGER NOT NULL
);
CREATE INDEX reference_bins ON reference (bins_id);
CREATE TABLE standing (
    dev TEXT, epoch INTEGER, bins_id BLOB, model TEXT, version TEXT, digest BLOB NOT NULL, received_ms INTEGER NOT NULL,
    PRIMARY KEY (dev, epoch, bins_id, model, version)
) WITHOUT ROWID;
CREATE TABLE dead (
    topic TEXT, reason TEXT, digest BLOB, detail TEXT NOT NULL, head BLOB NOT NULL, received_ms INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (topic, reason, digest)
);
CREATE INDEX dead_received ON dead (received_ms);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class StoredWindow(NamedTuple):
    """A window as it is read back."""

    device: str
    epoch: int
    at_ms: int
    dt_ms: int
    received_ms: int
    bins_id: bytes
    n: int
    model: str
    version: str
    window: Window


class Archive:
    """One file; safe to use from several threads, and readable by other processes while the collector writes.

    Args:
        path: The file.
        create: Make it where it is missing; a command that only reads says False.

    Raises:
        MissingFile: It does not exist, and is not to be made.
        StorageFault: It cannot be opened.
        UnsupportedFormat: A newer release made it.
    """

    def __init__(self, path: Path | str, *, create: bool = True) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._bins: dict[bytes, Bins] = {}
        if not create and not self.path.exists():
            raise MissingFile("store", str(self.path))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        except (sqlite3.Error, OSError) as error:
            raise StorageFault(str(self.path), str(error)) from error
        try:
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found == 0 and not create:
                raise StorageFault(str(self.path), "it is no collector's store")
            if found > SCHEMA_VERSION:
                raise UnsupportedFormat(f"store {self.path}", f"version {found}", f"version {SCHEMA_VERSION}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            if found == 0:
                self._db.executescript(_SCHEMA)
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error):
                raise StorageFault(str(self.path), str(error)) from error
            raise

    # --- what the rules of ingest ask (ingest.Known) ---

    def highest(self, device: str, epoch: int) -> int:
        """The highest sequence received of a device's epoch; 0 for none."""
        with self._reading() as db:
            high, ranges = read_cursor(db, device, epoch)
            return max([high, *(last for _, last in ranges)])

    def bins(self, bins_id: bytes) -> Bins | None:
        """The bins of that name, or None while their reference is not complete."""
        found = self._bins.get(bins_id)
        if found is None and (read := self._read_bins(bins_id)) is not None:
            found = self._bins[bins_id] = read
        return found

    # --- reading ---

    def reference(self, window: StoredWindow) -> Reference | None:
        """The reference that a window stands on, as its own device sent it; None where that is not here.

        That of the model's version where the device sent it, else its last other one on equal bins.
        """
        with self._reading() as db:
            row = db.execute(
                "SELECT r.json FROM standing s JOIN reference r ON r.digest = s.digest"
                " WHERE s.dev = ? AND s.bins_id = ?"
                " ORDER BY (s.model = ? AND s.version = ?) DESC, s.epoch = ? DESC, s.received_ms DESC LIMIT 1",
                (window.device, window.bins_id, window.model, window.version, window.epoch),
            ).fetchone()
        return None if row is None else decode_reference(row[0])

    def devices(self) -> dict[str, tuple[Status | None, int]]:
        """Every device that was ever heard of: its last status and when that came (0 without one)."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT c.dev, d.status, d.received_ms FROM"
                " (SELECT dev FROM device UNION SELECT dev FROM cursor) c LEFT JOIN device d ON d.dev = c.dev"
                " ORDER BY c.dev"
            ).fetchall()
        return {dev: (msgspec.json.decode(data, type=Status) if data else None, at or 0) for dev, data, at in rows}

    def windows(self, device: str, since_ms: int) -> Iterator[StoredWindow]:
        """A device's windows that are dated `since_ms` or later, in order of time."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT dev, epoch, at_ms, dt_ms, received_ms, bins_id, n, model, version, body FROM window"
                " WHERE dev = ? AND at_ms >= ? ORDER BY at_ms, seq",
                (device, since_ms),
            ).fetchall()
        for row in rows:
            yield StoredWindow._make((*row[:-1], msgspec.msgpack.decode(row[-1], type=Window)))

    def last_window(self, device: str) -> tuple[int, int] | None:
        """When a device's last window came, and the longest of the last few, in milliseconds; quarantine counts.

        The longest, because a service that stops sends a short one.
        """
        with self._reading() as db:
            last, longest = db.execute(
                "SELECT MAX(received_ms), MAX(dt_ms) FROM"
                " (SELECT received_ms, dt_ms FROM window WHERE dev = ? ORDER BY received_ms DESC LIMIT ?)",
                (device, LAST_WINDOWS),
            ).fetchone()
            (waiting,) = db.execute("SELECT MAX(received_ms) FROM quarantine WHERE dev = ?", (device,)).fetchone()
        if last is None:
            return None if waiting is None else (waiting, 0)
        return max(last, waiting or 0), longest

    def lost(self) -> dict[str, int]:
        """Records that each device gave up and that are not here either."""
        tables = ("window", "event", "part", "quarantine")
        here = " + ".join(
            f"(SELECT COUNT(*) FROM {table} r"
            " WHERE r.dev = g.dev AND r.epoch = g.epoch AND r.seq BETWEEN g.first AND g.last)"
            for table in tables
        )
        with self._reading() as db:
            rows = db.execute(f"SELECT dev, SUM(MAX(0, records - ({here}))) FROM gap g GROUP BY dev").fetchall()
        return dict(rows)

    def quarantined(self) -> dict[str, int]:
        """Windows of each device that wait for their reference."""
        with self._reading() as db:
            return dict(db.execute("SELECT dev, COUNT(*) FROM quarantine GROUP BY dev").fetchall())

    def refused(self) -> Counter[str]:
        """How many messages and records were refused, by reason."""
        with self._reading() as db:
            return Counter(dict(db.execute("SELECT reason, SUM(count) FROM dead GROUP BY reason").fetchall()))

    def count(self, table: str) -> int:
        """Rows of one of the tables."""
        with self._reading() as db:
            known = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if table not in known:
                raise ValueError(f"no table '{table}'")
            (rows,) = db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
            return int(rows)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_bins(self, bins_id: bytes) -> Bins | None:
        with self._reading() as db:
            # Whose text it is does not matter: their bins are what `bins_id` was made of.
            row = db.execute("SELECT json FROM reference WHERE bins_id = ? LIMIT 1", (bins_id,)).fetchone()
        return None if row is None else decode_reference(row[0]).bins

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError):
                # A fault of ours with one record, not of the disk: waiting would not mend it.
                raise
            except sqlite3.Error as error:
                raise StorageFault(str(self.path), str(error)) from error


def read_cursor(db: sqlite3.Connection, device: str, epoch: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """What was received of a device's epoch: everything up to here, and the ranges beyond."""
    row = db.execute("SELECT high, ranges FROM cursor WHERE dev = ? AND epoch = ?", (device, epoch)).fetchone()
    return (0, ()) if row is None else (row[0], msgspec.msgpack.decode(row[1], type=tuple[tuple[int, int], ...]))
