"""Budgets and the daily cap, told the time."""

from __future__ import annotations

import math

import pytest

from edgekit_contracts.reference import Bins, FeatureBins
from edgekit_runtime.config import Telemetry
from edgekit_runtime.thrift import BUDGETS, DAY_S, LENGTHS_S, Rhythm, Thrift, keepalive_s, rhythm, sends_moments


def bins(features: int, size: int = 20) -> Bins:
    edges = tuple(float(at) for at in range(size - 1))
    return Bins(
        features=tuple(FeatureBins(name=f"f{at}", edges=edges) for at in range(features)),
        classes=("no", "yes"),
        score_edges=edges[:9],
    )


def settings(**values: object) -> Telemetry:
    return Telemetry(broker="mqtt://127.0.0.1", **values)  # type: ignore[arg-type]


def test_without_a_budget_windows_go_as_they_are_and_at_once() -> None:
    assert rhythm(settings(), [bins(10)]) == Rhythm(0, 0)
    assert keepalive_s(settings()) == 30
    assert sends_moments(settings())


def test_a_budget_lengthens_the_windows_of_what_counts_more() -> None:
    lengths = [rhythm(settings(budget="tiny"), [bins(features)]).merge_s for features in (1, 3, 10, 30, 100, 1000)]
    assert lengths == sorted(lengths)
    assert lengths[-1] == DAY_S
    assert set(lengths) <= set(LENGTHS_S)
    assert rhythm(settings(budget="tiny"), [bins(10)] * 3).merge_s > rhythm(settings(budget="tiny"), [bins(10)]).merge_s
    assert rhythm(settings(budget="normal"), [bins(10)]).merge_s < rhythm(settings(budget="tiny"), [bins(10)]).merge_s


@pytest.mark.parametrize("name", ["tiny", "normal"])
def test_windows_that_wait_for_one_another_share_a_message(name: str) -> None:
    chosen = rhythm(settings(budget=name), [bins(10)])
    assert chosen.send_s == BUDGETS[name].together * chosen.merge_s  # type: ignore[index]
    assert rhythm(settings(budget=name), [bins(1000)] * 50).send_s == DAY_S


def test_single_settings_win_over_the_budget() -> None:
    own = settings(budget="tiny", merge_s=600.0, send_s=1800.0, keepalive_s=60, moments=True)
    assert rhythm(own, [bins(10)]) == Rhythm(600.0, 1800.0)
    assert (keepalive_s(own), sends_moments(own)) == (60, True)
    assert rhythm(settings(merge_s=600.0), [bins(10)]) == Rhythm(600.0, 600.0), "what is merged has to wait"
    assert rhythm(settings(send_s=600.0), [bins(10)]) == Rhythm(0.0, 600.0)


def test_windows_are_due_at_the_start_and_then_every_so_often() -> None:
    thrift = Thrift()
    thrift.rhythm = Rhythm(0.0, 100.0)
    assert thrift.due_s(5.0) == 5.0
    thrift.sent(5.0)
    assert thrift.due_s(6.0) == 105.0
    assert thrift.due_s(300.0) == 300.0


def test_the_cap_keeps_bytes_for_events_and_for_the_pings_of_the_day() -> None:
    thrift = Thrift(100_000, keepalive_s=864)
    assert thrift.room(0, 0.0, urgent=True) == 100_000 - 400 - 150
    assert thrift.room(0, 0.0, urgent=False) == thrift.room(0, 0.0, urgent=True) - 10_000
    assert thrift.room(50_000, 20_000 * DAY_S + DAY_S / 2, urgent=True) == 50_000 - 200 - 150
    assert thrift.room(99_900, 0.0, urgent=True) < 0
    assert thrift.largest == thrift.room(0, 0.0, urgent=False)
    assert Thrift().room(10**12, 0.0, urgent=False) == math.inf
