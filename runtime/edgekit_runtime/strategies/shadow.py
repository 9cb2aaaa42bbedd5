"""A candidate that sees the traffic and is never heard.

The request's thread copies its rows into a bounded queue, and nothing else. A thread of its own runs the candidate,
many requests at once, compares its answers with what the live model said, and counts. A budget of processor time and a
brake on the live model's latency (`budget`) keep it harmless: beyond them fewer requests are looked at, and none waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.limits import MIB
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.slots import Plan
from edgekit_runtime.engine import Answers, Batch, Engine
from edgekit_runtime.interface import rewritten
from edgekit_runtime.observe import Observer
from edgekit_runtime.strategies.agreement import Agreement, Share
from edgekit_runtime.strategies.budget import Brake, TokenBucket

REQUESTS_WAITING_MAX: Final = 1024
BYTES_WAITING_MAX: Final = 4 * MIB
REQUEST_ROWS_MAX: Final = 64
"""Rows of one request that are looked at."""
PAUSE_S: Final = 0.05
"""Between two runs; what came meanwhile is answered together."""
RUN_S: Final = 0.002
"""How long one run may take: a longer one would hold a core that a request may want."""
RUN_ROWS_MAX: Final = 256
DEPTH_S: Final = 0.5
"""Processor time that may be saved up."""
FAILURES_MAX: Final = 20
"""Requests that fail in a row before the shadow gives up."""
VALUES: Final = "value"
"""The group of a model without labels."""

_log = logging.getLogger("edgekit.shadow")


class Candidate(Protocol):
    """What a shadow needs of a bundle in service."""

    @property
    def engine(self) -> Engine:
        """What answers."""
        ...

    @property
    def observer(self) -> Observer:
        """What counts."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowState:
    """How a shadow stands."""

    overall: Share
    groups: dict[str, Share]
    """By the live model's answer."""
    skipped_rows: int
    """Not looked at, to save time."""
    failed_rows: int
    """The candidate gave no answer; counted as disagreement."""
    level: float
    """Of the permitted share of a processor, what the brake leaves."""
    fault: str | None
    """Why it has given up."""


class Shadow:
    """Runs a candidate beside a live model.

    Args:
        live: The live bundle's manifest.
        candidate: What is tried.
        plan: What it may cost, and what it calls equal.
    """

    def __init__(self, live: Manifest, candidate: Candidate, plan: Plan) -> None:
        self._live, self._candidate, self._plan = live, candidate, plan
        self._agreement = Agreement()
        self._brake = Brake(allowed=self._plan.p99_growth)
        self._tokens = TokenBucket(self._plan.cpu_share, DEPTH_S)
        self._queue: deque[tuple[Batch, Answers]] = deque()
        self._lock = threading.Lock()  # the queue
        self._waiting_bytes = 0
        self._row_s = RUN_S  # so that the first run has one row
        self._skipped = self._failed = self._failures = 0
        self._error = ""
        self._fault: str | None = None
        self._at_work = self._takes = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgekit-shadow", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a run under way is finished first."""
        self._takes = False
        self._stopping.set()
        self._thread.join()

    def offer(self, batch: Batch, said: Answers, latency_us: float) -> None:
        """Shows a request that the live model answered; on the request's time, and never waits."""
        self._brake.note(latency_us, at_work=self._at_work)
        rows = min(batch.rows, REQUEST_ROWS_MAX)
        size = _bytes(batch, rows) if self._takes else 0
        with self._lock:
            full = len(self._queue) >= REQUESTS_WAITING_MAX or self._waiting_bytes + size > BYTES_WAITING_MAX
            if full or not self._takes:
                self._skipped += batch.rows
                return
            self._skipped += batch.rows - rows
            self._waiting_bytes += size
            # Copies: who sent the request may use its arrays again.
            said = Answers(_head(said.labels, rows), None, _head(said.values, rows))
            self._queue.append((_copied(batch, rows), said))

    @property
    def state(self) -> ShadowState:
        """How it stands."""
        return ShadowState(
            overall=self._agreement.overall,
            groups=self._agreement.groups,
            skipped_rows=self._skipped,
            failed_rows=self._failed,
            level=self._brake.level,
            fault=self._fault,
        )

    def _run(self) -> None:
        while not self._stopping.wait(PAUSE_S) and self._fault is None:
            now = time.monotonic()
            at_work = self._brake.is_at_work(now)
            if self._at_work and not at_work:
                self._brake.judge()
                self._tokens.rate = self._plan.cpu_share * self._brake.level
            self._at_work = at_work
            self._takes = at_work and self._tokens.available(now) > 0
            # What came meanwhile, and no more: the time of work and rest is looked at again behind it.
            waiting = len(self._queue)
            while waiting > 0 and self._takes and not self._stopping.is_set():
                waiting -= self._step()
        self._at_work = self._takes = False
        self._queue.clear()

    def _step(self) -> int:
        """One run of as many of the waiting requests as fit into its time; returns how many."""
        room = max(1, min(RUN_ROWS_MAX, int(RUN_S / self._row_s)))
        with self._lock:
            requests = [self._queue.popleft()]
            room -= requests[0][0].rows
            while self._queue and self._queue[0][0].rows <= room:
                requests.append(self._queue.popleft())
                room -= requests[-1][0].rows
            self._waiting_bytes -= sum(_bytes(batch, batch.rows) for batch, _ in requests)
        spent = time.thread_time()
        if not self._compare(requests):
            # One row that the candidate has no answer for must not stand for the others.
            for request in requests:
                if not self._compare([request]):
                    self._count_failed(*request)
        spent = time.thread_time() - spent
        self._row_s = 0.8 * self._row_s + 0.2 * spent / sum(batch.rows for batch, _ in requests)
        now = time.monotonic()
        self._tokens.spend(spent, now)
        self._takes = self._tokens.available(now) > 0
        return len(requests)

    def _compare(self, requests: list[tuple[Batch, Answers]]) -> bool:
        """Runs the candidate; False where it gives no answer."""
        batch, said = _joined([batch for batch, _ in requests]), _answered([said for _, said in requests])
        started = time.monotonic()
        try:
            rows = rewritten(batch, self._live, self._candidate.engine)
            theirs = self._candidate.engine.run(rows)
        except Exception as error:
            self._error = error.sentence if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
            return False
        self._failures = 0
        self._candidate.observer.record(rows, theirs, 1e6 * (time.monotonic() - started))
        self._agreement.add(_groups(said, batch.rows), _agree(said, theirs, self._plan.tolerance))
        return True

    def _count_failed(self, batch: Batch, said: Answers) -> None:
        self._candidate.observer.count_failed()
        self._failed += batch.rows
        self._failures += 1
        self._agreement.add(_groups(said, batch.rows), [False] * batch.rows)
        if self._failures == FAILURES_MAX:
            self._fault = f"it failed {FAILURES_MAX} times in a row: {self._error}"
            self._takes = False
            _log.error("the shadow %s is stopped: %s", self._candidate.engine.manifest.title, self._fault)


