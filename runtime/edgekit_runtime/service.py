"""The process on the device: everything is checked before the first socket is opened, and stopped in reverse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import onnxruntime

from edgekit_contracts import topics
from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import EdgekitError, StorageFault, UnsupportedFormat
from edgekit_contracts.reference import Bins
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import Event, Kind, encode
from edgekit_runtime import __version__
from edgekit_runtime.broker import Broker, broker_of
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.events import Events
from edgekit_runtime.keeper import Keeper
from edgekit_runtime.ledger import FILE as LEDGER
from edgekit_runtime.ledger import Ledger
from edgekit_runtime.lock import Lock, hold
from edgekit_runtime.models import Models
from edgekit_runtime.mqtt import Publication, Timing, publish_once
from edgekit_runtime.notify import Notifier
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.outlets import Outlets
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.reload import Reload
from edgekit_runtime.reporter import Reporter
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.mqtt import MqttServer
from edgekit_runtime.serving.server import addresses, bind, serve_until_signal
from edgekit_runtime.strategies.budget import TokenBucket
from edgekit_runtime.thrift import Thrift, keepalive_s, rhythm
from edgekit_runtime.uplink import REPLAY_BURST_BYTES, Uplink

_log = logging.getLogger("edgekit.service")

DRAIN_S: Final = 3.0
"""How long a service that stops waits for the collector; what is left stays in the outbox."""


def run(config: DeviceConfig, say: Callable[[str], None], read: Callable[[], DeviceConfig] | None = None) -> None:
    """Verifies, tests, serves and reports until a signal.

    Args:
        config: What `device.toml` says.
        say: Takes a line for a person at each step.
        read: Reads the settings again, on SIGHUP; None: they are what they are.

    Raises:
        EdgekitError: A step refused and nothing was served, or a self-test while it serves failed.
    """
    events = Events()
    with ExitStack() as stack:
        held = _hold(config, stack)
        try:
            models = Models(config, say, events)
        except EdgekitError as refusal:
            if config.telemetry is not None and held is not None:
                _report_refusal(config, broker_of(config.telemetry), refusal)
            raise
        sockets = bind(config.serve)
        for opened in sockets:
            stack.callback(opened.close)
        where = ", ".join(addresses(sockets))
        if held is not None:
            held.tell(addresses(sockets))
        uplink, telemetry = None, "off"
        pulses: list[Pulse] = []
        broker = None if config.telemetry is None else broker_of(config.telemetry)
        ledger = Ledger(Path(config.state_dir) / LEDGER)
        if broker is not None:
            try:
                with ExitStack() as started:
                    uplink = _start_telemetry(config, broker, models, events, ledger, started, pulses)
                    stack.push(started.pop_all())
                telemetry = f"to {broker} as {config.device}"
            except (StorageFault, UnsupportedFormat) as fault:
                # A full disk must not stop the answers; nothing is counted until the service is started again.
                telemetry = f"off: {fault.sentence}"
        say(f"telemetry   {telemetry}")

        tested: dict[str, Any] = {}

        def status() -> dict[str, Any]:
            return {
                "device": config.device,
                "agent": f"edgekit-runtime {__version__}",
                "onnxruntime": onnxruntime.__version__,
                "models": models.status(),
                "telemetry": uplink.state if uplink is not None else telemetry,
                "self_test": tested,
            }

        stack.callback(models.stop)

        def titles() -> str:
            return ", ".join(f"{one.model} {one.version}" for one in models.running)

        app = App(
            models.served,
            status,
            config.serve,
            models.command,
            uplink=lambda: None if uplink is None else uplink.state,
        )
        requests: MqttServer | None = None
        if broker is not None and config.telemetry is not None and config.telemetry.infer:
            requests = MqttServer(
                broker,
                config.device,
                app.answer,
                config.serve,
                ledger=ledger,
                timing=Timing(keepalive_s=keepalive_s(config.telemetry)),
            )
            requests.start()
            pulses.append(requests.pulse)
            stack.callback(requests.stop, config.serve.drain_timeout_s)
            say(f"answering   {topics.every_infer(config.device)} of {broker}")

        def announce() -> None:
            say(f"serving     {titles()} at {where}")
            events.tell("started", f"edgekit-runtime {__version__} serves {titles()}")

        def reconnect() -> None:
            for one in (uplink, requests):
                if one is not None:
                    one.reconnect()

        reload = Reload(config, read or (lambda: config), models, app.adopt, events, reconnect)
        if config.telemetry is not None and config.telemetry.enrolment is not None:
            from edgekit_runtime.renewal import Renewal  # with an HTTP client, which nobody else needs

            stack.enter_context(Renewal(config.device, config.telemetry, reload.renewed))
            say(f"renewing    the certificate at {config.telemetry.enrolment}")
        keeper = Keeper(
            Notifier(),
            status=lambda: f"serving {titles()}",
            reload=reload,
            test=lambda: _test(models, tested, events),
            test_every_s=lambda: None if (hours := reload.config.self_test_every_h) is None else 3600 * hours,
            announce=announce,
            pulses=pulses,
        )
        serve_until_signal(app, sockets, keeper)
        events.tell("stopped", "asked to" if keeper.fault is None else keeper.fault.sentence)
        say("stopping    no new requests; storing the last window")
        if keeper.fault is not None:
            raise keeper.fault


def _test(models: Models, tested: dict[str, Any], events: Events) -> None:
    tested.clear()
    try:
        found = models.test().result()
    except EdgekitError as error:
        events.tell("self-test failed", error.sentence)
        tested.update(error=f"{error.sentence}; {error.next_step}", at_ms=round(time.time() * 1000))
        raise
    rows, difference = sum(one.rows for one in found.results), max(one.max_difference for one in found.results)
    _log.info("self-test: %d golden rows right, largest difference %.2g", rows, difference)
    tested.update(golden_rows=rows, max_difference=difference, faults=found.faults, at_ms=round(time.time() * 1000))


def _hold(config: DeviceConfig, stack: ExitStack) -> Lock | None:
    try:
        return stack.enter_context(hold(Path(config.state_dir)))
    except StorageFault as fault:
        # Without telemetry a disk that takes no file must not stop the answers.
        if config.telemetry is not None:
            raise
        _log.warning("%s; nobody can be told where this service answers", fault.sentence)
        return None


def _report_refusal(config: DeviceConfig, broker: Broker, refusal: EdgekitError) -> None:
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


def _start_telemetry(
    config: DeviceConfig,
    broker: Broker,
    models: Models,
    events: Events,
    ledger: Ledger,
    stack: ExitStack,
    pulses: list[Pulse],
) -> Uplink:
    telemetry = config.telemetry
    assert telemetry is not None
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


def _drain(uplink: Uplink) -> None:
    uplink.hurry()
    deadline = time.monotonic() + DRAIN_S
    while (state := uplink.state).state == "connected" and state.outbox_records and time.monotonic() < deadline:
        time.sleep(0.02)
