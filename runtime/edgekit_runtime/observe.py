"""What the device counts: rows are copied into a block; a full block is counted on another thread.

`record` is on the request's time and does no arithmetic beyond the copy and one bisection. `close` folds what is left,
so that nothing is lost at a window's edge, and returns the window's body. Memory is bounded: where counting falls
behind, the requests wait for it. Moments are merged by Chan's formula.

Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
1979.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.limits import MOMENTS_MIN_ROWS
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.reference import LATENCY_BINS, Bins, latency_edges_us
from edgekit_contracts.telemetry import FeatureWindow, Software, Window, WindowCounts, encode_counts
from edgekit_runtime.engine import Answers, Batch

BLOCK_ROWS: Final = 256
BLOCKS_WAITING: Final = 64
"""Full blocks that may wait for the counting thread."""
ROOM_TIMEOUT_S: Final = 1.0

_log = logging.getLogger("edgekit.observe")


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A window, ready for the outbox."""

    n: int
    t0_ms: int
    dt_ms: int
    body: Window


class _Tally:
    """The sums of one window."""

    def __init__(self, bins: Bins) -> None:
        self.n = 0
        self.bins = [np.zeros(feature.size, dtype=np.int64) for feature in bins.features]
        self.null = np.zeros(len(bins.features), dtype=np.int64)
        self.invalid = np.zeros(len(bins.features), dtype=np.int64)
        self.out_of_range = np.zeros(len(bins.features), dtype=np.int64)
        self.classes = np.zeros(len(bins.classes), dtype=np.int64)
        self.scores = np.zeros(bins.score_size, dtype=np.int64)
        self.nulls = self.abstained = 0
        numeric = sum(feature.categories is None for feature in bins.features)
        self.count = np.zeros(numeric)
        self.mean = np.zeros(numeric)
        self.m2 = np.zeros(numeric)
        self.minimum = np.full(numeric, np.inf)
        self.maximum = np.full(numeric, -np.inf)


@dataclass(slots=True)
class _Block:
    """Rows that wait to be counted."""

    numbers: NDArray[np.float64]
    text: NDArray[np.object_]
    labels: NDArray[np.object_]
    scores: NDArray[np.float64]
    tally: _Tally
    """Of the window that the rows belong to."""
    used: int = 0


