"""How a model's bundles stand, for people: what `/edgekit/status` and the answer to a command show."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.route import Member
from edgekit_runtime.served import Lineup
from edgekit_runtime.strategies.agreement import Share


def describe(lineup: Lineup) -> dict[str, Any]:
    """One model with its bundles, for people."""
    live, trial, former = lineup.live, lineup.candidate, lineup.former
    found: dict[str, Any] = {
        "model": live.manifest.name,
        "automation": live.oversight.level,
        "live": _bundle(live),
        "candidate": None,
        "former": None if former is None else _bundle(former),
    }
    if trial is not None:
        candidate: dict[str, Any] = {**_bundle(trial.member), "strategy": trial.plan.strategy}
        found["candidate"] = candidate
        if trial.plan.strategy == "canary":
            candidate["share"] = trial.plan.share
        if trial.shadow is not None:
            state = trial.shadow.state
            candidate["shadow"] = {
                "agreement": _share(state.overall),
                "by_answer": {group: _share(share) for group, share in state.groups.items()},
                "skipped_rows": state.skipped_rows,
                "failed_rows": state.failed_rows,
                "level": state.level,
                "fault": state.fault,
            }
    return found


def titles(lineup: Lineup) -> str:
    """One line: what is live, and what is tried."""
    trial = lineup.candidate
    tried = "" if trial is None else f", {trial.member.manifest.version} is tried as {trial.plan.strategy}"
    return f"{lineup.live.manifest.title} is live{tried}"


def _bundle(member: Member) -> dict[str, str]:
    return {"version": member.manifest.version, "sha256": member.sha256}


def _share(share: Share) -> dict[str, Any]:
    return {"rows": share.rows, "agreed": share.agreed, "share": share.value, "low": share.low, "high": share.high}
