"""The `edgekit` command. Each file holds one group of commands; what is heavy is imported inside the command's body.

Data goes to standard output, everything said to a person on the way to standard error; every command that reads has
`--json`. Exit codes: 0 done; 1 refused for a stated reason; 2 usage or a missing extra; 3 the environment; 130
interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from edgekit import __version__
from edgekit.cli import authority, build, bundles, centre, convert, demo, doctor, exporting, keys, profiles
from edgekit.cli.output import end_progress, printable
from edgekit_contracts.errors import EdgekitError, MissingExtra
from edgekit_runtime.installed import refuse_both

EXTRAS: Final = {
    "amqtt": "demo",
    "cryptography": "build",
    "httptools": "build",
    "numpy": "build",
    "onnx": "build",
    "onnxruntime": "build",
    "paho": "collector",
    "pandas": "build",
    "pyarrow": "build",
    "scipy": "collector",
    "skl2onnx": "build",
    "sklearn": "build",
    "skops": "build",
}
"""Library -> the extra that brings it."""


@click.group(
    epilog="Exit codes: 0 done; 1 refused for a stated reason; 2 usage or a missing extra; 3 the environment; "
    "130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EDGEKIT"},
)
@click.version_option(__version__, prog_name="edgekit")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Package trained models for small devices, prove them, run them there, watch them from here."""


for command in (
    build.build,
    convert.convert,
    bundles.inspect,
    bundles.verify,
    bundles.check,
    bundles.report,
    profiles.profiles,
    keys.keys,
    doctor.doctor,
    centre.collect,
    centre.fleet,
    demo.demo,
):
    cli.add_command(command)

for command in (authority.ca, authority.enrol, authority.revoke, authority.broker_config):
    centre.fleet.add_command(command)
centre.collect.add_command(exporting.export)


def run(arguments: list[str]) -> int:
    """Runs `edgekit ARGUMENTS`: every failure is a sentence, a next step and an exit code, which it returns."""
    try:
        refuse_both()
        result = cli.main(arguments, prog_name="edgekit", standalone_mode=False)
    except EdgekitError as error:
        return _explain(error, arguments)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        return _explain(MissingExtra(library, "edgekit-toolkit", EXTRAS[library]), arguments)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `edgekit inspect ... | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until the process ends
        return 0
    return result if isinstance(result, int) else 0


def _explain(error: EdgekitError, arguments: list[str]) -> int:
    if "--debug" in arguments:
        import traceback

        traceback.print_exception(error)
    end_progress()
    click.echo(printable(f"{click.style('Error:', fg='red', bold=True)} {error.sentence}"), err=True)
    click.echo(printable(f"{click.style('Try:', bold=True)}   {error.next_step}"), err=True)
    return error.exit_code
