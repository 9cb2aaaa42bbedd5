"""`edgekit doctor`: what is wrong with this machine or installation, by name."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import click

from edgekit.cli.output import echo_json, echo_table
from edgekit_contracts.errors import EdgekitError
from edgekit_runtime.doctor.finding import Finding, exit_code
from edgekit_runtime.doctor.software import onnxruntime
from edgekit_runtime.installed import installed_version


@click.command(short_help="Whether all that edgekit needs is here.")
@click.option("--broker", help="Also try this MQTT broker.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM file of the broker's authority.")
@click.option("--cert", type=click.Path(path_type=Path), help="PEM file of a certificate to show it.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of its key.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def doctor(broker: str | None, ca: Path | None, cert: Path | None, key: Path | None, as_json: bool) -> int:
    """Look at Python, the libraries, the runtime, keys, disk (and a broker); exit 3 if something is broken."""
    findings = [*chain.from_iterable(look() for look in _LOOKS)]
    if broker is not None:
        findings.append(_broker(broker, ca, cert, key))
    if as_json:
        echo_json({"findings": [asdict(finding) for finding in findings]})
    else:
        colours = {"ok": "green", "warn": "yellow", "FAIL": "red"}
        echo_table(
            ["check", "verdict", "detail"],
            [
                [
                    f.check,
                    click.style(f.verdict, fg=colours[f.verdict]),
                    "; ".join(filter(None, (f.sentence, f.next_step))),
                ]
                for f in findings
            ],
        )
    return exit_code(findings)


def _python() -> Iterator[Finding]:
    name, release = platform.libc_ver()
    detail = f"Python {platform.python_version()} on {platform.machine()}, {name or 'unknown libc'} {release}"
    fits = sys.platform == "linux" and name == "glibc" and platform.machine() in {"x86_64", "aarch64"}
    yield (
        Finding("platform", "ok", detail)
        if fits
        else Finding("platform", "warn", detail, "onnxruntime has wheels for Linux with glibc on x86-64 and aarch64")
    )


def _libraries() -> Iterator[Finding]:
    extras = {
        "build": ("onnx", "skl2onnx", "scikit-learn", "pandas", "protobuf", "skops"),
        "runtime": ("onnxruntime", "numpy", "httptools", "cryptography"),
        "collector": ("paho-mqtt", "scipy"),
    }
    for extra, names in extras.items():
        found: dict[str, str] = {}
        lacking = []
        for name in names:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                lacking.append(name)
        detail = ", ".join(f"{name} {release}" for name, release in found.items())
        if lacking:
            yield Finding(
                extra, "warn", f"not installed: {', '.join(lacking)}", f"pip install 'edgekit-toolkit[{extra}]'"
            )
        elif found.get("protobuf", "6").partition(".")[0] not in {"4", "5", "6"}:
            yield Finding(extra, "FAIL", detail, "pip install 'protobuf<7': skl2onnx fails with protobuf 7")
        else:
            yield Finding(extra, "ok", detail)


def _runtime() -> Iterator[Finding]:
    # A centre needs none, and `_libraries` says where it lacks.
    if installed_version("onnxruntime"):
        yield from onnxruntime()


def _keys() -> Iterator[Finding]:
    from edgekit_runtime.trust import own_directory

    private = own_directory() / "edgekit.pem"
    if not private.exists():
        yield Finding("signing key", "warn", "none yet", "'edgekit build' makes one, or 'edgekit keys create'")
    elif private.stat().st_mode & 0o077:
        yield Finding("signing key", "FAIL", f"others can read {private}", f"chmod 600 {private}")
    else:
        yield Finding("signing key", "ok", str(private))


def _disk() -> Iterator[Finding]:
    free_mb = shutil.disk_usage(os.getcwd()).free / 1e6
    detail = f"{free_mb:,.0f} MB free here"
    yield Finding("disk", "ok", detail) if free_mb > 200 else Finding("disk", "FAIL", detail, "free some space")


def _mosquitto() -> Iterator[Finding]:
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    yield (
        Finding("mosquitto", "ok", path)
        if path
        else Finding("mosquitto", "warn", "not installed; some tests skip", "apt install mosquitto")
    )


_LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _libraries, _runtime, _keys, _disk, _mosquitto)


def _broker(url: str, ca: Path | None, cert: Path | None, key: Path | None) -> Finding:
    from edgekit_runtime.broker import Broker
    from edgekit_runtime.mqtt import probe

    try:
        dialect = probe(Broker.parse(url, ca=ca, cert=cert, key=key, protocol="auto"))
    except EdgekitError as error:
        return Finding.of("broker", error)
    return Finding("broker", "ok", f"{url} answers, and speaks {dialect}")
