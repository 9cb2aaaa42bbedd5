"""`edgekit-runtime model`: a person shows, stages, activates and takes back the bundles of the service that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from edgekit_contracts.errors import EdgekitError, EnvironmentFault, Refused, UsageError
from edgekit_runtime.ask import ask, places
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.config import DeviceConfig

LOADING_S: Final = 600.0
"""A command may have to load a bundle first, and to wait for one before it."""


def stage(config: DeviceConfig, bundle: Path, plan: dict[str, Any], *, as_json: bool) -> None:
    """Tries a bundle beside the live one of its model.

    Args:
        config: The device's settings.
        bundle: The file.
        plan: What was said of how: `strategy`, `share` ...
        as_json: One JSON object.

    Raises:
        EdgekitError: As `command`; or the file is no bundle.
    """
    name = open_bundle(bundle, keys=None).manifest.name
    order = {"bundle": str(bundle.absolute()), **plan}
    _show([_command(config, name, "stage", msgspec.json.encode(order))], as_json)


def command(config: DeviceConfig, verb: str, model: str | None, *, as_json: bool) -> None:
    """Carries out another command.

    Args:
        config: The device's settings.
        verb: `activate`, `return`, `promote` or `drop`.
        model: Its name; where there is only one, it need not be said.
        as_json: One JSON object.

    Raises:
        UsageError: There is no such model, or it must be said which.
        Refused: The service refused the command.
        EnvironmentFault: No service runs here, or not on a Unix socket.
    """
    if model is None:
        served = [one["model"] for one in models(config)]
        if len(served) != 1:
            raise UsageError(f"{len(served)} models are served here", f"say which with --model: {', '.join(served)}")
        model = str(served[0])
    _show([_command(config, model, verb, b"")], as_json)


def show(config: DeviceConfig, *, as_json: bool) -> None:
    """Prints every model with its bundles.

    Raises:
        EnvironmentFault: No service runs here.
    """
    _show(models(config), as_json)


def models(config: DeviceConfig) -> list[dict[str, Any]]:
    """The models that are served here, as `/edgekit/status` shows them.

    Raises:
        EnvironmentFault: No service runs here.
    """
    status, body = ask(places(config), "/edgekit/status")
    if status != 200:
        raise EnvironmentFault(f"the service answers with status {status}", "look into its log")
    found: list[dict[str, Any]] = body["models"]
    return found


def _command(config: DeviceConfig, model: str, verb: str, body: bytes) -> dict[str, Any]:
    sockets = [address for address in places(config) if address.startswith("unix:")]
    if not sockets:
        raise EnvironmentFault("the service takes commands on a Unix socket alone", "set serve.socket in device.toml")
    status, found = ask(sockets, f"/edgekit/models/{model}/{verb}", "POST", LOADING_S, body)
    if status == 200:
        return dict(found)
    sentence, _, next_step = str(found.get("error")).partition("; ")
    kinds: dict[int, type[EdgekitError]] = {400: UsageError, 404: UsageError, 503: EnvironmentFault}
    raise kinds.get(status, Refused)(sentence, next_step or "look into the service's log")


def _show(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"schema": 1, "models": found}).decode())
        return
    for one in found:
        print(f"{one['model']} ({one['automation']})")
        print(f"  live       {_bundle(one['live'])}")
        candidate, former = one["candidate"], one["former"]
        if candidate is not None:
            share = f", {candidate['share']:.1%} of the keys" if "share" in candidate else ""
            print(f"  candidate  {_bundle(candidate)}  {candidate['strategy']}{share}{_agreement(candidate)}")
        if former is not None:
            print(f"  former     {_bundle(former)}")
        if "warning" in one:
            print(f"  warning    {one['warning']}")


def _bundle(found: dict[str, Any]) -> str:
    return f"{found['version']:<12}  {found['sha256'][:12]}"


def _agreement(candidate: dict[str, Any]) -> str:
    shadow = candidate.get("shadow")
    if shadow is None:
        return ""
    if shadow["fault"]:
        return f", stopped: {shadow['fault']}"
    found = shadow["agreement"]
    if not found["rows"]:
        return ", nothing to compare yet"
    return f", agrees in {found['share']:.2%} of {found['rows']:,} rows ({found['low']:.2%} to {found['high']:.2%})"
