from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgekit.collector.cursor import RANGES_MAX
from edgekit.collector.ingest import Birth, Message, Reading, read
from edgekit.collector.store import Ingested, Store, open_store
from edgekit_contracts import limits, topics
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Ack, Envelope, Event, Gap, Kind, Labels, encode, encode_message
from tests.telemetry_samples import BINS_ID, NOW_MS, REFERENCE, VERSION, envelope, reference_parts, window

CORPUS = Path(__file__).parents[1] / "corpus"
WINDOW, ROWS = window()


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with open_store(where) as opened:
        yield opened


def readings(store: Store, *records: Envelope, device: str = "pump-1") -> list[Reading]:
    topic = str(topics.Up(device))
    return [
        found for record in records for found in read(Message(topic, encode_message([encode(record)]), NOW_MS), store)
    ]


def ingest(store: Store, *records: Envelope, device: str = "pump-1") -> Ingested:
    return store.ingest(readings(store, *records, device=device))


def ack(done: Ingested) -> Ack:
    ((_, found),) = done.acks
    return found


def reference_records(parts: int = 2, first: int = 1, **more: object) -> list[Envelope]:
    bodies = reference_parts(parts)
    return [envelope(body, sequence=first + i, **more) for i, body in enumerate(bodies)]  # type: ignore[arg-type]


def windows(first: int, last: int) -> list[Envelope]:
    return [envelope(WINDOW, sequence=number, n=ROWS) for number in range(first, last + 1)]


def gap(first: int, last: int) -> Envelope:
    body = Gap(first=first, last=last, records=last - first + 1, rows=0, bytes=0, reason="outbox full")
    return envelope(body, sequence=last)


def test_of_what_people_said_the_newest_totals_count(store: Store) -> None:
    def said(sequence: int, reviewed: int, version: str = "1.0.0", epoch: int = 7) -> Envelope:
        return envelope(Labels("diabetes", version, reviewed, 1, 0.5), sequence=sequence, n=reviewed, epoch=epoch)

    assert ingest(store, said(1, 3), said(3, 5), said(2, 4)).stored == 3
    assert store.labels() == {"pump-1": [Labels("diabetes", "1.0.0", 5, 1, 0.5)]}
    assert ingest(store, said(3, 5)).duplicates == 1
    # Another version has totals of its own; in another epoch sequences begin anew.
    ingest(store, said(4, 2, "2.0.0"), said(1, 6, epoch=8))
    assert [one.reviewed for one in store.labels()["pump-1"]] == [6, 2]


def test_storing_a_batch_again_changes_nothing_and_is_acknowledged_again(store: Store) -> None:
    ingest(store, *reference_records())
    batch = [*windows(3, 6), envelope(Event("a", "b"), sequence=7), gap(8, 9)]
    first = ingest(store, *batch)
    again = ingest(store, *batch)
    assert (first.stored, first.duplicates) == (6, 0)
    assert (again.stored, again.duplicates) == (0, 6)
    assert ack(first) == ack(again) == Ack(epoch=7, high=9)
    assert [store.count(table) for table in ("window", "event", "gap", "part", "reference")] == [4, 1, 1, 2, 1]


def test_the_cursor_moves_over_contiguous_records_and_gaps_and_names_the_islands(store: Store) -> None:
    ingest(store, *reference_records())
    assert ack(ingest(store, *windows(5, 6), *windows(9, 9))) == Ack(epoch=7, high=2, ranges=((5, 6), (9, 9)))
    assert store.highest("pump-1", 7) == 9
    assert ack(ingest(store, gap(3, 4))) == Ack(epoch=7, high=6, ranges=((9, 9),))
    assert ack(ingest(store, *windows(7, 8))) == Ack(epoch=7, high=9)


