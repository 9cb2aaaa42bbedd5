from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.collector.cursor import RANGES_MAX, Cursor, Spans, Taken
from edgekit_contracts.telemetry import Gap

PAIRS = st.tuples(st.integers(1, 60), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def gap(first: int, last: int, records: int | None = None) -> Gap:
    size = last - first + 1
    return Gap(first, last, size if records is None else records, rows=0, bytes=0, reason="outbox full")


def numbers(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), PAIRS), max_size=40))
def test_spans_are_a_set_of_numbers_whose_ranges_stand_apart(acts: list[tuple[bool, tuple[int, int]]]) -> None:
    spans, model = Spans(), set[int]()
    for adds, (first, last) in acts:
        if adds:
            spans.add(first, last)
            model |= set(range(first, last + 1))
        else:
            spans.discard(first)
            model.discard(first)
        ranges = tuple(spans)
        assert numbers(ranges) == model
        assert all(b - a >= 2 for (_, a), (b, _) in pairwise(ranges))
        assert {number for number in range(70) if number in spans} == model
        assert numbers(tuple(spans.within(first, last))) == model & set(range(first, last + 1))
        assert numbers(tuple(spans.holes(first, last))) == set(range(first, last + 1)) - model


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 60), PAIRS), max_size=60))
def test_a_cursor_tells_new_from_known_and_remembers_what_was_given_up(came: list[int | tuple[int, int]]) -> None:
    cursor, stored, given_up = Cursor(), set[int](), set[int]()
    for one in came:
        if isinstance(one, int):
            taken = cursor.take(one)
            expected = Taken.KNOWN if one in stored else Taken.LATE if one in given_up else Taken.NEW
            assert taken is expected
            stored.add(one)
        else:
            span = set(range(one[0], one[1] + 1))
            taken, *_ = cursor.give_up(gap(*one))
            assert taken is (Taken.KNOWN if span <= stored | given_up else Taken.NEW)
            given_up |= span
        # As it is kept, and read again.
        cursor = Cursor(cursor.high, cursor.ranges, tuple(cursor.missing), cursor.lost, cursor.recent)
        assert numbers(((1, cursor.high), *cursor.ranges)) == stored | given_up
        assert numbers(tuple(cursor.missing)) == given_up - stored
        assert cursor.highest == max(stored | given_up, default=0)


def test_a_gap_counts_as_lost_what_had_not_come() -> None:
    cursor = Cursor()
    for sequence in (1, 2, 5):
        assert cursor.take(sequence) is Taken.NEW
    assert cursor.give_up(gap(2, 8)) == (Taken.NEW, 5, 5)
    assert cursor.give_up(gap(2, 10)) == (Taken.NEW, 7, 2)
    assert cursor.give_up(gap(2, 8)) == (Taken.KNOWN, 0, 0)
    assert (cursor.take(6), cursor.take(6)) == (Taken.LATE, Taken.KNOWN)
    assert cursor.give_up(gap(2, 11)) == (Taken.NEW, 7, 1)


def test_where_records_live_on_in_others_a_late_copy_is_not_stored_beside_them() -> None:
    cursor = Cursor()
    assert cursor.give_up(gap(1, 4, records=1)) == (Taken.NEW, 1, 4)
    assert cursor.take(2) is Taken.KNOWN
    assert cursor.high == 4


def test_a_cursor_remembers_a_bounded_number_of_islands_and_takes_no_more() -> None:
    cursor = Cursor()
    islands = range(10, 10 + 2 * RANGES_MAX, 2)
    assert {cursor.take(sequence) for sequence in islands} == {Taken.NEW}
    assert (cursor.take(5), cursor.take(9999), cursor.give_up(gap(3, 5))) == (
        Taken.BEYOND,
        Taken.BEYOND,
        (Taken.BEYOND, 0, 0),
    )
    # What touches an island, or the beginning, or swallows islands makes no further one.
    assert {cursor.take(11), cursor.take(1), cursor.give_up(gap(13, 20))[0]} == {Taken.NEW}
    assert {cursor.take(sequence) for sequence in islands} == {Taken.KNOWN}


@pytest.mark.parametrize("ranges", [(), ((4, 5),)])
def test_a_cursor_is_kept_as_it_is(ranges: tuple[tuple[int, int], ...]) -> None:
    cursor = Cursor(2, ranges, ((2, 2),), 1, ((9, 1),))
    assert (cursor.high, cursor.ranges, tuple(cursor.missing), cursor.lost) == (2, ranges, ((2, 2),), 1)
