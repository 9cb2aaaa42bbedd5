"""`edgekit keys`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.output import echo_facts, echo_json
from edgekit_contracts.errors import UsageError


@click.group()
def keys() -> None:
    """Keys that sign bundles, and keys that devices trust."""


@keys.command(short_help="Make a key pair.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where to write them (default: your own).")
def create(directory: Path | None) -> None:
    """Make a key pair: edgekit.pem signs and stays secret; edgekit.pub.pem goes to the devices."""
    from edgekit_converters.signing import SigningKey
    from edgekit_runtime.trust import PUBLIC_NAME, own_directory

    directory = directory or own_directory()
    SigningKey.create(directory)
    click.echo(directory / PUBLIC_NAME)


@keys.command()
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def show(as_json: bool) -> None:
    """Show your own key: its directory and the hash that names it."""
    from edgekit_runtime.signature import load_public_keys
    from edgekit_runtime.trust import own_directory, own_key

    public = own_key()
    if not public.exists():
        raise UsageError(f"there is no key of yours in {own_directory()}", "edgekit keys create, or build a bundle")
    (key,) = load_public_keys([public])
    if as_json:
        echo_json({"directory": str(own_directory()), "key": key.hint})
    else:
        echo_facts([("directory", str(own_directory())), ("key", key.hint)])
