"""`edgekit collect export`: the store as Parquet files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from edgekit.cli.output import echo_json, echo_progress, echo_table, end_progress

_day = click.DateTime(["%Y-%m-%d"])


@click.command(short_help="The store as Parquet files.")
@click.option("--parquet", "folder", type=click.Path(path_type=Path), required=True, help="The folder to write into.")
@click.option("--store", help="The collector's store.  [default: fleet.db]")
@click.option("--since", type=_day, help="The first day, in UTC.")
@click.option("--until", type=_day, help="The last day, in UTC.")
@click.option("--device", "devices", multiple=True, help="Only this device; may be given several times.")
@click.option("--model", "models", multiple=True, help="Only this model; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.pass_context
def export(
    context: click.Context,
    folder: Path,
    store: str | None,
    since: datetime | None,
    until: datetime | None,
    devices: tuple[str, ...],
    models: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the store as Parquet files, a file for each table and day; days that have not changed are left.

    The collector may run meanwhile. Given again, it goes on where it was; days that the store's retention has removed
    stay in the folder.
    """
    from edgekit.collector.store import open_store
    from edgekit_contracts.errors import MissingExtra

    try:
        from edgekit.collector.export import Selection
        from edgekit.collector.export import export as write
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MissingExtra("pyarrow", "edgekit-toolkit", "export") from None
    parent = context.parent.params.get("store") if context.parent else None
    with open_store(store or parent or "fleet.db", create=False) as opened:
        done = write(
            opened,
            folder,
            since=since.date() if since else None,
            until=until.date() if until else None,
            selection=Selection(devices=tuple(sorted({*devices})), models=tuple(sorted({*models}))),
            progress=lambda what: echo_progress("export", what),
        )
    end_progress()
    if as_json:
        echo_json({"tables": done})
    elif not done:
        click.echo("nothing to export: the store has no such windows, gaps or events", err=True)
    else:
        header = ["table", "rows", "files", "unchanged", "kept"]
        echo_table(
            header,
            [[name, f"{one.rows:,}", *map(str, (one.files, one.unchanged, one.kept))] for name, one in done.items()],
        )
