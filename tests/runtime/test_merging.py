"""Merged windows beside one window that saw all of their rows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.collector.moments import contradiction
from edgekit_contracts import limits
from edgekit_contracts.telemetry import Clock, Envelope, Software, Window, encode
from edgekit_runtime.merging import SPAN_MAX_MS, merge, places_of
from edgekit_runtime.observe import Observer
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.varints import decode_varint_block
from tests.runtime.test_tally import case, request
from tests.telemetry_samples import BINS, NOW_MS, append_window, envelope, window


def body(one: Envelope) -> Window:
    return msgspec.msgpack.decode(one.body, type=Window)


@pytest.mark.parametrize("kind", ["float32", "bool", "texts", "regression"])
@pytest.mark.parametrize("seed", range(6))
def test_merged_windows_are_the_window_of_all_their_rows(kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    manifest, bins = case(random, kind)
    apart, whole = Observer(manifest, bins), Observer(manifest, bins)
    windows: list[Envelope] = []
    for number in range(8):
        for _ in range(int(random.integers(0, 4))):
            batch, answers = request(random, manifest, bins, int(random.integers(10, 60)))
            for observer in (apart, whole):
                observer.record(batch, answers, 50.0, resent=bool(number % 2))
        if number == 5:
            apart.count_failed()
            whole.count_failed()
        closed = apart.close()
        windows.append(envelope(closed.body, sequence=number + 1, n=closed.n, t0_ms=NOW_MS + 10_000 * number))
    # By pairs, and pairs of pairs, as an overfull outbox does.
    places = places_of(bins)
    while len(windows) > 1:
        merged = [merge(a, b, places) for a, b in zip(windows[::2], windows[1::2], strict=True)]
        windows = [one for one in merged if one is not None]
        assert len(windows) == len(merged)
    (found,), expected = windows, whole.close()
    assert (found.sequence, found.merged, found.n, found.t0_ms, found.dt_ms) == (8, 7, expected.n, NOW_MS, 80_000)
    assert body(found).counts == expected.body.counts
    software = body(found).software
    assert (software.calls, software.failed) == (expected.body.software.calls, 1)
    moments, wanted = (np.frombuffer(one.moments, "<f4") for one in (body(found), expected.body))
    np.testing.assert_allclose(moments, wanted, rtol=1e-4, atol=1e-4)
    counts = decode_varint_block(expected.body.counts)
    values = np.array([counts[start:stop].sum() for start, stop in places], np.int64)
    if len(moments):
        assert contradiction(body(found).moments, values) is None


def pair(**changes: object) -> tuple[Envelope, Envelope]:
    first, n = window()
    later = envelope(first, sequence=2, n=n, t0_ms=NOW_MS + 10_000)
    return envelope(first, n=n), msgspec.structs.replace(later, **changes)


def test_a_pause_lies_within_the_window_and_a_clock_that_was_set_back_does_not_shorten_it() -> None:
    paused, back = (merge(*pair(t0_ms=NOW_MS + off), None) for off in (60_000, -60_000))
    assert paused is not None
    assert back is not None
    assert (paused.t0_ms, paused.dt_ms, back.t0_ms, back.dt_ms) == (NOW_MS, 70_000, NOW_MS, 20_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"clock": Clock.UNKNOWN},
        {"bins_id": bytes(8)},
        {"n": limits.RECORD_MAX_ROWS},
        {"t0_ms": NOW_MS + SPAN_MAX_MS},
        {"body": msgspec.Raw(encode(msgspec.structs.replace(window()[0], model="other")))},
        {"body": msgspec.Raw(encode(msgspec.structs.replace(window()[0], model_version="2")))},
        {"body": msgspec.Raw(encode(msgspec.structs.replace(window()[0], counts=b"\1\2")))},
        {"body": msgspec.Raw(encode(msgspec.structs.replace(window()[0], distances=b"name\1\2")))},
        {"body": msgspec.Raw(b"\xc0")},
    ],
)
def test_what_is_not_of_one_kind_or_too_much_for_one_window_is_not_merged(changes: dict[str, object]) -> None:
    assert merge(*pair(), None) is not None
    assert merge(*pair(**changes), None) is None


def test_moments_are_merged_only_where_it_is_known_of_how_many_values_they_are() -> None:
    with_moments, n = window()
    with_moments = msgspec.structs.replace(with_moments, moments=np.array([22, 5, 18, 30], "<f4").tobytes())
    one = envelope(with_moments, n=n)
    assert merge(one, one, None) is None
    both = merge(one, one, places_of(BINS))
    assert both is not None
    assert np.frombuffer(body(both).moments, "<f4").tolist() == [22, 10, 18, 30]
    # Of a window of few rows they are not sent: then those of both would be of part of the rows.
    without = merge(one, envelope(window()[0], n=n), places_of(BINS))
    assert without is not None
    assert body(without).moments == b""
    # An idle one has no part in them.
    idle = msgspec.structs.replace(window((0, 0, 0, 0))[0], software=Software(0, 0, 0, 1, 1, 1, 1))
    for pair_of in ((one, envelope(idle, n=0)), (envelope(idle, n=0), one)):
        merged = merge(*pair_of, None)
        assert merged is not None
        assert body(merged).moments == with_moments.moments


def test_distances_are_added() -> None:
    first, n = window()
    one = envelope(msgspec.structs.replace(first, distances=b"name\x63\1"), n=n)
    both = merge(one, one, None)
    assert both is not None
    assert body(both).distances == b"name\xc6\1\2"


def test_an_overfull_outbox_merges_its_oldest_windows_and_leaves_the_last_ones_whole(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=6_000) as outbox:
        for number in range(400):
            append_window(outbox, t0_ms=NOW_MS + 10_000 * number)
            assert outbox.size <= 6_000
        found = list(outbox.waiting())
        assert (outbox.given_up, outbox.merged) == (0, 400 - len(found))
        assert sum(one.n for one in found) == 100 * 400
        assert sum(1 + one.merged for one in found) == 400
        # One after the other, without a hole.
        assert [one.t0_ms + one.dt_ms for one in found[:-1]] == [one.t0_ms for one in found[1:]]
        lengths = [1 + one.merged for one in found]
        assert lengths == sorted(lengths, reverse=True), "the longer ago, the coarser"
        levels = [lengths.count(2**level) for level in range(7)]
        assert sum(levels) == len(lengths)
        assert min(levels[:5]) >= 2, "some of every level"


def test_windows_of_several_models_are_merged_each_with_its_own(tmp_path: Path) -> None:
    bodies = [msgspec.structs.replace(window()[0], model=model) for model in ("a", "b", "c")]
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=6_000) as outbox:
        for number in range(150):
            one = envelope(bodies[number % 3], n=100, t0_ms=NOW_MS + 1_000 * number)
            outbox.append(one.kind, bytes(one.body), bins_id=one.bins_id, n=100, t0_ms=one.t0_ms, dt_ms=3_000)
        assert outbox.given_up == 0
        for model in ("a", "b", "c"):
            assert sum(1 + one.merged for one in outbox.waiting() if body(one).model == model) == 50


def test_a_restart_merges_on_what_it_had_learned_of_bins_whose_bundle_is_gone(tmp_path: Path) -> None:
    with_moments = msgspec.structs.replace(window()[0], moments=np.array([22, 5, 18, 30], "<f4").tobytes())
    one = envelope(with_moments, n=100)
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=6_000) as outbox:
        outbox.learn(one.bins_id, BINS)
        outbox.learn(one.bins_id, BINS)
    with Outbox(tmp_path / "outbox.db", "pump-1", max_bytes=6_000) as outbox:
        for number in range(100):
            t0_ms = NOW_MS + 1_000 * number
            outbox.append(one.kind, bytes(one.body), bins_id=one.bins_id, n=100, t0_ms=t0_ms, dt_ms=1_000)
        assert (outbox.given_up, outbox.merged > 50) == (0, True)
