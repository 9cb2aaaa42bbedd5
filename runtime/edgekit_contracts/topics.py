"""The MQTT topic tree, as frozen values. Topics are matched exactly, never by prefix.

| topic | direction | content |
|---|---|---|
| `ek/1/st/DEVICE` | up, retained | `state.Status` (birth; last will) |
| `ek/1/up/P/DEVICE/w` | up | windows, gaps, reference parts |
| `ek/1/up/P/DEVICE/e` | up | events |
| `ek/1/dn/DEVICE/ack` | down | `telemetry.Ack`, after the collector's commit |
| `ek/1/dn/DEVICE/cmd` | down | commands |
| `ek/1/dn/DEVICE/want` | down, retained | `state.Want` |
| `ek/1/dn/DEVICE/infer/MODEL` | down | a request of the Open Inference Protocol, in JSON |
| `ek/1/up/P/DEVICE/answer/MODEL` | up | its answer |
| `ek/1/now/DEVICE` | up, retained | `state.Now`, where the settings say so |
| `ek/1/alert/DEVICE` | from the centre | `alerts.Alert`: what a person should hear of |
| `ek/1/host/COLLECTOR` | retained | `state.Host` (presence; last will) |

P = crc32(device) mod 16 lets collectors share a fleet on any broker.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import Final, Literal, Self

import msgspec

from edgekit_contracts.names import DEVICE_PATTERN, MODEL_PATTERN

ROOT: Final = "ek/1"
PARTITIONS: Final = 16

ALL_STATUS: Final = f"{ROOT}/st/+"
ALL_UP: Final = f"{ROOT}/up/+/+/+"
ALL_HOSTS: Final = f"{ROOT}/host/+"

_NAME: Final = DEVICE_PATTERN[1:-1]
_UP: Final = re.compile(rf"{ROOT}/up/(?P<partition>[0-9]|1[0-5])/(?P<device>{_NAME})/(?P<lane>[we])")
_STATUS: Final = re.compile(rf"{ROOT}/st/(?P<device>{_NAME})")
_INFER: Final = re.compile(rf"{ROOT}/dn/(?P<device>{_NAME})/infer/(?P<model>{MODEL_PATTERN[1:-1]})")
_HOST: Final = re.compile(rf"{ROOT}/host/(?P<collector>{_NAME})")


@lru_cache(maxsize=1 << 16)
def partition(device: str) -> int:
    """The device's share of the fleet, 0 to 15."""
    return zlib.crc32(device.encode()) % PARTITIONS


def every_up(partition: int) -> str:
    """The filter of what the devices of one partition send."""
    return f"{ROOT}/up/{partition}/+/+"


def up_partition(topic: str) -> int | None:
    """The partition in a topic that `every_up` hears, or None."""
    match = _UP.fullmatch(topic)
    return int(match["partition"]) if match else None


class Up(msgspec.Struct, frozen=True):
    """A lane from a device: windows (`w`) or events (`e`)."""

    device: str
    lane: Literal["w", "e"] = "w"

    def __str__(self) -> str:
        return f"{ROOT}/up/{partition(self.device)}/{self.device}/{self.lane}"

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """The lane that a topic names, or None; a topic with the wrong partition is none of ours."""
        match = _UP.fullmatch(topic)
        if match is None or int(match["partition"]) != partition(match["device"]):
            return None
        return cls(match["device"], "w" if match["lane"] == "w" else "e")


class Infer(msgspec.Struct, frozen=True):
    """Where a device takes requests to a model."""

    device: str
    model: str

    def __str__(self) -> str:
        return f"{ROOT}/dn/{self.device}/infer/{self.model}"

    @classmethod
    def parse(cls, topic: str) -> Self | None:
        """The device and model that a topic names, or None."""
        match = _INFER.fullmatch(topic)
        return cls(match["device"], match["model"]) if match else None

    @property
    def answer(self) -> str:
        """Where the answers go, unless a request says otherwise."""
        return f"{ROOT}/up/{partition(self.device)}/{self.device}/answer/{self.model}"


def every_infer(device: str) -> str:
    """The filter of a device's requests, to any model."""
    return f"{ROOT}/dn/{device}/infer/+"


def status(device: str) -> str:
    """Where a device's birth and last will stand."""
    return f"{ROOT}/st/{device}"


def status_device(topic: str) -> str | None:
    """The device of a status topic, or None."""
    match = _STATUS.fullmatch(topic)
    return match["device"] if match else None


def ack(device: str) -> str:
    """Where a device hears what was stored."""
    return f"{ROOT}/dn/{device}/ack"


def now(device: str) -> str:
    """Where a device's scalars stand."""
    return f"{ROOT}/now/{device}"


def alert(device: str) -> str:
    """Where people and other tools hear of a device's alerts."""
    return f"{ROOT}/alert/{device}"


def command(device: str) -> str:
    """Where a device takes commands."""
    return f"{ROOT}/dn/{device}/cmd"


def want(device: str) -> str:
    """Where a device's desired state stands."""
    return f"{ROOT}/dn/{device}/want"


def host(collector: str) -> str:
    """Where a collector's presence stands."""
    return f"{ROOT}/host/{collector}"


def host_collector(topic: str) -> str | None:
    """The collector of a presence topic, or None."""
    match = _HOST.fullmatch(topic)
    return match["collector"] if match else None
