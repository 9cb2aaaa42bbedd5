"""The partitions that this collector holds: leases in the database that all collectors share.

A collector says every 1.5 s that it lives, and its word holds for 5 s by the database's clock; while it is without a
broker it says nothing. In the same transaction, with all leases locked, it takes and gives up what `leases.move` says.

The *fence* makes this safe rather than likely: each transaction that ingests first locks the leases of what it writes,
and fails where one of them names another process. So a collector that was asleep while others took over cannot commit
behind their backs; a takeover waits until what is being committed is.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from edgekit.collector.database import Database, Transaction
from edgekit.collector.leases import move
from edgekit_contracts.errors import StorageFault, UsageError
from edgekit_contracts.topics import PARTITIONS

log = logging.getLogger(__name__)


class Terms(NamedTuple):
    """How long a collector's word holds, and how often it gives it anew, in seconds."""

    lease_s: float = 5.0
    renew_s: float = 1.5


_NOW: Final = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint"
_ENROL: Final = (
    "INSERT INTO collector (name, instance, until_ms) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET instance = excluded.instance, until_ms = excluded.until_ms"
    " WHERE collector.instance = excluded.instance OR collector.until_ms NOT BETWEEN ? AND ?"
)


class LeaseLost(Exception):
    """Another collector holds these partitions now: what was to be stored of them is its to store.

    Args:
        partitions: Of the topic tree.
    """

    def __init__(self, partitions: frozenset[int]) -> None:
        super().__init__(f"another collector holds {spans(partitions)}")
        self.partitions = partitions


