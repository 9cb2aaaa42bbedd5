"""Small, true telemetry: a reference of two features and windows on its bins."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgekit_contracts.counts import FeatureWindow, WindowCounts, encode_counts
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import LATENCY_BINS, Bins, FeatureBins, FeatureCounts, Reference
from edgekit_contracts.telemetry import (
    ENVELOPE_VERSION,
    Clock,
    Envelope,
    Event,
    Kind,
    Labels,
    ReferencePart,
    Software,
    Window,
    encode,
)
from edgekit_runtime.outbox import Outbox

NOW_MS = 1_800_000_000_000
MODEL, VERSION = "diabetes", "1.0.0"

BINS = Bins(
    features=(
        FeatureBins(name="bmi", edges=(20.0, 25.0, 30.0)),
        FeatureBins(name="sex", categories=("f", "m")),
    ),
    classes=("no", "yes"),
    score_edges=(0.7, 0.9),
)
REFERENCE = Reference(
    bins=BINS,
    rows=4000,
    features=(FeatureCounts(bins=(1000, 1000, 1000, 1000), null=0), FeatureCounts(bins=(2000, 1960, 40), null=0)),
    classes=(2000, 2000),
    scores=(1000, 1000, 2000),
)
BINS_ID = REFERENCE.bins_id


def window(
    bmi: Sequence[int] = (25, 25, 25, 25),
    *,
    latency: int = 30,
    software: Software | None = None,
    calls: int = 1,
    out_of_range: int = 0,
    abstained: int = 0,
    resent: int = 0,
) -> tuple[Window, int]:
    """A window whose first feature has these counts, and its number of rows; the rest follows the reference."""
    n = sum(bmi)
    histogram = [0] * LATENCY_BINS
    histogram[latency] = software.calls if software else calls
    counts = WindowCounts(
        features=(
            FeatureWindow(bins=tuple(bmi), null=0, invalid=0, out_of_range=out_of_range),
            FeatureWindow(bins=(n // 2, n - n // 2, 0), null=0, invalid=0, out_of_range=0),
        ),
        classes=(n // 2, n - n // 2),
        scores=(n // 4, n // 4, n - 2 * (n // 4)),
        output_nulls=0,
        abstained=abstained,
        resent=resent,
        latency=tuple(histogram),
    )
    plain = Software(calls=calls, rejected=0, failed=0, rss_kb=90_000, cpu_ms=10, uptime_s=60, outbox_records=0)
    return Window(
        model=MODEL,
        model_version=VERSION,
        counts=encode_counts(counts),
        moments=b"",
        software=software or plain,
    ), n


def append_window(outbox: Outbox, *, t0_ms: int = NOW_MS, bmi: Sequence[int] = (25, 25, 25, 25)) -> int:
    body, n = window(bmi)
    return outbox.append(Kind.WINDOW, encode(body), bins_id=BINS_ID, n=n, t0_ms=t0_ms, dt_ms=10_000, clock=Clock.SYNCED)


def append_reference(outbox: Outbox, parts: int = 2) -> list[int]:
    return outbox.append_all(
        Kind.REFERENCE, [encode(part) for part in reference_parts(parts)], bins_id=BINS_ID, t0_ms=NOW_MS
    )


def reference_parts(parts: int = 2, reference: Reference = REFERENCE) -> list[ReferencePart]:
    text = encode_json(reference)
    size = -(-len(text) // parts)
    return [
        ReferencePart(model=MODEL, model_version=VERSION, part=i, parts=parts, data=text[i * size : (i + 1) * size])
        for i in range(parts)
    ]


def envelope(
    body: msgspec.Struct,
    *,
    sequence: int = 1,
    device: str = "pump-1",
    epoch: int = 7,
    n: int = 0,
    t0_ms: int = NOW_MS,
    dt_ms: int = 10_000,
    bins_id: bytes = BINS_ID,
    kind: Kind | None = None,
) -> Envelope:
    kinds = {Window: Kind.WINDOW, ReferencePart: Kind.REFERENCE, Event: Kind.EVENT, Labels: Kind.LABELS}
    return Envelope(
        version=ENVELOPE_VERSION,
        device=device,
        epoch=epoch,
        sequence=sequence,
        kind=kinds.get(type(body), Kind.GAP) if kind is None else kind,
        t0_ms=t0_ms,
        dt_ms=dt_ms,
        clock=Clock.SYNCED,
        bins_id=bins_id,
        n=n,
        body=msgspec.Raw(encode(body)),
    )
