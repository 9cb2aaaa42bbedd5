"""`edgekit collect` and `edgekit fleet`: the centre."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.keeping import HOURS, keep_of, keep_options
from edgekit.cli.output import ago, echo_json, echo_table

if TYPE_CHECKING:
    from edgekit.fleet.status import DeviceStatus
    from edgekit_runtime.config import Protocol

_store = click.option(
    "--store",
    default="fleet.db",
    show_default=True,
    help="The collector's store: a file, or postgresql://USER@HOST:PORT/DATABASE (the password in ~/.pgpass).",
)
_json = click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")

_protocols: dict[str, Protocol] = {"auto": "auto", "4": 4, "5": 5}


@click.group(short_help="Store what devices send.", invoke_without_command=True)
@click.option(
    "--broker",
    default="mqtt://127.0.0.1:1883",
    show_default=True,
    help="mqtt://HOST:PORT or mqtts://HOST:PORT; of a cluster HOST:PORT,HOST:PORT...",
)
@_store
@click.option(
    "--name", help="This collector's name; of one name one can run (default: collector; on PostgreSQL, collector-HOST)."
)
@click.option("--username")
@click.option("--password-file", type=click.Path(path_type=Path), help="A file that holds the password.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM file of the broker's authority.")
@click.option("--cert", type=click.Path(path_type=Path), help="PEM file of this collector's certificate.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of its key.")
@click.option(
    "--protocol",
    type=click.Choice(["auto", "4", "5"]),
    default="auto",
    show_default=True,
    help="4 is MQTT 3.1.1, and 5 MQTT 5; auto says what the broker speaks, and takes the cheaper 4.",
)
@click.option("--alerts", is_flag=True, help="Publish events and alarms in JSON at ek/1/alert/DEVICE.")
@click.option(
    "--processes",
    type=click.IntRange(1, 2),
    help="2: one of them reads and stores (default: once that takes a good part of a core, if there is another).",
)
@keep_options
@click.option("--for", "seconds", type=float, help="Stop after so many seconds (default: at Ctrl-C).")
@_json
@click.pass_context
def collect(
    context: click.Context,
    /,
    broker: str,
    store: str,
    name: str | None,
    username: str | None,
    password_file: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    protocol: str,
    alerts: bool,
    processes: int | None,
    seconds: float | None,
    as_json: bool,
    **keeping: str,
) -> None:
    """Store what devices send, and tell them so: a device keeps a record until this has committed it."""
    if context.invoked_subcommand is not None:
        return
    from edgekit.collector.postgres_address import is_address
    from edgekit.collector.service import Collector
    from edgekit.process import collect_rarely, log_to_stderr
    from edgekit_contracts.errors import EnvironmentFault
    from edgekit_contracts.limits import MESSAGE_TARGET_BYTES
    from edgekit_runtime.broker import Broker, read_password
    from edgekit_runtime.mqtt import probe

    keep = keep_of(keeping)
    log_to_stderr()
    password = read_password(password_file) if password_file else None
    address = Broker.parse(
        broker, username=username, password=password, ca=ca, cert=cert, key=key, protocol=_protocols[protocol]
    )
    if address.protocol == "auto":
        # Nothing that is done here needs MQTT 5, and a message costs paho two to three times as much in it.
        dialect, address = probe(address), replace(address, protocol=4)
        click.echo(f"{address} speaks {dialect}; MQTT 3.1.1 is used", err=True)
        room = dialect.payload_max("ek/1/up/10/" + 63 * "x" + "/w")
        if room is not None and room < MESSAGE_TARGET_BYTES:
            click.echo(
                f"warning: devices send messages of up to {MESSAGE_TARGET_BYTES} bytes; raise the broker's limit",
                err=True,
            )
    collect_rarely()
    # At each call of the system the thread that receives waits so long for the one that stores; 5 ms is the default.
    sys.setswitchinterval(0.0005)
    ended = threading.Event()
    name = name or (_host_name() if is_address(store) else "collector")
    collector = Collector(address, store, name, keep=keep, processes=processes)
    with ExitStack() as stack:
        if alerts:
            from edgekit.fleet.alerts import Alerts
            from edgekit_contracts.topics import partition

            # Before the collector starts: the first event that it stores is told too.
            telling = Alerts(
                collector.publish, lambda: _look(store), minds=lambda device: partition(device) in collector.held
            )
            stack.enter_context(telling)
            collector.on_events = telling.stored
        collector.on_superseded = ended.set
        stack.enter_context(collector)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        click.echo(f"collecting from {address} into {collector.store.database.name}; Ctrl-C ends", err=True)
        click.echo(f"kept are {keep}", err=True)
        ended.wait(seconds)
    if collector.superseded:
        raise EnvironmentFault(
            f"this collector stood still, and another one named '{name}' has taken its place", "nothing need be done"
        )
    counts = collector.counts
    if as_json:
        echo_json({"counts": counts})
        return
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.refused.items())) or "none"
    click.echo(
        f"{counts.messages} messages, {counts.stored} records stored, {counts.duplicates} had come before"
        f"{f', {counts.ahead} from the future, dated by their arrival' if counts.ahead else ''}; "
        f"refused: {refused}",
        err=True,
    )


def _host_name() -> str:
    """Collectors that share a store run on different machines, mostly."""
    host = re.sub(r"[^a-z0-9_-]+", "-", socket.gethostname().partition(".")[0].lower())
    return f"collector-{host}"[:63]


def _look(store: str) -> list[DeviceStatus]:
    from edgekit.collector.store import open_store
    from edgekit.fleet.status import fleet_status

    with open_store(store, create=False) as opened:
        return fleet_status(opened, time.time_ns() // 1_000_000)


@click.group()
def fleet() -> None:
    """What the devices run and how they fare."""


@fleet.command(short_help="What each device runs, and its alarms.")
@_store
@click.option("--hours", type=HOURS, default=1.0, show_default=True, help="Windows of these last hours are merged.")
@_json
def status(store: str, hours: float, as_json: bool) -> None:
    """Show each device: what it runs, when it was last seen, requests, latency, alarms."""
    from edgekit.collector.store import open_store
    from edgekit.fleet.status import fleet_status

    now_ms = time.time_ns() // 1_000_000
    with open_store(store, create=False) as opened:
        devices = fleet_status(opened, now_ms, look_back_ms=round(hours * 3_600_000))
        refused = opened.refused()
    if as_json:
        echo_json({"devices": devices, "refused": refused})
        return
    echo_fleet(devices, now_ms)
    if refused:
        click.echo(f"\nrefused messages: {', '.join(f'{count} {reason}' for reason, count in refused.items())}")


def echo_fleet(devices: list[DeviceStatus], now_ms: int) -> None:
    """The fleet's table on standard output; a device with an alarm stands out."""

    def line(one: DeviceStatus) -> list[str]:
        alarms = "; ".join(one.alarms)
        return [
            click.style(one.device, fg="yellow", bold=True) if one.alarms else one.device,
            f"{one.model} {one.version}" if one.model else "",
            one.state,
            f"{ago((now_ms - one.last_seen_ms) / 1000)} ago" if one.last_seen_ms is not None else "never",
            f"{one.requests:,}",
            f"{one.rejected + one.failed:,}",
            "" if one.latency_p50_ms is None else f"{one.latency_p50_ms:.2g}",
            "" if one.latency_p99_ms is None else f"{one.latency_p99_ms:.2g}",
            click.style(alarms, fg="yellow", bold=True) if alarms else "none",
        ]

    header = ["device", "runs", "state", "seen", "requests", "refused", "p50 ms", "p99 ms", "alarms"]
    echo_table(header, [line(one) for one in devices])
