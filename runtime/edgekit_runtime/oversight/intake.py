"""What goes into the review queue: so many a minute of each label, near-duplicates once, permitted features only.

Choosing runs on the request's time and is bounded; writing runs on a thread of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.reference import Bins
from edgekit_runtime.engine import Answers, Batch
from edgekit_runtime.interface import columns_of
from edgekit_runtime.oversight.item import Item, Reason
from edgekit_runtime.strategies.budget import TokenBucket

if TYPE_CHECKING:
    from edgekit_runtime.oversight.review import ReviewQueue

ROWS_PER_REQUEST: Final = 16
"""Rows of one request that are looked at, so that a large one costs no more than a small one."""
WAITING_MAX: Final = 256
DIGESTS_MAX: Final = 8192
STRATA_MAX: Final = 1024
PAUSE_S: Final = 0.1

_log = logging.getLogger("edgekit.review")


class Sampler:
    """Says which rows are worth a person's time. Pure: it is told the time.

    A stratum is what the model said (of numbers there is one). Two rows are near-duplicates where every number falls
    into the same bin of the reference and every text is equal. Their digests are kept in memory only and keyed at
    random, so that no row can be told from what is stored.

    Args:
        bins: The reference's bins.
        per_minute: Rows of a stratum a minute; as many may come at once.
    """

    def __init__(self, bins: Bins, per_minute: float) -> None:
        self._per_minute = per_minute
        self._edges = {feature.name: feature.edges for feature in bins.features if feature.categories is None}
        self._buckets: dict[str, TokenBucket] = {}
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._key = os.urandom(16)

    def wants(self, stratum: str, row: dict[str, float | str | None], now_s: float) -> bool:
        """Whether this row goes into the queue."""
        if stratum not in self._buckets and len(self._buckets) >= STRATA_MAX:
            return False
        depth = max(1.0, self._per_minute)
        bucket = self._buckets.setdefault(stratum, TokenBucket(self._per_minute / 60, depth))
        if bucket.available(now_s) < 1:
            return False
        digest = self._digest(row)
        if digest in self._seen:
            self._seen.move_to_end(digest)
            return False
        bucket.take(1, now_s)
        self._seen[digest] = None
        if len(self._seen) > DIGESTS_MAX:
            self._seen.popitem(last=False)
        return True

    def _digest(self, row: dict[str, float | str | None]) -> bytes:
        parts = []
        for name, value in row.items():
            edges = self._edges.get(name)
            binned = value if edges is None or value is None else bisect_left(edges, value)
            parts.append(repr(binned))
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16, key=self._key).digest()


class Intake:
    """Takes doubtful rows of one bundle and writes the chosen ones.

    Args:
        manifest: The bundle's manifest.
        bins: Its reference's bins.
        queue: Where the rows wait; opened when the first one comes.
        per_minute: As `Sampler`.
    """

    def __init__(
        self, manifest: Manifest, bins: Bins, queue: Callable[[], ReviewQueue], *, per_minute: float = 6.0
    ) -> None:
        self._manifest, self._queue = manifest, queue
        self._permitted = frozenset(manifest.privacy.raw_fields)
        self._lock = threading.Lock()
        self._sampler = Sampler(bins, per_minute)
        self._waiting: deque[Item] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: str | None = None

    def offer(self, batch: Batch, answers: Answers, rows: list[int], reason: Reason, request: str | None) -> None:
        """Considers rows of one request.

        Args:
            batch: All its rows.
            answers: What the model said.
            rows: Those that are doubtful.
            reason: Why a person should see them.
            request: The id that the client gave.
        """
        now, now_ms = time.monotonic(), max(0, round(time.time() * 1000))
        labels, scores = answers.labels, answers.scores
        with self._lock:
            for at in rows[:ROWS_PER_REQUEST]:
                if len(self._waiting) >= WAITING_MAX:
                    return
                row = _row(batch.part(at, at + 1), self._manifest)
                score = float(scores[at])
                answer = labels[at : at + 1].tolist()[0] if labels is not None else score
                if not self._sampler.wants(str(answer) if labels is not None else "", row, now):
                    continue
                self._waiting.append(
                    Item(
                        model=self._manifest.name,
                        version=self._manifest.version,
                        at_ms=now_ms,
                        reason=reason,
                        request=request,
                        answer=answer,
                        score=None if np.isnan(score) or answers.probabilities is None else score,
                        fields={name: value for name, value in row.items() if name in self._permitted},
                    )
                )
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edgekit-review", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Writes what waits and ends the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PAUSE_S):
            self._write()
        self._write()

    def _write(self) -> None:
        items = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not items:
            return
        try:
            self._queue().add(self._manifest, items)
            self._fault = None
        except EdgekitError as fault:
            # A full disk must not stop the answers; the doubtful ones are still marked.
            if fault.sentence != self._fault:
                _log.error("doubtful answers are not kept: %s; %s", fault.sentence, fault.next_step)
            self._fault = fault.sentence
        except Exception:  # a fault of ours must not lose those that come later
            _log.exception("%d doubtful answers are not kept", len(items))


def _row(batch: Batch, manifest: Manifest) -> dict[str, float | str | None]:
    """One row by its features' names; None is a missing value."""
    row: dict[str, float | str | None] = {}
    for name, column in columns_of(batch, manifest).items():
        value = column.tolist()[0] if isinstance(column, np.ndarray) else column[0]
        row[name] = None if isinstance(value, float) and value != value else value
    return row
