from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

from edgekit_contracts.alerts import LEVELS, EventName
from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.telemetry import Event, Kind, Labels, decode_body
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.events import AT_ONCE, PAUSE_S, WAITING_MAX, Events
from edgekit_runtime.models import Models
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.reload import Reload
from edgekit_runtime.reporter import Reporter
from tests import bundles
from tests.brokers import wait_until
from tests.runtime.test_outbox import make_source


def told(events: Events) -> list[Event]:
    """All that waits, in order."""
    found = []
    while (one := events.oldest) is not None:
        events.stored(one)
        found.append(one.event)
    return found


def stored(outbox: Outbox) -> list[Event]:
    bodies = [decode_body(one) for one in outbox.waiting() if one.kind is Kind.EVENT]
    return [body for body in bodies if isinstance(body, Event)]


def test_what_repeats_itself_is_held_back_and_counted() -> None:
    now = [0.0]
    events = Events(now_s=lambda: now[0])
    for number in range(AT_ONCE + 7):
        events.tell("requests fail", str(number))
    events.tell("started", "another name is not held back")
    assert [one.detail for one in told(events)] == ["0", "1", "2", "3", "4", "another name is not held back"]
    now[0] = PAUSE_S
    events.tell("requests fail", 2000 * "x")
    (one,) = told(events)
    assert one.detail.endswith("x (7 more were not told)")
    assert len(one.detail) == 1024


def test_every_event_has_a_level() -> None:
    assert LEVELS.keys() == set(get_args(EventName))


def test_what_nobody_stores_is_bounded() -> None:
    events = Events()
    names = get_args(EventName)
    for name in names:
        for number in range(AT_ONCE):
            events.tell(name, str(number))
    assert len(told(events)) == WAITING_MAX < AT_ONCE * len(names)


def test_what_is_told_before_and_after_the_reporter_starts_is_stored(tmp_path: Path) -> None:
    events, woken = Events(), []
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        events.tell("bundle refused", "the candidate is damaged")
        reporter = Reporter(outbox, lambda: woken.append(1), events)
        reporter.start([])
        events.tell("started", "it serves")
        wait_until(lambda: len(stored(outbox)) == 2, "both are stored")
        events.tell("stopped", "asked to")
        reporter.stop()
        assert [one.name for one in stored(outbox)] == ["bundle refused", "started", "stopped"]
        assert woken


def test_an_event_waits_while_the_disk_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, events = open_bundle(bundles.make(tmp_path).path, keys=None), Events()
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter, source = Reporter(outbox, lambda: None, events), make_source(bundle)
        reporter.start([source])
        whole, full = outbox._records.db, sqlite3.connect(":memory:")
        full.close()
        monkeypatch.setattr(outbox._records, "db", full)
        reporter.close_window(source)
        wait_until(lambda: events.oldest, "it is told")
        monkeypatch.setattr(outbox._records, "db", whole)
        reporter.stop()
        assert [one.name for one in stored(outbox)] == ["disk refuses"]


def test_requests_that_begin_to_fail_are_told_once(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter, source = Reporter(outbox, lambda: None), make_source(bundle)
        for failures in (2, 3, 3, 0, 4):  # the first are too few, the third is no news
            for _ in range(failures):
                source.observer.count_failed()
            reporter._report(source)
        assert [one.detail for one in stored(outbox)] == [
            "tiny 1.0: 3 of 3 in a window",
            "tiny 1.0: 4 of 4 in a window",
        ]


def test_records_that_give_way_are_told(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        reporter, source = Reporter(outbox, lambda: None), make_source(bundle)
        outbox.live = True  # what may be on its way is not merged
        while not outbox.given_up:
            reporter._report(source)
        (event,) = stored(outbox)
        assert event.name == "records given up"
        assert event.detail.endswith(" gave way: the outbox is full")


def test_totals_of_reviews_are_stored_when_they_change(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    totals: list[Labels] = []
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter, source = Reporter(outbox, lambda: None), make_source(bundle)
        reporter.verdicts = lambda: totals
        for reviewed in (0, 1, 1, 2):
            totals[:] = [Labels("tiny", "1.0", reviewed, 1, 0.0)] if reviewed else []
            reporter._report(source)
        records = [one for one in outbox.waiting() if one.kind is Kind.LABELS]
        assert [(one.n, decode_body(one)) for one in records] == [
            (1, Labels("tiny", "1.0", 1, 1, 0.0)),
            (2, Labels("tiny", "1.0", 2, 1, 0.0)),
        ]


def test_exchanges_and_what_does_not_load_are_told(tmp_path: Path) -> None:
    events, bundle = Events(), bundles.make(tmp_path)
    later = bundles.make(tmp_path, version="1.1", key=bundle.key)
    bad = tmp_path / "bad.edge"
    bad.write_bytes(b"no bundle")
    config = DeviceConfig(
        device="pump-1",
        bundle=str(bundle.path),
        keys=(str(bundle.public),),
        state_dir=str(tmp_path / "state"),
    )
    models = Models(config, lambda line: None, events)
    try:
        order = json.dumps({"bundle": str(later.path), "strategy": "blue-green"}).encode()
        models.command("tiny", "stage", order).result()
        models.command("tiny", "activate").result()
        models.command("tiny", "return").result()
        assert [one.name for one in told(events)] == ["staged", "activated", "returned"]
        broken = replace(config, bundle=str(bad))
        with pytest.raises(EdgekitError):
            Reload(config, lambda: broken, models, lambda serve: None, events)()
        Reload(config, lambda: config, models, lambda serve: None, events)()
        assert [one.name for one in told(events)] == ["settings refused", "settings applied"]
    finally:
        models.stop()
