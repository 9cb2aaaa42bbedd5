"""`edgekit demo`."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import click

from edgekit.cli.centre import echo_fleet
from edgekit.cli.output import echo_step


@click.command(short_help="The whole road on this machine, in under a minute.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path("edgekit-demo"),
    show_default=True,
    help="Where bundle, store and report are left.",
)
def demo(directory: Path) -> None:
    """Play the whole road here: train, prove, pack, run on three devices, catch a drift. Under a minute."""
    from edgekit.demo import road

    # `timeout`, `kill` and a closing terminal clean up like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{click.style(f'{time.monotonic() - started:5.1f} s', dim=True)}  {line}", err=True)

    outcome = road.run(directory, say, lambda step: echo_step(step.name, step.result, step.seconds))
    click.echo()
    echo_fleet(outcome.fleet, time.time_ns() // 1_000_000)
    click.echo(f"\nreport   {outcome.report}\nbundle   {outcome.built.path}\nstore    {outcome.store}")
    name = typed()
    click.echo(f"\nnext     {name} inspect {outcome.built.path}\n         {name} fleet status --store {outcome.store}")


def typed() -> str:
    """This program as a shell finds it: by its name, else as it was started."""
    found, here = shutil.which("edgekit"), Path(sys.argv[0])
    if here.name == "__main__.py":
        return f"{sys.executable} -m edgekit"
    return "edgekit" if here.name != "edgekit" or (found and here.samefile(found)) else str(here)
