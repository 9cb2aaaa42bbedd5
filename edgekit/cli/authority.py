"""`edgekit fleet ca`, `enrol`, `revoke` and `broker-config`: who may speak in the fleet, and for whom."""

from __future__ import annotations

import datetime
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Final

import click

from edgekit.cli.output import echo_json, echo_table
from edgekit_contracts.errors import MissingFile, StorageFault, UsageError

_LIFE: Final = re.compile(r"(\d{1,6}) *(min|h|d)")
_UNITS: Final = {"min": "minutes", "h": "hours", "d": "days"}


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit" / "authority"


_authority = click.option(
    "--authority",
    "folder",
    type=click.Path(path_type=Path),
    default=_folder,
    envvar="EDGEKIT_AUTHORITY",
    help="The authority's folder (default: edgekit/authority in your configuration directory).",
)
_days = click.option(
    "--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="The certificate's life."
)


@click.group()
def ca() -> None:
    """The fleet's certificate authority: who is who."""


@ca.command()
@_authority
@click.option("--name", default="edgekit fleet", show_default=True, help="Its own name.")
def init(folder: Path, name: str) -> None:
    """Make an authority. Its folder holds the fleet's most precious key: copy it to a safe place."""
    from edgekit.fleet.authority import Authority

    with Authority.create(folder, name) as made:
        click.echo(made.folder)
        click.echo(f"fingerprint {made.fingerprint.hex()}; its key is in {made.folder}, for you alone", err=True)


@ca.command("list")
@_authority
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def list_(folder: Path, as_json: bool) -> None:
    """Show every certificate that was given out, and what became of it."""
    from edgekit.fleet.authority import Authority

    with Authority(folder) as authority:
        issued, now_ms = authority.register.issued(), _now_ms()
    if as_json:
        rows = [
            {"serial": one.serial, "name": one.name, "for": one.how, "issued_ms": one.issued_ms,
             "expires_ms": one.expires_ms, "revoked_ms": one.revoked_ms}
            for one in issued
        ]  # fmt: skip
        echo_json({"certificates": rows})
        return
    header = ["name", "for", "issued", "until", "state", "serial"]
    echo_table(
        header,
        [
            [
                one.name,
                one.how,
                _date(one.issued_ms),
                _date(one.expires_ms),
                "revoked" if one.revoked_ms else "good" if one.good(now_ms) else "expired",
                one.serial,
            ]
            for one in issued
        ],
    )


