"""Leases of the partitions, in a real PostgreSQL: sharing, taking over, and the fence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from edgekit.collector.claims import Claims, LeaseLost, Terms, hold, spans
from edgekit.collector.store import open_database, open_store
from edgekit_contracts.errors import UsageError
from edgekit_contracts.topics import PARTITIONS
from tests.brokers import wait_until

ALL = frozenset(range(PARTITIONS))
TERMS = Terms(lease_s=60.0, renew_s=0.1)
"""Whoever lives says so in time, however busy this machine is."""
SHORT = Terms(lease_s=1.0, renew_s=0.1)


class Member(Claims):
    """One that can fall asleep."""

    def __init__(self, database: str, name: str, terms: Terms = TERMS) -> None:
        self.awake = True
        self.told: list[frozenset[int]] = []
        self.superseded, self._asleep = threading.Event(), threading.Event()
        super().__init__(
            open_database(database),
            name,
            connected=self._is_awake,
            on_change=self.told.append,
            on_superseded=self.superseded.set,
            terms=terms,
        )

    def sleep_long(self, database: str) -> None:
        """Falls asleep, and all at once its word has run out."""
        self.awake = False
        assert self._asleep.wait(60)
        with open_store(database) as store, store.database.writing() as db:
            db.run("UPDATE collector SET until_ms = 1 WHERE instance = ?", (self.instance,))

    def _is_awake(self) -> bool:
        if not self.awake:
            self._asleep.set()
        return self.awake


@contextmanager
def living(database: str, *names: str, terms: Terms = TERMS) -> Iterator[list[Member]]:
    members = [Member(database, name, terms) for name in names]
    for member in members:
        member.start()
    try:
        yield members
    finally:
        for member in members:
            member.stop()


def all_is_shared(*members: Member) -> bool:
    held = [member.held for member in members]
    return (
        frozenset().union(*held) == ALL
        and sum(map(len, held)) == PARTITIONS
        and max(map(len, held)) - min(map(len, held)) <= 1
    )


def waits_for_a_lock(database: str) -> bool:
    with open_store(database) as store, store.database.reading() as db:
        ((waiting,),) = db.rows("SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return bool(waiting)


def test_three_share_and_two_take_over_from_one_that_falls_asleep(database: str) -> None:
    with living(database, "a", "b", "c") as (a, b, c):
        wait_until(lambda: all_is_shared(a, b, c), "each has its share")
        kept = a.held, b.held
        c.sleep_long(database)
        wait_until(lambda: all_is_shared(a, b), "the others have its share")
        assert (a.held >= kept[0], b.held >= kept[1]) == (True, True)
        assert a.told[-1] == a.held
        c.awake = True
        wait_until(lambda: all_is_shared(a, b, c), "it is one of them again")


def test_a_word_holds_for_so_long_and_no_longer(database: str) -> None:
    with living(database, "a", "b", terms=SHORT) as (a, b):
        wait_until(lambda: all_is_shared(a, b), "both have their share")
        b.awake = False
        wait_until(lambda: a.held == ALL, "it holds all")


def test_one_that_ends_gives_its_partitions_up_at_once(database: str) -> None:
    with living(database, "a") as (a,):
        with living(database, "b") as (b,):
            wait_until(lambda: all_is_shared(a, b), "both have their share")
        wait_until(lambda: a.held == ALL, "it holds all")


def test_whoever_was_taken_over_from_cannot_commit(database: str) -> None:
    with living(database, "a", "b") as (a, b), open_store(database, fence=partial(hold, instance=a.instance)) as store:
        wait_until(lambda: all_is_shared(a, b), "both have their share")
        before = a.held
        with store.database.writing() as db:
            hold(db, before, instance=a.instance)
        a.sleep_long(database)
        wait_until(lambda: b.held == ALL, "the other one holds all")
        assert a.held == before, "it does not know yet"
        with pytest.raises(LeaseLost, match="another collector holds") as lost, store.database.writing() as db:
            hold(db, before, instance=a.instance)
        assert lost.value.partitions == before


def test_nobody_takes_over_while_a_transaction_is_on_its_way(database: str) -> None:
    with living(database, "a", "b") as (a, b), open_store(database) as store:
        wait_until(lambda: all_is_shared(a, b), "both have their share")
        with store.database.writing() as db:
            hold(db, a.held, instance=a.instance)
            a.sleep_long(database)
            wait_until(lambda: waits_for_a_lock(database), "the other one wants them")
            assert not b.held & a.held
        wait_until(lambda: b.held == ALL, "the other one holds all")


def test_a_clock_that_was_set_back_keeps_no_dead_collector_alive(database: str) -> None:
    with living(database, "a") as (a,), open_store(database) as store:
        wait_until(lambda: a.held == ALL, "it holds all")
        with store.database.writing() as db:
            db.run("INSERT INTO collector (name, instance, until_ms) VALUES ('b', 7, ?)", (2**53,))
            db.run("UPDATE lease SET instance = 7")

        def of_the_dead() -> int:
            with store.database.reading() as db:
                ((count,),) = db.rows("SELECT COUNT(*) FROM lease WHERE instance = 7")
            return int(count)

        wait_until(lambda: of_the_dead() == 0, "they are taken over")
        wait_until(lambda: a.held == ALL, "it holds all again")


def test_of_one_name_only_one_lives_and_its_name_is_free_again_after_it_was_killed(database: str) -> None:
    with living(database, "a") as (a,):
        wait_until(lambda: a.held == ALL, "it holds all")
        again = Member(database, "a")
        with pytest.raises(UsageError, match="a collector named 'a' runs already"):
            again.start()
        a.sleep_long(database)
        again = Member(database, "a")
        again.start()
        try:
            wait_until(lambda: again.held == ALL, "it holds all")
            a.awake = True
            wait_until(a.superseded.is_set, "the first one is told")
            assert not a.held
            assert again.held == ALL
        finally:
            again.stop()


def test_collectors_that_start_together_each_find_the_tables(database: str) -> None:
    made: list[Member] = []
    threads = [threading.Thread(target=lambda n=n: made.append(Member(database, f"c{n}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for member in made:
        member.start()
    try:
        wait_until(lambda: all_is_shared(*made), "each has its share")
    finally:
        for member in made:
            member.stop()
    assert len(made) == 4


def test_partitions_are_named_for_people() -> None:
    assert spans(frozenset()) == "no partition"
    assert spans(frozenset({3})) == "partition 3"
    assert spans(frozenset({0, 1, 2, 5, 15, 14})) == "partitions 0-2, 5, 14-15"