def test_a_sequence_that_jumps_is_refused_and_moves_no_cursor(store: Store) -> None:
    ingest(store, *reference_records())
    far = limits.SEQUENCE_MAX_JUMP + 3
    done = ingest(store, envelope(WINDOW, n=ROWS, sequence=far))
    assert (done.stored, done.refused, done.acks, store.highest("pump-1", 7)) == (0, {"jump": 1}, (), 2)
    # A body that would be given up is not, that far away.
    done = ingest(store, envelope(WINDOW, n=1, sequence=far))
    assert (done.refused, done.acks, store.highest("pump-1", 7)) == ({"body": 1}, (), 2)
    done = ingest(store, envelope(WINDOW, n=ROWS, sequence=far - 1))
    assert (done.stored, store.highest("pump-1", 7)) == (1, far - 1)


def test_what_would_be_an_island_too_many_is_not_acknowledged_and_comes_again(store: Store) -> None:
    ingest(store, *reference_records())
    ingest(store, *(envelope(Event("a", ""), sequence=number) for number in range(10, 10 + 2 * RANGES_MAX, 2)))
    done = ingest(store, *windows(5, 5))
    assert (done.stored, done.duplicates, ack(done).high, store.count("window")) == (0, 0, 2, 0)
    assert ingest(store, *windows(3, 3)).stored == 1
    assert ingest(store, *windows(4, 9)).stored == 6


def test_epochs_and_devices_have_cursors_of_their_own(store: Store) -> None:
    ingest(store, *reference_records())
    other = envelope(WINDOW, sequence=1, n=ROWS, epoch=8)
    assert ack(ingest(store, other)) == Ack(epoch=8, high=1)
    second = envelope(WINDOW, sequence=1, n=ROWS, device="pump-2")
    assert ingest(store, second, device="pump-2").acks == (("pump-2", Ack(epoch=7, high=1)),)


def test_windows_wait_in_quarantine_until_their_reference_is_complete(store: Store) -> None:
    done = ingest(store, *windows(3, 5))
    assert (done.stored, ack(done)) == (3, Ack(epoch=7, high=0, ranges=((3, 5),)))
    assert (store.quarantined(), store.count("window")) == ({"pump-1": 3}, 0)
    first, second = reference_records()
    ingest(store, first)
    assert store.bins(BINS_ID) is None
    assert ack(ingest(store, second)) == Ack(epoch=7, high=5)
    assert (store.quarantined(), store.count("window")) == ({}, 3)
    assert store.reference(next(store.windows("pump-1", 0))) == REFERENCE
    assert [found.n for found in store.windows("pump-1", 0)] == [ROWS] * 3
    assert ingest(store, *windows(3, 5)).duplicates == 3


def test_a_window_and_its_reference_in_one_batch_are_both_stored(store: Store) -> None:
    ingest(store, *windows(3, 3), *reference_records())
    assert (store.quarantined(), store.count("window")) == ({}, 1)


def test_a_quarantined_window_that_does_not_fit_its_reference_is_refused_at_release(store: Store) -> None:
    ingest(store, envelope(WINDOW, sequence=3, n=ROWS + 1))
    done = ingest(store, *reference_records())
    assert (done.refused, store.count("window"), store.quarantined()) == ({"body": 1}, 0, {})
    assert store.refused() == {"body": 1}


def test_a_reference_that_is_not_what_its_name_says_is_refused(store: Store) -> None:
    done = ingest(store, *reference_records(bins_id=b"othrbins"))
    assert done.refused == {"body": 1}
    assert (store.count("reference"), ack(done).high) == (0, 2)
    # It does not stand in the way of a device that tells the truth.
    second = [envelope(body, sequence=i + 1, device="pump-2") for i, body in enumerate(reference_parts())]
    ingest(store, *second, device="pump-2")
    assert store.bins(BINS_ID) == REFERENCE.bins


def test_one_device_cannot_spoil_the_reference_of_another(store: Store) -> None:
    liar = envelope(msgspec.structs.replace(reference_parts()[1], data=b"nonsense"), sequence=1, device="liar")
    ingest(store, liar, device="liar")
    ingest(store, *reference_records())
    assert store.bins(BINS_ID) == REFERENCE.bins


