"""The settings, read again while the service runs: what changes at once, and what waits for a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.settings import leaves

LIVE: Final = frozenset({"log.level", "log.format", "telemetry.window_s"})
"""Settings that are applied to a running service."""


def changes(old: DeviceConfig, new: DeviceConfig) -> Mapping[str, tuple[Any, Any]]:
    """Every setting that differs: its name -> what it was and what it is to be."""
    before, after = (dict(leaves(msgspec.to_builtins(one))) for one in (old, new))
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
