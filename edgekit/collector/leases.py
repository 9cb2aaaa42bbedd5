"""Who takes which partition of the fleet: pure, over what the database says at one moment.

Each collector decides for itself, one after the other, with all leases locked (`claims`). It gives up what is more
than its fair share and takes of what nobody living holds up to that share. The larger shares go to those who hold
most already, so that no partition moves that need not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from typing import NamedTuple

from edgekit_contracts.topics import PARTITIONS


class Move(NamedTuple):
    """What one collector does now."""

    take: frozenset[int]
    give: frozenset[int]


def move(me: int, living: Set[int], holders: Mapping[int, int]) -> Move:
    """What a collector takes and gives up.

    Args:
        me: The collector that decides.
        living: All whose word still holds, `me` among them.
        holders: Partition -> who took it last; one that is missing was never taken.
    """
    held = Counter(holder for holder in holders.values() if holder in living)
    share, larger = divmod(PARTITIONS, len(living))
    mine = sorted(partition for partition, holder in holders.items() if holder == me)
    rank = sorted(living, key=lambda one: (-held[one], one)).index(me)
    fair = share + (rank < larger)
    free = [partition for partition in range(PARTITIONS) if holders.get(partition) not in living]
    return Move(frozenset(free[: max(0, fair - len(mine))]), frozenset(mine[fair:]))
