"""`edgekit profiles`."""

from __future__ import annotations

import click

from edgekit.cli.output import echo_facts, echo_json, echo_table


@click.group(short_help="The boards that are known, and how fast they are.")
def profiles() -> None:
    """The device profiles: what a board is, what it may be asked for, how fast it is."""


@profiles.command("list")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def list_(as_json: bool) -> None:
    """List the profiles that come with edgekit."""
    from edgekit import profiles as shelf

    found = [shelf.load(name) for name in shelf.names() if name != shelf.THIS_MACHINE]
    if as_json:
        echo_json({"profiles": found})
        return
    rows = [
        [
            one.name,
            one.title,
            f"{one.board.ram_mb.value:,.0f} MB",
            f"{one.limits.latency_ms:g} ms, {one.limits.memory_mb:g} MB",
        ]
        for one in found
    ]
    echo_table(
        ["name", "board", "memory", "limits"],
        [*rows, [shelf.THIS_MACHINE, "the machine you are at", "", "measured when asked for"]],
    )


@profiles.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show profile NAME (or a .toml file): every figure with its source. `this-machine` is measured now."""
    import msgspec

    from edgekit import profiles as shelf

    profile = shelf.load(name)
    if as_json:
        echo_json({"profile": profile})
        return
    board, limits = profile.board, profile.limits
    echo_facts(
        [
            ("name", f"{profile.name}: {profile.title}"),
            ("board", f"{board.soc}; {board.cores}; {board.simd}; {board.architecture}; {board.os}"),
            (
                "runtime",
                f"onnxruntime {profile.runtime.onnxruntime}" if profile.runtime.supported else str(profile.runtime.why),
            ),
            (
                "limits",
                f"p{limits.latency_percentile:g} latency {limits.latency_ms:g} ms; memory {limits.memory_mb:g} MB; "
                f"bundle {limits.bundle_mb:g} MB",
            ),
        ]
    )
    click.echo()
    figures = {"clock_ghz": board.clock_ghz, "ram_mb": board.ram_mb, **msgspec.structs.asdict(profile.rates)}
    echo_table(
        ["figure", "value", "kind", "source"],
        [[key, f"{figure.value:g}", figure.kind, figure.source] for key, figure in figures.items()],
    )
