from __future__ import annotations

from pathlib import Path

from benchmarks.outage import SHORT, run


def test_a_day_without_a_collector_at_ten_times_the_outbox_is_accounted_for_exactly(tmp_path: Path) -> None:
    found = run(SHORT, tmp_path)
    assert found.produced_bytes > 10 * SHORT.budget
    assert found.largest_outbox <= SHORT.budget
    assert found.produced == found.stored + found.stored_merged + found.lost
    assert found.rows == found.stored_rows + found.lost_rows
    assert (found.merged, found.given_up) == (found.stored_merged, found.lost)
    assert found.merged > 500
    # Nothing need be given up of one model's windows, and no window spans more than some hours.
    assert (found.given_up, found.longest_s < 4 * 3600) == (0, True)
