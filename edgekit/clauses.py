"""What a manifest says, in clauses for people: in the steps of a build, on the terminal, and on the bundle's page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit_contracts.manifest import Budget, Feature, Parity, WorstRow


def describe_parity(parity: Parity) -> str:
    """One clause: how the rows were compared, and what that says of the rate of other labels."""
    bound = parity.disagreement_bound
    at = f"{parity.marks_reached:,} of its {parity.marks:,} thresholds" if parity.marks else "thresholds"
    ulps = f", {describe_ulps(parity)}" if parity.worst_ulps else ""
    return (
        f"{parity.rows:,} rows answer like the original"
        + (f", {parity.mined_rows:,} of them at {at}" if parity.mined_rows else "")
        + f" (largest difference {parity.max_difference:.2g}{ulps}"
        + (f", {parity.ties} ties)" if parity.ties else ")")
        + (f"; other labels: at most {100 * bound:.2g} % of such data (95 % confidence)" if bound is not None else "")
    )


def describe_ulps(parity: Parity) -> str:
    """Units in the last place of float64; of float32, which are 2^29 of them, where the original computes in it."""
    ulps = parity.worst_ulps or 0.0
    single = ulps >= 2**29 and parity.differs is not None and "float32" in parity.differs
    return f"{ulps / 2**29:.2g} ulps of float32" if single else f"{ulps:.2g} ulps"


def describe_worst_row(row: WorstRow, features: Sequence[Feature]) -> str:
    """One clause: the row whose numbers differ most, its answer and the original's."""
    known = [f"{one.name}={value}" for one, value in zip(features, row.values, strict=False)]
    more = f" and {len(known) - 6} more" if len(known) > 6 else ""
    pairs = [(theirs, ours) for theirs, ours in zip(row.original, row.converted, strict=False) if theirs != ours]
    answers = ", ".join(f"{ours!r} for {theirs!r}" for theirs, ours in sorted(pairs, key=_distance)[:-3:-1])
    return f"{answers} at {', '.join(known[:6])}{more}"


def _distance(pair: tuple[float | None, float | None]) -> float:
    """Of two numbers as they are compared, relative to max(1, |original|); infinite where one is none."""
    theirs, ours = pair
    return math.inf if theirs is None or ours is None else abs(ours - theirs) / max(1.0, abs(theirs))


def describe_budget(budget: Budget) -> str:
    """One clause: what was predicted for a profile."""
    verdict = "fits" if budget.fits else "does not fit"
    interval = f"{budget.latency_ms_low:.2g} to {budget.latency_ms_high:.2g}"
    return (
        f"{verdict} {budget.profile}: {budget.latency_ms:.3g} ms ({interval}) of {budget.latency_limit_ms:g}, "
        f"{budget.memory_mb:.3g} of {budget.memory_limit_mb:g} MB"
    )