def _groups(said: Answers, rows: int) -> list[str]:
    return [VALUES] * rows if said.labels is None else [str(label) for label in said.labels.tolist()]


def _agree(said: Answers, theirs: Answers, tolerance: float) -> list[bool]:
    """Of each row, whether two models answer alike: the same label, or values within the tolerance."""
    if said.labels is not None:
        assert theirs.labels is not None
        return [one == other for one, other in zip(said.labels.tolist(), theirs.labels.tolist(), strict=True)]
    assert said.values is not None
    assert theirs.values is not None
    if said.values.shape != theirs.values.shape:
        return [False] * len(said.values)
    # A missing value agrees with a missing value: a transformer may give one.
    both_missing = np.isnan(said.values) & np.isnan(theirs.values)
    near = np.abs(said.values - theirs.values) <= tolerance * np.maximum(1.0, np.abs(said.values))
    return [bool(one) for one in (near | both_missing).all(axis=1)]


def _bytes(batch: Batch, rows: int) -> int:
    """What the first rows of a batch hold in memory, about."""
    numbers = 0 if batch.numbers is None else rows * batch.numbers.shape[1] * batch.numbers.itemsize
    texts = [] if batch.text is None else batch.text[:rows].ravel().tolist()
    return numbers + sum(map(len, texts))


def _copied(batch: Batch, rows: int) -> Batch:
    return Batch(rows, _head(batch.numbers, rows), _head(batch.text, rows))


def _head(array: NDArray[Any] | None, rows: int) -> Any:
    return None if array is None else array[:rows].copy()


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    numbers: list[Any] = [batch.numbers for batch in batches if batch.numbers is not None]
    texts = [batch.text for batch in batches if batch.text is not None]
    rows = sum(batch.rows for batch in batches)
    return Batch(rows, np.concatenate(numbers) if numbers else None, np.concatenate(texts) if texts else None)


def _answered(answers: list[Answers]) -> Answers:
    labels = [one.labels for one in answers if one.labels is not None]
    values = [one.values for one in answers if one.values is not None]
    return Answers(np.concatenate(labels) if labels else None, None, np.concatenate(values) if values else None)
