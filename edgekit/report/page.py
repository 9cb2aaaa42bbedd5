"""What stands on the bundle's page, section by section."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from edgekit.clauses import describe_ulps, describe_worst_row
from edgekit.report.svg import gauge, histogram
from edgekit_contracts.counts import WindowCounts
from edgekit_contracts.manifest import Budget, Manifest
from edgekit_runtime.replacing import replace

if TYPE_CHECKING:
    from edgekit.building import Build
    from edgekit.fleet.status import DeviceStatus
    from edgekit_runtime.bundle import Bundle

_PAGE: Final = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>$style</style>
<main><h1>$title</h1>$body</main></html>
""")

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b2733;--soft:#5d6b7a;--line:#d9e0e7;--page:#fff;--bar:#b9c9d9;--seen:#c2410c;
--good:#15803d;--bad:#b91c1c;--warn:#fff7ed}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa7b4;--line:#30363d;--page:#0d1117;--bar:#3d4f63;
--seen:#fb923c;--good:#4ade80;--bad:#f87171;--warn:#2a1a0c}}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px}
p{margin:4px 0;color:var(--soft);max-width:75ch}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:var(--soft);font-size:13px}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:middle}
tr.alarm td{background:var(--warn)}code{font-size:13px}
.scroll{overflow-x:auto}.good{color:var(--good);fill:var(--good)}.bad{color:var(--bad);fill:var(--bad)}
.bar{fill:var(--bar)}.seen{fill:var(--seen);stroke:none}polyline.seen{fill:none;stroke:var(--seen);stroke-width:1.5}
.track{fill:var(--line)}.range{stroke:var(--soft);stroke-width:2}.limit{stroke:var(--ink);stroke-width:2}
svg{display:block;overflow:visible}
"""


def write_report(bundle: Bundle, path: Path, store: Path | str | None = None, *, hours: float = 1.0) -> Path:
    """Writes the page of a bundle, with what the fleet saw in the last hours where a collector's store is given.

    Raises:
        StorageFault: The page cannot be written, or the store cannot be read.
    """
    devices: list[DeviceStatus] = []
    counts: dict[str, WindowCounts] = {}
    if store is not None:
        devices, counts = _fleet(bundle, store, hours)
    manifest = bundle.manifest
    body = [
        _summary(manifest, bundle),
        _fleet_section(devices, hours),
        _budgets(manifest.budgets),
        _features(bundle, devices, counts),
        _proof(manifest),
        _lineage(manifest, bundle),
    ]
    replace(path, _PAGE.substitute(title=escape(manifest.title), style=_STYLE, body="".join(body)).encode())
    return path


def build_fragment(build: Build) -> str:
    """The summary of a build, for notebooks."""
    rows = [[step.name, step.result, f"{step.seconds:.1f} s"] for step in build.steps]
    return f"<h3>{escape(build.manifest.title)}</h3>" + _table(["step", "result", "time"], rows)


def _fleet(bundle: Bundle, path: Path | str, hours: float) -> tuple[list[DeviceStatus], dict[str, WindowCounts]]:
    """Each device's line, and the merged counts of those that drifted, over these last hours."""
    from edgekit.collector.lookback import counts_of, look_back
    from edgekit.collector.rollup import HOUR_MS
    from edgekit.collector.store import open_store
    from edgekit.fleet.status import fleet_status

    now_ms, look_back_ms = time.time_ns() // 1_000_000, round(hours * HOUR_MS)
    name, reference = bundle.manifest.name, bundle.reference
    counts: dict[str, WindowCounts] = {}
    with open_store(path, create=False) as store:
        lines = fleet_status(store, now_ms, look_back_ms=look_back_ms)
        devices = [one for one in lines if one.model == name]
        for one in devices:
            totals = [
                total
                for total in (look_back(store, one.device, now_ms - look_back_ms) if one.drifted else ())
                if (total.model, total.bins_id, total.shadow) == (name, reference.bins_id, False)
            ]
            if totals:
                counts[one.device] = counts_of(totals, reference.bins)
    return devices, counts


