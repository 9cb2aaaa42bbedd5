"""How every device of the fleet stands, from what the collector stored.

Windows merge by addition over the look-back, so a line costs the same whether a device sent one window or hundreds.
What cannot be read of one device is that device's alarm; the others keep their lines.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from edgekit.collector.archive import Archive
from edgekit.collector.lookback import Total, counts_of, distances_of, look_back
from edgekit.collector.rollup import SUMS
from edgekit.fleet.starts import overlap
from edgekit.monitor import drift
from edgekit_contracts.errors import FormatError, StorageFault
from edgekit_contracts.latency import percentile_ms
from edgekit_contracts.reference import LATENCY_BINS
from edgekit_contracts.state import Running, Status

log = logging.getLogger(__name__)

LOOK_BACK_MS: Final = 3_600_000
SILENT_WINDOWS: Final = 3
"""A device that says nothing for longer than this many of its windows is silent."""
SILENT_SENDS: Final = 1.5
"""Of the time between two messages, where windows wait for one another."""
SILENT_MINIMUM_MS: Final = 15_000
SILENT_DEFAULT_MS: Final = 300_000
"""For a device that has not sent a window since its birth."""


AlarmKind = Literal["drift", "offline", "silent", "shared", "lost", "failed", "quarantined", "refused", "unreadable"]


class Drifted(msgspec.Struct, frozen=True, kw_only=True):
    """A feature, the score or the classes that moved away from the reference."""

    name: str
    p: float
    effect: float


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device's line, or one of its models'. Counts are over the look-back; gaps and quarantine over all time."""

    device: str
    model: str | None
    version: str | None
    state: Literal["online", "offline", "silent"]
    """`offline`: the broker gave out its last will, or it said farewell. `silent`: neither, and yet nothing comes."""
    agent: str | None
    """Its software, as its last birth says."""
    last_seen_ms: int | None
    """When the last window or birth came, milliseconds since 1970."""
    requests: int = 0
    """All that came in: answered, rejected and failed."""
    rows: int = 0
    rejected: int = 0
    failed: int = 0
    resent: int = 0
    """Requests that had been answered shortly before."""
    abstained: int = 0
    """Rows below the manifest's threshold."""
    output_nulls: int = 0
    """Rows that the model gave no answer for."""
    out_of_range: dict[str, int]
    """Rows out of the training data's range, or of an unknown category, by feature; features without are left out."""
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    lost_records: int
    """Given up by an overfull outbox and not stored here either."""
    quarantined: int
    """Windows that wait for their reference."""
    reviewed: int = 0
    """Answers of this version that a person judged on the device, in all. They had waited for one, so most were
    doubtful: their errors are no estimate of the model's."""
    wrong: int = 0
    """Of these, where the person named another class."""
    tested_rows: int = 0
    """Rows of the present model that the drift tests saw; below 50 they say nothing."""
    drifted: tuple[Drifted, ...] = ()
    rss_mb: float | None = None
    """Resident memory at the end of the last window, in 10^6 bytes."""
    cpu_percent: float | None = None
    """Processor time over the windows of the look-back; 100 is one core."""
    uptime_s: int | None = None
    """Of the service, at the end of the last window."""
    outbox_records: int | None = None
    """That waited on the device at the end of the last window."""
    alarms: tuple[str, ...] = ()
    alarm_kinds: tuple[AlarmKind, ...] = ()
    """What each of them is about."""


def fleet_status(
    store: Archive,
    now_ms: int,
    *,
    look_back_ms: int = LOOK_BACK_MS,
    alpha: float = drift.ALPHA,
    effect_floor: float = drift.EFFECT_FLOOR,
) -> list[DeviceStatus]:
    """The lines of every device that was ever heard of, by name: one for each model that it runs.

    Args:
        store: Where the collector stores.
        now_ms: Milliseconds since 1970.
        look_back_ms: Windows of this past are merged.
        alpha: Chance of a false drift alarm for one device.
        effect_floor: Smallest debiased PSI that is called drift.

    Raises:
        StorageFault: The store cannot be read.
    """
    lost, quarantined, labels = store.lost(), store.quarantined(), store.labels()
    lines = []
    for device, (status, status_ms) in store.devices().items():
        state, seen_ms = _liveness(status, status_ms, store.last_window(device), now_ms)
        shared = _shared(store, device, now_ms - look_back_ms, now_ms)
        for running in (status.running if status else ()) or (None,):
            line = DeviceStatus(
                device=device,
                model=running.model if running else None,
                version=running.version if running else None,
                state=state,
                agent=status.agent if status else None,
                last_seen_ms=seen_ms,
                out_of_range={},
                lost_records=lost.get(device, 0),
                quarantined=quarantined.get(device, 0),
            )
            faults: dict[AlarmKind, str] = {}
            try:
                line = _measured(store, line, running, now_ms - look_back_ms, alpha, effect_floor)
            except StorageFault:
                raise
            except Exception as error:
                log.exception("the windows of %s cannot be read", device)
                faults = {"unreadable": f"its windows cannot be read: {error}"}
            for one in labels.get(device, ()):
                if (one.model, one.model_version) == (line.model, line.version):
                    line = msgspec.structs.replace(line, reviewed=one.reviewed, wrong=one.wrong)
            alarms = _alarms(line, status, now_ms) | shared | faults
            lines.append(msgspec.structs.replace(line, alarms=tuple(alarms.values()), alarm_kinds=tuple(alarms)))
    return lines


