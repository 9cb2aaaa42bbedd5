from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from edgekit.collector.blocks import StoredWindow
from edgekit.collector.hours import BLOCK, hours_of
from edgekit.collector.rollup import HOUR, HOUR_MS, LONGEST_MS, Rows, add_up, by_kind, rows_of_kind
from edgekit_contracts.counts import encode_varints
from edgekit_contracts.errors import FormatError
from edgekit_contracts.telemetry import Software, Window
from tests.telemetry_samples import BINS, BINS_ID, NOW_MS, window


def some_window(dice: random.Random, sequence: int) -> StoredWindow:
    calls = dice.choice((0, 3))
    software = Software(
        calls,
        dice.randrange(3),
        dice.randrange(3),
        dice.randrange(90_000),
        dice.choice((5, 2**62)),
        60,
        dice.randrange(9),
    )
    body, n = window(
        [dice.choice((0, 25, 200, 40_000)) for _ in range(4)], software=software, abstained=dice.randrange(2)
    )
    moments = dice.choice(
        (b"", struct.pack("<4f", dice.gauss(25, 3), 9.0, 18.0, 40.0), struct.pack("<4f", *4 * [np.nan]))
    )
    distances = dice.choice((b"", b"abcd" + encode_varints([max(0, n - 1), min(n, 1)])))
    model, version = dice.choice((("pump", "1.0.0"), ("pump", "1.1.0"), ("valve", "1.0.0")))
    at_ms = NOW_MS + dice.randrange(3 * HOUR_MS)
    dt_ms = dice.choice((10_000, 2**50))
    sent = Window(model, version, body.counts, moments, software, distances)
    device = f"pump-{dice.randrange(3)}"
    return StoredWindow(device, dice.randrange(2), sequence, at_ms, dt_ms, NOW_MS, BINS_ID, n, model, version, sent)


@pytest.mark.parametrize("number", [1, 2, BLOCK, 3 * BLOCK + 1])
def test_hours_are_what_the_rows_of_their_windows_add_up_to(number: int) -> None:
    dice = random.Random(number)
    windows = [some_window(dice, at + 1) for at in range(number)]
    for (_, distance), alike in by_kind(windows).items():
        expected = add_up(rows_of_kind(alike, distance, BINS), lambda key: key.of(HOUR))
        found = hours_of(alike, distance, BINS)
        assert found.keys == expected.keys
        for name in ("sums", "last", "rss_kb", "counts", "moments"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert int(found.column("dt_ms").max()) <= LONGEST_MS * len(alike)
        assert isinstance(found, Rows)


def test_counts_of_other_bins_are_refused() -> None:
    one = some_window(random.Random(7), 1)
    body = one.window
    shorter = Window(body.model, body.model_version, body.counts[1:], b"", body.software)
    with pytest.raises(FormatError, match="not the counts"):
        hours_of([one._replace(window=shorter)], b"", BINS)
