"""The uplink: the device's MQTT agent. It carries the outbox to the centre and hears what the centre stores.

| module | does |
|---|---|
| `agent` | two threads: hears the centre, and has sent what is due |
| `dispatch` | what is sent now, and what had better wait or be given up |
| `births` | what the centre is told of this device: that it is there, and that it is not |
| `state` | what is shown of all that |
"""

from __future__ import annotations

from edgekit_runtime.uplink.agent import REPLAY_BURST_BYTES, Uplink
from edgekit_runtime.uplink.state import UplinkState

__all__ = ["REPLAY_BURST_BYTES", "Uplink", "UplinkState"]
