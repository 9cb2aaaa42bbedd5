"""Memory: what is free beside what the bundle takes, the limits of the control group, and where swap goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from edgekit_contracts.manifest import Manifest
from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.doctor.machine import Machine

RUNTIME_MB: Final = 90.0
"""Resident memory of the service with a small model, where no bundle says more."""


def memory(machine: Machine, manifests: Sequence[Manifest]) -> Iterator[Finding]:
    """Whether the service fits into what is free, or into its control group."""
    predicted = [max((budget.memory_mb for budget in one.budgets), default=0.0) for one in manifests]
    # Each prediction holds the runtime itself, which is there once.
    needed = RUNTIME_MB + sum(max(0.0, one - RUNTIME_MB) for one in predicted)
    titles = ", ".join(one.title for one in manifests)
    who = f"{titles}: predicted to take" if needed > RUNTIME_MB else "a service with small models takes"
    what = f"{who} {needed:,.0f} MB"
    free, limit = _available_mb(machine), _limit_mb(machine)
    if limit is not None:
        detail = f"the control group allows {limit:,.0f} MB; {what}"
        yield (
            Finding("memory limit", "ok", detail)
            if limit >= 1.2 * needed
            else Finding(
                "memory limit",
                "FAIL" if limit < needed else "warn",
                detail,
                "raise MemoryMax, or the container's limit",
            )
        )
    if free is None:
        yield Finding("memory", "warn", "the kernel does not say how much is free", "look at /proc/meminfo")
    elif free < needed:
        yield Finding(
            "memory", "warn", f"{free:,.0f} MB are free, and {what}", "stop other programs, or choose a smaller model"
        )
    else:
        yield Finding("memory", "ok", f"{free:,.0f} MB are free; {what}")


def processor_limit(machine: Machine) -> Iterator[Finding]:
    """Whether the control group rations processor time: an answer then waits for the next period."""
    for group in _groups(machine):
        quota, _, period = machine.read(f"/sys/fs/cgroup{group}/cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            cores = int(quota) / int(period)
            if cores < 1:
                yield Finding(
                    "cpu limit",
                    "warn",
                    f"the control group gives {cores:.0%} of a core: an answer may wait {int(period) / 1e3:g} ms",
                    "raise CPUQuota, or the container's limit",
                )
            else:
                yield Finding("cpu limit", "ok", f"the control group gives {cores:g} cores")
            return


def swap(machine: Machine) -> Iterator[Finding]:
    """Whether pages go to a card that wears out by it."""
    places = [line.split()[0] for line in machine.read("/proc/swaps").splitlines()[1:] if line.strip()]
    worn = [place for place in places if _is_card(machine, place)]
    if worn:
        yield Finding(
            "swap",
            "warn",
            f"{', '.join(worn)} is on an SD card or eMMC: swapping is slow there, and wears it out",
            "swapoff it, or use zram",
        )
    else:
        yield Finding("swap", "ok", ", ".join(places) or "none")


def _is_card(machine: Machine, place: str) -> bool:
    if not place.startswith("/dev/"):
        place = mount_of(machine, place)[0]
    return "mmcblk" in place


def mount_of(machine: Machine, path: str) -> tuple[str, str]:
    """Device and type of the file system that a path is on."""
    best = ("", "", "")
    for line in machine.read("/proc/mounts").splitlines():
        device, at, kind, *_ = [*line.split(), "", "", ""]
        at = at.replace("\\040", " ")
        if (path == at or path.startswith(at.rstrip("/") + "/")) and len(at) >= len(best[1]):
            best = device, at, kind
    return best[0], best[2]


def _available_mb(machine: Machine) -> float | None:
    for line in machine.read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024 / 1e6
    return None


def _limit_mb(machine: Machine) -> float | None:
    """The smallest limit of our control group and those above it; version 1's where there is no version 2."""
    found = [machine.number(f"/sys/fs/cgroup{group}/memory.max") for group in _groups(machine)]
    old = machine.number("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    # Version 1 says "no limit" by a number near 2**63.
    limits = [limit for limit in [*found, old] if limit is not None and limit < 2**60]
    return min(limits) / 1e6 if limits else None


def _groups(machine: Machine) -> list[str]:
    """Paths of our control group (version 2) and those above it, the innermost first."""
    for line in machine.read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            parts = [part for part in line[3:].split("/") if part]
            return ["".join(f"/{part}" for part in parts[:count]) for count in range(len(parts), -1, -1)]
    return [""]
