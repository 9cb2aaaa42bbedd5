"""The process on the device: everything is checked before the first socket is opened, and stopped in reverse."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime

from edgekit_contracts.errors import EdgekitError, StorageFault, UnsupportedFormat
from edgekit_runtime import __version__
from edgekit_runtime.again import Again
from edgekit_runtime.broker import broker_of
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.events import Events
from edgekit_runtime.keeper import Keeper
from edgekit_runtime.lock import Lock, hold
from edgekit_runtime.models import Models
from edgekit_runtime.notify import Notifier
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.reload import Reload
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.server import addresses, bind, serve_until_signal
from edgekit_runtime.vouching import Vouching

if TYPE_CHECKING:
    from edgekit_runtime.broker import Broker
    from edgekit_runtime.ledger import Ledger
    from edgekit_runtime.serving.message import Request, Response
    from edgekit_runtime.serving.mqtt import MqttServer
    from edgekit_runtime.uplink import Uplink, UplinkState

_log = logging.getLogger("edgekit.service")


def run(
    config: DeviceConfig,
    say: Callable[[str], None],
    read: Callable[[], DeviceConfig] | None = None,
    vouching: Vouching | None = None,
) -> None:
    """Verifies, tests, serves and reports until a signal.

    Args:
        config: What `device.toml` says.
        say: Takes a line for a person at each step.
        read: Reads the settings again, on SIGHUP; None: they are what they are.
        vouching: Knows who signed bundles that were verified already.

    Raises:
        EdgekitError: A step refused and nothing was served, or a self-test while it serves failed.
    """
    events = Events()
    with ExitStack() as stack:
        held = _hold(config, stack)
        try:
            models = Models(config, say, events, vouching)
        except EdgekitError as refusal:
            if config.telemetry is not None and held is not None:
                from edgekit_runtime.telemetry import report_refusal

                report_refusal(config, broker_of(config.telemetry), refusal)
            raise
        sockets = bind(config.serve)
        for opened in sockets:
            stack.callback(opened.close)
        where = ", ".join(addresses(sockets))
        if held is not None:
            held.tell(addresses(sockets))
        stack.callback(models.close)
        outward = _Outward(config, say, models, events, stack.enter_context(ExitStack()))
        tested: dict[str, Any] = {}

        def status() -> dict[str, Any]:
            return {
                "device": config.device,
                "agent": f"edgekit-runtime {__version__}",
                "onnxruntime": onnxruntime.__version__,
                "models": models.status(),
                "telemetry": outward.uplink_state or outward.said,
                "self_test": tested,
            }

        stack.callback(models.stop)
        asking = stack.enter_context(ExitStack())

        def titles() -> str:
            return ", ".join(f"{one.model} {one.version}" for one in models.running)

        app = App(models.served, status, config.serve, models.command, uplink=lambda: outward.uplink_state)

        def finish() -> None:
            outward.begin(asking, app.answer)
            if config.telemetry is not None and config.telemetry.enrolment is not None:
                from edgekit_runtime.renewal import Renewal  # with an HTTP client, which nobody else needs

                asking.enter_context(Renewal(config.device, config.telemetry, reload.renewed))
                say(f"renewing    the certificate at {config.telemetry.enrolment}")
            # What stays is not looked through again and again.
            gc.freeze()
            gc.enable()
            # A request waits so long for a thread that loads another bundle, or stores; 5 ms is the default.
            sys.setswitchinterval(0.0005)

        def announce() -> None:
            say(f"serving     {titles()} at {where}")
            events.tell("started", f"edgekit-runtime {__version__} serves {titles()}")

        reload = Reload(config, read or (lambda: config), models, app.adopt, events, outward.reconnect)
        keeper = Keeper(
            Notifier(),
            status=lambda: f"serving {titles()}",
            reload=reload,
            test=lambda: _test(models, tested, events),
            test_every_s=lambda: None if (hours := reload.config.self_test_every_h) is None else 3600 * hours,
            announce=announce,
            finish=finish,
            pulses=outward.pulses,
        )
        try:
            serve_until_signal(app, sockets, keeper)
        finally:
            keeper.settle()
        events.tell("stopped", "asked to" if keeper.fault is None else str(keeper.fault))
        say("stopping    no new requests; storing the last window")
        if keeper.fault is not None:
            raise keeper.fault


class _Outward:
    """What goes to the centre, and what comes over the broker: begun behind the first answers.

    Args:
        config: What `device.toml` says.
        say: Takes a line for a person.
        models: Whose windows are reported.
        events: What is told on this device.
        reporting: Ends the reports.
    """

    def __init__(
        self, config: DeviceConfig, say: Callable[[str], None], models: Models, events: Events, reporting: ExitStack
    ) -> None:
        self._config, self._say, self._models, self._events = config, say, models, events
        self._reporting = reporting
        self._broker = None if config.telemetry is None else broker_of(config.telemetry)
        self._uplink: Uplink | None = None
        self._requests: MqttServer | None = None
        self.said = "off" if self._broker is None else "starting"
        """How it stands, in words."""
        self.pulses: list[Pulse] = []
        """Threads that must go on."""

    @property
    def uplink_state(self) -> UplinkState | None:
        """How the uplink stands, once there is one."""
        return None if self._uplink is None else self._uplink.state

    def begin(self, asking: ExitStack, answer: Callable[[Request], Response]) -> None:
        """Reports, now or once the disk lets it, and answers what comes over the broker.

        Args:
            asking: Ends what is asked for.
            answer: Answers a request.
        """
        telemetry, broker = self._config.telemetry, self._broker
        if telemetry is None or broker is None:
            self._say("telemetry   off")
            return
        from edgekit_contracts import topics
        from edgekit_runtime.telemetry import answer_requests, open_ledger

        ledger = open_ledger(self._config)
        report = partial(self._report, broker, ledger)
        if not report():
            asking.enter_context(Again(report))
        if telemetry.infer:
            self._requests = answer_requests(self._config, broker, answer, ledger, asking, self.pulses)
            self._say(f"answering   {topics.every_infer(self._config.device)} of {broker}")

    def reconnect(self) -> None:
        """Connects to the broker anew."""
        for one in (self._uplink, self._requests):
            if one is not None:
                one.reconnect()

    def _report(self, broker: Broker, ledger: Ledger) -> bool:
        """Begins to report; whether that is settled."""
        from edgekit_runtime.telemetry import start

        before, done = self.said, True
        try:
            with ExitStack() as started:
                self._uplink = start(self._config, broker, self._models, self._events, ledger, started, self.pulses)
                self._reporting.push(started.pop_all())
            self.said = f"to {broker} as {self._config.device}"
        except (StorageFault, OSError) as fault:
            # A full disk must not stop the answers, nor a lack of descriptors.
            why = fault.sentence if isinstance(fault, StorageFault) else fault.strerror or str(fault)
            self.said, done = f"off: {why}; it is tried again", False
        except UnsupportedFormat as fault:
            self.said = f"off: {fault.sentence}"
        if self.said != before:
            self._say(f"telemetry   {self.said}")
        return done


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