def _measured(
    store: Archive, line: DeviceStatus, running: Running | None, since_ms: int, alpha: float, floor: float
) -> DeviceStatus:
    """The line with what the device's windows of this model say."""
    totals = [
        one
        for one in look_back(store, line.device, since_ms)
        # Rows without a call are a shadow's: nobody got these answers.
        if (running is None or one.model == running.model) and not one.shadow
    ]
    if not totals:
        return line
    last = max(totals, key=lambda one: one.order)
    present = _present(totals, running)
    merged = _merged(store, totals, present, alpha, floor)
    sums = {name: sum(one[name] for one in totals) for name in SUMS}
    shown = running or last
    return msgspec.structs.replace(
        line,
        model=shown.model,
        version=shown.version,
        requests=sums["calls"] + sums["rejected"] + sums["failed"],
        rows=sums["rows"],
        rejected=sums["rejected"],
        failed=sums["failed"],
        resent=sums["resent"],
        abstained=sums["abstained"],
        output_nulls=sums["output_nulls"],
        out_of_range=dict(merged.out_of_range),
        latency_p50_ms=percentile_ms(merged.latency, 50),
        latency_p99_ms=percentile_ms(merged.latency, 99),
        tested_rows=merged.tested_rows,
        drifted=tuple(
            Drifted(name=t.name, p=t.p, effect=t.effect) for t in merged.tested if t.drifted and t.p is not None
        ),
        rss_mb=last.last("rss_kb") * 1024 / 1e6,
        cpu_percent=100 * sums["cpu_ms"] / sums["dt_ms"] if sums["dt_ms"] else None,
        uptime_s=last.last("uptime_s"),
        outbox_records=last.last("outbox_records"),
    )


def _shared(store: Archive, device: str, since_ms: int, now_ms: int) -> dict[AlarmKind, str]:
    try:
        found = overlap(store, device, since_ms, now_ms)
    except FormatError:
        return {}  # its line says that its windows cannot be read
    said = "two starts cover the same time: two devices of this name, an outbox put back, or a clock set back"
    return {"shared": said} if found else {}


def _present(totals: Sequence[Total], running: Running | None) -> Total | None:
    """Of the model that runs, what came last: what the device says of itself goes before what is dated last."""
    of_it = (one for one in totals if running is None or (one.model, one.version) == (running.model, running.version))
    return max(of_it, key=lambda one: one.order, default=None)


@dataclass(slots=True)
class _Merged:
    """What windows of whatever models add up to, and the tests of the present one's."""

    latency: list[int] = field(default_factory=lambda: [0] * LATENCY_BINS)
    out_of_range: Counter[str] = field(default_factory=Counter)
    tested: list[drift.Tested] = field(default_factory=list)
    tested_rows: int = 0


def _merged(store: Archive, totals: Sequence[Total], present: Total | None, alpha: float, floor: float) -> _Merged:
    merged = _Merged()
    groups: dict[tuple[bytes, str, str], list[Total]] = {}
    for one in totals:
        groups.setdefault((one.bins_id, one.model, one.version), []).append(one)
    for key, group in groups.items():
        bins = store.bins(key[0])
        assert bins is not None, "windows without bins are in quarantine"
        counts = counts_of(group, bins)
        merged.latency = [a + b for a, b in zip(merged.latency, counts.latency, strict=True)]
        for feature, seen in zip(bins.features, counts.features, strict=True):
            if seen.out_of_range:
                merged.out_of_range[feature.name] += seen.out_of_range
        if present and key == (present.bins_id, present.model, present.version):
            reference = store.reference(present)
            if reference is not None:
                distances = distances_of(group, reference.distance)
                merged.tested = drift.compare(counts, reference, distances=distances, alpha=alpha, floor=floor)
                merged.tested_rows = sum(one["rows"] for one in group)
    return merged


def _liveness(
    status: Status | None, status_ms: int, last_window: tuple[int, int] | None, now_ms: int
) -> tuple[Literal["online", "offline", "silent"], int | None]:
    window_ms, dt_ms = last_window or (0, 0)
    dead = status is not None and status.dead
    seen_ms = max(window_ms, 0 if dead else status_ms) or None
    # A window that came after the last will speaks louder: the will was the echo of a broken connection.
    if dead and window_ms <= status_ms:
        return "offline", seen_ms
    patience_ms = max(SILENT_WINDOWS * dt_ms, SILENT_MINIMUM_MS)
    if not dt_ms or status_ms > window_ms:
        # Its first window may be as long as it likes: the bundle, or the setting, may be another than before.
        patience_ms = max(patience_ms, SILENT_DEFAULT_MS)
    if status is not None and status.sends_s:
        patience_ms = max(patience_ms, round(1000 * status.sends_s * SILENT_SENDS))
    return ("silent" if now_ms - (seen_ms or 0) > patience_ms else "online"), seen_ms


def _alarms(line: DeviceStatus, status: Status | None, now_ms: int) -> dict[AlarmKind, str]:
    alarms: dict[AlarmKind, str] = {}
    if line.drifted:
        alarms["drift"] = f"drift: {', '.join(item.name for item in sorted(line.drifted, key=lambda item: item.p))}"
    if line.state != "online":
        since = f" for {_span(now_ms - line.last_seen_ms)}" if line.last_seen_ms else ""
        alarms[line.state] = f"{line.state}{since}"
    if line.lost_records:
        alarms["lost"] = f"{line.lost_records} record{'s' if line.lost_records > 1 else ''} lost"
    if line.failed:
        alarms["failed"] = "failed requests"
    if line.quarantined:
        alarms["quarantined"] = f"{line.quarantined} window{'s' if line.quarantined > 1 else ''} without a reference"
    if status is not None and status.refused:
        alarms["refused"] = f"refused: {status.refused}"
    return alarms


def _span(milliseconds: int) -> str:
    seconds = max(0, milliseconds) // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
