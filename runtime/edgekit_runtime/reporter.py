"""A window every so often: what the observers counted goes to the outbox, and the uplink is told.

The reference goes first, in parts, so that the collector can read the windows of a bundle that it has never seen.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.errors import FormatError, StorageFault, TooLarge
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Clock, Kind, Labels, ReferencePart, Software, encode
from edgekit_runtime.events import Events
from edgekit_runtime.observe import ClosedWindow
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.source import Source, clock_now

MEMORY_WINDOWS: Final = 1440
"""Windows kept in memory while the disk refuses them: a day at one a minute."""

FAILING_REQUESTS: Final = 3
FAILING_SHARE: Final = 0.01
"""So many requests of a window, and this share of them, must fail to be told of."""

_log = logging.getLogger("edgekit.reporter")


class Reporter:
    """Closes the windows of several bundles, each in its time, on a thread of its own.

    Args:
        outbox: Where records wait.
        wake: Called when there is something to send.
        events: What is told on this device.
        counting: Called with the bins of all bundles that report, whenever there are others.
    """

    def __init__(
        self,
        outbox: Outbox,
        wake: Callable[[], None],
        events: Events | None = None,
        counting: Callable[[Sequence[Bins]], None] = lambda bins: None,
    ) -> None:
        self._outbox, self._wake, self._events = outbox, wake, events or Events()
        self._counting = counting
        self._given_up = outbox.given_up
        self.on_closed: Callable[[ClosedWindow], None] = lambda window: None
        """Told each window of a live bundle."""
        self.verdicts: Callable[[], Iterable[Labels]] = list
        """What people said of the models' answers, all in all."""
        self._labels: dict[tuple[str, str], Labels] = {}  # as they were last stored
        self._sources: list[Source] = []
        self._waiting: deque[tuple[Source, ClosedWindow, Clock]] = deque(maxlen=MEMORY_WINDOWS)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="edgekit-reporter", daemon=True)
        self.pulse = Pulse("the reporter", lambda: self._orders.put(lambda: None))

    def start(self, sources: Iterable[Source]) -> None:
        """Stores the references of the first bundles, each unless all of it waits already, and begins.

        Raises:
            StorageFault: The outbox cannot be written.
        """
        for source in sources:
            self._store_reference(source)
            self._sources.append(source)
        self._tell_counting()
        self._events.on_told = lambda: self._orders.put(self._store_events)
        self._orders.put(self._store_events)
        self._thread.start()

    def add(self, source: Source) -> None:
        """Another bundle counts from now on."""

        def first() -> None:
            self._sources.append(source)
            self._tell_counting()

        self._orders.put(first)

    def close_window(self, source: Source) -> None:
        """Ends the present window of a bundle now."""
        self._orders.put(lambda: self._report(source))

    def retire(self, source: Source) -> None:
        """A bundle counts no more: its last window is closed and stored."""

        def last() -> None:
            if source in self._sources:
                self._sources.remove(source)
                self._tell_counting()
            else:  # it was let go before we began
                source.idles = True
            self._report(source)

        self._orders.put(last)

    def stop(self) -> None:
        """Closes the last windows, stores them, and ends the thread."""
        self._orders.put(None)
        self._thread.join()

    def _tell_counting(self) -> None:
        self._counting([source.observer.bins for source in self._sources])

    def _run(self) -> None:
        while True:
            self.pulse.beat()
            due_s = min((source.due_s for source in self._sources), default=time.monotonic() + 60.0)
            try:
                order = self._orders.get(timeout=max(0.0, due_s - time.monotonic()))
            except queue.Empty:
                for source in [one for one in self._sources if one.due_s <= time.monotonic()]:
                    source.due_s += source.window_s
                    self._carry_out(partial(self._report, source))
                continue
            if order is None:
                break
            self._carry_out(order)
        for source in self._sources:
            self._carry_out(partial(self._report, source))

    def _carry_out(self, order: Callable[[], None]) -> None:
        try:
            order()
        except Exception:  # a fault of ours in one window must not stop the others
            _log.exception("the reporter failed, and goes on")

    def _report(self, source: Source) -> None:
        begins = clock_now()
        window = source.observer.close(outbox_records=self._outbox.records)
        clock, source.clock = source.clock, begins
        software = window.body.software
        if source.idles and not (window.n or software.calls or software.rejected or software.failed):
            return
        if not source.idles:
            self.on_closed(window)
        self._judge(source, software)
        if len(self._waiting) == MEMORY_WINDOWS:
            _log.error("a window is lost: the outbox has refused windows for too long")
        self._waiting.append((source, window, clock))
        try:
            while self._waiting:
                self._store(*self._waiting[0])
                self._waiting.popleft()
        except StorageFault as fault:
            _log.error("%s; %d windows wait in memory; %s", fault.sentence, len(self._waiting), fault.next_step)
            self._events.tell("disk refuses", fault.sentence)
        if (lost := self._outbox.given_up - self._given_up) > 0:
            self._given_up += lost
            self._events.tell("records given up", f"{lost} gave way: the outbox is full")
        self._store_events()
        self._store_labels()
        self._wake()

    def _judge(self, source: Source, software: Software) -> None:
        """Tells of a bundle on which requests begin to fail."""
        requests = software.calls + software.rejected + software.failed
        fails = software.failed >= max(FAILING_REQUESTS, FAILING_SHARE * requests)
        if fails and not source.fails:
            self._events.tell("requests fail", f"{source.manifest.title}: {software.failed} of {requests} in a window")
        source.fails = fails

    def _store_labels(self) -> None:
        """Stores the totals that are not those of the last time."""
        try:
            for labels in self.verdicts():
                if self._labels.get(key := (labels.model, labels.model_version)) != labels:
                    now_ms, clock = _now_ms(), clock_now()
                    self._outbox.append(Kind.LABELS, encode(labels), n=labels.reviewed, t0_ms=now_ms, clock=clock)
                    self._labels[key] = labels
        except StorageFault as fault:
            _log.warning("the centre does not hear of reviews: %s", fault.sentence)

    def _store_events(self) -> None:
        """Stores what was told, in order; what the disk refuses waits."""
        while (told := self._events.oldest) is not None:
            try:
                self._outbox.append(Kind.EVENT, encode(told.event), t0_ms=told.at_ms, clock=clock_now())
            except StorageFault:
                return
            except (TooLarge, FormatError) as error:
                _log.error("an event is lost: %s", error.sentence)
            self._events.stored(told)
            self._wake()

    def _store(self, source: Source, window: ClosedWindow, clock: Clock) -> None:
        if not source.stored:
            self._store_reference(source)
        body = encode(window.body)
        try:
            self._append(source, Kind.WINDOW, body, n=window.n, t0_ms=window.t0_ms, dt_ms=window.dt_ms, clock=clock)
        except (TooLarge, FormatError) as error:
            # A window that cannot travel (its clock before 1970, for one) must not stop the others.
            _log.error("a window of %d rows is lost: %s", window.n, error.sentence)

    def _store_reference(self, source: Source) -> None:
        """All parts or none, so that those of one text stand side by side: by that the collector knows them."""
        self._outbox.learn(source.bins_id, source.observer.bins)
        if self._latest_parts(source) != source.parts:
            parts = [encode(part) for part in source.parts]
            self._outbox.append_all(Kind.REFERENCE, parts, bins_id=source.bins_id, t0_ms=_now_ms(), clock=clock_now())
        source.stored = True

    def _latest_parts(self, source: Source) -> list[ReferencePart]:
        """The parts of this bundle's reference that wait, of each number the latest, in order."""
        manifest, found = source.manifest, dict[int, ReferencePart]()
        for body in self._outbox.bodies(Kind.REFERENCE, source.bins_id):
            try:
                part = decode_msgpack(body, ReferencePart, what="telemetry body", limit=limits.RECORD_MAX_BYTES)
            except (FormatError, TooLarge):
                continue
            if (part.model, part.model_version) == (manifest.name, manifest.version):
                found[part.part] = part
        return [found[number] for number in sorted(found)]

    def _append(self, source: Source, kind: Kind, body: bytes, *, n: int, t0_ms: int, dt_ms: int, clock: Clock) -> None:
        self._outbox.append(kind, body, bins_id=source.bins_id, n=n, t0_ms=t0_ms, dt_ms=dt_ms, clock=clock)


def _now_ms() -> int:
    return max(0, round(time.time() * 1000))