def test_two_versions_on_equal_bins_keep_their_own_counts(store: Store) -> None:
    newer = msgspec.structs.replace(REFERENCE, rows=8000)
    parts = [msgspec.structs.replace(part, model_version="2.0.0") for part in reference_parts(1, newer)]
    ingest(store, *reference_records(), envelope(parts[0], sequence=3), *windows(4, 4))
    stored = next(store.windows("pump-1", 0))
    assert stored.version == VERSION
    assert store.reference(stored) == REFERENCE
    assert store.reference(stored._replace(version="2.0.0")) == newer
    assert store.reference(stored._replace(version="3.0.0")) is not None


FALSE = msgspec.structs.replace(REFERENCE, scores=(4000, 0, 0))


def test_each_device_is_judged_by_the_reference_that_it_sent_itself(store: Store) -> None:
    liar = [envelope(body, sequence=i + 1, device="liar") for i, body in enumerate(reference_parts(2, FALSE))]
    ingest(store, *liar, envelope(WINDOW, sequence=3, n=ROWS, device="liar"), device="liar")
    ingest(store, *windows(3, 3))
    (early,) = store.windows("pump-1", 0)
    # The bins are known, the counts are not: another's word does not stand in.
    assert store.reference(early) is None
    ingest(store, *reference_records())
    assert store.reference(early) == REFERENCE
    assert store.reference(next(store.windows("liar", 0))) == FALSE
    second = reference_records(device="pump-2")
    ingest(store, *second, envelope(WINDOW, sequence=3, n=ROWS, device="pump-2"), device="pump-2")
    assert store.reference(next(store.windows("pump-2", 0))) == REFERENCE
    assert store.count("reference") == 2


def test_a_reference_that_is_sent_again_takes_the_place_of_the_last_and_their_parts_never_mix(store: Store) -> None:
    ingest(store, *reference_records(), *windows(3, 3))
    first, second = (envelope(body, sequence=i) for i, body in zip((4, 5), reference_parts(2, FALSE), strict=True))
    (stored,) = store.windows("pump-1", 0)
    assert ingest(store, second).refused == {}
    assert store.reference(stored) == REFERENCE
    ingest(store, first)
    assert store.reference(stored) == FALSE
    ingest(store, *reference_records(first=6))
    assert (store.reference(stored), store.count("reference"), store.count("part")) == (REFERENCE, 2, 6)
    with store.database.reading() as db:
        assert db.rows("SELECT SUM(LENGTH(data)) FROM part") == [(0,)]


def test_windows_of_a_new_epoch_stand_on_what_the_device_sent_in_its_last(store: Store) -> None:
    ingest(store, *reference_records(), envelope(WINDOW, sequence=1, n=ROWS, epoch=8))
    assert store.reference(next(store.windows("pump-1", 0))) == REFERENCE


def test_a_refused_body_is_kept_counted_and_acknowledged_once(store: Store) -> None:
    ingest(store, *reference_records())
    poison = envelope(WINDOW, sequence=3, n=1)
    done = ingest(store, poison)
    assert (done.stored, done.refused, ack(done)) == (0, {"body": 1}, Ack(epoch=7, high=3))
    again = ingest(store, poison)
    assert (again.refused, again.duplicates, ack(again)) == ({}, 1, Ack(epoch=7, high=3))
    assert (store.count("dead"), store.refused()) == (1, {"body": 1})


def test_repeated_garbage_is_one_row_with_a_count_and_gets_no_acknowledgement(store: Store) -> None:
    for _ in range(3):
        done = store.ingest(read(Message(str(topics.Up("pump-1")), b"\xc1" * 50_000, NOW_MS), store))
        assert done.acks == ()
    assert (store.count("dead"), store.refused()) == (1, {"garbage": 3})


