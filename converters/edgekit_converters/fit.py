"""Says at a desk whether a model fits a board: cost counted from the file, times the board's rates.

    latency = (call + nodes * node + max(2 * madds / gflops, streamed weights * element / 2)
               + elements * element + tree comparisons * tree_node) * tail ratio
    memory  = runtime + session + 2.1 * constants + 415 B a tree node + 143 B a leaf weight + 8 KiB a graph node

The form is nn-Meter's (a sum over the kernels that the runtime's fusions leave, each with a rate of the device) with a
roofline for the matrix products: with one row each weight is read once, so a matrix beyond the cache costs its bytes,
not its multiply-adds. The constant terms, call and node, are what small models consist of (facts: 2 to 7 us of a call).

What it cannot see: the server in front of the model (HTTP, MQTT: measure it), throttling by heat, other processes, the
first calls after a load, caches that other work has emptied, how deep the rows of the field go into the trees, kernels
that are slower than their kind (text), and what integer arithmetic saves or costs (it counts like float32).
`calibrate.this_machine` on the board itself replaces estimates by measurements; `benchmarks/prediction.py` compares
prediction and reality where it runs.

Source: Zhang et al., "nn-Meter: towards accurate latency prediction of deep-learning model inference on diverse edge
devices", MobiSys 2021; Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edgekit_contracts.errors import DoesNotFit
from edgekit_contracts.manifest import Budget
from edgekit_contracts.profile import DeviceProfile, Figure
from edgekit_converters.cost import Cost, cost

__all__ = ["Cost", "cost", "predict", "refuse_unfit", "memory_mb", "latency_us"]

MEBI: Final = 1024.0 * 1024.0

CACHED_BYTES: Final = 512 * 1024
"""Weights up to here stay in a core's cache between rows: the second level of the boards in mind has 0.25 to 2 MiB."""

# Growth of VmHWM of a child process from `import onnxruntime` until 50 rows had run. Measured 2026-11-23 on x86-64
# (Xeon, 2 cores, 23 GiB, Debian 12, Python 3.11) with onnxruntime 1.32.0: logistic regression 9.7 MiB, MLP with
# 4.5 MB of weights 18.9, boosting (1,456 nodes) 10.5, boosting (7,408 nodes) 13.3, forest regressor (32,812 nodes)
# 24.9, forest classifier (8,146 nodes, 40,830 leaf weights) 18.4, forest classifier (40,112; 201,060) 52.9.
SESSION_MB: Final = 9.6
PARAMETER_FACTOR: Final = 2.1
"""The file's copy and the session's."""
TREE_NODE_BYTES: Final = 415
LEAF_WEIGHT_BYTES: Final = 143
GRAPH_NODE_BYTES: Final = 8 * 1024


def predict(work: Cost, profile: DeviceProfile, bundle_bytes: int) -> Budget:
    """Predicts latency and memory of one row on a board, beside the board's limits.

    Low and high bound the latency by the spread of the figures: the terms' mean spread, each weighted with its share,
    and the tail ratio's, taken as independent. `fits` goes by the point prediction, not by the high bound.

    Args:
        work: Of the model file that the runtime loads.
        profile: The board.
        bundle_bytes: Size of the bundle; the largest that may be, where it is not built yet.
    """
    limits = profile.limits
    point, spread = latency_us(work, profile)
    latency = _rounded(point / 1000.0)
    low, high = _rounded(point / 1000.0 / spread), _rounded(point / 1000.0 * spread)
    memory = _rounded(profile.rates.runtime_mb.value + memory_mb(work))
    bundle = _rounded(bundle_bytes / MEBI)
    excess: list[str] = []
    if latency > limits.latency_ms:
        percentile = f"p{limits.latency_percentile:g}"
        excess.append(f"{percentile} latency {latency:g} ms ({low:g} to {high:g}) > {limits.latency_ms:g} ms")
    if memory > limits.memory_mb:
        excess.append(f"memory {memory:g} MB > {limits.memory_mb:g} MB")
    if bundle_bytes / MEBI > limits.bundle_mb:
        excess.append(f"bundle {bundle:g} MB > {limits.bundle_mb:g} MB")
    if not profile.runtime.supported:
        # What does not run has no latency to speak of.
        excess = [profile.runtime.why or "onnxruntime does not run on this board"]
    return Budget(
        profile=profile.name,
        latency_ms=latency,
        latency_ms_low=low,
        latency_ms_high=high,
        latency_limit_ms=limits.latency_ms,
        memory_mb=memory,
        memory_limit_mb=limits.memory_mb,
        bundle_mb=bundle,
        bundle_limit_mb=limits.bundle_mb,
        fits=not excess,
        excess=tuple(excess),
    )


def refuse_unfit(budgets: Sequence[Budget]) -> None:
    """Raises for the first profile that the model does not fit.

    Raises:
        DoesNotFit: With the limits that are passed.
    """
    for budget in budgets:
        if not budget.fits:
            raise DoesNotFit(budget.profile, budget.excess)


def latency_us(work: Cost, profile: DeviceProfile) -> tuple[float, float]:
    """Predicts one row's latency at the profile's percentile, in microseconds, and the factor it may be off by."""
    rates = profile.rates
    streamed = max(0, work.weight_bytes - CACHED_BYTES) / 4
    # An element-wise node reads and writes an element; a weight is only read.
    product = max(
        (2 * work.madds / rates.gflops.value, rates.gflops),
        (streamed * rates.element_ns.value / 2, rates.element_ns),
        key=lambda term: term[0],
    )
    terms: list[tuple[float, Figure]] = [
        (rates.call_us.value * 1000.0, rates.call_us),
        (work.nodes * rates.node_us.value * 1000.0, rates.node_us),
        product,
        (work.elements * rates.element_ns.value, rates.element_ns),
        (work.tree_comparisons * rates.tree_node_ns.value, rates.tree_node_ns),
    ]
    total_ns = sum(time for time, _ in terms)
    spread = sum(time * math.log(figure.spread) for time, figure in terms) / total_ns
    return total_ns / 1000.0 * rates.tail_ratio.value, math.exp(math.hypot(spread, math.log(rates.tail_ratio.spread)))


def memory_mb(work: Cost) -> float:
    """Predicts what a loaded model adds to the runtime's resident memory, at its peak, in MiB."""
    size = (
        PARAMETER_FACTOR * work.parameter_bytes
        + TREE_NODE_BYTES * work.tree_nodes
        + LEAF_WEIGHT_BYTES * work.leaf_weights
        + GRAPH_NODE_BYTES * work.graph_nodes
    )
    return SESSION_MB + size / MEBI


def _rounded(value: float) -> float:
    # Three digits: more would be a promise, and equal inputs must give equal bytes on every machine.
    return float(f"{value:.3g}")
