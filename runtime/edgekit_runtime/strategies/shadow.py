"""A candidate that sees the traffic and is never heard.

The request's thread copies its rows into a block that waits, and nothing else. A thread of its own runs the candidate,
many rows at once, compares its answers with what the live model said, and counts. A budget of processor time and a
brake on the live model's latency (`budget`) keep it harmless: beyond them fewer requests are looked at, and none waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from operator import eq
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np

from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.slots import Plan
from edgekit_runtime.engine import Answer, Answers, Batch, Engine
from edgekit_runtime.interface import rewritten
from edgekit_runtime.observe import Observer
from edgekit_runtime.strategies.agreement import Agreement, Share
from edgekit_runtime.strategies.budget import Brake, TokenBucket
from edgekit_runtime.strategies.waiting import Waiting

if TYPE_CHECKING:
    from numpy.typing import NDArray

REQUEST_ROWS_MAX: Final = 64
"""Rows of one request that are looked at."""
PAUSE_S: Final = 0.1
"""Between two looks at what waits."""
RUN_S: Final = 0.002
"""How long one run may take: a longer one would hold a core that a request may want."""
RUN_ROWS_MAX: Final = 64
"""And rows of one run: between two calls of ONNX Runtime, Python's own lock is held."""
DEPTH_S: Final = 0.5
"""Processor time that may be saved up."""
FAILURES_MAX: Final = 20
"""Rows in a row that fail before the shadow gives up."""
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


class ShadowCounts(NamedTuple):
    """What a shadow has counted so far."""

    rows: int
    agreed: int
    skipped: int


class ShadowState(msgspec.Struct, frozen=True, kw_only=True):
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
        on_fault: Told why it has given up.
    """

    def __init__(
        self,
        live: Manifest,
        candidate: Candidate,
        plan: Plan,
        on_fault: Callable[[str], None] = lambda fault: None,
    ) -> None:
        self._on_fault = on_fault
        self._live, self._candidate, self._plan = live, candidate, plan
        self._agreement = Agreement()
        self._brake = Brake(allowed=self._plan.p99_growth)
        self._tokens = TokenBucket(self._plan.cpu_share, DEPTH_S)
        self._lock = threading.Lock()  # what waits
        self._waiting, self._spare = Waiting(live), Waiting(live)
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
        with self._lock:
            taken = self._waiting.put(batch, said, REQUEST_ROWS_MAX) if self._takes else 0
            self._skipped += batch.rows - taken

    def offer_row(self, row: NDArray[np.float64], said: Answer, latency_us: float) -> None:
        """The same of one row, [numeric features] as the live model's tensor has them."""
        self._brake.note(latency_us, at_work=self._at_work)
        with self._lock:
            taken = self._takes and self._waiting.put_row(row, said)
            self._skipped += not taken

    @property
    def counts(self) -> ShadowCounts:
        """How it stands, without the intervals, which take time."""
        agreed, rows = self._agreement.counts
        return ShadowCounts(rows, agreed, self._skipped)

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
            if self._takes:
                try:
                    self._answer_waiting()
                except Exception as error:
                    # A fault of ours must be seen, and must not look like a candidate that agrees.
                    self._give_up(f"{type(error).__name__}: {error}")
        self._at_work = self._takes = False

    def _answer_waiting(self) -> None:
        """Answers what came meanwhile, a few rows at a time, as far as the budget goes."""
        with self._lock:
            block, self._waiting = self._waiting, self._spare
        done = 0
        while done < block.used and self._takes and not self._stopping.is_set():
            # One that fails is looked at row by row: one row must not stand for the others.
            stop = min(block.used, done + max(1, min(RUN_ROWS_MAX, int(RUN_S / self._row_s))))
            spent = time.thread_time()
            if not self._compare(*block.part(done, stop)):
                for row in range(done, stop):
                    if stop - done == 1 or not self._compare(*block.part(row, row + 1)):
                        self._count_failed(*block.part(row, row + 1))
            spent = time.thread_time() - spent
            self._row_s = 0.8 * self._row_s + 0.2 * spent / (stop - done)
            now = time.monotonic()
            self._tokens.spend(spent, now)
            self._takes = self._takes and self._tokens.available(now) > 0
            done = stop
        with self._lock:
            self._skipped += block.used - done
        block.used, self._spare = 0, block

    def _compare(self, batch: Batch, said: Answers) -> bool:
        """Runs the candidate; False where it gives no answer."""
        try:
            rows = rewritten(batch, self._live, self._candidate.engine)
            theirs = self._candidate.engine.run(rows)
        except Exception as error:
            self._error = error.sentence if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
            return False
        self._failures = 0
        self._candidate.observer.record(rows, theirs, None)
        self._agreement.add(_groups(said, batch.rows), _agree(said, theirs, self._plan.tolerance))
        return True

    def _count_failed(self, batch: Batch, said: Answers) -> None:
        self._candidate.observer.count_failed()
        self._failed += 1
        self._failures += 1
        self._agreement.add(_groups(said, 1), [False])
        if self._failures == FAILURES_MAX:
            self._give_up(f"it failed {FAILURES_MAX} times in a row: {self._error}")

    def _give_up(self, fault: str) -> None:
        self._fault, self._takes = fault, False
        _log.error("the shadow %s is stopped: %s", self._candidate.engine.manifest.title, fault)
        self._on_fault(fault)


def _groups(said: Answers, rows: int) -> list[Any]:
    return [VALUES] * rows if said.labels is None else list(said.labels.tolist())


def _agree(said: Answers, theirs: Answers, tolerance: float) -> list[bool]:
    """Of each row, whether two models answer alike: the same label, or values within the tolerance."""
    if said.labels is not None:
        assert theirs.labels is not None
        return list(map(eq, said.labels.tolist(), theirs.labels.tolist()))
    assert said.values is not None
    assert theirs.values is not None
    if said.values.shape != theirs.values.shape:
        return [False] * len(said.values)
    # A missing value agrees with a missing value: a transformer may give one.
    both_missing = np.isnan(said.values) & np.isnan(theirs.values)
    near = np.abs(said.values - theirs.values) <= tolerance * np.maximum(1.0, np.abs(said.values))
    alike: list[bool] = np.asarray((near | both_missing).all(axis=1)).tolist()
    return alike
