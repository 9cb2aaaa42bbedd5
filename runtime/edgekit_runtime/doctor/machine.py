"""The seam to the machine: files below a root and a few calls, so that tests feed other boards' `/proc` and `/sys`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIME_ERROR: Final = 5
"""What adjtimex(2) returns while nothing keeps the clock right."""
_STA_UNSYNC: Final = 0x0040
_TIMEX_BYTES: Final = 256
"""More than `struct timex` has on any 64-bit Linux (208)."""
_STATUS_AT: Final = 40
"""Offset of `timex.status` on 64-bit Linux, behind `modes` (padded) and four `long`s."""


def kernel_keeps_time() -> bool | None:
    """Whether the kernel's clock is kept right by something, as adjtimex(2) says; None where it does not say.

    systemd-timesyncd, ntpd, and chrony with `rtcsync` tell the kernel so.
    """
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only read
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    (status,) = struct.unpack_from("i", buffer, _STATUS_AT)
    return state != TIME_ERROR and not status & _STA_UNSYNC


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks ask of a machine."""

    root: Path = Path("/")
    """Where its `/proc`, `/sys` and `/run` are."""
    architecture: str = platform.machine()
    pointer_bits: int = 8 * struct.calcsize("P")
    now: Callable[[], float] = time.time
    keeps_time: Callable[[], bool | None] = kernel_keeps_time
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs

    def read(self, path: str) -> str:
        """The text of a file, stripped; empty where there is none."""
        with contextlib.suppress(OSError):
            return self.at(path).read_text(encoding="utf-8", errors="replace").strip("\n\0 ")
        return ""

    def number(self, path: str) -> int | None:
        """The whole number in a file."""
        with contextlib.suppress(ValueError):
            return int(self.read(path))
        return None

    def find(self, pattern: str) -> list[str]:
        """Paths that a pattern finds, as `read` takes them."""
        return sorted(f"/{path.relative_to(self.root)}" for path in self.root.glob(pattern.lstrip("/")))

    def at(self, path: str) -> Path:
        """Where a path of the machine lies here."""
        return self.root / path.lstrip("/")
