"""The settings, read again while the service runs: what changes at once, and what waits for a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgekit_contracts.errors import EdgekitError
from edgekit_runtime import logs
from edgekit_runtime.config import DeviceConfig, Serve
from edgekit_runtime.digests import file_sha256
from edgekit_runtime.events import Events
from edgekit_runtime.models import Models
from edgekit_runtime.settings import hide_password, leaves

_log = logging.getLogger("edgekit.reload")


class Reload:
    """Goes over to other settings. What is wrong in them changes nothing.

    Args:
        config: What the service was started with.
        read: Reads the settings again.
        models: What is served.
        adopt: Takes the server's limits.
        events: Where it is told.
        reconnect: Connects to the broker anew, where the certificates are other ones.
    """

    def __init__(
        self,
        config: DeviceConfig,
        read: Callable[[], DeviceConfig],
        models: Models,
        adopt: Callable[[Serve], None],
        events: Events | None = None,
        reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        """What is in force."""
        self._read, self._models, self._adopt, self._reconnect = read, models, adopt, reconnect
        self._certificates = _certificates(config)
        self._events = events or Events()

    def __call__(self) -> None:
        """Reads the settings, applies what can be, and says in the log what waits for a restart.

        Raises:
            EdgekitError: They are wrong, or a bundle that they name does not load; all is as it was.
        """
        try:
            self._go_over()
        except EdgekitError as error:
            self._events.tell("settings refused", error.sentence)
            raise

    def _go_over(self) -> None:
        wanted = self._read()
        now = applicable(self.config, wanted)
        # Also where no setting has changed: a bundle's file may be another one.
        lines = self._models.apply(now).result()
        logs.configure(now.log)
        self._adopt(now.serve)
        applied, waiting = changes(self.config, now), changes(now, wanted)
        self.config = now
        for name, (before, after) in applied.items():
            _log.info("%s", f"{name} is {_shown(after)} now (was {_shown(before)})")
        for line in lines:
            _log.info("%s", line)
        for name, (before, after) in waiting.items():
            _log.warning("%s", f"{name} stays {_shown(before)} until a restart ({_shown(after)} is set)")
        self.renewed()
        _log.info("settings read again: %d changed, %d wait for a restart", len(applied), len(waiting))
        self._events.tell("settings applied", "; ".join(lines) or f"{len(applied)} changed, {len(waiting)} wait")

    def renewed(self) -> None:
        """Connects to the broker anew if the certificates' files hold something else than at the last connection."""
        certificates = _certificates(self.config)
        if certificates != self._certificates:
            self._certificates = certificates
            _log.info("the certificates are other ones: connecting to the broker anew")
            self._reconnect()


def _certificates(config: DeviceConfig) -> tuple[str | None, ...]:
    telemetry = config.telemetry
    files = () if telemetry is None else (telemetry.ca, telemetry.cert, telemetry.key)
    return tuple(file_sha256(Path(file)) for file in files if file is not None)


def applicable(old: DeviceConfig, new: DeviceConfig) -> DeviceConfig:
    """The settings that can be in force without a restart: the new ones, but for addresses, threads and the state."""
    replace = msgspec.structs.replace
    serve = replace(
        new.serve, host=old.serve.host, port=old.serve.port, socket=old.serve.socket, threads=old.serve.threads
    )
    telemetry = old.telemetry
    if telemetry is not None and new.telemetry is not None:
        telemetry = replace(telemetry, window_s=new.telemetry.window_s)
    return replace(
        old,
        bundle=new.bundle,
        models=new.models,
        keys=new.keys,
        log=new.log,
        serve=serve,
        telemetry=telemetry,
        self_test_every_h=new.self_test_every_h,
    )


def changes(old: DeviceConfig, new: DeviceConfig) -> Mapping[str, tuple[Any, Any]]:
    """Every setting that differs: its name -> what it was and what it is to be; None where it is not set."""
    # A list without anything in it is not set.
    before, after = ({k: v for k, v in leaves(msgspec.to_builtins(one)) if v != ()} for one in (old, new))
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _shown(value: object) -> str:
    return "not set" if value is None else hide_password(str(value))
