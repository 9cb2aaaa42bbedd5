"""Fair shares of the partitions: pure decisions, one collector after the other."""

from __future__ import annotations

import random
from collections import Counter

from edgekit.collector.leases import move
from edgekit_contracts.topics import PARTITIONS


def settle(living: set[int], holders: dict[int, int], dice: random.Random) -> tuple[dict[int, int], int]:
    """Lets each decide in turn until nobody moves; gives who holds what, and how many partitions changed hands."""
    before = dict(holders)
    for _ in range(5):
        moved = False
        for me in dice.sample(sorted(living), len(living)):
            take, give = move(me, living, holders)
            assert all(holders.get(one) not in living for one in take), "what another living one holds is not taken"
            assert all(holders[one] == me for one in give)
            holders = {one: holder for one, holder in holders.items() if one not in give} | dict.fromkeys(take, me)
            moved = moved or bool(take or give)
        if not moved:
            return holders, sum(before.get(one) != holder for one, holder in holders.items())
    raise AssertionError("they go on moving partitions")


def sizes(holders: dict[int, int]) -> list[int]:
    return sorted(Counter(holders.values()).values())


def test_one_collector_takes_all_at_once() -> None:
    assert move(1, {1}, {}) == (frozenset(range(PARTITIONS)), frozenset())


def test_a_second_one_gets_half_and_nothing_else_moves() -> None:
    holders, moved = settle({1, 2}, dict.fromkeys(range(16), 1), random.Random(0))
    assert (sizes(holders), moved) == ([8, 8], 8)


def test_what_a_dead_one_held_is_shared_among_the_living_and_they_keep_theirs() -> None:
    before = {partition: 1 + partition % 3 for partition in range(16)}
    holders, moved = settle({2, 3}, before, random.Random(0))
    assert (sizes(holders), moved) == ([8, 8], 6)
    assert all(holders[one] == before[one] for one in range(16) if before[one] != 1)


def test_more_collectors_than_partitions_leave_some_waiting() -> None:
    holders, _ = settle(set(range(20)), {}, random.Random(0))
    assert sizes(holders) == [1] * 16


def test_whoever_comes_and_goes_all_is_held_in_fair_shares_with_the_fewest_moves() -> None:
    dice = random.Random(0)
    for _ in range(200):
        holders: dict[int, int] = {}
        living = {1}
        for _ in range(8):
            living = set(dice.sample(range(1, 8), dice.randint(1, 7)))
            before = holders
            holders, moved = settle(living, holders, dice)
            assert set(holders) == set(range(PARTITIONS))
            assert set(holders.values()) <= living
            fair = sizes(holders)
            assert len(fair) == len(living)
            assert fair[-1] - fair[0] <= 1
            # Fewest: those that nobody living held, and what each held beyond the shares, the largest to the largest.
            orphans = sum(before.get(one) not in living for one in range(PARTITIONS))
            held = Counter(holder for holder in before.values() if holder in living)
            share, larger = divmod(PARTITIONS, len(living))
            ranked = sorted((held[one] for one in living), reverse=True)
            beyond = sum(max(0, count - share - (rank < larger)) for rank, count in enumerate(ranked))
            assert moved == orphans + beyond