@ca.command("issue", short_help="Make a key and a certificate here.")
@_authority
@click.argument("name")
@_days
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write (default: NAME.pem).")
def issue(folder: Path, name: str, days: int, out: Path | None) -> None:
    """Make a key and a certificate for NAME here, in one file: collector.NAME for `edgekit collect`, app.NAME."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from edgekit.fleet import enrolment
    from edgekit.fleet.authority import Authority
    from edgekit_runtime.identity import private_pem
    from edgekit_runtime.replacing import replace

    path = out or Path(f"{name}.pem")
    if path.exists():
        raise UsageError(f"there is a file {path} already", "name another one with --out")
    key = ec.generate_private_key(ec.SECP256R1())
    with Authority(folder) as authority:
        issued = enrolment.issue(authority, name, key.public_key(), days, "here")
        replace(path, private_pem(key) + issued.pem, 0o600)
    click.echo(path)
    click.echo(
        f"key and certificate of {name}, until {_date(issued.expires_ms)}: name it as both --cert and --key", err=True
    )


@ca.command("publish", short_help="Tell the broker what was revoked.")
@_authority
@click.argument("broker", type=click.Path(path_type=Path))
def publish(folder: Path, broker: Path) -> None:
    """Write what was revoked into the folder of `broker-config`; then have the broker read it (SIGHUP)."""
    from edgekit.fleet import broker_config
    from edgekit.fleet.authority import Authority

    with Authority(folder) as authority:
        broker_config.publish(authority, broker)
    click.echo(f"{broker} is up to date; systemctl reload mosquitto has the broker read it", err=True)


@click.group()
def enrol() -> None:
    """Give devices their certificates."""


@enrol.command(short_help="Print a token, good for one certificate.")
@_authority
@click.argument("name")
@click.option("--for", "life", default="1h", show_default=True, help="How long the token is good: 30min, 1h, 7d.")
@_days
def token(folder: Path, name: str, life: str, days: int) -> None:
    """Print a token for NAME, good once: the device gives it to `edgekit-runtime enrol`."""
    from edgekit.fleet.authority import Authority
    from edgekit.fleet.enrolment import new_token

    match = _LIFE.fullmatch(life)
    if match is None or not int(match[1]):
        raise UsageError(f"'{life}' is not a time", "write 30min, 1h or 7d")
    with Authority(folder) as authority:
        made = new_token(authority, name, datetime.timedelta(**{_UNITS[match[2]]: int(match[1])}), days)
    click.echo(made)
    click.echo(f"on {name}, within {life}: edgekit-runtime enrol https://HOST:8884 TOKEN", err=True)


@enrol.command(short_help="Sign a request that was carried here.")
@_authority
@click.argument("request", type=click.Path(path_type=Path))
@click.option("--name", help="Whom the request must be of.")
@_days
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write (default: REQUEST.grant).")
def sign(folder: Path, request: Path, name: str | None, days: int, out: Path | None) -> None:
    """Sign a REQUEST that was carried here, and write what is to be carried back."""
    from edgekit.fleet.authority import Authority
    from edgekit.fleet.enrolment import sign_request
    from edgekit_contracts import limits
    from edgekit_contracts.decode import encode_json
    from edgekit_contracts.errors import TooLarge

    try:
        with request.open("rb") as file:
            data = file.read(limits.ENROLMENT_MAX_BYTES + 1)
    except OSError as error:
        raise MissingFile("request", str(request), error.strerror or str(error)) from error
    if len(data) > limits.ENROLMENT_MAX_BYTES:
        raise TooLarge("request", request.stat().st_size, limits.ENROLMENT_MAX_BYTES)
    path = out or request.with_suffix(".grant")
    with Authority(folder) as authority:
        found, grant = sign_request(authority, data.decode("ascii", "replace"), name, days)
    try:
        path.write_bytes(encode_json(grant))
    except OSError as error:
        raise StorageFault(str(path), error.strerror or str(error)) from error
    click.echo(path)
    click.echo(f"a certificate for {found}; there: edgekit-runtime enrol --accept {path.name}", err=True)


@enrol.command()
@_authority
@click.option("--host", multiple=True, required=True, help="By what name devices reach this (repeatable).")
@click.option("--listen", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8884, show_default=True)
def serve(folder: Path, host: tuple[str, ...], listen: str, port: int) -> None:
    """Answer devices that enrol or renew, over HTTPS, until Ctrl-C."""
    from edgekit.fleet.enrolment_server import EnrolmentServer
    from edgekit.process import log_to_stderr

    log_to_stderr()
    ended = threading.Event()
    with EnrolmentServer(folder, host, listen=listen, port=port) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        click.echo(f"enrolling at https://{host[0]}:{server.port}; Ctrl-C ends", err=True)
        ended.wait()


@click.command()
@_authority
@click.argument("name")
@click.option("--broker", type=click.Path(path_type=Path), help="The folder of `broker-config`: written there at once.")
def revoke(folder: Path, name: str, broker: Path | None) -> None:
    """Revoke every certificate of NAME, and end its tokens."""
    from edgekit.fleet import broker_config
    from edgekit.fleet.authority import Authority

    with Authority(folder) as authority:
        revoked = authority.revoke(name)
        if broker is not None:
            broker_config.publish(authority, broker)
        if not revoked:
            raise UsageError(f"there is no good certificate of '{name}'", "look at edgekit fleet ca list")
        crl = authority.crl_path
    click.echo(f"{revoked} certificate{'s' * (revoked > 1)} of {name} revoked: {crl}")
    step = "" if broker else "edgekit fleet ca publish BROKER_FOLDER, then "
    click.echo(f"the broker knows after: {step}systemctl reload mosquitto", err=True)


@click.command("broker-config", short_help="Write a configuration for Mosquitto.")
@_authority
@click.option("--broker", type=click.Choice(["mosquitto"]), default="mosquitto", show_default=True)
@click.option("--host", multiple=True, required=True, help="By what name clients reach the broker (repeatable).")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True)
@click.option("--listen", default="", help="Address to listen on (default: all).")
@click.option("--collector", multiple=True, default=("collector",), show_default=True, help="NAME of collector.NAME.")
@click.option("--app", multiple=True, help="NAME of app.NAME, which may ask devices' models (repeatable).")
@click.option(
    "--reader", multiple=True, help="NAME of app.NAME, which may read births, scalars and alerts (repeatable)."
)
@click.option("--home-assistant", is_flag=True, help="Devices announce themselves to Home Assistant.")
@click.option("--sparkplug", metavar="GROUP", help="Devices are edge nodes of Sparkplug B in this group.")
@click.option("--place", help="Where the files will lie on the broker's machine (default: the folder of --out).")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
def broker_config(
    folder: Path,
    broker: str,
    host: tuple[str, ...],
    port: int,
    listen: str,
    collector: tuple[str, ...],
    app: tuple[str, ...],
    reader: tuple[str, ...],
    home_assistant: bool,
    sparkplug: str | None,
    place: str | None,
    out: Path,
) -> None:
    """Write a broker's configuration: TLS, certificates, who may read and write what; every line explained."""
    from edgekit.fleet.authority import Authority
    from edgekit.fleet.broker_config import Plan, write_mosquitto

    plan = Plan(
        hosts=host,
        folder=place or str(out.absolute()),
        port=port,
        listen=listen,
        collectors=collector,
        apps=app,
        readers=reader,
        home_assistant=home_assistant,
        sparkplug=sparkplug,
    )
    with Authority(folder) as authority:
        for path in write_mosquitto(authority, out, plan):
            click.echo(path)
    click.echo(f"there: chown -R mosquitto {plan.folder}; mosquitto -c {plan.folder}/mosquitto.conf", err=True)


def _date(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_ms / 1000))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
