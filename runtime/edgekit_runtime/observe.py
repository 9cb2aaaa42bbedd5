"""What the device counts: rows wait in a block, and a full block is counted at once (`edgekit_runtime.tally`).

`record` copies a few rows and does no arithmetic; the request that fills a block counts it, in 1 to 2 ms once in some
thousands, so that nothing can fall behind and nothing needs a thread. Wide rows wait in shorter blocks: no
request pays for more than about `BLOCK_NUMBERS` numbers of others. `close` counts what is left, so that nothing is lost
at a window's edge, and returns the window's body.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from struct import pack
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from edgekit_contracts.counts import WindowCounts, decode_counts
from edgekit_contracts.limits import MOMENTS_MIN_ROWS
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.reference import LATENCY_BINS, Bins, Distance, latency_edges_us
from edgekit_contracts.telemetry import Software, Window
from edgekit_runtime.block import Rows, score_columns
from edgekit_runtime.engine import Answers, Batch
from edgekit_runtime.tally import Layout, Tally
from edgekit_runtime.varints import encode_varint_block

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_NUMBERS: Final = 131_072
"""Numbers in a block."""
_BLOCK_ROWS_LEAST: Final = 16
_BESIDE: Final = 20
"""Numbers whose counting takes as long as all else that is counted of a row."""
_LATENCIES: Final = 1024
"""Calls whose latency waits to be counted."""

_log = logging.getLogger("edgekit.observe")


class ClosedWindow(msgspec.Struct, frozen=True):
    """A window, ready for the outbox."""

    n: int
    t0_ms: int
    dt_ms: int
    body: Window
    bins: Bins

    @property
    def counts(self) -> WindowCounts:
        """The body's counts by name."""
        return decode_counts(self.body.counts, self.bins, self.n)