def _summary(manifest: Manifest, bundle: Bundle) -> str:
    lineage = manifest.lineage
    kind = manifest.task.replace("_", " ") + (f" ({len(manifest.classes)} labels)" if manifest.classes else "")
    signed = f"signed by key {bundle.signer.hint[:12]}" if bundle.signer else "signature not checked here"
    return (
        f"<p>{escape(lineage.model_type)}, {kind} from {len(manifest.features)} features; "
        f"{bundle.size / 1000:,.1f} kB, SHA-256 <code>{bundle.sha256[:16]}</code>, {signed}.</p>"
    )


def _fleet_section(devices: Sequence[DeviceStatus], hours: float) -> str:
    if not devices:
        return ""
    rows = []
    for one in devices:
        cells = [
            one.device,
            f"{one.model} {one.version}",
            one.state,
            f"{one.rows:,}",
            "" if one.latency_p50_ms is None else f"{one.latency_p50_ms:.2g}",
            "" if one.latency_p99_ms is None else f"{one.latency_p99_ms:.2g}",
            "; ".join(one.alarms) or "none",
        ]
        rows.append((cells, bool(one.alarms)))
    header = ["device", "runs", "state", "rows", "p50 ms", "p99 ms", "alarms"]
    return _section(
        "Fleet, last hour" if hours == 1 else f"Fleet, last {hours:g} hours",
        "A marked device has an alarm.",
        _table(header, rows),
    )


def _budgets(budgets: Sequence[Budget]) -> str:
    rows = []
    for b in budgets:
        verdict = (
            '<b class="good">fits</b>' if b.fits else f'<b class="bad">does not fit</b>: {escape("; ".join(b.excess))}'
        )
        interval = f"{b.latency_ms_low:.2g} to {b.latency_ms_high:.2g} ms, limit {b.latency_limit_ms:g} ms"
        latency = gauge(b.latency_ms, b.latency_ms_low, b.latency_ms_high, b.latency_limit_ms, title=interval)
        memory = gauge(
            b.memory_mb, b.memory_mb, b.memory_mb, b.memory_limit_mb, title=f"limit {b.memory_limit_mb:g} MB"
        )
        rows.append(
            [
                b.profile,
                _Html(f"{b.latency_ms:.3g} ms of {b.latency_limit_ms:g}{latency}"),
                _Html(f"{b.memory_mb:.3g} MB of {b.memory_limit_mb:g}{memory}"),
                f"{b.bundle_mb:.2g} MB of {b.bundle_limit_mb:g}",
                _Html(verdict),
            ]
        )
    note = "Predicted for one row; the line is the interval that the profile's figures allow, the mark is the limit."
    return (
        _section("Devices", note, _table(["profile", "latency", "memory", "bundle", "verdict"], rows)) if rows else ""
    )


def _features(bundle: Bundle, devices: Sequence[DeviceStatus], counts: dict[str, WindowCounts]) -> str:
    reference = bundle.reference
    alarmed = [one for one in devices if one.drifted and one.device in counts][:2]
    header = [
        "feature",
        "type",
        "missing",
        "range or categories",
        "reference",
        *(f"seen on {d.device}" for d in alarmed),
    ]
    rows = []
    for index, feature in enumerate(bundle.manifest.features):
        spec, known = reference.bins.features[index], reference.features[index]
        domain = (
            ", ".join(spec.categories[:6])
            if spec.categories is not None
            else f"{spec.minimum:g} to {spec.maximum:g} {feature.unit or ''}".strip()
            if spec.minimum is not None and spec.maximum is not None
            else ""
        )
        cells: list[str] = [
            feature.name,
            feature.dtype,
            f"{known.null / reference.rows:.1%}" if feature.nullable else "refused",
            domain,
            _Html(histogram(known.bins)),
        ]
        for device in alarmed:
            drifted = any(item.name == feature.name for item in device.drifted)
            seen = counts[device.device].features[index]
            drawing = histogram(known.bins, seen.bins, ordered=spec.categories is None)
            missing = f"{seen.null / max(1, sum(seen.bins) + seen.null):.1%} missing" if seen.null else ""
            note = "; ".join(filter(None, ['<b class="bad">drifted</b>' if drifted else "", missing]))
            cells.append(_Html(drawing + note))
        rows.append((cells, False))
    note = f"Bars: share of the {reference.rows:,} reference rows in each bin." + (
        " Dots: what the device saw." if alarmed else ""
    )
    return _section("Features", note, _table(header, rows))


