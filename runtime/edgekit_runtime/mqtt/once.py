"""A connection for one question or one message."""

from __future__ import annotations

import secrets

from edgekit_contracts.errors import BrokerUnreachable
from edgekit_runtime.broker import Broker
from edgekit_runtime.dialect import Dialect
from edgekit_runtime.mqtt.link import Link
from edgekit_runtime.mqtt.messages import Publication
from edgekit_runtime.mqtt.patience import Timing


def probe(broker: Broker, timeout_s: float = 5.0) -> Dialect:
    """Connects once and disconnects: does a broker answer there, does it let us in, and what does it speak?

    Raises:
        BrokerUnreachable: No, and why.
    """
    return _once(broker, f"ek-probe-{secrets.token_hex(4)}", None, timeout_s)


def publish_once(broker: Broker, client_id: str, publication: Publication, timeout_s: float = 5.0) -> None:
    """Connects, publishes one message, waits until the broker has it, and disconnects.

    Raises:
        BrokerUnreachable: No broker took it.
    """
    _once(broker, client_id, publication, timeout_s)


def _once(broker: Broker, client_id: str, publication: Publication | None, timeout_s: float) -> Dialect:
    timing = Timing(connect_timeout_s=timeout_s)
    link = Link(
        broker,
        client_id,
        will=lambda: None,
        subscriptions=(),
        on_up=lambda: None,
        on_message=lambda received: None,
        on_down=lambda reason: None,
        timing=timing,
    )
    link.start()
    reason = link.wait_first(timeout_s + (timing.probe_s if broker.protocol == "auto" else 0.0))
    dialect = link.dialect
    link.stop(publication, timeout_s)
    if reason is not None or dialect is None:
        raise BrokerUnreachable(str(broker), reason or "connection lost")
    return dialect
