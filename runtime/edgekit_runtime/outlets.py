"""Where other tools read this device: Sparkplug B and Home Assistant, each where the settings say so."""

from __future__ import annotations

from pathlib import Path

from edgekit_runtime.config import DeviceConfig, Telemetry
from edgekit_runtime.models import Models
from edgekit_runtime.mqtt import Broker
from edgekit_runtime.observe import ClosedWindow
from edgekit_runtime.uplink import Uplink


class Outlets:
    """What is published beside the telemetry; nothing, unless the settings say so.

    Args:
        config: The device's settings.
        telemetry: Of these.
        broker: Where to.
        models: What is live.
        uplink: Not yet started.
    """

    def __init__(
        self, config: DeviceConfig, telemetry: Telemetry, broker: Broker, models: Models, uplink: Uplink
    ) -> None:
        # Imported where they are asked for: most devices have neither.
        from edgekit_runtime.home_assistant import MARK, HomeAssistant, withdraw

        self._uplink, self._node = uplink, None
        self._readings = None
        state_dir = Path(config.state_dir)
        if telemetry.sparkplug or telemetry.home_assistant:
            from edgekit_runtime.readings import Readings

            readings = self._readings = Readings(config.device, lambda: models.running)
            if telemetry.home_assistant:
                home = HomeAssistant(lambda: readings.now, uplink.publish, state_dir)
                uplink.on_up = home.connected
                readings.tell(home.update)
            if telemetry.sparkplug:
                from edgekit_runtime.sparkplug.node import EdgeNode

                self._node = EdgeNode(
                    broker,
                    config.device,
                    lambda: readings.now,
                    group=telemetry.sparkplug_group,
                    host=telemetry.sparkplug_host,
                )
                readings.tell(self._node.update)
        if not telemetry.home_assistant and (state_dir / MARK).exists():
            uplink.on_up = lambda: withdraw(config.device, uplink.publish, state_dir)

    def start(self) -> None:
        """Begins."""
        if self._node is not None:
            self._node.start()

    def note(self, window: ClosedWindow) -> None:
        """A live model's window was closed."""
        if self._readings is not None:
            self._readings.note(window)

    def changed(self) -> None:
        """Other bundles are live."""
        self._uplink.announce()
        if self._readings is not None:
            self._readings.changed()

    def stop(self) -> None:
        """Ends what has a connection of its own."""
        if self._node is not None:
            self._node.stop()
