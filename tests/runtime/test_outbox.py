from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError, StorageFault, TooLarge, UnsupportedFormat
from edgekit_contracts.telemetry import Ack, Clock, Envelope, Event, Gap, Kind, decode_body, decode_envelope, encode
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.outbox import IN_FLIGHT_MAX, Outbox
from edgekit_runtime.reporter import Reporter
from edgekit_runtime.source import Source
from tests import bundles
from tests.brokers import wait_until
from tests.telemetry_samples import BINS_ID, NOW_MS, append_reference, append_window, window

CORPUS = Path(__file__).parents[1] / "corpus"


def envelopes(outbox: Outbox) -> list[Envelope]:
    return list(outbox.waiting())


def keyed(outbox: Outbox) -> list[int]:
    """The sequences of what may be on its way."""
    return [decode_envelope(one.data).sequence for one in outbox.pending(10_000)]


def gaps(outbox: Outbox) -> list[Gap]:
    bodies = [decode_body(envelope) for envelope in envelopes(outbox) if envelope.kind is Kind.GAP]
    return [body for body in bodies if isinstance(body, Gap)]


def event(outbox: Outbox, size: int = 50) -> int:
    return outbox.append(Kind.EVENT, encode(Event("note", "x" * size)), n=1, t0_ms=1)


