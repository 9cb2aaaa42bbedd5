"""`edgekit inspect`, `verify`, `check` and `report`: looking at a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit import destination
from edgekit.clauses import describe_parity, describe_worst_row
from edgekit.cli.keeping import HOURS
from edgekit.cli.output import echo_facts, echo_json, echo_table
from edgekit_contracts.errors import UsageError
from edgekit_contracts.manifest import Budget, Feature, Manifest

_bundle = click.argument("bundle", type=click.Path(path_type=Path))
_json = click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
_keys = click.option(
    "--key", "key_paths", multiple=True, type=click.Path(path_type=Path), help="Trusted public key (default: your own)."
)


@click.command(short_help="What a bundle holds.")
@_bundle
@_json
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds; its bytes are checked, its signature is not (see verify)."""
    from edgekit_converters.quality import describe_worse
    from edgekit_runtime.bundle import open_bundle

    opened = open_bundle(bundle, keys=None)
    manifest = opened.manifest
    if as_json:
        echo_json({"bundle": str(bundle), "sha256": opened.sha256, "bytes": opened.size, "manifest": manifest})
        return
    variant, parity, lineage = manifest.variant, manifest.parity, manifest.lineage
    worst = parity.worst_row
    labels = ", ".join(map(str, manifest.classes[:8])) + (", ..." if len(manifest.classes) > 8 else "")
    echo_facts(
        [
            ("bundle", f"{manifest.title} ({opened.size / 1000:,.1f} kB, SHA-256 {opened.sha256[:16]}...)"),
            ("model", f"{lineage.model_type}, {manifest.task.replace('_', ' ')}" + (f": {labels}" if labels else "")),
            (
                "onnx",
                f"opset {variant.opset}, IR {variant.ir}, {variant.precision}; onnxruntime {variant.runtime} or newer",
            ),
            ("proof", describe_parity(parity)),
            *([("certified", parity.certificate)] if parity.certificate else []),
            *([("can differ", parity.differs)] if parity.differs else []),
            *([("worst row", describe_worst_row(worst, manifest.features))] if worst is not None else []),
            *([("proved on", f"onnxruntime {', '.join(parity.runtimes)}")] if parity.runtimes else []),
            *[
                ("quality", f"{q.metric} {q.model:.4g}; {q.baseline_rule}: {q.baseline:.4g} ({q.rows:,} rows)")
                for q in manifest.quality
            ],
            *([("warning", warning)] if (warning := describe_worse(manifest.quality)) else []),
            *([("people", people)] if (people := _describe_people(manifest)) else []),
            ("data", f"{lineage.data_origin}, {lineage.data_rows:,} rows, SHA-256 {lineage.data_sha256[:16]}..."),
            ("code", lineage.code_revision or "not in a Git repository"),
            ("made with", ", ".join(f"{library} {version}" for library, version in lineage.libraries.items())),
        ]
    )
    click.echo()
    echo_table(
        ["feature", "type", "missing", "range or categories"],
        [[f.name, f.dtype, "allowed" if f.nullable else "refused", _domain(f)] for f in manifest.features],
    )
    if manifest.budgets:
        click.echo()
        _echo_budgets(manifest.budgets)


def _describe_people(manifest: Manifest) -> str:
    """What the owner left to a person; empty where all is left to the model."""
    threshold, fields = manifest.monitoring.abstain_below, manifest.privacy.raw_fields
    return "; ".join(
        [
            *([f"level of automation: {manifest.automation}"] if manifest.automation != "act" else []),
            *([f"less confident than {threshold:g} is left to a person"] if threshold is not None else []),
            *([f"a person may see {', '.join(fields)}"] if fields else []),
        ]
    )


