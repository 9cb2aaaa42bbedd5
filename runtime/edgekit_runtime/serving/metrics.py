"""What the process has done since its start, and Prometheus' text form of it.

The windows of telemetry begin at zero again and again; these counters only grow, as Prometheus wants them. The hot path
adds to plain integers.

Source: Prometheus, "Exposition formats", text format 0.0.4; "Writing client libraries", standard process metrics.
"""

from __future__ import annotations

import os
import platform
import resource
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal

import onnxruntime

from edgekit_runtime import __version__
from edgekit_runtime.observe import resident_kb

if TYPE_CHECKING:
    from edgekit_runtime.ledger import Account
    from edgekit_runtime.strategies.shadow import ShadowCounts

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
LATENCY_EDGES_S: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
MODELS_MAX: Final = 64
"""Versions of models that are counted; of more, the first ones are forgotten."""

Kind = Literal["counter", "gauge", "histogram"]
Samples = Iterable[tuple[str, Mapping[str, str], float]]
"""Suffix of the name, labels, value."""


class Traffic:
    """The server's connections and answers."""

    def __init__(self) -> None:
        self.started = time.time()
        self.accepted = self.open = 0
        """Connections since the start, and now."""
        self.busy = 0
        """Connections with a request under way."""
        self.draining = False
        self.responses: Counter[int] = Counter()
        """Status -> answers."""


