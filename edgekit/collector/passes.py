"""A pass over the store: windows go into the roll-ups, and what is too old is removed; in a process of its own.

Thus it neither takes Python's one lock from those that receive and store, nor has a core before them: it is nicer to
others than they are. It gets its task on standard input, and ends early, after the transaction that is under way, where
that is closed: so it also ends with the collector. Each transaction leaves the store whole: it may be killed as well.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Final

import msgspec

from edgekit.collector import retention, rolled
from edgekit.collector.keep import DAY_MS, Keep
from edgekit.collector.schema import WINDOW
from edgekit.collector.store import Store, open_store
from edgekit.process import collect_rarely, heed_no_signals, log_to_stderr
from edgekit_contracts.errors import EdgekitError, StorageFault

log = logging.getLogger("edgekit.collector.passes")  # not `__main__`

NICE: Final = 5
"""Not more: whoever writes waits for a transaction of this process, and so for its turn at a core."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    where: str
    """The store, which is there."""
    partitions: tuple[int, ...]
    """Of the topic tree, whose windows are rolled up."""
    keep: Keep
    now_ms: int | None
    """Milliseconds since 1970; None where that is not certain, and nothing is to be removed."""
    level: int = logging.INFO
    """Of what is logged."""


def pass_over(store: Store, task: Task, stopping: threading.Event) -> None:
    """Does it.

    Args:
        store: Open.
        task: What.
        stopping: Set where it is to end early.

    Raises:
        StorageFault: The rest is left.
    """
    log.info("%d windows were rolled up", _roll_up(store, task, stopping))
    if task.now_ms is None or stopping.is_set():
        return
    with store.database.writing() as db:
        db.make_day(WINDOW, task.now_ms // DAY_MS + 1)
    removed = retention.remove(store.database, task.keep, task.now_ms, stopping.wait)
    if removed:
        rows = ", ".join(f"{count} {what}" for what, count in removed.items())
        log.info("removed for their age: %s; kept are %s", rows, task.keep)


def _roll_up(store: Store, task: Task, stopping: threading.Event) -> int:
    windows = 0
    for p in task.partitions:
        try:
            # What comes meanwhile is the next pass's: of a busy fleet there would be no end of it.
            until = rolled.newest(store.database, p)
            while not stopping.is_set() and (taken := rolled.take_in(store.database, p, store.bins, until=until)):
                windows += taken
        except StorageFault:
            raise
        except Exception:
            # A window that somebody changed in the database: the other partitions go on.
            log.exception("the windows of partition %d are not rolled up", p)
    return windows


def main() -> None:
    """The process."""
    heed_no_signals()
    os.nice(NICE)
    text = b""
    while not text.endswith(b"\n"):
        if not (piece := os.read(0, 1 << 16)):
            return
        text += piece
    task = msgspec.json.decode(text, type=Task)
    log_to_stderr(task.level)
    stopping = threading.Event()

    def hear() -> None:
        os.read(0, 1)
        stopping.set()

    threading.Thread(target=hear, daemon=True).start()
    collect_rarely()
    try:
        with open_store(task.where, create=False) as store:
            pass_over(store, task, stopping)
    except EdgekitError as error:
        log.error("the store is not kept up at present: %s (%s)", error, error.next_step)
        sys.exit(error.exit_code)
    except Exception:
        log.exception("the store is not kept up")
        sys.exit(1)


if __name__ == "__main__":
    main()