@click.command(short_help="Signature, files and golden set of a bundle, here.")
@_bundle
@_keys
@_json
def verify(bundle: Path, key_paths: tuple[Path, ...], as_json: bool) -> None:
    """Check BUNDLE's signature, every file, and its golden set on this machine."""
    import onnxruntime

    from edgekit.keys import trusted_keys
    from edgekit_runtime.bundle import open_bundle
    from edgekit_runtime.engine import Engine
    from edgekit_runtime.selftest import check_golden

    opened = open_bundle(bundle, keys=trusted_keys(key_paths))
    assert opened.signer is not None
    result = check_golden(Engine(opened.model, opened.manifest), opened.golden)
    if as_json:
        echo_json(
            {
                "bundle": str(bundle),
                "model": opened.manifest.title,
                "sha256": opened.sha256,
                "key": opened.signer.hint,
                "onnxruntime": onnxruntime.__version__,
                "golden_rows": result.rows,
                "max_difference": result.max_difference,
            }
        )
        return
    echo_facts(
        [
            ("signature", f"by key {opened.signer.hint[:12]}, which is trusted here"),
            ("files", f"{len(opened.files)}, each as it was signed"),
            (
                "golden set",
                f"{result.rows} rows right on onnxruntime {onnxruntime.__version__} "
                f"(largest difference {result.max_difference:.2g})",
            ),
        ]
    )


@click.command(short_help="Whether a bundle fits devices.")
@_bundle
@click.option("--device", multiple=True, help="Device profile (repeatable; default: those of the build).")
@_json
def check(bundle: Path, device: tuple[str, ...], as_json: bool) -> None:
    """Predict latency and memory of BUNDLE on devices; exit 1 where it does not fit."""
    from edgekit import profiles
    from edgekit_converters.cost import cost
    from edgekit_converters.fit import predict, refuse_unfit
    from edgekit_runtime.bundle import open_bundle

    opened = open_bundle(bundle, keys=None)
    names = device or tuple(budget.profile for budget in opened.manifest.budgets)
    if not names:
        raise UsageError("the bundle was built for no device profile", "name one with --device")
    budgets = tuple(predict(cost(opened.model), profiles.load(name), opened.size) for name in names)
    if as_json:
        echo_json({"bundle": str(bundle), "budgets": budgets})
    else:
        _echo_budgets(budgets)
    refuse_unfit(budgets)


@click.command(short_help="One page: proof, quality, budgets, the fleet.")
@_bundle
@click.option("--store", help="A collector's store, file or address: adds what the devices saw.")
@click.option("--hours", type=HOURS, default=1.0, show_default=True, help="In so many last hours.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page to write (default: BUNDLE.html).")
def report(bundle: Path, store: str | None, hours: float, out: Path | None) -> None:
    """Write BUNDLE's page: proof, quality, budgets, features, and the fleet that runs it."""
    from edgekit.report.page import write_report
    from edgekit_runtime.bundle import open_bundle

    opened, page = open_bundle(bundle, keys=None), out or bundle.with_suffix(".html")
    destination.check(page, ".html")
    click.echo(write_report(opened, page, store, hours=hours))


def _domain(feature: Feature) -> str:
    if feature.categories is not None:
        more = f" and {len(feature.categories) - 6} more" if len(feature.categories) > 6 else ""
        return f"{', '.join(feature.categories[:6])}{more}{'; others are refused' if feature.closed else ''}"
    unit = f" {feature.unit}" if feature.unit else ""
    return unit.strip() if feature.minimum is None else f"{feature.minimum:g} to {feature.maximum:g}{unit}"


def _echo_budgets(budgets: tuple[Budget, ...]) -> None:
    echo_table(
        ["device", "latency ms (range)", "limit", "memory MB", "limit", "bundle MB", "limit", "verdict"],
        [
            [
                b.profile,
                f"{b.latency_ms:.3g} ({b.latency_ms_low:.2g} to {b.latency_ms_high:.2g})",
                f"{b.latency_limit_ms:g}",
                f"{b.memory_mb:.3g}",
                f"{b.memory_limit_mb:g}",
                f"{b.bundle_mb:.2g}",
                f"{b.bundle_limit_mb:g}",
                "fits" if b.fits else "does not fit",
            ]
            for b in budgets
        ],
    )
