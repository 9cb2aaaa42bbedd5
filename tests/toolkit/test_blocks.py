from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgekit.collector.blocks import WINDOWS_MAX, Blocks, windows_of
from edgekit.collector.keep import HOUR_MS
from edgekit.collector.store import open_store
from edgekit_contracts.errors import FormatError
from edgekit_contracts.telemetry import encode
from tests.telemetry_samples import NOW_MS, envelope, window
from tests.toolkit.test_store import ingest, reference_records, windows

BODY, ROWS = window()


def test_windows_of_a_device_and_an_hour_that_come_together_share_rows(tmp_path: Path) -> None:
    with open_store(tmp_path / "store.db") as store:
        ingest(store, *reference_records())
        ingest(store, *windows(3, 2 * WINDOWS_MAX + 3))
        late = envelope(BODY, sequence=100, n=ROWS, t0_ms=NOW_MS - 1)
        ingest(store, late, *windows(101, 101))
        with store.database.reading() as db:
            rows = db.rows("SELECT hour_ms, windows FROM window ORDER BY id")
        hour_ms = NOW_MS // HOUR_MS * HOUR_MS
        full, last = (hour_ms, WINDOWS_MAX), (hour_ms, 1)
        assert rows == [full, full, last, (hour_ms - HOUR_MS, 1), last]
        assert [one.sequence for one in store.windows("pump-1", 0)] == [100, *range(3, 2 * WINDOWS_MAX + 4), 101]
        assert [one.sequence for one in store.windows("pump-1", NOW_MS - HOUR_MS, NOW_MS)] == [100]
        assert list(store.windows("pump-1", NOW_MS + 1)) == []
        assert store.count("window") == 2 * WINDOWS_MAX + 3


def test_a_window_is_read_back_as_it_was_sent() -> None:
    sent = [
        msgspec.structs.replace(envelope(BODY, sequence=5, n=ROWS, t0_ms=NOW_MS - 7), merged=3),
        envelope(BODY, sequence=6, n=ROWS, device="pump-2", epoch=2**63 - 1, dt_ms=2**40),
    ]
    blocks = Blocks(day=20_000)
    for one in sent:
        blocks.add(one, one.t0_ms, NOW_MS)
    rows = blocks.rows()
    assert [row[1:3] for row in rows] == [(20_000, "pump-1"), (20_000, "pump-2")]
    for one, found in zip(sent, windows_of(row[-1] for row in rows), strict=True):
        assert (found.device, found.epoch, found.sequence) == (one.device, one.epoch, one.sequence)
        assert (found.at_ms, found.dt_ms, found.received_ms) == (one.t0_ms, one.dt_ms, NOW_MS)
        assert (found.bins_id, found.n, found.merged) == (one.bins_id, one.n, one.merged)
        assert (found.model, found.version, encode(found.window)) == (BODY.model, BODY.model_version, encode(BODY))


@pytest.mark.parametrize("damage", [b"", b"\x00", b"\xc1", b"\x91\x90"])
def test_a_block_that_somebody_changed_is_named(damage: bytes) -> None:
    with pytest.raises(FormatError, match="block of windows"):
        windows_of([damage])
