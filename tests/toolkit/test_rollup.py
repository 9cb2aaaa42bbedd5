from __future__ import annotations

import random
import statistics
import struct
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from edgekit.collector.blocks import StoredWindow
from edgekit.collector.rollup import DAY, EVERY_DEVICE, HOUR, HOUR_MS, LAST, MOMENTS, Key, Rows, add_up, joined, rows_of
from edgekit.monitor.varint_rows import decode_varint_rows, encode_varint_rows
from edgekit_contracts import limits
from edgekit_contracts.counts import WindowCounts, decode_counts, encode_varints
from edgekit_contracts.errors import FormatError
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Software
from tests.telemetry_samples import BINS, BINS_ID, MODEL, NOW_MS, VERSION, window

START_MS = NOW_MS // HOUR_MS * HOUR_MS


def bins(_: bytes) -> Bins | None:
    return BINS


def stored(
    sequence: int = 1,
    *,
    device: str = "pump-1",
    at_ms: int = START_MS,
    bmi: tuple[int, ...] = (25, 25, 25, 25),
    moments: tuple[float, float, float, float] | None = None,
    shadow: bool = False,
    **software: int,
) -> StoredWindow:
    calls = 0 if shadow else 7
    plain = {"rejected": 1, "failed": 2, "rss_kb": 90_000, "cpu_ms": 10, "uptime_s": 60, "outbox_records": 0}
    body, n = window(
        bmi, software=Software(**{"calls": calls, **plain, **software}), abstained=3, resent=2 * bool(calls)
    )
    if moments is not None:
        body = msgspec.structs.replace(body, moments=struct.pack("<4f", *moments))
    return StoredWindow(device, 7, sequence, at_ms, 10_000, at_ms, BINS_ID, n, MODEL, VERSION, body)


def only(windows: list[StoredWindow]) -> Rows:
    (rows,) = rows_of(windows, bins)
    return rows


def by_hour(key: Key) -> Key:
    return key.of(HOUR)


def counts_of(one: StoredWindow) -> WindowCounts:
    return decode_counts(one.window.counts, BINS, one.n)


def added(runs: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*runs, strict=True))


def values(rows: Rows) -> dict[Key, tuple[object, ...]]:
    return {
        key: (
            rows.sums[at].tolist(),
            rows.last[at].tolist(),
            int(rows.rss_kb[at]),
            rows.counts[at].tolist(),
            rows.moments[at].tolist(),
        )
        for at, key in enumerate(rows.keys)
    }