def test_records_come_back_in_order_and_carry_their_key(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        assert [append_window(outbox) for _ in range(3)] == [1, 2, 3]
        assert outbox.pending() == []
        assert outbox.give_keys(0, 2) == 2
        assert [one.id for one in outbox.pending()] == [1, 2]
        first = envelopes(outbox)[0]
        assert (first.device, first.epoch, first.sequence, first.n) == ("pump-1", outbox.epoch, 1, 100)
        assert (outbox.records, outbox.keyed) == (3, 2)
        outbox.give_keys(0, 2)
        assert outbox.size == sum(len(one.data) for one in outbox.pending())


def test_events_get_their_keys_before_routine_windows_and_go_first(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for _ in range(3):
            append_window(outbox)
        event(outbox)
        assert outbox.give_keys(8, 1) == 2
        event(outbox)
        assert outbox.give_keys(1, 0) == 1
        assert [(one.id, one.kind) for one in outbox.pending()] == [(4, Kind.EVENT), (5, Kind.EVENT), (1, Kind.WINDOW)]
        assert keyed(outbox) == [1, 3, 2]


def test_what_is_sent_at_once_is_stored_with_its_key_beside_what_has_piled_up(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for live in (True, False, True):
            outbox.live = live
            append_window(outbox)
        assert [(one.id, sequence) for one, sequence in zip(outbox.pending(), keyed(outbox), strict=True)] == [
            (3, 2),
            (1, 1),
        ]
        assert outbox.give_keys(0, 8) == 1
        for _ in range(2 * IN_FLIGHT_MAX):
            append_window(outbox)
        assert outbox.keyed == IN_FLIGHT_MAX


def test_references_go_before_the_windows_that_have_piled_up_and_their_parts_together(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
        parts = append_reference(outbox, parts=3)
        event(outbox)
        append_window(outbox)
        assert outbox.give_keys(8, 0) == 1
        assert outbox.give_keys(8, 1) == 4
        assert [one.id for one in outbox.pending()] == [5, *parts, 1]
        assert keyed(outbox) == [1, 2, 3, 4, 5]


def test_a_restart_keeps_the_records_grows_the_session_and_begins_an_epoch(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as first:
        append_window(first)
        append_window(first)
        first.give_keys(0, 1)
    with Outbox(tmp_path / "outbox.db", "pump-1") as second:
        assert (second.session, second.records, second.keyed) == (first.session + 1, 2, 1)
        assert second.epoch != first.epoch
        assert second.size == first.size
        second.give_keys(0, 8)
        found = [(one.epoch, one.sequence) for one in map(decode_envelope, (one.data for one in second.pending()))]
        assert found == [(first.epoch, 1), (second.epoch, 1)]
        assert append_window(second) == 3
        # What was on its way then is acknowledged by its own key.
        assert second.acknowledge(Ack(first.epoch, 1)) == 1
        assert second.acknowledge(Ack(second.epoch, 1)) == 1


def test_a_number_is_never_given_twice_even_when_all_was_delivered(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
        append_window(outbox)
        outbox.give_keys(0, 2)
        assert outbox.acknowledge(Ack(outbox.epoch, 2)) == 2
        assert (outbox.records, outbox.size) == (0, 0)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        assert append_window(outbox) == 3


def test_a_process_that_is_killed_loses_no_record_it_was_promised(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from edgekit_runtime.outbox import Outbox\n"
        "from edgekit_contracts.telemetry import Event, Kind, encode\n"
        "outbox = Outbox(sys.argv[1], 'pump-1')\n"
        "for _ in range(20): outbox.append(Kind.EVENT, encode(Event('a', 'b')), t0_ms=1)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "outbox.db")], check=False)
    assert done.returncode == -9
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        assert (outbox.session, outbox.produced, outbox.records) == (2, 20, 20)


def test_an_acknowledgement_removes_the_run_and_the_islands_and_nothing_else(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for _ in range(8):
            append_window(outbox)
        outbox.give_keys(0, 8)
        assert outbox.acknowledge(Ack(outbox.epoch, 2, ((4, 5), (7, 7)))) == 5
        assert keyed(outbox) == [3, 6, 8]


def test_an_acknowledgement_of_another_file_is_ignored(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
        outbox.give_keys(0, 1)
        assert outbox.acknowledge(Ack(outbox.epoch ^ 1, 1)) == 0
        assert outbox.acknowledge(Ack(outbox.epoch ^ 1, 2)) == 0
        assert outbox.records == 1


def test_an_outbox_put_back_to_an_earlier_state_uses_no_key_again(tmp_path: Path) -> None:
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    with Outbox(path, "pump-1") as outbox:
        event(outbox)
        outbox.give_keys(8, 8)
        sqlite3.connect(path).close()
        outbox._records.db.execute(f"VACUUM INTO '{copy}'")
        lost = event(outbox)
        outbox.give_keys(8, 8)
        first, last = ((one.epoch, one.sequence) for one in envelopes(outbox))
    copy.replace(path)
    with Outbox(path, "pump-1") as again:
        assert event(again) == lost
        again.give_keys(8, 8)
        # What was on its way is what it was; what came since has another key than what the centre may have.
        found = [(one.epoch, one.sequence) for one in envelopes(again)]
        assert found[0] == first
        assert found[1] not in {first, last}


def test_a_memory_put_back_to_an_earlier_state_takes_its_keys_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        for _ in range(30):
            event(outbox)
        outbox.give_keys(8, 8)
        before, old = envelopes(outbox), outbox.epoch
        assert outbox.acknowledge(Ack(old, 20, ((25, 31),))) == 0
        assert (outbox.keyed, outbox.records) == (0, len(before))
        assert "old copy" in caplog.text
        outbox.give_keys(100, 100)
        after = envelopes(outbox)
        assert outbox.epoch != old
        assert [(one.kind, one.t0_ms, one.n) for one in after] == [(one.kind, one.t0_ms, one.n) for one in before]
        assert {one.epoch for one in after} == {outbox.epoch}
        # What the centre said of the old epoch speaks of other records now.
        assert outbox.acknowledge(Ack(old, 30)) == 0
        assert outbox.acknowledge(Ack(outbox.epoch, 30)) == len(before)


def test_an_outbox_of_the_release_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    shutil.copy(CORPUS / "outbox-1" / "outbox.db", path)
    with Outbox(path, "clinic-1") as outbox:
        assert (outbox.session, outbox.produced, outbox.records, outbox.keyed) == (2, 12, 6, 6)
        first, *_ = found = envelopes(outbox)
        assert [one.kind for one in found] == [Kind.REFERENCE, Kind.GAP, *[Kind.WINDOW] * 3, Kind.EVENT]
        # All of it may have been sent, so it is neither merged nor given another key.
        assert {one.epoch for one in envelopes(outbox)} == {first.epoch} != {outbox.epoch}
        assert append_window(outbox) == 13
        assert outbox.acknowledge(Ack(first.epoch, 12)) == 6


def test_a_file_that_was_torn_while_it_was_made_is_simply_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as torn:
        torn.setattr("secrets.randbits", lambda bits: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            Outbox(tmp_path / "outbox.db", "pump-1")
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        assert (outbox.set_aside, outbox.session) == (None, 1)


def test_overflow_puts_one_gap_where_the_last_dropped_record_was(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        for _ in range(40):
            event(outbox)
        (gap,) = gaps(outbox)
        assert outbox.produced == outbox.records - 1 + gap.records == 40
        assert gap.rows == gap.records == outbox.given_up
        assert outbox.size <= 1500
        # It gets its key as others do, and a sequence for each record that it stands for.
        outbox.give_keys(0, 1)
        assert gaps(outbox) == [msgspec.structs.replace(gap, first=1, last=gap.records)]


def test_parts_of_the_reference_are_given_up_last(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=2200) as outbox:
        event(outbox)
        append_reference(outbox)
        for _ in range(60):
            event(outbox)
        assert [one.kind for one in envelopes(outbox)].count(Kind.REFERENCE) == 2
        while any(one.kind is Kind.REFERENCE for one in envelopes(outbox)):
            event(outbox, size=900)
            outbox.max_bytes = 400
        (gap,) = gaps(outbox)
        assert gap.records == outbox.produced


def test_what_is_on_its_way_gives_way_too_and_its_gaps_are_joined(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        for _ in range(6):
            event(outbox)
        outbox.give_keys(6, 0)
        for _ in range(20):
            event(outbox)
        on_its_way, later = gaps(outbox)
        assert (on_its_way.first, on_its_way.last, on_its_way.records) == (1, 6, 6)
        assert outbox.produced == 6 + later.records + outbox.records - 2


def test_a_gap_stays_until_all_that_it_stands_for_is_known_at_the_centre(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for _ in range(4):
            event(outbox)
        outbox.give_keys(4, 0)
        outbox.give_up(2, "unreadable")
        outbox.give_up(3, "unreadable")
        (gap,) = gaps(outbox)
        # The last record of the gap had arrived before it was given up; the rest of it had not.
        outbox.acknowledge(Ack(outbox.epoch, 0, ((gap.last, gap.last),)))
        assert gaps(outbox) == [gap]
        outbox.acknowledge(Ack(outbox.epoch, gap.last))
        assert gaps(outbox) == []


def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path, "pump-1") as old:
        append_window(old)
    path.write_bytes(b"not a database" * 1000)
    with Outbox(path, "pump-1") as new:
        assert new.epoch != old.epoch
        assert new.set_aside == tmp_path / "outbox.db.damaged-1"
        assert (tmp_path / "outbox.db.damaged-1").exists()
        assert append_window(new) == 1
    assert "set aside" in caplog.text
    path.write_bytes(b"again" * 1000)
    with Outbox(path, "pump-1") as third:
        assert third.set_aside == tmp_path / "outbox.db.damaged-2"


def test_the_outbox_of_another_device_is_set_aside_under_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
    with Outbox(tmp_path / "outbox.db", "pump-2") as new:
        assert new.set_aside == tmp_path / "outbox.db.of-pump-1-1"
        assert new.records == 0
    assert "it is of the device 'pump-1' (records that wait in it: 1)" in caplog.text
    assert "damaged" not in caplog.text
    assert new.set_aside is not None
    new.set_aside.replace(tmp_path / "outbox.db")
    with Outbox(tmp_path / "outbox.db", "pump-1") as again:
        assert (again.set_aside, again.records) == (None, 1)


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    Outbox(path, "pump-1").close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(UnsupportedFormat, match="version 9"):
        Outbox(path, "pump-1")
    assert list(tmp_path.glob("*damaged*")) == []


def test_a_path_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFault, match="cannot use"):
        Outbox(tmp_path / "file" / "outbox.db", "pump-1")
    with pytest.raises(StorageFault):
        Outbox(tmp_path, "pump-1")


def test_a_second_service_on_the_same_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **how: connect(path, **how, timeout=0))
    with Outbox(tmp_path / "outbox.db", "pump-1"), pytest.raises(StorageFault, match="locked"):
        Outbox(tmp_path / "outbox.db", "pump-1")


def test_a_full_disk_stores_nothing_uses_no_number_and_heals(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        event(outbox)
        size = outbox.size
        (pages,) = outbox._records.db.execute("PRAGMA page_count").fetchone()
        outbox._records.db.execute(f"PRAGMA max_page_count = {pages}")

        def fill() -> None:
            for _ in range(100):
                event(outbox, 1000)

        with pytest.raises(StorageFault, match="full"):
            fill()
        before = outbox.produced
        assert outbox.records == len(envelopes(outbox)) == before
        assert outbox.size >= size
        outbox._records.db.execute("PRAGMA max_page_count = 100000")
        assert event(outbox) == before + 1


def test_a_record_that_could_never_travel_is_refused_at_once(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        with pytest.raises(TooLarge):
            outbox.append(Kind.WINDOW, encode(Event("x", "y" * limits.RECORD_MAX_BYTES)), t0_ms=1)
        assert (outbox.records, outbox.produced) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": limits.RECORD_MAX_ROWS + 1},
        {"n": -1},
        {"t0_ms": -1},
        {"t0_ms": 2**63},
        {"t0_ms": 2**64},
        {"dt_ms": -1},
        {"bins_id": b"short"},
    ],
)
def test_a_record_that_the_contract_refuses_is_not_stored(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        with pytest.raises(FormatError):
            outbox.append(Kind.EVENT, encode(Event("a", "b")), **{"t0_ms": 1, **wrong})
        assert (outbox.records, outbox.produced) == (0, 0)
        assert event(outbox) == 1


def test_a_record_that_is_given_up_leaves_a_gap_and_joins_its_neighbours(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for _ in range(5):
            event(outbox)
        outbox.give_keys(5, 0)
        outbox._records.db.execute("UPDATE record SET data = x'c1c1' WHERE id = 3")
        outbox.give_up(3, "unreadable")
        assert gaps(outbox) == [Gap(first=3, last=3, records=1, rows=0, bytes=2, reason="unreadable")]
        outbox.give_up(2, "unreadable")
        (gap,) = gaps(outbox)
        assert (gap.first, gap.last, gap.records, gap.rows) == (2, 3, 2, 1)
        outbox.give_up(4, "above broker's limit")
        assert [(one.first, one.last, one.reason) for one in gaps(outbox)] == [
            (2, 3, "unreadable"),
            (4, 4, "above broker's limit"),
        ]
        outbox.give_up(99, "unreadable")
        assert outbox.records == 4


def test_an_overfull_outbox_gives_up_what_the_disk_spoiled_too(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        for _ in range(5):
            event(outbox)
        outbox._records.db.execute("UPDATE record SET data = zeroblob(LENGTH(data)) WHERE id IN (1, 3)")
        for _ in range(30):
            event(outbox)
        spoiled, full = sorted(gaps(outbox), key=lambda gap: gap.records)
        assert (spoiled.records, spoiled.reason, full.reason) == (2, "unreadable", "outbox full")
        assert outbox.produced == spoiled.records + full.records + outbox.records - 2


def test_what_has_waited_too_long_is_given_up_by_the_services_own_time(tmp_path: Path) -> None:
    now = [1000.0]
    path, keep = tmp_path / "outbox.db", {Kind.EVENT: 60.0, Kind.WINDOW: 600.0}
    with Outbox(path, "pump-1", keep_s=keep, clock_s=lambda: now[0]) as outbox:
        event(outbox)
        event(outbox)
        outbox.give_keys(1, 0)
        append_window(outbox)
        now[0] += 61.0
        append_window(outbox)
        assert [(one.records, one.reason) for one in gaps(outbox)] == [(1, "expired"), (1, "expired")]
    now[0] = 5.0  # another boot, a year later: while the service does not run, nothing grows old
    with Outbox(path, "pump-1", keep_s=keep, clock_s=lambda: now[0]) as outbox:
        append_window(outbox)
        assert sum(one.records for one in gaps(outbox)) == 2
        now[0] += 590.0
        append_window(outbox)
        assert sum(one.records for one in gaps(outbox)) == 3


def make_source(bundle: Bundle) -> Source:
    reference = bundle.reference
    observer = Observer(bundle.manifest, reference.bins)
    return Source(bundle.manifest, bundle.files["reference.json"], reference.bins_id, observer, 3600.0)


def answer_rows(bundle: Bundle, source: Source) -> None:
    """Has the bundle answer the rows of `bundles`, and counts them."""
    engine = Engine(bundle.model, bundle.manifest)
    batch = engine.encode(bundles.ROWS)
    source.observer.record(batch, engine.run(batch), 50.0)


def test_a_service_that_restarts_while_offline_stores_its_reference_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The source's own view only: the contract's types are made of the real ones.
    small = SimpleNamespace(REFERENCE_PART_BYTES=200, RECORD_MAX_BYTES=limits.RECORD_MAX_BYTES)
    monkeypatch.setattr("edgekit_runtime.source.limits", small)
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    for restart in range(3):
        with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
            reporter = Reporter(outbox, lambda: None)
            reporter.start([make_source(bundle)])
            reporter.stop()
            kinds = [one.kind for one in envelopes(outbox)]
            parts = kinds.count(Kind.REFERENCE)
            assert parts > 1
            assert kinds == [Kind.REFERENCE] * parts + [Kind.WINDOW] * (restart + 1)


def test_a_reference_that_was_delivered_is_stored_again_at_the_next_start(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        for _ in range(2):
            reporter = Reporter(outbox, lambda: None)
            reporter.start([make_source(bundle)])
            reporter.stop()
            assert [one.kind for one in envelopes(outbox)] == [Kind.REFERENCE, Kind.WINDOW]
            outbox.give_keys(9, 9)
            outbox.acknowledge(Ack(outbox.epoch, outbox.produced))


def test_a_window_is_dated_by_the_clock_as_it_was_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "synchronized"
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    monkeypatch.setattr("edgekit_runtime.source._SYNCED", mark)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter, source = Reporter(outbox, lambda: None), make_source(bundle)
        mark.touch()
        source.stored = True
        reporter._report(source)
        reporter._report(source)
        assert [one.clock for one in envelopes(outbox)] == [Clock.UNKNOWN, Clock.SYNCED]


def test_a_bundle_that_is_not_live_reports_only_what_it_was_asked(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter = Reporter(outbox, lambda: None)
        live, former = make_source(bundle), make_source(bundle)
        reporter.start([live])
        former.idles = True
        reporter.add(former)
        answer_rows(bundle, former)
        reporter.close_window(former)
        wait_until(lambda: outbox.records == 2, "the window")
        former.observer.count_failed()
        reporter.close_window(former)
        reporter.retire(former)
        reporter.stop()
        assert [(one.kind, one.n) for one in envelopes(outbox)] == [
            (Kind.REFERENCE, 0),
            (Kind.WINDOW, 4),
            (Kind.WINDOW, 0),  # that it failed once
            (Kind.WINDOW, 0),  # the live one's
        ]


def test_a_window_that_cannot_be_closed_keeps_none_of_the_others(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter = Reporter(outbox, lambda: None)
        good, bad = make_source(bundle), make_source(bundle)
        bad.observer.close = lambda **_: 1 / 0  # type: ignore[method-assign,assignment]
        reporter.start([bad, good])
        reporter.close_window(bad)
        reporter.close_window(good)
        wait_until(lambda: outbox.records == 2, "the good one's window")
        reporter.stop()
        assert [one.kind for one in envelopes(outbox)] == [Kind.REFERENCE, Kind.WINDOW, Kind.WINDOW]


def test_a_bundle_that_was_let_go_before_reports_began_ends_nothing(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter = Reporter(outbox, lambda: None)
        live, refused, answered = (make_source(bundle) for _ in range(3))
        answer_rows(bundle, answered)
        reporter.start([live])
        reporter.retire(refused)
        reporter.retire(answered)
        reporter.close_window(live)
        wait_until(lambda: outbox.records == 3, "the live one's window")
        reporter.stop()
        windows = [one.n for one in envelopes(outbox) if one.kind is Kind.WINDOW]
        assert windows == [4, 0, 0]  # of what had answered, and of the live one


@pytest.mark.parametrize("step", [3, 1024])
def test_windows_are_added_up_to_a_length_each_model_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr("edgekit_runtime.overflow.CONDENSE_WINDOWS", step)
    body, n = window()
    other = encode(msgspec.structs.replace(body, model="another"))
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
        outbox.give_keys(0, 1)
        for at in range(1, 9):
            append_window(outbox, t0_ms=NOW_MS + 10_000 * at)
            outbox.append(Kind.WINDOW, other, bins_id=BINS_ID, n=n, t0_ms=NOW_MS + 10_000 * at, dt_ms=10_003)
        outbox.condense(30.0)
        found = list(outbox.waiting())
        assert found[0].merged == 0, "it may have left"
        assert sum(one.n for one in found) == 17 * n
        assert sum(1 + one.merged for one in found) == outbox.produced == 17
        assert max(one.dt_ms for one in found) <= 31_500
        if step > 16:
            assert [one.dt_ms for one in found[1:]] == [30_000, 30_009, 30_000, 30_009, 20_000, 20_006]
        outbox.condense(30.0)
        assert len(list(outbox.waiting())) <= len(found)