def test_what_is_really_lost_are_the_records_of_gaps_that_are_not_here(store: Store) -> None:
    ingest(store, *reference_records(), *windows(3, 5))
    # 4 and 5 had arrived, but their acknowledgement had not, when the outbox ran over.
    ingest(store, gap(4, 8))
    assert store.lost() == {"pump-1": 3}
    # The gap grows: its wider self takes the place of the earlier one, in whatever order they come.
    ingest(store, gap(4, 10))
    ingest(store, gap(4, 8))
    assert (store.lost(), store.count("gap")) == ({"pump-1": 5}, 1)
    # A copy that was still on its way when the device gave it up.
    assert ingest(store, *windows(6, 6)).stored == 1
    assert store.lost() == {"pump-1": 4}


def test_a_window_with_others_in_it_that_was_given_up_and_comes_after_all_is_not_lost(store: Store) -> None:
    ingest(store, *reference_records(), *windows(4, 4))
    ingest(store, envelope(Gap(first=3, last=3, records=6, rows=0, bytes=0, reason="outbox full"), sequence=3))
    assert store.lost() == {"pump-1": 6}
    late = msgspec.structs.replace(envelope(WINDOW, sequence=3, n=ROWS), merged=5)
    assert (ingest(store, late).stored, store.lost()) == (1, {})
    assert (ingest(store, late).stored, store.lost()) == (0, {})


@pytest.mark.parametrize(
    ("first", "second", "dead"),
    [
        (Status(device="d", session=5, epoch=1), Status(device="d", session=4, epoch=1, dead=True), False),
        (Status(device="d", session=5, epoch=1), Status(device="d", session=5, epoch=1, dead=True), True),
        (Status(device="d", session=5, epoch=1), Status(device="d", session=9, epoch=2, dead=True), False),
        (Status(device="d", session=5, epoch=1, dead=True), Status(device="d", session=1, epoch=2), False),
        (Status(device="d", session=5, epoch=1, dead=True), Status(device="d", session=4, epoch=1), True),
    ],
)
def test_a_status_of_an_older_session_is_ignored(store: Store, first: Status, second: Status, dead: bool) -> None:
    store.ingest([Birth(first, NOW_MS), Birth(second, NOW_MS + 1)])
    status, _ = store.devices()["d"]
    assert status is not None
    assert status.dead is dead


def test_a_retained_status_heard_again_keeps_its_first_date(store: Store) -> None:
    status = Status(device="d", session=5)
    store.ingest([Birth(status, NOW_MS)])
    store.ingest([Birth(status, NOW_MS + 60_000)])
    assert store.devices() == {"d": (status, NOW_MS)}


def test_a_batch_that_fails_leaves_nothing_behind(store: Store) -> None:
    batch = readings(store, *reference_records(), *windows(3, 4))

    def broken() -> Iterator[Reading]:
        yield from batch
        raise RuntimeError("torn")

    with pytest.raises(RuntimeError):
        store.ingest(broken())
    assert [store.count(table) for table in ("part", "reference", "quarantine", "cursor")] == [0, 0, 0, 0]
    assert store.bins(BINS_ID) is None


def test_another_process_reads_while_the_collector_writes(store: Store) -> None:
    ingest(store, *reference_records(), *windows(3, 4))
    with open_store(store.database.name, create=False) as reader:
        assert len(list(reader.windows("pump-1", 0))) == 2
        ingest(store, *windows(5, 5))
        assert len(list(reader.windows("pump-1", 0))) == 3


def test_unsynchronised_clocks_are_dated_by_the_collector(store: Store) -> None:
    ingest(store, *reference_records())
    old = envelope(WINDOW, sequence=3, n=ROWS, t0_ms=5)
    wild = msgspec.structs.replace(old, sequence=4, clock=1, kind=Kind.WINDOW)
    ingest(store, old, msgspec.msgpack.decode(encode(wild), type=Envelope))
    assert [found.at_ms for found in store.windows("pump-1", 0)] == [5, NOW_MS]
