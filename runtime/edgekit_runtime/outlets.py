"""Where other tools read this device: Sparkplug B and Home Assistant, each where the settings say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.broker import Broker
from edgekit_runtime.config import DeviceConfig, Telemetry
from edgekit_runtime.home_assistant import HomeAssistant, withdraw
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.models import Models
from edgekit_runtime.mqtt import Timing
from edgekit_runtime.observe import ClosedWindow
from edgekit_runtime.readings import Readings
from edgekit_runtime.uplink import Uplink

if TYPE_CHECKING:
    from edgekit_runtime.sparkplug.node import EdgeNode


class Outlets:
    """What is published beside the telemetry.

    Args:
        config: The device's settings.
        telemetry: Of these.
        broker: Where to.
        models: What is live.
        uplink: Not yet started.
        ledger: Counts the bytes.
        timing: Of a further connection.
    """

    def __init__(
        self,
        config: DeviceConfig,
        telemetry: Telemetry,
        broker: Broker,
        models: Models,
        uplink: Uplink,
        ledger: Ledger,
        timing: Timing,
    ) -> None:
        self._uplink = uplink
        self._readings = readings = Readings(config.device, lambda: models.running)
        self._node: EdgeNode | None = None
        state_dir = Path(config.state_dir)
        if telemetry.home_assistant:
            home = HomeAssistant(lambda: readings.now, uplink.publish, state_dir)
            uplink.on_up = home.connected
            readings.tell(home.update)
        else:
            uplink.on_up = lambda: withdraw(config.device, uplink.publish, state_dir)
        if telemetry.sparkplug:
            # Few devices speak it: the others do not carry it.
            from edgekit_runtime.sparkplug.node import EdgeNode

            group, host = telemetry.sparkplug_group, telemetry.sparkplug_host
            self._node = EdgeNode(
                broker,
                config.device,
                lambda: readings.now,
                ledger,
                uplink.affords,
                group=group,
                host=host,
                timing=timing,
            )
            readings.tell(self._node.update)

    def start(self) -> None:
        """Begins."""
        if self._node is not None:
            self._node.start()

    def note(self, window: ClosedWindow) -> None:
        """A live model's window was closed."""
        self._readings.note(window)

    def changed(self) -> None:
        """Other bundles are live."""
        self._uplink.announce()
        self._readings.changed()

    def stop(self) -> None:
        """Ends what has a connection of its own."""
        if self._node is not None:
            self._node.stop()