class ModelCounts:
    """The inference requests to one version of a model. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.rejected = self.failed = 0
        self.rows = self.abstained = self.stood_in = 0
        self.seconds = 0.0
        self._buckets = [0] * (len(LATENCY_EDGES_S) + 1)

    def answered(self, seconds: float, rows: int, abstained: int, *, stood_in: bool = False) -> None:
        """A request got its answers; where another bundle failed before, `stood_in`."""
        with self._lock:
            self.statuses[200] += 1
            self.rows += rows
            self.abstained += abstained
            self.stood_in += stood_in
            self.seconds += seconds
            self._buckets[bisect_left(LATENCY_EDGES_S, seconds)] += 1

    def ended(self, status: int, *, rejected: bool = False, failed: bool = False) -> None:
        """A request got none."""
        with self._lock:
            self.statuses[status] += 1
            self.rejected += rejected
            self.failed += failed

    def histogram(self) -> Iterator[tuple[str, int]]:
        """Upper edge -> answered requests up to it."""
        edges = [*map(str, LATENCY_EDGES_S), "+Inf"]
        return zip(edges, accumulate(self._buckets), strict=True)


class Metrics:
    """All counters of the process."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self._models: dict[tuple[str, str], ModelCounts] = {}

    def of(self, name: str, version: str) -> ModelCounts:
        """The counts of one version of a model."""
        counts = self._models.get((name, version))
        if counts is None:
            if len(self._models) >= MODELS_MAX:
                del self._models[next(iter(self._models))]
            counts = self._models.setdefault((name, version), ModelCounts())
        return counts

    def exposition(
        self,
        *,
        ready: bool,
        telemetry: str,
        outbox_records: int | None,
        bytes_: Account | None = None,
        shadows: Iterable[tuple[Mapping[str, str], ShadowCounts]] = (),
    ) -> bytes:
        """The body of `GET /metrics`.

        Args:
            ready: What `/v2/health/ready` says.
            telemetry: The uplink's state.
            outbox_records: Records that wait for the collector; None without telemetry.
            bytes_: What telemetry has cost since the start.
            shadows: Model and version of each shadow, and what it has counted.
        """
        models = [
            ({"model": name, "version": version}, counts) for (name, version), counts in list(self._models.items())
        ]
        tried = list(shadows)
        traffic, usage = self.traffic, resource.getrusage(resource.RUSAGE_SELF)
        build = {
            "version": __version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        }
        outbox: Samples = [] if outbox_records is None else [("", {}, outbox_records)]
        carried = {} if bytes_ is None else {**bytes_.streams, "protocol": bytes_.protocol}
        wire = {} if bytes_ is None else {"sent": bytes_.sent, "received": bytes_.received}
        families: list[tuple[str, Kind, str, Samples]] = [
            ("edgekit_build_info", "gauge", "What runs here.", [("", build, 1)]),
            ("edgekit_ready", "gauge", "1 where inference requests are answered.", [("", {}, ready)]),
            (
                "edgekit_requests_total",
                "counter",
                "Inference requests by status.",
                [
                    ("", {**model, "code": str(status)}, count)
                    for model, counts in models
                    for status, count in sorted(counts.statuses.items())
                ],
            ),
            (
                "edgekit_rejected_total",
                "counter",
                "Inference requests refused for what was in them.",
                [("", model, counts.rejected) for model, counts in models],
            ),
            (
                "edgekit_failed_total",
                "counter",
                "Inference requests that failed in the runtime.",
                [("", model, counts.failed) for model, counts in models],
            ),
            ("edgekit_rows_total", "counter", "Rows answered.", [("", model, counts.rows) for model, counts in models]),
            (
                "edgekit_abstained_total",
                "counter",
                "Rows answered below the bundle's threshold.",
                [("", model, counts.abstained) for model, counts in models],
            ),
            (
                "edgekit_stood_in_total",
                "counter",
                "Requests answered in the place of a bundle that failed, by this one or with its safe answer.",
                [("", model, counts.stood_in) for model, counts in models],
            ),
            (
                "edgekit_shadow_rows_total",
                "counter",
                "Rows that a shadow was compared on.",
                [("", model, counts.rows) for model, counts in tried],
            ),
            (
                "edgekit_shadow_agreed_rows_total",
                "counter",
                "Of these, rows that it answered like the live bundle.",
                [("", model, counts.agreed) for model, counts in tried],
            ),
            (
                "edgekit_shadow_skipped_rows_total",
                "counter",
                "Rows that a shadow did not look at, to save time.",
                [("", model, counts.skipped) for model, counts in tried],
            ),
            (
                "edgekit_request_seconds",
                "histogram",
                "From an answered inference request's first byte to its answer.",
                [sample for model, counts in models for sample in _histogram(model, counts)],
            ),
            (
                "edgekit_http_responses_total",
                "counter",
                "Answers of any kind by status.",
                [("", {"code": str(status)}, count) for status, count in sorted(traffic.responses.items())],
            ),
            ("edgekit_connections_total", "counter", "Connections accepted.", [("", {}, traffic.accepted)]),
            ("edgekit_connections", "gauge", "Connections open.", [("", {}, traffic.open)]),
            ("edgekit_requests_in_flight", "gauge", "Connections with a request under way.", [("", {}, traffic.busy)]),
            ("edgekit_telemetry_info", "gauge", "State of the uplink.", [("", {"state": telemetry}, 1)]),
            ("edgekit_outbox_records", "gauge", "Records that wait for the collector.", outbox),
            (
                "edgekit_mqtt_bytes_total",
                "counter",
                "Bytes of MQTT by direction.",
                [("", {"direction": way}, count) for way, count in wire.items()],
            ),
            (
                "edgekit_mqtt_stream_bytes_total",
                "counter",
                "The same bytes by what they carried; protocol is all that is no payload.",
                [("", {"stream": stream}, count) for stream, count in carried.items()],
            ),
            (
                "process_cpu_seconds_total",
                "counter",
                "User and system time.",
                [("", {}, usage.ru_utime + usage.ru_stime)],
            ),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", [("", {}, 1024 * resident_kb())]),
            ("process_open_fds", "gauge", "Open file descriptors.", _open_fds()),
            ("process_start_time_seconds", "gauge", "Start, since 1970.", [("", {}, traffic.started)]),
        ]
        return "".join(line for family in families for line in _lines(*family)).encode()


def _open_fds() -> Samples:
    try:
        return [("", {}, len(os.listdir("/proc/self/fd")))]
    except OSError:  # none is left to count them with
        return []


def _histogram(model: Mapping[str, str], counts: ModelCounts) -> Samples:
    buckets = list(counts.histogram())
    return [
        *(("_bucket", {**model, "le": edge}, count) for edge, count in buckets),
        ("_sum", model, counts.seconds),
        ("_count", model, buckets[-1][1]),
    ]


def _lines(name: str, kind: Kind, words: str, samples: Samples) -> Iterator[str]:
    yield f"# HELP {name} {words}\n# TYPE {name} {kind}\n"
    for suffix, labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{suffix}{{{shown}}} {float(value)!r}\n" if shown else f"{name}{suffix} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