def _proof(manifest: Manifest) -> str:
    from edgekit_converters.quality import describe_worse, worse

    below = worse(manifest.quality)
    parity, worst = manifest.parity, manifest.parity.worst_row
    rows: list[list[str] | tuple[list[str], bool]] = [
        [
            "answers like the original",
            f"{parity.rows:,} rows ({parity.method}): no label differs, {parity.ties} ties; largest difference "
            f"{parity.max_difference:.2g}"
            + (f" ({describe_ulps(parity)})" if parity.worst_ulps else "")
            + f", tolerance {parity.tolerance:g}",
        ],
        *([["thresholds reached", f"{parity.marks_reached:,} of {parity.marks:,}"]] if parity.marks else []),
        *([["every tree, for any input", parity.certificate]] if parity.certificate else []),
        *([["inputs whose numbers can differ", parity.differs]] if parity.differs else []),
        *([["worst row", describe_worst_row(worst, manifest.features)]] if worst is not None else []),
        *([["compared on onnxruntime", ", ".join(parity.runtimes)]] if parity.runtimes else []),
        *(
            [
                [
                    "rate of other labels",
                    f"at most {100 * parity.disagreement_bound:.2g} % of such data, with 95 % confidence "
                    "(Clopper-Pearson, from the data's rows)",
                ]
            ]
            if parity.disagreement_bound is not None
            else []
        ),
        *[
            ([q.metric, f"{q.model:.4g}; {q.baseline_rule}: {q.baseline:.4g} ({q.rows:,} rows)"], q in below)
            for q in manifest.quality
        ],
    ]
    return _section("Proof", describe_worse(manifest.quality), _table(["claim", "evidence"], rows))


def _lineage(manifest: Manifest, bundle: Bundle) -> str:
    lineage, variant = manifest.lineage, manifest.variant
    rows = [
        ["data", f"{lineage.data_origin}, {lineage.data_rows:,} rows, SHA-256 {lineage.data_sha256}"],
        ["model file", f"SHA-256 {lineage.model_sha256}" if lineage.model_sha256 else "an object in memory"],
        ["code", lineage.code_revision or "not in a Git repository"],
        ["made with", ", ".join(f"{name} {version}" for name, version in lineage.libraries.items())],
        ["ONNX", f"opset {variant.opset}, ai.onnx.ml {variant.ml_opset}, IR {variant.ir}, {variant.precision}"],
        ["runs on", f"onnxruntime {variant.runtime} or newer"],
        *[[f"file {entry.path}", f"{entry.size:,} bytes, SHA-256 {entry.sha256}"] for entry in manifest.files],
        ["bundle", f"SHA-256 {bundle.sha256}"],
    ]
    return _section("Lineage", "", _table(["what", "where from"], rows))


class _Html(str):
    """Text that is markup already."""


def _section(title: str, note: str, content: str) -> str:
    paragraph = f"<p>{escape(note)}</p>" if note else ""
    return f"<h2>{escape(title)}</h2>{paragraph}{content}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str] | tuple[Sequence[str], bool]]) -> str:
    lines = []
    for row in rows:
        cells, alarm = row if isinstance(row, tuple) and isinstance(row[1], bool) else (row, False)
        content = "".join(f"<td>{cell if isinstance(cell, _Html) else escape(str(cell))}</td>" for cell in cells)
        lines.append(f'<tr class="alarm">{content}</tr>' if alarm else f"<tr>{content}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
