"""How every device of the fleet stands, from what the collector stored.

Windows merge by addition over the look-back, so a line costs the same whether a device sent one window or hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from edgekit.collector.archive import Archive, StoredWindow
from edgekit.monitor import drift
from edgekit.monitor.latency import percentile_ms
from edgekit.monitor.merge import merge_counts
from edgekit_contracts.reference import LATENCY_BINS
from edgekit_contracts.state import Status

LOOK_BACK_MS: Final = 3_600_000
SILENT_WINDOWS: Final = 3
"""A device that says nothing for longer than this many of its windows is silent."""
SILENT_MINIMUM_MS: Final = 15_000
SILENT_DEFAULT_MS: Final = 300_000
"""For a device that has not sent a window yet."""


class Drifted(msgspec.Struct, frozen=True, kw_only=True):
    """A feature, the score or the classes that moved away from the reference."""

    name: str
    p: float
    effect: float


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device's line. Counts are over the look-back; gaps and quarantine over all time."""

    device: str
    model: str | None
    version: str | None
    state: Literal["online", "offline", "silent"]
    """`offline`: the broker gave out its last will, or it said farewell. `silent`: neither, and yet nothing comes."""
    last_seen_ms: int | None
    """When the last window or birth came, milliseconds since 1970."""
    requests: int
    """All that came in: answered, rejected and failed."""
    rows: int
    rejected: int
    failed: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    lost_records: int
    """Given up by an overfull outbox and not stored here either."""
    quarantined: int
    """Windows that wait for their reference."""
    tested_rows: int
    """Rows of the present model that the drift tests saw; below 50 they say nothing."""
    drifted: tuple[Drifted, ...]
    alarms: tuple[str, ...]


def fleet_status(
    store: Archive,
    now_ms: int,
    *,
    look_back_ms: int = LOOK_BACK_MS,
    alpha: float = drift.ALPHA,
    effect_floor: float = drift.EFFECT_FLOOR,
) -> list[DeviceStatus]:
    """The line of every device that was ever heard of, by name.

    Args:
        store: Where the collector stores.
        now_ms: Milliseconds since 1970.
        look_back_ms: Windows of this past are merged.
        alpha: Chance of a false drift alarm for one device.
        effect_floor: Smallest debiased PSI that is called drift.

    Raises:
        StorageFault: The store cannot be read.
    """
    lost, quarantined = store.lost(), store.quarantined()
    lines = []
    for device, (status, status_ms) in store.devices().items():
        windows = list(store.windows(device, now_ms - look_back_ms))
        present = _present_model(windows)
        p50, p99, tested, tested_rows = _merged(store, windows, present, alpha, effect_floor)
        state, seen_ms = _liveness(status, status_ms, store.last_window(device), now_ms)
        software = [window.window.software for window in windows]
        rejected, failed = sum(s.rejected for s in software), sum(s.failed for s in software)
        drifted = tuple(Drifted(name=t.name, p=t.p, effect=t.effect) for t in tested if t.drifted and t.p is not None)
        running = status.running[0] if status and status.running else None
        line = DeviceStatus(
            device=device,
            model=running.model if running else present.model if present else None,
            version=running.version if running else present.version if present else None,
            state=state,
            last_seen_ms=seen_ms,
            requests=sum(s.calls for s in software) + rejected + failed,
            rows=sum(window.n for window in windows),
            rejected=rejected,
            failed=failed,
            latency_p50_ms=p50,
            latency_p99_ms=p99,
            lost_records=lost.get(device, 0),
            quarantined=quarantined.get(device, 0),
            tested_rows=tested_rows,
            drifted=drifted,
            alarms=(),
        )
        lines.append(msgspec.structs.replace(line, alarms=_alarms(line, status, now_ms)))
    return lines


def _present_model(windows: Sequence[StoredWindow]) -> StoredWindow | None:
    return windows[-1] if windows else None


def _merged(
    store: Archive, windows: Sequence[StoredWindow], present: StoredWindow | None, alpha: float, floor: float
) -> tuple[float | None, float | None, list[drift.Tested], int]:
    """Latency percentiles of all windows; drift of the present model's."""
    latency = [0] * LATENCY_BINS
    tested: list[drift.Tested] = []
    tested_rows = 0
    groups: dict[tuple[bytes, str, str], list[StoredWindow]] = {}
    for window in windows:
        groups.setdefault((window.bins_id, window.model, window.version), []).append(window)
    for (bins_id, model, version), group in groups.items():
        reference = store.reference(bins_id, model, version)
        if reference is None:
            continue
        rows = sum(window.n for window in group)
        counts = merge_counts([window.window.counts for window in group], reference.bins, rows)
        latency = [a + b for a, b in zip(latency, counts.latency, strict=True)]
        if present and (bins_id, model, version) == (present.bins_id, present.model, present.version):
            tested, tested_rows = drift.compare(counts, reference, alpha=alpha, floor=floor), rows
    return percentile_ms(latency, 50), percentile_ms(latency, 99), tested, tested_rows


def _liveness(
    status: Status | None, status_ms: int, last_window: tuple[int, int] | None, now_ms: int
) -> tuple[Literal["online", "offline", "silent"], int | None]:
    window_ms, dt_ms = last_window or (0, 0)
    dead = status is not None and status.dead
    seen_ms = max(window_ms, 0 if dead else status_ms) or None
    # A window that came after the last will speaks louder: the will was the echo of a broken connection.
    if dead and window_ms <= status_ms:
        return "offline", seen_ms
    patience_ms = max(SILENT_WINDOWS * dt_ms, SILENT_MINIMUM_MS) if dt_ms else SILENT_DEFAULT_MS
    return ("silent" if now_ms - (seen_ms or 0) > patience_ms else "online"), seen_ms


def _alarms(line: DeviceStatus, status: Status | None, now_ms: int) -> tuple[str, ...]:
    alarms = []
    if line.drifted:
        alarms.append(f"drift: {', '.join(item.name for item in sorted(line.drifted, key=lambda item: item.p))}")
    if line.state != "online":
        since = f" for {_span(now_ms - line.last_seen_ms)}" if line.last_seen_ms else ""
        alarms.append(f"{line.state}{since}")
    if line.lost_records:
        alarms.append(f"{line.lost_records} record{'s' if line.lost_records > 1 else ''} lost")
    if line.failed:
        alarms.append("failed requests")
    if line.quarantined:
        alarms.append(f"{line.quarantined} window{'s' if line.quarantined > 1 else ''} without a reference")
    if status is not None and status.refused:
        alarms.append(f"refused: {status.refused}")
    return tuple(alarms)


def _span(milliseconds: int) -> str:
    seconds = max(0, milliseconds) // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
