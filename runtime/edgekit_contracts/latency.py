"""Percentiles from latency bins. Bins merge by addition, so a fleet's percentile is as exact as a device's: one bin."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit_contracts.reference import LATENCY_BINS, latency_edges_us


def percentile_ms(counts: Sequence[int], percent: float) -> float | None:
    """The latency below which `percent` of the calls were answered, in milliseconds.

    Args:
        counts: Calls in each latency bin; shape (LATENCY_BINS,).
        percent: 0 to 100.

    Returns:
        None without calls. Within a bin the calls are taken as spread evenly on the logarithmic scale, so the error is
        below one bin (26 %). In the open bins at the ends it is their only edge (1 us, 10 s).

    Raises:
        ValueError: Not one count for each bin, or no such percentage.
    """
    if len(counts) != LATENCY_BINS or not 0 <= percent <= 100:
        raise ValueError(f"{len(counts)} latency bins, {percent} %")
    total = sum(counts)
    if total == 0:
        return None
    edges = latency_edges_us()
    rank, below = percent / 100 * total, 0
    for index, count in enumerate(counts):
        if count and below + count >= rank:
            low, high = edges[max(0, index - 1)], edges[min(index, len(edges) - 1)]
            share = max(0.0, rank - below) / count
            return float(low * (high / low) ** share) / 1000
        below += count
    return edges[-1] / 1000