class Observer:
    """Counts what passes. All methods may be called from several threads.

    Args:
        manifest: The bundle's manifest.
        bins: The reference's bins.
        distance: The reference's distance, where it has one.
    """

    def __init__(self, manifest: Manifest, bins: Bins, distance: Distance | None = None) -> None:
        self._manifest = manifest
        self._layout = Layout(manifest, bins, distance)
        numbers = sum(len(tensor.features) for tensor in manifest.inputs if tensor.dtype != "text")
        self.block_rows = max(_BLOCK_ROWS_LEAST, BLOCK_NUMBERS // (numbers + _BESIDE))
        """Rows that are counted at once."""
        self._latency_edges_ns = 1000 * np.array([*latency_edges_us(), np.inf])
        self._started = time.monotonic()
        self._sources: list[Callable[[], None]] = []
        self._lock = threading.Lock()  # all that follows
        self._block = self._layout.block(self.block_rows)
        self._lost = 0
        self._begin()

    @property
    def bins(self) -> Bins:
        """What is counted on."""
        return self._layout.bins

    @property
    def class_numbers(self) -> Mapping[Any, int] | None:
        """As `Layout.class_numbers`."""
        return self._layout.class_numbers

    def labels(self, labels: NDArray[Any] | None) -> Sequence[float] | NDArray[Any]:
        """As `Layout.labels`."""
        return self._layout.labels(labels)

    @property
    def room(self) -> int:
        """Rows until those that wait are counted."""
        return self._block.size - self._block.rows

    def follow(self, flush: Callable[[], None]) -> None:
        """Names a place where answered rows wait: a closing window calls `flush`, which gives them to `count`."""
        self._sources.append(flush)

    def leave(self, flush: Callable[[], None]) -> None:
        """The place named to `follow` is no more; what waited there was counted."""
        self._sources.remove(flush)

    def record(self, batch: Batch, answers: Answers, latency_us: float | None, *, resent: bool = False) -> None:
        """Takes note of one answered request.

        Args:
            batch: Its rows.
            answers: The model's answers.
            latency_us: From the request's arrival to its answer; None where nobody asked: rows of a shadow are no call.
            resent: The same request was answered shortly before.
        """
        scores = score_columns(answers.labels is not None, answers.probabilities, answers.values)
        text = () if batch.text is None else batch.text.tolist()
        labels = self.labels(answers.labels)
        latencies_ns = () if latency_us is None else (1000 * latency_us,)
        self.count(Rows(batch.rows, batch.numbers, text, labels, scores), latencies_ns, resent=resent)

    def count(self, rows: Rows, latencies_ns: Sequence[float] | NDArray[np.int64], *, resent: int = 0) -> None:
        """Counts answered rows, of one call or several.

        Args:
            rows: The rows.
            latencies_ns: Of the calls that answered them.
            resent: Of these calls, those that were made before.
        """
        with self._lock:
            self._resent += resent
            if isinstance(latencies_ns, np.ndarray):
                self._add_latencies(latencies_ns)
            else:
                self._latencies_ns += latencies_ns
                if len(self._latencies_ns) >= _LATENCIES:
                    self._count_latencies()
            self._keep(rows)

    def count_resent(self) -> None:
        """A call that was counted had been made before."""
        with self._lock:
            self._resent += 1

    def count_rejected(self) -> None:
        """A request was refused for what was in it."""
        with self._lock:
            self._rejected += 1

    def count_failed(self) -> None:
        """A request failed in the runtime."""
        with self._lock:
            self._failed += 1

    def close(self, *, outbox_records: int = 0) -> ClosedWindow:
        """Ends the window, begins the next one, and returns what was counted."""
        for flush in tuple(self._sources):
            flush()
        with self._lock:
            self._count_block()
            self._count_latencies()
            tally, latency_below = self._tally, self._latency_below
            resent, rejected, failed = self._resent, self._rejected, self._failed
            t0_ms, t0, cpu0 = self._t0_ms, self._t0, self._cpu0
            self._begin()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        software = Software(
            calls=int(latency_below[-1]),
            rejected=rejected,
            failed=failed,
            rss_kb=resident_kb(),
            cpu_ms=max(0, round(1000 * (usage.ru_utime + usage.ru_stime - cpu0))),
            uptime_s=round(time.monotonic() - self._started),
            outbox_records=outbox_records,
        )
        body = Window(
            model=self._manifest.name,
            model_version=self._manifest.version,
            counts=encode_varint_block(tally.counts(latency_below, resent)),
            moments=tally.moments() if self._manifest.privacy.moments and tally.n >= MOMENTS_MIN_ROWS else b"",
            software=software,
            distances=tally.distances(),
        )
        return ClosedWindow(tally.n, t0_ms, round(1000 * (time.monotonic() - t0)), body, self._layout.bins)

    def _begin(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._tally = Tally(self._layout)
        self._latency_below = np.zeros(LATENCY_BINS, dtype=np.int64)
        """Calls at or below each edge, and all of them."""
        self._latencies_ns: list[float] = []
        self._resent = self._rejected = self._failed = 0
        self._t0_ms, self._t0 = round(time.time() * 1000), time.monotonic()
        self._cpu0 = usage.ru_utime + usage.ru_stime

    def _keep(self, rows: Rows) -> None:
        """Copies rows into the block, and has it counted whenever it is full."""
        block, start = self._block, 0
        try:
            while rows.rows - start > (room := block.size - block.rows):
                block.take(rows.part(start, start + room))
                self._count_block()
                start += room
            block.take(rows.part(start, rows.rows) if start else rows)
        except Exception:
            self._lose(rows.rows - start)
        if block.rows == block.size:
            self._count_block()

    def _count_block(self) -> None:
        block = self._block
        if not block.rows:
            return
        try:
            with np.errstate(over="ignore"):
                self._tally.add(block)
        except Exception:
            self._lose(block.rows)
        block.clear()

    def _lose(self, rows: int) -> None:
        """A fault of ours must stop neither the answers nor the window; what it took with it is said."""
        self._lost += rows
        _log.exception("%d rows could not be counted (%d so far)", rows, self._lost)

    def _count_latencies(self) -> None:
        # NumPy makes an array of a list in three times the time.
        self._add_latencies(np.frombuffer(pack(f"{len(self._latencies_ns)}d", *self._latencies_ns)))
        self._latencies_ns = []

    def _add_latencies(self, latencies_ns: NDArray[Any]) -> None:
        """As features are counted: sorted, and the edges looked up in them."""
        latencies = latencies_ns.astype(np.float64)
        latencies.sort()
        self._latency_below += latencies.searchsorted(self._latency_edges_ns, "right")


def resident_kb() -> int:
    """Resident memory of this process; where no descriptor is left to read it with, the most that it ever was."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)  # a file object takes as long again
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return int(os.read(file, 128).split()[1]) * resource.getpagesize() // 1024
    finally:
        os.close(file)
