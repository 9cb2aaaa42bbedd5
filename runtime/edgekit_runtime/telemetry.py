"""A service's telemetry: outbox, uplink, reporter and outlets, put together.

What it imports (SQLite, MQTT) takes as long as all else that a start does, and no answer needs it: the service imports
this module when it answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import onnxruntime

from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.reference import Bins
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Event, Kind, encode
from edgekit_runtime import __version__
from edgekit_runtime.broker import Broker
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.events import Events
from edgekit_runtime.lean import import_paho
from edgekit_runtime.ledger import FILE as LEDGER
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.models import Models
from edgekit_runtime.mqtt import Publication, Timing, publish_once
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.outlets import Outlets
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.reporter import Reporter
from edgekit_runtime.serving.message import Request, Response
from edgekit_runtime.serving.mqtt import MqttServer
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.thrift import Thrift, keepalive_s, rhythm
from edgekit_runtime.uplink import REPLAY_BURST_BYTES, Uplink

_log = logging.getLogger("edgekit.service")

DRAIN_S: Final = 3.0
"""How long a service that stops waits for the collector; what is left stays in the outbox."""


def report_refusal(config: DeviceConfig, broker: Broker, refusal: EdgekitError) -> None:
    """Tells the centre why this device runs nothing, where a broker answers at once."""
    try:
        with Outbox(Path(config.state_dir) / "outbox.db", config.device) as outbox:
            status = Status(
                device=config.device,
                session=outbox.session,
                epoch=outbox.epoch,
                dead=True,
                agent=f"edgekit-runtime {__version__}",
                onnxruntime=onnxruntime.__version__,
                refused=refusal.sentence[:500],
                outbox_records=outbox.records,
            )
            event = encode(Event("bundle refused", refusal.sentence[:1024]))
            outbox.append(Kind.EVENT, event, t0_ms=max(0, time.time_ns() // 1_000_000))  # sent once it starts
            publication = Publication(topics.status(config.device), encode_json(status), retain=True)
            publish_once(broker, f"ek-{config.device}", publication)
    except EdgekitError as fault:
        _log.warning("the centre does not hear of this: %s", fault.sentence)


def open_ledger(config: DeviceConfig) -> Ledger:
    """What the bytes of all connections are counted in."""
    return Ledger(Path(config.state_dir) / LEDGER)


def start(
    config: DeviceConfig,
    broker: Broker,
    models: Models,
    events: Events,
    ledger: Ledger,
    stack: ExitStack,
    pulses: list[Pulse],
) -> Uplink:
    """Begins to store and to send; what was counted before is in the first window.

    Args:
        config: The device's settings, with telemetry.
        broker: Where to.
        models: What is counted.
        events: What is told.
        ledger: Counts the bytes.
        stack: What ends it, in reverse.
        pulses: The threads are added.

    Raises:
        StorageFault, UnsupportedFormat: The outbox cannot be used.
    """
    telemetry = config.telemetry
    assert telemetry is not None
    import_paho(tls=broker.tls or telemetry.enrolment is not None)
    outbox = Outbox(
        Path(config.state_dir) / "outbox.db",
        config.device,
        max_bytes=int(telemetry.outbox_mb * 1e6),
        keep_s={Kind.WINDOW: 3600 * telemetry.keep_windows_h, Kind.EVENT: 3600 * telemetry.keep_events_h},
    )
    stack.callback(outbox.close)
    started_ms = round(time.time() * 1000)

    def birth() -> Status:
        return Status(
            device=config.device,
            session=outbox.session,
            agent=f"edgekit-runtime {__version__}",
            onnxruntime=onnxruntime.__version__,
            running=models.running,
            started_ms=started_ms,
        )

    pace = (
        None if telemetry.replay_kb_s == "unlimited" else TokenBucket(1000 * telemetry.replay_kb_s, REPLAY_BURST_BYTES)
    )
    cap = None if telemetry.daily_cap_kb is None else 1000 * telemetry.daily_cap_kb
    thrift, timing = Thrift(cap, keepalive_s(telemetry)), Timing(keepalive_s=keepalive_s(telemetry))
    uplink = Uplink(broker, outbox, birth, timing=timing, ledger=ledger, thrift=thrift, pace=pace)

    uplink.on_contested = lambda reason: events.tell("name shared", reason)

    def counting(bins: Sequence[Bins]) -> None:
        before, thrift.rhythm = thrift.rhythm, rhythm(telemetry, bins)
        if before != thrift.rhythm:
            uplink.announce()  # it says how often to expect windows

    reporter = Reporter(outbox, uplink.wake, events, counting)
    outlets = Outlets(config, telemetry, broker, models, uplink, ledger, timing)
    reporter.on_closed = outlets.note
    models.changed = outlets.changed
    sources = list(models.report_to(reporter))
    counting([source.observer.bins for source in sources])
    uplink.start()
    stack.callback(uplink.stop)
    outlets.start()
    stack.callback(outlets.stop)
    reporter.start(sources)
    # In reverse: the last window is stored, a collector that is there gets a moment to take it, then the farewell.
    stack.callback(_drain, uplink)
    stack.callback(reporter.stop)
    pulses += [reporter.pulse, uplink.pulse]
    return uplink


def answer_requests(
    config: DeviceConfig,
    broker: Broker,
    answer: Callable[[Request], Response],
    ledger: Ledger,
    stack: ExitStack,
    pulses: list[Pulse],
) -> MqttServer:
    """Begins to answer requests that come over the broker; arguments as `start`."""
    assert config.telemetry is not None
    timing = Timing(keepalive_s=keepalive_s(config.telemetry))
    server = MqttServer(broker, config.device, answer, config.serve, ledger=ledger, timing=timing)
    server.start()
    stack.callback(server.stop, config.serve.drain_timeout_s)
    pulses.append(server.pulse)
    return server


def _drain(uplink: Uplink) -> None:
    uplink.hurry()
    deadline = time.monotonic() + DRAIN_S
    while (state := uplink.state).state == "connected" and state.outbox_records and time.monotonic() < deadline:
        time.sleep(0.02)
