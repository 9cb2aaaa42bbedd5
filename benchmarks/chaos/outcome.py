"""What became of the records: what the devices noted, beside what the store holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.chaos.device import rows_of


class Outcome(NamedTuple):
    """Counts of records."""

    produced: int
    stored: int
    given_up: int
    """Produced, not stored, and within a gap."""
    lost: int
    changed: int
    """Stored with another number of rows."""
    twice: int
    """Stored more than once."""
    unnoted: int
    """Stored and not noted: a kill fell between the two, so there is at most one for each."""


def compare(folder: Path, devices: int) -> Outcome:
    """Reads the journals and the store of a folder."""
    produced = stored = given_up = lost = changed = twice = unnoted = 0
    with closing(sqlite3.connect(folder / "fleet.db")) as store:
        for device in (f"device-{number}" for number in range(devices)):
            lines = [line.split() for line in _lines(folder / f"{device}.journal")]
            noted = {(int(epoch), int(sequence)) for epoch, sequence in lines}
            rows = store.execute("SELECT epoch, seq, n FROM window WHERE dev = ?", (device,)).fetchall()
            rows += store.execute("SELECT epoch, seq, 0 FROM part WHERE dev = ?", (device,)).fetchall()
            here = {(epoch, sequence): n for epoch, sequence, n in rows}
            gaps = store.execute("SELECT epoch, first, last FROM gap WHERE dev = ?", (device,)).fetchall()
            produced, stored, twice = produced + len(noted), stored + len(here), twice + len(rows) - len(here)
            for epoch, sequence in noted:
                if (epoch, sequence) in here:
                    continue
                if any(one == epoch and first <= sequence <= last for one, first, last in gaps):
                    given_up += 1
                else:
                    lost += 1
            changed += sum(rows not in {0, rows_of(sequence)} for (_, sequence), rows in here.items())
            unnoted += len(here.keys() - noted)
    return Outcome(produced, stored, given_up, lost, changed, twice, unnoted)


def _lines(path: Path) -> list[str]:
    """Whole lines: a kill may leave the last one unfinished."""
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
