"""Home Assistant: one retained message that announces the device and its sensors, and the scalars that they read.

Source: Home Assistant, "MQTT", sections "Device discovery payload" and "Discovery topic"; "MQTT Sensor".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.state import Now
from edgekit_runtime import __version__
from edgekit_runtime.mqtt import Publication

Publish = Callable[[Publication, int], bool]
"""Hands a message to the broker, with its QoS; False while there is none."""

MARK: Final = "home-assistant"
"""In the state directory, while an announcement stands at the broker."""

_MODEL: Final[dict[str, dict[str, Any]]] = {
    "requests": {"name": "requests", "state_class": "measurement", "icon": "mdi:counter"},
    "failed": {"name": "failed requests", "state_class": "measurement", "icon": "mdi:alert-circle-outline"},
    "latency_p50_ms": {
        "name": "latency p50",
        "state_class": "measurement",
        "device_class": "duration",
        "unit_of_measurement": "ms",
    },
    "latency_p99_ms": {
        "name": "latency p99",
        "state_class": "measurement",
        "device_class": "duration",
        "unit_of_measurement": "ms",
    },
}
_DEVICE: Final[dict[str, dict[str, Any]]] = {
    "rss_mb": {
        "name": "memory",
        "state_class": "measurement",
        "device_class": "data_size",
        "unit_of_measurement": "MB",
        "entity_category": "diagnostic",
    },
    "outbox_records": {
        "name": "waiting records",
        "state_class": "measurement",
        "icon": "mdi:tray-full",
        "entity_category": "diagnostic",
    },
}
"""Attribute of `state.Now` -> what its sensor is."""


def discovery_topic(device: str) -> str:
    """Where the announcement stands; the device's name is a level of its own, as access rules need it (`%u`)."""
    return f"homeassistant/device/edgekit/{device}/config"


def discovery(now: Now) -> dict[str, Any]:
    """The announcement: a device, and a sensor for each scalar of it and of each live model."""
    device = now.device
    sensors = {name: _sensor(device, name, f"value_json.{name}", said) for name, said in _DEVICE.items()}
    for model in now.models:
        mine = f"value_json.models | selectattr('model', 'eq', '{model.model}')"
        for name, said in _MODEL.items():
            template, key = f"{mine} | map(attribute='{name}') | first", f"{model.model}_{name}"
            sensors[key] = _sensor(device, key, template, said, f"{model.model} ")
    versions = ", ".join(f"{one.model} {one.version}" for one in now.models)
    return {
        "device": {
            "identifiers": [f"edgekit-{device}"],
            "name": device,
            "manufacturer": "edgekit",
            "model": versions,
            "sw_version": __version__,
        },
        "origin": {"name": "edgekit", "sw_version": __version__},
        "state_topic": topics.now(device),
        "availability_topic": topics.status(device),
        "availability_template": "{{ 'offline' if value_json.dead else 'online' }}",
        "qos": 1,
        "components": sensors,
    }


def _sensor(device: str, name: str, value: str, said: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        **said,
        "platform": "sensor",
        "name": prefix + said["name"],
        "unique_id": f"edgekit-{device}-{name}",
        # What is not known (null) shows as "unknown".
        "value_template": f"{{{{ {value} }}}}",
    }


class HomeAssistant:
    """Keeps the announcement and the scalars at the broker.

    Args:
        now: The scalars.
        publish: Of the connection whose will is the device's status.
        state_dir: Where it is noted that something stands at the broker.
    """

    def __init__(self, now: Callable[[], Now], publish: Publish, state_dir: Path) -> None:
        self._now, self._publish, self._mark = now, publish, state_dir / MARK
        self._announced: bytes | None = None
        self._sensors: set[str] = set()

    def connected(self) -> None:
        """Announces the device: at each connection, for the broker may have forgotten it."""
        self._announced = None
        self.update()

    def update(self) -> None:
        """Publishes the scalars, and the announcement where it has changed. Both stand at the broker."""
        now = self._now()
        whole = discovery(now)
        # A sensor is removed by its platform alone; what is only left out stays.
        whole["components"] |= {name: {"platform": "sensor"} for name in self._sensors - whole["components"].keys()}
        self._sensors |= whole["components"].keys()
        said = msgspec.json.encode(whole)
        if said != self._announced and self._publish(Publication(discovery_topic(now.device), said, retain=True), 1):
            self._announced = said
            with contextlib.suppress(OSError):  # a full disk: then it cannot be taken back by itself
                self._mark.touch()
        # QoS 0: the next one is due soon.
        self._publish(Publication(topics.now(now.device), encode_json(now), retain=True), 0)


def withdraw(device: str, publish: Publish, state_dir: Path) -> None:
    """Takes back what stands at the broker from the time when the setting was on."""
    mark = state_dir / MARK
    if not mark.exists():
        return
    # An empty retained message removes one.
    gone = [publish(Publication(topic, b"", True), 1) for topic in (discovery_topic(device), topics.now(device))]
    if all(gone):
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
