"""What became of the records: what the devices produced, beside what the store holds.

A window's key does not say which of the produced ones it is: keys are given late, and windows are merged in an overfull
outbox. So each window says how many it is (one rejected request) and has a number of rows of its own; both are added by
merging, and given up with the record. Lost and stored twice, they cannot make up for one another in both sums.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.chaos.device import rows_of
from edgekit.collector.database import Transaction
from edgekit.collector.store import open_store


class Outcome(NamedTuple):
    """Counts of records, and of rows."""

    produced: int
    stored: int
    merged: int
    """Stored within another window."""
    given_up: int
    twice: int
    """Stored more than once."""
    missing: int
    """Neither stored nor within a gap, or stored and never produced."""
    rows: int
    missing_rows: int
    forgotten: int
    """Noted by a device as stored in its outbox, which does not know of it."""


def compare(folder: Path, devices: int, store: Path | str) -> Outcome:
    """Reads the journals and outboxes of a folder, and the store."""
    sums = [0] * len(Outcome._fields)
    with open_store(store, create=False) as opened, opened.database.reading() as db:
        for device in (f"device-{number}" for number in range(devices)):
            with closing(sqlite3.connect(folder / f"{device}.db")) as outbox:
                (produced,) = outbox.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
            rows = sum(rows_of(number) for number in range(2, produced + 1))
            here: dict[tuple[int, int], tuple[int, int]] = {}
            parts = _of(db, "epoch, seq", "part", device)
            for epoch, seq in parts:
                here[epoch, seq] = (1, 0)
            stored = list(opened.windows(device, 0))
            for one in stored:
                here[one.epoch, one.sequence] = (one.window.software.rejected, one.n)
            given_up, lost_rows = _given_up(_of(db, "epoch, first, last, records, rows", "gap", device), here)
            windows, stored_rows = (sum(one[at] for one in here.values()) for at in (0, 1))
            noted = [int(line) for line in _lines(folder / f"{device}.journal")]
            found = Outcome(
                produced=produced,
                stored=len(here),
                merged=windows - len(here),
                given_up=given_up,
                twice=len(parts) + len(stored) - len(here),
                missing=produced - windows - given_up,
                rows=rows,
                missing_rows=rows - stored_rows - lost_rows,
                forgotten=sum(number > produced for number in noted),
            )
            # One device must not make up for another.
            found = found._replace(missing=abs(found.missing), missing_rows=abs(found.missing_rows))
            sums = [total + one for total, one in zip(sums, found, strict=True)]
    return Outcome(*sums)


def _of(db: Transaction, columns: str, table: str, device: str) -> list[tuple[Any, ...]]:
    return db.rows(f'SELECT {columns} FROM "{table}" WHERE dev = ?', (device,))


def _given_up(gaps: Iterable[tuple[Any, ...]], here: dict[tuple[int, int], tuple[int, int]]) -> tuple[int, int]:
    """Records and rows of the gaps, without those that had been stored before they were given up."""
    records = rows = 0
    spans = sorted(gaps, key=lambda gap: (gap[0], gap[1], -gap[2]))
    end = (0, 0)
    for epoch, first, last, count, n in spans:
        if (epoch, last) <= end:
            continue  # within a wider one, which it became
        end = (epoch, last)
        arrived = [one for (in_epoch, seq), one in here.items() if in_epoch == epoch and first <= seq <= last]
        records += count - sum(one[0] for one in arrived)
        rows += n - sum(one[1] for one in arrived)
    return records, rows


def _lines(path: Path) -> list[str]:
    """Whole lines: a kill may leave the last one unfinished."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
