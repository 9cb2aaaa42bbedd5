from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError, StorageFault, TooLarge, UnsupportedFormat
from edgekit_contracts.telemetry import Ack, Clock, Envelope, Event, Gap, Kind, decode_body, decode_envelope, encode
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.reporter import Reporter, Source
from tests import bundles
from tests.brokers import wait_until
from tests.telemetry_samples import append_reference, append_window


def envelopes(outbox: Outbox) -> list[Envelope]:
    return [decode_envelope(data) for _, _, data in outbox.pending(0, 10_000)]


def gaps(outbox: Outbox) -> list[Gap]:
    bodies = [decode_body(envelope) for envelope in envelopes(outbox) if envelope.kind is Kind.GAP]
    return [body for body in bodies if isinstance(body, Gap)]


def event(outbox: Outbox, size: int = 50) -> int:
    return outbox.append(Kind.EVENT, encode(Event("note", "x" * size)), n=1, t0_ms=1)


def test_records_come_back_in_order_and_carry_their_key(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        assert [append_window(outbox) for _ in range(3)] == [1, 2, 3]
        assert [sequence for sequence, _, _ in outbox.pending(1, 1)] == [2]
        first = envelopes(outbox)[0]
        assert (first.device, first.epoch, first.sequence, first.n) == ("pump-1", outbox.epoch, 1, 100)
        assert outbox.records == 3
        assert outbox.size == sum(len(data) for _, _, data in outbox.pending())


def test_a_restart_keeps_epoch_and_records_and_grows_the_session(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as first:
        append_window(first)
    with Outbox(tmp_path / "outbox.db", "pump-1") as second:
        assert (second.epoch, second.session, second.records) == (first.epoch, first.session + 1, 1)
        assert second.size == first.size
        assert append_window(second) == 2


def test_a_sequence_is_never_used_twice_even_when_all_was_delivered(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
        append_window(outbox)
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
        assert outbox.acknowledge(Ack(outbox.epoch, 2, ((4, 5), (7, 7)))) == 5
        assert [sequence for sequence, _, _ in outbox.pending()] == [3, 6, 8]


def test_an_acknowledgement_of_another_file_is_ignored(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        append_window(outbox)
        assert outbox.acknowledge(Ack(outbox.epoch ^ 1, 1)) == 0
        assert outbox.acknowledge(Ack(outbox.epoch ^ 1, 2)) == 0
        assert outbox.records == 1


def test_an_outbox_put_back_to_an_earlier_state_keeps_what_waits_under_new_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        for _ in range(30):
            event(outbox)
        (gap,) = gaps(outbox)
        before, old = envelopes(outbox), outbox.epoch
        assert outbox.acknowledge(Ack(old, 20, ((25, 31),))) == 0
        after = envelopes(outbox)
        assert outbox.epoch != old
        assert [one.epoch for one in after] == [outbox.epoch] * len(before)
        assert [(one.kind, one.t0_ms, one.n) for one in after] == [(one.kind, one.t0_ms, one.n) for one in before]
        assert [one.sequence for one in after] == [one.sequence for one in before]
        assert gaps(outbox) == [gap]
        assert "old copy" in caplog.text
        # What the centre said of the old epoch speaks of other records now.
        assert outbox.acknowledge(Ack(old, 30)) == 0
        assert outbox.acknowledge(Ack(outbox.epoch, 30)) == len(before)
        assert event(outbox) == 31


def test_new_keys_begin_at_one_where_the_first_records_were_delivered(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path, "pump-1") as outbox:
        for _ in range(5):
            event(outbox)
        outbox.acknowledge(Ack(outbox.epoch, 2, ((4, 4),)))
        outbox.acknowledge(Ack(outbox.epoch, 6))
        assert [(one.epoch, one.sequence) for one in envelopes(outbox)] == [(outbox.epoch, 1), (outbox.epoch, 2)]
        assert (outbox.produced, outbox.records) == (2, 2)
        assert outbox.size == sum(len(data) for _, _, data in outbox.pending())
    with Outbox(path, "pump-1") as again:
        assert (again.epoch, again.produced) == (outbox.epoch, 2)
        assert event(again) == 3


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
        stored = [envelope.sequence for envelope in envelopes(outbox) if envelope.kind is not Kind.GAP]
        assert (gap.first, gap.last) == (1, stored[0] - 1)
        assert stored == list(range(gap.last + 1, 41))
        assert outbox.produced == len(stored) + gap.records == 40
        assert gap.rows == gap.records
        assert outbox.size <= 1500


def test_parts_of_the_reference_are_given_up_last(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=2200) as outbox:
        event(outbox)
        parts = append_reference(outbox)
        for _ in range(60):
            event(outbox)
        kept = [envelope.sequence for envelope in envelopes(outbox) if envelope.kind is Kind.REFERENCE]
        assert kept == parts
        # A gap never spans a record that still waits: its acknowledgement would remove that too.
        assert [(gap.first, gap.records == gap.last - gap.first + 1) for gap in gaps(outbox)] == [(1, True), (4, True)]
        while outbox.size > 0 and any(e.kind is Kind.REFERENCE for e in envelopes(outbox)):
            event(outbox, size=900)
            outbox.max_bytes = 400
        assert [(gap.first, gap.last) for gap in gaps(outbox)] == [(1, outbox.produced)]


def test_a_gap_stays_until_all_that_it_stands_for_is_known_at_the_centre(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=700) as outbox:
        for _ in range(12):
            event(outbox)
        (gap,) = gaps(outbox)
        # The last window of the gap had arrived before it was given up; the rest of it had not.
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


def test_the_outbox_of_another_device_is_set_aside(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1") as old:
        append_window(old)
    with Outbox(tmp_path / "outbox.db", "pump-2") as new:
        assert new.set_aside is not None
        assert (new.records, new.session) == (0, 1)


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
        (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
        outbox._db.execute(f"PRAGMA max_page_count = {pages}")

        def fill() -> None:
            for _ in range(100):
                event(outbox, 1000)

        with pytest.raises(StorageFault, match="full"):
            fill()
        before = outbox.produced
        assert outbox.records == len(outbox.pending(0, 1000)) == before
        assert outbox.size >= size
        outbox._db.execute("PRAGMA max_page_count = 100000")
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
        for _ in range(4):
            event(outbox)
        outbox._db.execute("UPDATE record SET data = x'c1c1' WHERE sequence = 3")
        outbox.give_up(3, "unreadable")
        assert gaps(outbox) == [Gap(first=3, last=3, records=1, rows=0, bytes=2, reason="unreadable")]
        outbox.give_up(2, "unreadable")
        (gap,) = gaps(outbox)
        assert (gap.first, gap.last, gap.records, gap.rows) == (2, 3, 2, 1)
        outbox.give_up(99, "unreadable")
        assert outbox.records == 3


def test_an_overfull_outbox_gives_up_what_the_disk_spoiled_too(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=1500) as outbox:
        for _ in range(5):
            event(outbox)
        outbox._db.execute("UPDATE record SET data = zeroblob(LENGTH(data)) WHERE sequence IN (1, 3)")
        for _ in range(30):
            event(outbox)
        (gap,) = gaps(outbox)
        assert gap.records == gap.last - gap.first + 1
        # In a new epoch what is spoiled is a gap at once.
        outbox._db.execute("UPDATE record SET data = x'c1' WHERE sequence = 35")
        outbox.acknowledge(Ack(outbox.epoch, 36))
        assert [(one.first, one.last, one.reason) for one in gaps(outbox)] == [
            (1, gap.last, "outbox full"),
            (35, 35, "unreadable"),
        ]


def make_source(bundle: Bundle) -> Source:
    reference = bundle.reference
    observer = Observer(bundle.manifest, reference.bins)
    return Source(bundle.manifest, bundle.files["reference.json"], reference.bins_id, observer, 3600.0)


def test_a_service_that_restarts_while_offline_stores_its_reference_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reporter's own view only: the contract's types are made of the real ones.
    small = SimpleNamespace(REFERENCE_PART_BYTES=200, RECORD_MAX_BYTES=limits.RECORD_MAX_BYTES)
    monkeypatch.setattr("edgekit_runtime.reporter.limits", small)
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
            outbox.acknowledge(Ack(outbox.epoch, outbox.produced))


def test_a_window_is_dated_by_the_clock_as_it_was_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "synchronized"
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    monkeypatch.setattr("edgekit_runtime.reporter._SYNCED", mark)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter, source = Reporter(outbox, lambda: None), make_source(bundle)
        mark.touch()
        source.stored = True
        reporter._report(source)
        reporter._report(source)
        assert [one.clock for one in envelopes(outbox)] == [Clock.UNKNOWN, Clock.SYNCED]


def test_a_bundle_that_is_not_live_reports_only_what_it_was_asked(tmp_path: Path) -> None:
    bundle = open_bundle(bundles.make(tmp_path).path, keys=None)
    engine = Engine(bundle.model, bundle.manifest)
    batch = engine.encode(bundles.ROWS)
    with Outbox(tmp_path / "outbox.db", "pump-1") as outbox:
        reporter = Reporter(outbox, lambda: None)
        live, former = make_source(bundle), make_source(bundle)
        reporter.start([live])
        former.idles = True
        reporter.add(former)
        former.observer.record(batch, engine.run(batch), 50.0)
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


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 300)),
        st.tuples(st.just("part"), st.integers(1, 300)),
        st.tuples(st.just("acknowledge"), st.integers(0, 60)),
    ),
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(OPERATIONS)
def test_produced_is_always_delivered_plus_stored_plus_gaps(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    with Outbox(tmp_path_factory.mktemp("outbox") / "outbox.db", "pump-1", max_bytes=1200) as outbox:
        high = 0
        for what, number in operations:
            if what == "append":
                event(outbox, number)
            elif what == "part":
                outbox.append(Kind.REFERENCE, encode(Event("part", "x" * number)), t0_ms=1)
            elif high < (target := min(number, outbox.produced)):
                # The centre knows all up to `high`; a gap that reaches beyond waits for its own delivery.
                high = target
                outbox.acknowledge(Ack(outbox.epoch, high))
            spans = [
                (gap.first, gap.last) if isinstance(gap := decode_body(e), Gap) else (e.sequence, e.sequence)
                for e in envelopes(outbox)
                if e.kind is not Kind.REFERENCE
            ] + [(e.sequence, e.sequence) for e in envelopes(outbox) if e.kind is Kind.REFERENCE]
            waiting = {number for first, last in spans for number in range(first, last + 1)}
            assert waiting >= set(range(high + 1, outbox.produced + 1))
            assert sum(last - first + 1 for first, last in spans) == len(waiting)
            assert outbox.records == len(spans)
