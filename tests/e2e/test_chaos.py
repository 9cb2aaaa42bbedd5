from __future__ import annotations

import random
from pathlib import Path

from benchmarks.chaos.__main__ import SHORT, compare, run


def test_kills_cuts_and_repeats_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    done = run(SHORT, tmp_path, random.Random(0))
    found = compare(tmp_path, SHORT.devices)
    assert sum(count for what, count in done.items() if what.endswith("kills")) == SHORT.kills
    assert done["connections cut"]
    assert done["messages delivered again"]
    assert (found.lost, found.changed) == (0, 0)
    assert found.produced == found.stored - found.unnoted + found.given_up
    assert found.unnoted <= done["device kills"]
    assert found.produced > SHORT.records - SHORT.kills