class Claims:
    """Takes partitions, keeps them, and gives them up again; a thread of its own.

    Args:
        database: PostgreSQL, over a connection of its own: to renew must not wait for a batch.
        name: The collector's. Of two that live, one can have it.
        connected: Whether there is a broker.
        on_change: Told what is held from now on.
        on_superseded: Told that another one, started while this one stood still, has the name now. That is the end.
        terms: The same for all collectors.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        connected: Callable[[], bool],
        on_change: Callable[[frozenset[int]], None],
        on_superseded: Callable[[], None],
        terms: Terms | None = None,
    ) -> None:
        self._database, self._name, self._connected = database, name, connected
        self._on_change, self._on_superseded, self._terms = on_change, on_superseded, terms or Terms()
        self.instance: Final = secrets.randbelow(2**63 - 1) + 1
        """This collector, in the database; 0 is nobody."""
        self._held: frozenset[int] = frozenset()
        self._fault: str | None = None
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"claims-{name}", daemon=True)

    @property
    def held(self) -> frozenset[int]:
        """The partitions, as of the last renewal."""
        return self._held

    def start(self) -> None:
        """Waits, where the name is of a collector that was killed, until its word holds no longer; then starts.

        One that is seen to give its word anew lives. Once is not enough: a killed one's last word may still be on its
        way to the database.

        Raises:
            UsageError: A collector of this name lives.
            StorageFault: The database does not answer.
        """
        try:
            self._enter()
        except BaseException:
            self._database.close()
            raise
        self._thread.start()

    def stop(self) -> None:
        """Gives all up, so that the others need not wait."""
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            with self._database.writing() as db:
                db.run("DELETE FROM collector WHERE instance = ?", (self.instance,))
        except StorageFault as fault:
            log.warning("collector %s keeps its partitions for %g s: %s", self._name, self._terms.lease_s, fault)
        self._database.close()

    def wake(self) -> None:
        """Something has changed: renew at once."""
        self._woken.set()

    def _enter(self) -> None:
        with self._database.writing() as db:
            for partition in range(PARTITIONS):
                db.run("INSERT INTO lease (p, instance) VALUES (?, 0) ON CONFLICT (p) DO NOTHING", (partition,))
        end = time.monotonic() + self._terms.lease_s + self._terms.renew_s
        words = set[int]()
        while True:
            with self._database.writing() as db:
                if self._enrol(db, _now_ms(db)):
                    return
                seen = {word for (word,) in db.rows("SELECT until_ms FROM collector WHERE name = ?", (self._name,))}
            if not words:
                log.info("collector %s waits for its name, which the last to have it has not given up", self._name)
            words |= seen
            if len(words) > 2 or time.monotonic() > end:
                raise UsageError(f"a collector named '{self._name}' runs already", "give this one another --name")
            time.sleep(0.1)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._connected():
                try:
                    self._renew()
                except Exception:
                    # To stop renewing would be to give everything up.
                    log.exception("collector %s cannot renew its leases", self._name)
            self._woken.wait(self._terms.renew_s)
            self._woken.clear()

    def _renew(self) -> None:
        try:
            exchanged = self._exchange()
        except StorageFault as fault:
            if str(fault) != self._fault:
                log.warning("collector %s cannot renew its leases: %s", self._name, fault)
            self._fault = str(fault)
            return
        self._fault = None
        if exchanged is None:
            log.error("collector %s stood still, and another one has its name now", self._name)
            self._held = frozenset()
            self._stopping.set()
            self._on_superseded()
            return
        held, living = exchanged
        if held != self._held:
            self._on_change(held)
            self._held = held
            log.info("collector %s holds %s; %d live", self._name, spans(held), living)

    def _exchange(self) -> tuple[frozenset[int], int] | None:
        """One renewal: what is held after it, and how many collectors live; None where the name is another one's."""
        with self._database.writing() as db:
            holders: dict[int, int] = dict(db.rows("SELECT p, instance FROM lease ORDER BY p FOR UPDATE"))
            now_ms = _now_ms(db)
            if not self._enrol(db, now_ms):
                return None
            # A word that holds for longer than any that is given: the clock was set back, and its giver may be dead.
            db.run("DELETE FROM collector WHERE until_ms NOT BETWEEN ? AND ?", self._holding(now_ms))
            living = {instance for (instance,) in db.rows("SELECT instance FROM collector")}
            change = move(self.instance, living, holders)
            for partitions, holder in ((change.take, self.instance), (change.give, 0)):
                for partition in partitions:
                    db.run("UPDATE lease SET instance = ? WHERE p = ?", (holder, partition))
            ours = {partition for partition, holder in holders.items() if holder == self.instance}
            return frozenset(ours | change.take) - change.give, len(living)

    def _enrol(self, db: Transaction, now_ms: int) -> bool:
        first_ms, last_ms = self._holding(now_ms)
        return db.run(_ENROL, (self._name, self.instance, last_ms, first_ms, last_ms)) == 1

    def _holding(self, now_ms: int) -> tuple[int, int]:
        """Until when a word that holds can hold, from and to."""
        return now_ms + 1, now_ms + round(self._terms.lease_s * 1000)


def hold(db: Transaction, partitions: frozenset[int], *, instance: int) -> None:
    """The fence: holds these leases until the transaction ends.

    Args:
        db: The transaction that ingests.
        partitions: What it writes.
        instance: Whose they must be.

    Raises:
        LeaseLost: Some are another one's.
    """
    marks = ", ".join("?" * len(partitions))
    sql = f"SELECT p FROM lease WHERE instance = ? AND p IN ({marks}) ORDER BY p FOR SHARE"
    held = {p for (p,) in db.rows(sql, (instance, *partitions))} if partitions else set()
    if lost := partitions - held:
        raise LeaseLost(lost)


def spans(partitions: frozenset[int]) -> str:
    """For people: `partitions 0-4, 7`, or `no partition`."""
    runs: list[list[int]] = []
    for partition in sorted(partitions):
        if runs and partition == runs[-1][-1] + 1:
            runs[-1].append(partition)
        else:
            runs.append([partition])
    shown = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"partition{'s' if len(partitions) > 1 else ''} {shown}" if runs else "no partition"


def _now_ms(db: Transaction) -> int:
    ((now_ms,),) = db.rows(_NOW)
    return int(now_ms)
