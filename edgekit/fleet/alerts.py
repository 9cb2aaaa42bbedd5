"""Alerts in JSON, at `ek/1/alert/DEVICE`: what devices tell, once it is stored, and what the centre sees by itself.

An alarm of the centre is told when it begins and when it is over, never in between; a collector that starts tells all
that stand. They are not retained, and are lost while there is no connection: what is stored is the truth.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Self

import msgspec

from edgekit.fleet.status import AlarmKind, DeviceStatus
from edgekit_contracts import topics
from edgekit_contracts.alerts import LEVELS, Alert, Level
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.telemetry import Envelope, Event
from edgekit_runtime.mqtt import Publication

EVERY_S: Final = 60.0

_ALARM_LEVELS: Final[dict[AlarmKind, Level]] = {
    "drift": "warning",
    "offline": "warning",
    "silent": "warning",
    "shared": "warning",
    "lost": "warning",
    "failed": "error",
    "quarantined": "warning",
    "refused": "error",
    "unreadable": "error",
}

log = logging.getLogger(__name__)


class Alerts:
    """Publishes alerts.

    Args:
        publish: Hands a message to the broker; False while there is none.
        look: The fleet as it stands.
        minds: Whether this collector minds a device; another one's alarms are another one's to tell.
        every_s: Seconds between two looks.
        clock_ms: Milliseconds since 1970.
    """

    def __init__(
        self,
        publish: Callable[[Publication], bool],
        look: Callable[[], Iterable[DeviceStatus]],
        *,
        minds: Callable[[str], bool] = lambda device: True,
        every_s: float = EVERY_S,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._publish, self._look, self._minds = publish, look, minds
        self._every_s, self._clock_ms = every_s, clock_ms
        self._standing: dict[tuple[str, str | None, AlarmKind], Alert] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def stored(self, events: Iterable[tuple[Envelope, Event]]) -> None:
        """Tells the events that were stored now."""
        for envelope, event in events:
            alert = Alert(
                id=f"{envelope.device}/{envelope.epoch}/{envelope.sequence}",
                device=envelope.device,
                source="device",
                name=event.name,
                level=LEVELS.get(event.name, "info"),
                detail=event.detail,
                at_ms=envelope.t0_ms,
            )
            self._tell(alert)

    def look(self) -> None:
        """Compares the fleet's alarms with those of the last look, and tells what is different."""
        now: dict[tuple[str, str | None, AlarmKind], Alert] = {}
        for line in filter(lambda line: self._minds(line.device), self._look()):
            for kind, detail in zip(line.alarm_kinds, line.alarms, strict=True):
                key: tuple[str, str | None, AlarmKind] = (line.device, line.model, kind)
                at_ms = self._clock_ms()
                now[key] = self._standing.get(key) or Alert(
                    id=f"{line.device}/{line.model or '-'}/{kind}/{at_ms}",
                    device=line.device,
                    source="centre",
                    name=kind,
                    level=_ALARM_LEVELS[kind],
                    detail=detail[:1024] if line.model is None else f"{line.model} {line.version}: {detail}"[:1024],
                    at_ms=at_ms,
                )
        for key in now.keys() - self._standing.keys():
            if not self._tell(now[key]):
                del now[key]  # at the next look
        for key in [key for key in self._standing.keys() - now.keys() if self._minds(key[0])]:
            over = msgspec.structs.replace(self._standing[key], over=True, at_ms=self._clock_ms())
            if not self._tell(over):
                now[key] = self._standing[key]
        self._standing = now

    def _tell(self, alert: Alert) -> bool:
        return self._publish(Publication(topics.alert(alert.device), encode_json(alert)))

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self.look()
            except EdgekitError as error:
                log.warning("no look at the fleet's alarms: %s", error)
            except Exception:
                log.exception("no look at the fleet's alarms")