class Observer:
    """Counts what passes. `record` and the `count_*` methods may be called from several threads.

    Args:
        manifest: The bundle's manifest.
        bins: The reference's bins.
    """

    def __init__(self, manifest: Manifest, bins: Bins) -> None:
        self._manifest, self._spec = manifest, bins
        tensors = {("text" if tensor.dtype == "text" else "numbers"): tensor.features for tensor in manifest.inputs}
        self._number_columns = [tensors.get("numbers", ()).index(f.name) for f in bins.features if f.categories is None]
        self._text_columns = [tensors.get("text", ()).index(f.name) for f in bins.features if f.categories is not None]
        self._widths = len(tensors.get("numbers", ())), len(tensors.get("text", ()))
        self._edges = [np.array(f.edges) for f in bins.features if f.categories is None]
        self._ranges = [
            (f.minimum if f.minimum is not None else -np.inf, f.maximum if f.maximum is not None else np.inf)
            for f in bins.features
            if f.categories is None
        ]
        self._categories = [
            {text: index for index, text in enumerate(f.categories)} for f in bins.features if f.categories is not None
        ]
        self._positions = (
            [i for i, f in enumerate(bins.features) if f.categories is None],
            [i for i, f in enumerate(bins.features) if f.categories is not None],
        )
        self._class_index = {label: index for index, label in enumerate(bins.classes)}
        self._score_edges = np.array(bins.score_edges)
        self._latency_edges = latency_edges_us()
        self._started = time.monotonic()
        self._room = threading.Semaphore(BLOCKS_WAITING)

        self._lock = threading.Lock()  # the open block, the requests' counts
        self._fold_lock = threading.Lock()  # the tallies
        self._full: deque[_Block] = deque()
        self._wakeup = threading.Semaphore(0)
        self._running = True
        self._lost = 0
        self._begin()
        self._block = self._new_block()
        self._worker = threading.Thread(target=self._fold_forever, name="edgekit-observe", daemon=True)
        self._worker.start()

    def record(self, batch: Batch, answers: Answers, latency_us: float, *, resent: bool = False) -> None:
        """Takes note of one answered request.

        Args:
            batch: Its rows.
            answers: The model's answers.
            latency_us: From the request's arrival to its answer.
            resent: The same request was answered shortly before.
        """
        with self._lock:
            self._latency[bisect_left(self._latency_edges, latency_us)] += 1
            self._resent += resent
            done = 0
            while done < batch.rows:
                block = self._block
                take = min(batch.rows - done, BLOCK_ROWS - block.used)
                here, there = slice(block.used, block.used + take), slice(done, done + take)
                if batch.numbers is not None:
                    block.numbers[here] = batch.numbers[there]
                if batch.text is not None:
                    block.text[here] = batch.text[there]
                if answers.labels is not None:
                    block.labels[here] = answers.labels[there]
                block.scores[here] = answers.scores[there]
                block.used += take
                done += take
                if block.used == BLOCK_ROWS:
                    # Counting that falls behind slows the requests down; counting that is stuck must not stop them.
                    if not self._room.acquire(timeout=ROOM_TIMEOUT_S):
                        self._lost += BLOCK_ROWS
                        block.used = 0
                        continue
                    self._full.append(block)
                    self._block = self._new_block()
                    self._wakeup.release()

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
        with self._lock:
            block, tally = self._block, self._tally
            latency, resent, rejected, failed = self._latency, self._resent, self._rejected, self._failed
            t0_ms, t0, cpu0 = self._t0_ms, self._t0, self._cpu0
            self._begin()
            self._block = self._new_block()
        # The requests go on; whatever full block waits for the thread is of this window or of the next, and knows it.
        while self._fold_next(tally):
            pass
        with self._fold_lock:
            self._fold_safely(block)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        software = Software(
            calls=sum(latency),
            rejected=rejected,
            failed=failed,
            rss_kb=_rss_kb(),
            cpu_ms=max(0, round(1000 * (usage.ru_utime + usage.ru_stime - cpu0))),
            uptime_s=round(time.monotonic() - self._started),
            outbox_records=outbox_records,
        )
        body = Window(
            model=self._manifest.name,
            model_version=self._manifest.version,
            counts=encode_counts(_counts(tally, latency, resent)),
            moments=_moments(tally) if self._manifest.privacy.moments and tally.n >= MOMENTS_MIN_ROWS else b"",
            software=software,
        )
        return ClosedWindow(tally.n, t0_ms, round(1000 * (time.monotonic() - t0)), body)

    def stop(self) -> None:
        """Ends the counting thread; call `close` for what is left."""
        self._running = False
        self._wakeup.release()
        self._worker.join()

    def _begin(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._tally = _Tally(self._spec)
        self._latency = [0] * LATENCY_BINS
        self._resent = self._rejected = self._failed = 0
        self._t0_ms, self._t0 = round(time.time() * 1000), time.monotonic()
        self._cpu0 = usage.ru_utime + usage.ru_stime

    def _new_block(self) -> _Block:
        numbers, text = self._widths
        return _Block(
            np.empty((BLOCK_ROWS, numbers)),
            np.empty((BLOCK_ROWS, text), dtype=object),
            np.empty(BLOCK_ROWS, dtype=object),
            np.empty(BLOCK_ROWS),
            self._tally,
        )

    def _fold_forever(self) -> None:
        while self._running:
            self._wakeup.acquire()
            self._fold_next()

    def _fold_next(self, tally: _Tally | None = None) -> bool:
        """Counts the oldest full block; False where there is none (of that window)."""
        # Taking a block and counting it are one step to `close`, or a window could be sent without it.
        with self._fold_lock:
            if not self._full or (tally is not None and self._full[0].tally is not tally):
                return False
            block = self._full.popleft()
            self._room.release()
            self._fold_safely(block)
            return True

    def _fold_safely(self, block: _Block) -> None:
        try:
            with np.errstate(over="ignore"):
                self._fold(block)
        except Exception:
            # A fault of ours must stop neither the thread nor the window; what it took with it is said.
            self._lost += block.used
            _log.exception("%d rows could not be counted (%d so far)", block.used, self._lost)

    def _fold(self, block: _Block) -> None:
        tally, used = block.tally, block.used
        if not used:
            return
        tally.n += used
        numbers = block.numbers[:used][:, self._number_columns]
        for at, (position, edges, (low, high)) in enumerate(
            zip(self._positions[0], self._edges, self._ranges, strict=True)
        ):
            column = numbers[:, at]
            nan, infinite = np.isnan(column), np.isinf(column)
            values = column[~(nan | infinite)]
            tally.null[position] += nan.sum()
            tally.invalid[position] += infinite.sum()
            tally.out_of_range[position] += ((values < low) | (values > high)).sum()
            tally.bins[position] += np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)
            _merge_moments(tally, at, values)
        missing = self._manifest.missing_text
        for position, source, index in zip(self._positions[1], self._text_columns, self._categories, strict=True):
            texts = block.text[:used, source].tolist()
            found = np.array([-1 if text == missing else index.get(text, len(index)) for text in texts])
            tally.null[position] += (found < 0).sum()
            # Of a free text no value is known, so that none is out of range.
            tally.out_of_range[position] += (found == len(index)).sum() if index else 0
            tally.bins[position] += np.bincount(found[found >= 0], minlength=len(index) + 1)
        self._fold_answers(tally, block)

    def _fold_answers(self, tally: _Tally, block: _Block) -> None:
        scores = block.scores[: block.used]
        # Without probabilities there is no score; a label alone is not a null.
        null = np.isnan(scores) & bool(any(o.role != "label" for o in self._manifest.outputs))
        tally.nulls += int(null.sum())
        if self._class_index:
            labels = np.array([self._class_index[label] for label in block.labels[: block.used].tolist()])
            tally.classes += np.bincount(labels[~null], minlength=len(self._class_index))
        tally.scores += np.bincount(
            np.searchsorted(self._score_edges, np.nan_to_num(scores[~null])), minlength=len(self._score_edges) + 1
        )
        threshold = self._manifest.monitoring.abstain_below
        if threshold is not None:
            tally.abstained += int((scores < threshold).sum())


