from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import ENGINES, SHORT, run

FEWER_KILLS = SHORT._replace(kills=8)
"""A collector that was killed waits up to 5 s for its own name."""


@pytest.mark.parametrize("broker", ["mosquitto", "nats"])
def test_kills_cuts_repeats_and_full_disks_lose_nothing_and_double_nothing(broker: str, tmp_path: Path) -> None:
    done, found = run(SHORT, tmp_path, random.Random(0), ENGINES[broker])
    assert sum(count for what, count in done.items() if what.endswith("kills")) == SHORT.kills
    assert done["connections cut"]
    assert done["messages delivered again"]
    assert done["full disks of the collector"]
    assert not done["device failures"], "an outbox above its limit, for one"
    assert (found.twice, found.missing, found.missing_rows, found.forgotten) == (0, 0, 0, 0)
    assert found.produced == found.stored + found.merged + found.given_up == SHORT.records


def test_three_collectors_that_are_killed_and_asleep_by_turns_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    done, found = run(FEWER_KILLS, tmp_path, random.Random(1), shared=True)
    assert (done["database kills"], done["collectors asleep"]) == (1, 1)
    assert not done["device failures"]
    assert (found.twice, found.missing, found.missing_rows, found.forgotten) == (0, 0, 0, 0)
    assert found.produced == found.stored + found.merged + found.given_up == SHORT.records
