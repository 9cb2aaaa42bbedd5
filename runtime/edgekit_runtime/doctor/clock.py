"""The clock: certificates, windows and logs are dated by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.doctor.machine import Machine

EARLIEST_YEAR: Final = 2025
"""A clock that says less was not set since the board lost its power: this program is younger."""
LATEST_YEAR: Final = 2100

_TIMESYNCD: Final = "/run/systemd/timesync/synchronized"


def clock(machine: Machine) -> Iterator[Finding]:
    """Whether the time is plausible, and kept right by something."""
    now = time.gmtime(machine.now())
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", now)
    if not EARLIEST_YEAR <= now.tm_year <= LATEST_YEAR:
        yield Finding(
            "clock",
            "FAIL",
            f"it says {shown}, which cannot be: TLS refuses every certificate, and windows are dated by the collector",
            "set it: timedatectl set-ntp true, or give the board a battery-backed clock",
        )
    elif machine.at(_TIMESYNCD).exists():
        yield Finding("clock", "ok", f"{shown}, kept right by systemd-timesyncd")
    elif machine.keeps_time():
        yield Finding("clock", "ok", f"{shown}; the kernel says that it is kept right")
    else:
        yield Finding(
            "clock",
            "warn",
            f"{shown}, and nothing says that it is kept right: the collector dates windows by their arrival",
            "timedatectl set-ntp true, or run chrony with rtcsync",
        )