def _counts(tally: _Tally, latency: list[int], resent: int) -> WindowCounts:
    return WindowCounts(
        features=tuple(
            FeatureWindow(
                bins=tuple(tally.bins[i].tolist()),
                null=int(tally.null[i]),
                invalid=int(tally.invalid[i]),
                out_of_range=int(tally.out_of_range[i]),
            )
            for i in range(len(tally.bins))
        ),
        classes=tuple(tally.classes.tolist()),
        scores=tuple(tally.scores.tolist()),
        output_nulls=tally.nulls,
        abstained=tally.abstained,
        resent=resent,
        latency=tuple(latency),
    )


def _merge_moments(tally: _Tally, at: int, values: NDArray[np.float64]) -> None:
    n = len(values)
    if not n:
        return
    before, mean = tally.count[at], values.mean()
    delta = mean - tally.mean[at]
    total = before + n
    tally.m2[at] += ((values - mean) ** 2).sum() + delta**2 * before * n / total
    tally.mean[at] += delta * n / total
    tally.count[at] = total
    tally.minimum[at] = min(tally.minimum[at], values.min())
    tally.maximum[at] = max(tally.maximum[at], values.max())


def _moments(tally: _Tally) -> bytes:
    quadruples: NDArray[Any] = np.stack([tally.mean, tally.m2, tally.minimum, tally.maximum], axis=1)
    quadruples[tally.count == 0] = np.nan
    with np.errstate(over="ignore"):
        return quadruples.astype("<f4").tobytes()


def _rss_kb() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024
