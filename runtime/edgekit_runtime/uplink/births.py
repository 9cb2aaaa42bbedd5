"""What the centre is told of this device: that it is there, and that it is not."""

from __future__ import annotations

from msgspec.structs import replace

from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.state import Status
from edgekit_runtime.mqtt import Publication
from edgekit_runtime.outbox import Outbox


def birth(outbox: Outbox, made: Status | None, sends_s: float) -> Publication:
    """A session of the device is there.

    Args:
        outbox: Whose session, epoch and fill it is.
        made: What the device runs.
        sends_s: How often windows are sent.
    """
    whole = replace(
        made or Status(device=outbox.device, session=0),
        device=outbox.device,
        session=outbox.session,
        epoch=outbox.epoch,
        dead=False,
        outbox_records=outbox.records,
        sends_s=sends_s,
    )
    return _publication(whole)


def death(outbox: Outbox) -> Publication:
    """It has gone: the last will, and the farewell."""
    return _publication(Status(device=outbox.device, session=outbox.session, epoch=outbox.epoch, dead=True))


def _publication(status: Status) -> Publication:
    return Publication(topics.status(status.device), encode_json(status), retain=True)
