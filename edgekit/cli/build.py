"""`edgekit build`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.network import network_options
from edgekit.cli.output import echo_json, echo_progress, echo_step
from edgekit_contracts.manifest import LEVELS, AutomationLevel, ClassLabel


def _units(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`FEATURE=UNIT` -> feature -> unit; a feature's name may have an equals sign in it."""
    pairs = [one.rpartition("=") for one in given]
    for one, (name, _, unit) in zip(given, pairs, strict=True):
        if not name or not unit:
            raise click.BadParameter(f"'{one}' is not FEATURE=UNIT, such as temperature=degC")
    return {name: unit for name, _, unit in pairs}


@click.command(short_help="A model becomes a proved, signed bundle.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Reference data: .csv or .parquet.")
@click.option(
    "--device", multiple=True, default=("this-machine",), show_default=True, help="Device profile (repeatable)."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The bundle to write: NAME-VERSION.edge.")
@click.option("--name", help="The model's name (default: from --out, else from MODEL).")
@click.option("--version", help="The model's version (default: from --out, else 1.0.0).")
@click.option("--target", help="The data's column that holds what is true; gives quality figures.")
@click.option("--key", type=click.Path(path_type=Path), help="Private key to sign with (default: your own).")
@click.option("--trust", is_flag=True, help="Load a pickle or joblib file, which runs the code in it.")
@network_options
@click.option(
    "--label",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="The label to bundle, from 0, of a model that answers several a row.",
)
@click.option("--allow-unfit", is_flag=True, help="Write the bundle although it does not fit the device.")
@click.option(
    "--abstain-below",
    type=click.FloatRange(0, 1),
    metavar="CONFIDENCE",
    help="Leave an answer below this confidence to a person.",
)
@click.option(
    "--automation",
    type=click.Choice(LEVELS),
    default="act",
    show_default=True,
    help="How far an answer may go by itself on a device.",
)
@click.option("--allow-raw", multiple=True, metavar="FEATURE", help="A person may see this one's values (repeatable).")
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="FEATURE=UNIT",
    callback=_units,
    help="What a feature is measured in (repeatable).",
)
@click.option("--runtime-check", multiple=True, help="Verify on this onnxruntime too, from its wheel (repeatable).")
@click.option("--no-runtime-check", is_flag=True, help="Verify on the installed onnxruntime only, not the profiles'.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def build(
    model: Path,
    data: Path,
    device: tuple[str, ...],
    out: Path | None,
    name: str | None,
    version: str | None,
    target: str | None,
    key: Path | None,
    trust: bool,
    classes: tuple[ClassLabel, ...] | None,
    shape: tuple[int, ...] | None,
    label: int | None,
    allow_unfit: bool,
    abstain_below: float | None,
    automation: AutomationLevel,
    allow_raw: tuple[str, ...],
    units: dict[str, str],
    runtime_check: tuple[str, ...],
    no_runtime_check: bool,
    as_json: bool,
) -> None:
    """Convert MODEL to ONNX, prove it, check it against a device, sign it, write the bundle.

    MODEL is a fitted scikit-learn model, whole Pipelines included, saved with skops (or, with --trust, with joblib or
    pickle); a model file of XGBoost, LightGBM or CatBoost; an .onnx file; or, with --trust, a PyTorch program saved
    with torch.export.
    """
    echo_progress("start", "")  # the libraries take some seconds to import
    from edgekit import building
    from edgekit_converters.quality import describe_worse

    built = building.build(
        model,
        data,
        device=device,
        out=out,
        name=name,
        version=version,
        target=target,
        key=key,
        trust=trust,
        classes=classes,
        shape=shape,
        label=label,
        allow_unfit=allow_unfit,
        abstain_below=abstain_below,
        automation=automation,
        allow_raw=allow_raw,
        units=units,
        check_runtimes=None if no_runtime_check else runtime_check,
        on_step=lambda step: echo_step(step.name, step.result, step.seconds),
        on_progress=echo_progress,
    )
    if warning := describe_worse(built.manifest.quality):
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {warning}", err=True)
    if as_json:
        facts = {"bundle": str(built.path), "sha256": built.sha256, "bytes": built.size}
        echo_json({**facts, "steps": built.steps, "manifest": built.manifest})
    else:
        click.echo(built.path)
