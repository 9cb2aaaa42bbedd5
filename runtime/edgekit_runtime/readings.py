"""Scalars for other tools: what the last window of each live model says, in numbers that need no bins to be read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from edgekit_contracts.latency import percentile_ms
from edgekit_contracts.state import ModelNow, Now, Running
from edgekit_runtime.observe import ClosedWindow

_log = logging.getLogger("edgekit.readings")


class Readings:
    """The last readings of a device. Safe to use from several threads.

    Args:
        device: Its name.
        running: What is live.
    """

    def __init__(self, device: str, running: Callable[[], Iterable[Running]]) -> None:
        self._device, self._running = device, running
        self._lock = threading.Lock()
        self._models: dict[str, ModelNow] = {}
        self._last: ClosedWindow | None = None
        self._listeners: list[Callable[[], None]] = []

    def tell(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after each window; it must return soon."""
        self._listeners.append(listener)

    def note(self, window: ClosedWindow) -> None:
        """A live model's window was closed."""
        if not self._listeners:
            return  # most devices have none, and save the reading
        with self._lock:
            self._last = window
            self._models[window.body.model] = _scalars(window)
        self.changed()

    def changed(self) -> None:
        """There is something new to say, such as another bundle."""
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                # Whoever calls has the windows to store.
                _log.exception("other tools are not told of the readings")

    @property
    def now(self) -> Now:
        """As the last windows say; a model that has had none yet is there with its name alone."""
        with self._lock:
            known, last = dict(self._models), self._last
        models = tuple(
            found
            if (found := known.get(one.model)) and found.version == one.version
            else ModelNow(model=one.model, version=one.version)
            for one in self._running()
        )
        at_ms = max(0, round(time.time() * 1000))
        if last is None:
            return Now(device=self._device, at_ms=at_ms, models=models)
        software = last.body.software
        return Now(
            device=self._device,
            at_ms=at_ms,
            rss_mb=round(software.rss_kb * 1024 / 1e6, 1),
            cpu_percent=_percent(software.cpu_ms, last.dt_ms),
            uptime_s=software.uptime_s,
            outbox_records=software.outbox_records,
            models=models,
        )


def _scalars(window: ClosedWindow) -> ModelNow:
    counts, software, rows = window.counts, window.body.software, window.n
    values = rows * len(counts.features)
    p50, p99 = (percentile_ms(counts.latency, percent) for percent in (50, 99))
    return ModelNow(
        model=window.body.model,
        version=window.body.model_version,
        window_s=window.dt_ms / 1000,
        requests=software.calls,
        rejected=software.rejected,
        failed=software.failed,
        latency_p50_ms=None if p50 is None else round(p50, 4),
        latency_p99_ms=None if p99 is None else round(p99, 4),
        null_percent=_percent(sum(one.null for one in counts.features), values),
        out_of_range_percent=_percent(sum(one.out_of_range for one in counts.features), values),
        abstained_percent=_percent(counts.abstained, rows),
    )


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 3) if whole else None