def test_windows_add_up_to_their_hours_and_the_hours_to_their_days() -> None:
    many = [stored(i, at_ms=START_MS + i * HOUR_MS // 4, bmi=(i, 2, 3, 4)) for i in range(1, 200)]
    windows = only(many)
    hours = add_up(windows, by_hour)
    days = add_up(hours, lambda key: key.of(DAY))
    assert [len(windows), len(hours), len(days)] == [199, 50, 3]
    assert values(days) == values(add_up(windows, lambda key: key.of(DAY)))
    assert all(key.start_ms % (key.hours * HOUR_MS) == 0 for key in (*hours.keys, *days.keys))
    assert days.column("windows").sum() == 199
    assert days.column("rows").sum() == sum(one.n for one in many)
    whole = add_up(days, lambda key: key.of(DAY)._replace(start_ms=0))
    (counts,) = encode_varint_rows(whole.counts)
    merged, each = decode_counts(counts, BINS, sum(one.n for one in many)), [counts_of(one) for one in many]
    for at in range(2):
        assert merged.features[at].bins == added(one.features[at].bins for one in each)
    assert (merged.classes, merged.scores) == (added(one.classes for one in each), added(one.scores for one in each))
    assert merged.latency == tuple(whole.latency[0].tolist()) == added(one.latency for one in each)
    assert int(whole.column("abstained")[0]) == merged.abstained == 3 * 199
    assert int(whole.column("resent")[0]) == merged.resent == 2 * 199


def test_the_largest_windows_that_are_taken_in_add_up() -> None:
    largest = limits.RECORD_MAX_ROWS
    body, n = window((largest, 0, 0, 0), calls=largest)
    many = [stored(i)._replace(n=n, window=body) for i in range(1, 501)]
    whole = add_up(only(many), by_hour)
    assert whole.counts[0, 0] == whole.latency[0, 30] == whole.column("rows")[0] == 500 * largest


def test_adding_is_exact_in_any_order_and_in_any_parts() -> None:
    dice = random.Random(1)
    many = [
        stored(
            i,
            device=f"pump-{i % 3}",
            at_ms=START_MS + dice.randrange(3 * HOUR_MS),
            bmi=tuple(dice.randrange(1000) for _ in range(4)),
            shadow=i % 7 == 0,
        )
        for i in range(1, 300)
    ]
    whole = values(add_up(only(many), by_hour))
    for _ in range(20):
        dice.shuffle(many)
        cut = dice.randrange(1, len(many))
        halves = [add_up(only(part), by_hour) for part in (many[:cut], many[cut:])]
        assert values(add_up(joined(halves), by_hour)) == whole


def test_all_devices_are_added_up_without_their_names() -> None:
    windows = only([stored(1, device="pump-1"), stored(1, device="pump-2"), stored(2, device="pump-2")])
    merged = add_up(windows, lambda key: key.of(HOUR, EVERY_DEVICE))
    (key,) = merged.keys
    assert (key.device, merged.column("windows").tolist()) == ("", [3])


def test_a_shadow_s_rows_are_kept_apart_and_an_idle_window_is_none() -> None:
    idle = stored(3, bmi=(0, 0, 0, 0), calls=0)
    hours = add_up(only([stored(1), stored(2, shadow=True), idle]), by_hour)
    assert [(key.shadow, n) for key, n in zip(hours.keys, hours.column("windows").tolist(), strict=True)] == [
        (False, 2),
        (True, 1),
    ]


def test_the_last_word_is_that_of_the_latest_window_and_the_memory_that_of_the_largest() -> None:
    said = [
        stored(5, at_ms=START_MS + 9, rss_kb=3, uptime_s=20, outbox_records=1),
        stored(6, at_ms=START_MS + 9, rss_kb=4, uptime_s=30, outbox_records=2),
        stored(9, at_ms=START_MS + 8, rss_kb=9, uptime_s=10, outbox_records=9),
    ]
    for windows in (said, said[::-1]):
        hours = add_up(only(windows), by_hour)
        assert dict(zip(LAST, hours.last[0].tolist(), strict=True)) == {
            "at_ms": START_MS + 9,
            "sequence": 6,
            "epoch": 7,
            "rss_kb": 4,
            "uptime_s": 30,
            "outbox_records": 2,
        }
        assert hours.rss_kb.tolist() == [9]


def test_a_distance_s_counts_are_added_too_and_distances_never_mix() -> None:
    def measured(sequence: int, name: bytes, *counts: int) -> StoredWindow:
        one = stored(sequence)
        return one._replace(window=msgspec.structs.replace(one.window, distances=name + encode_varints(counts)))

    found = rows_of([measured(1, b"abcd", 90, 10), measured(2, b"abcd", 300, 1), measured(3, b"efgh", 1, 2)], bins)
    hours = [add_up(one, by_hour) for one in found]
    assert [(one.keys[0].distance, one.counts[0, -2:].tolist()) for one in hours] == [
        (b"abcd\x02", [390, 11]),
        (b"efgh\x02", [1, 2]),
    ]
    assert [one.latency.sum() for one in hours] == [14, 7]


def test_moments_are_those_of_all_values_together() -> None:
    dice = random.Random(3)
    groups = [[dice.gauss(20, 4) for _ in range(size)] for size in (10, 40, 300)]
    many = [
        stored(
            i,
            at_ms=START_MS + i,
            bmi=(len(group), 0, 0, 0),
            moments=(
                statistics.fmean(group),
                statistics.pvariance(group) * len(group),
                min(group),
                max(group),
            ),
        )
        for i, group in enumerate(groups, 1)
    ]
    every = [value for group in groups for value in group]
    for parts in ([many], [many[:1], many[1:]], [many[2:], many[:2]]):
        hours = add_up(joined([add_up(only(part), by_hour) for part in parts]), by_hour)
        count, mean, m2, least, most = hours.moments[0, 0].tolist()
        assert (count, hours.moments.shape) == (350, (1, 1, MOMENTS))
        # What is sent is float32.
        assert [mean, least, most] == pytest.approx([statistics.fmean(every), min(every), max(every)], rel=1e-6)
        assert m2 == pytest.approx(statistics.pvariance(every) * 350, rel=1e-5)


@pytest.mark.parametrize(
    "moments",
    [None, (float("nan"),) * 4, (1.0, float("inf"), 0.0, 2.0), (1.0, -1.0, 0.0, 2.0), (1.0, 1.0, 0.0, float("inf"))],
)
def test_moments_that_say_nothing_leave_those_of_the_others_as_they_are(
    moments: tuple[float, float, float, float] | None,
) -> None:
    whole = add_up(only([stored(1, moments=(22.0, 5.0, 18.0, 31.0)), stored(2, moments=moments)]), by_hour)
    assert whole.moments[0, 0].tolist() == [100.0, 22.0, 5.0, 18.0, 31.0]
    alone = add_up(only([stored(2, moments=moments)]), by_hour)
    assert alone.moments[0, 0].tolist() == [0.0, 0.0, 0.0, np.inf, -np.inf]


def test_wild_lengths_do_not_overflow_the_sums() -> None:
    wild = [stored(i, cpu_ms=2**63 - 1)._replace(dt_ms=2**63 - 1) for i in range(1, 1001)]
    hours = add_up(only(wild), by_hour)
    assert hours.column("dt_ms").tolist() == hours.column("cpu_ms").tolist() == [1000 * 2**40]


def test_counts_that_are_not_of_their_bins_are_refused() -> None:
    good = stored(1)
    bad = good._replace(window=msgspec.structs.replace(good.window, counts=encode_varints([1, 2, 3])))
    with pytest.raises(FormatError, match=r"not on the same bins|not the counts of its bins"):
        rows_of([good, bad], bins)
    with pytest.raises(FormatError, match="not the counts of its bins"):
        rows_of([bad], bins)


@pytest.mark.parametrize("largest", [1, 128, 20_000, 2**62])
def test_rows_of_numbers_are_written_as_the_contract_writes_them(largest: int) -> None:
    dice = random.Random(largest)
    table = [[int(dice.random() ** 8 * largest) for _ in range(50)] for _ in range(300)]
    encoded = encode_varint_rows(np.array(table, np.int64))
    assert encoded == [encode_varints(row) for row in table]
    assert decode_varint_rows(encoded).tolist() == table
