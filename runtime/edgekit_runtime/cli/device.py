"""`doctor`, `status`, `config`, `selftest`, `unit` and `enrol`: the device itself, and the service that runs on it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgekit_contracts.errors import EdgekitError, EnvironmentFault
from edgekit_runtime.cli import echo_columns, echo_hanging, echo_json, say, settings_of, settings_of_the_service
from edgekit_runtime.settings import find_file, leaves


def add(commands: Any, settings: argparse.ArgumentParser) -> None:
    """Adds them to the command line; `settings` has `--config`."""
    doctor = commands.add_parser("doctor", parents=[settings], help="say what is wrong with this device, by name")
    doctor.set_defaults(action=_doctor)
    status = commands.add_parser("status", parents=[settings], help="ask the service that runs here")
    status.set_defaults(action=_status)
    config = commands.add_parser("config", parents=[settings], help="show every setting, and where it comes from")
    config.set_defaults(action=_config)
    unit = commands.add_parser("unit", help="print a systemd unit for this installation")
    unit.set_defaults(action=_unit)
    selftest = commands.add_parser("selftest", parents=[settings], help="have the running service replay golden sets")
    selftest.set_defaults(action=_selftest)
    for command in (doctor, status, selftest, config):
        command.add_argument("--json", action="store_true", help="one JSON object on standard output")

    enrol = commands.add_parser("enrol", parents=[settings], help="get this device its certificate, or the next one")
    enrol.set_defaults(action=_enrol)
    enrol.add_argument("url", nargs="?", metavar="https://HOST:8884", help="the fleet's enrolment service")
    enrol.add_argument("token", nargs="?", help="of `edgekit fleet enrol token`; - reads it from standard input")
    enrol.add_argument("--renew", action="store_true", help="the next certificate, by the one in force")
    enrol.add_argument("--request", type=Path, metavar="FILE", help="without a network: write a request to be signed")
    enrol.add_argument("--accept", type=Path, metavar="FILE", help="and take in what was granted")
    enrol.add_argument("--device", help="instead of the settings' name")
    enrol.add_argument("--dir", type=Path, help="where key and certificate lie, instead of the settings' files")


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict
    from itertools import chain

    from edgekit_runtime.doctor import Finding, examine, exit_code
    from edgekit_runtime.doctor.finding import INDENT

    config, findings = None, []
    if find_file(options.config) is None:
        first = Finding("settings", "warn", "no device.toml here", "name it with --config, to have all of it looked at")
    else:
        try:
            settings = settings_of(options)
            config = settings.config
            first = Finding("settings", "ok", f"{settings.path}: device {config.device}")
        except EdgekitError as error:
            first = Finding.of("settings", error)
    for finding in chain((first,), examine(config)):
        findings.append(finding)
        if not options.json:
            echo_hanging(finding.line(), INDENT)
    if options.json:
        echo_json({"schema": 1, "findings": [asdict(finding) for finding in findings]}, indent=2)
    return exit_code(findings)


def _status(options: argparse.Namespace) -> int:
    from edgekit_runtime.ask import ask, places

    settings = settings_of_the_service(options)
    status, body = ask(places(settings.config), "/edgekit/status")
    if status != 200:
        raise EnvironmentFault(f"the service answers with status {status}", "look into its log")
    if options.json:
        echo_json({"schema": 1, **body})
    else:
        echo_columns([(name, _shown(value)) for name, value in leaves(body)])
    return 0


def _shown(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _selftest(options: argparse.Namespace) -> int:
    from edgekit_runtime.ask import self_test

    found = self_test(settings_of_the_service(options).config)
    if options.json:
        echo_json({"schema": 1, **found})
    else:
        print(f"{found['golden_rows']} golden rows right (largest difference {found['max_difference']:.2g})")
    return 0


def _config(options: argparse.Namespace) -> int:
    from msgspec.structs import asdict

    settings = settings_of(options)
    if options.json:
        echo_json({"schema": 1, "settings": [asdict(setting) for setting in settings.listed()]})
    else:
        echo_columns([(one.name, json.dumps(one.value), one.origin) for one in settings.listed()])
    return 0


def _enrol(options: argparse.Namespace) -> int:
    from edgekit_runtime import enrolling

    return enrolling.run(options)


def _unit(options: argparse.Namespace) -> int:
    from importlib.resources import files

    program = Path(sys.argv[0]).resolve()
    text = (files("edgekit_runtime") / "files" / "edgekit-runtime.service").read_text(encoding="utf-8")
    print(text.replace("@PROGRAM@", str(program)), end="")
    if any(program.is_relative_to(home) for home in ("/home", "/root", "/run/user")):
        say(f"note: the unit does not let its service see {program.parents[-3]}; install edgekit-runtime elsewhere")
    return 0
