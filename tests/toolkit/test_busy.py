from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgekit.collector.busy import SHARE, SPAN_S, WhenBusy
from edgekit.collector.ingest import Message
from edgekit.collector.intake import Taken
from edgekit_contracts.errors import StorageFault


class Intake:
    """Takes each batch in within some processor time."""

    def __init__(self, depth: int, clocks: Clocks) -> None:
        self.depth, self.clocks, self.takes_s, self.closed = depth, clocks, 0.0, False

    def put(self, batch: Sequence[Message]) -> None:
        pass

    def get(self) -> Taken:
        self.clocks.used_s += self.takes_s
        return Taken(messages=self.depth)

    def close(self) -> None:
        self.closed = True


class Clocks:
    now_s = used_s = 100.0


def turns(busy: WhenBusy, clocks: Clocks, here: Intake, share: float, seconds: float) -> None:
    """A batch every tenth of a second."""
    here.takes_s = 0.1 * share
    for _ in range(round(10 * seconds)):
        busy.put([])
        busy.get()
        clocks.now_s += 0.1


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def made(clocks: Clocks, here: Intake, other: Intake | None) -> WhenBusy:
    def apart() -> Intake:
        if other is None:
            raise StorageFault("store.db", "no process can be started")
        return other

    return WhenBusy(here, apart, clock_s=lambda: clocks.now_s, used_s=lambda: clocks.used_s)


def test_a_busy_collector_stores_in_a_process_of_its_own_from_then_on(clocks: Clocks) -> None:
    here, other = Intake(1, clocks), Intake(2, clocks)
    busy = made(clocks, here, other)
    turns(busy, clocks, here, 0.9 * SHARE, 10 * SPAN_S)
    assert busy.depth == 1
    turns(busy, clocks, here, 1.1 * SHARE, 3 * SPAN_S)
    assert busy.depth == 2
    turns(busy, clocks, here, 0, 10 * SPAN_S)
    assert busy.get() == Taken(messages=2)
    busy.close()
    assert (here.closed, other.closed) == (False, True)


def test_a_moment_of_work_after_a_quiet_hour_is_no_reason(clocks: Clocks) -> None:
    here = Intake(1, clocks)
    busy = made(clocks, here, Intake(2, clocks))
    turns(busy, clocks, here, 0, SPAN_S)
    clocks.now_s += 3600
    turns(busy, clocks, here, 1, SPAN_S * SHARE / 2)
    turns(busy, clocks, here, 0, SPAN_S)
    assert busy.depth == 1


def test_where_no_process_can_be_started_all_goes_on_here(clocks: Clocks, caplog: pytest.LogCaptureFixture) -> None:
    here = Intake(1, clocks)
    busy = made(clocks, here, None)
    turns(busy, clocks, here, 1, 5 * SPAN_S)
    assert busy.get() == Taken(messages=1)
    assert sum("no process can be started" in record.message for record in caplog.records) == 1
