"""`edgekit convert`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import click

from edgekit import destination
from edgekit.cli.network import network_options
from edgekit.cli.output import echo_json, echo_progress, echo_step, end_progress
from edgekit_contracts.errors import UsageError
from edgekit_contracts.manifest import ClassLabel
from edgekit_runtime.replacing import replace


@click.command(short_help="A model becomes a proved ONNX file, without a bundle.")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), help="Rows like those it was trained on: .csv or .parquet.")
@click.option("--onnxruntime", "runtime", help="The runtime to write for and verify on (default: the installed one).")
@click.option("--runtime-check", multiple=True, help="Verify on this onnxruntime too, from its wheel (repeatable).")
@click.option("--no-runtime-check", is_flag=True, help="Verify on the installed onnxruntime only, no other.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write (default: MODEL.onnx).")
@click.option("--trust", is_flag=True, help="Load a pickle or joblib file, which runs the code in it.")
@network_options
@click.option("--coverage", is_flag=True, help="Instead: try every scikit-learn estimator, and print docs/coverage.md.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def convert(
    model: Path | None,
    data: Path | None,
    runtime: str | None,
    runtime_check: tuple[str, ...],
    no_runtime_check: bool,
    out: Path | None,
    trust: bool,
    classes: tuple[ClassLabel, ...] | None,
    shape: tuple[int, ...] | None,
    coverage: bool,
    as_json: bool,
) -> None:
    """Convert MODEL to a plain ONNX file, and verify it; `build` makes a bundle of it."""
    if coverage:
        _coverage(as_json)
        return
    if model is None or data is None:
        missing = " and ".join(name for name, value in (("MODEL", model), ("--data", data)) if value is None)
        raise UsageError(f"convert needs {missing}", "edgekit convert MODEL --data DATA, or --coverage")
    echo_progress("start", "")  # the libraries take some seconds to import
    from edgekit import building

    path = out or model.with_suffix(".onnx")
    destination.check(path, ".onnx")
    if path.exists() and path.samefile(model):
        raise UsageError(f"{path} is the model itself", "name another file to write with --out")
    conversion, parity = building.convert(
        model,
        data,
        runtime or version("onnxruntime"),
        trust=trust,
        classes=classes,
        shape=shape,
        check_runtimes=None if no_runtime_check else runtime_check,
        on_step=lambda step: echo_step(step.name, step.result, step.seconds),
        on_progress=echo_progress,
    )
    replace(path, conversion.onnx)
    if as_json:
        facts = {"onnx": str(path), "inputs": conversion.inputs, "outputs": conversion.outputs}
        echo_json({**facts, "features": conversion.features, "parity": parity, "notes": conversion.notes})
    else:
        click.echo(path)


def _coverage(as_json: bool) -> None:
    from edgekit_converters.coverage import markdown, measure

    rows = measure(lambda name: echo_progress("coverage", name))
    end_progress()
    if as_json:
        echo_json({"coverage": rows})
    else:
        click.echo(markdown(rows), nl=False)
