"""Room that is kept for a full disk: SQLite needs a little even to delete.

On a disk without a free block nothing can be committed, so what the centre acknowledges could never leave, and the
disk would stay full of it. The ballast is thrown off then, and taken in again once there is room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekit_contracts import limits

log = logging.getLogger(__name__)

BYTES: Final = limits.MIB
"""What the journal of some deletions takes, and its checkpoint, many times over."""
SPARE_BYTES: Final = 4 * BYTES
"""Free beside it, before it is taken in again: not to fill the disk anew."""
RETRY_S: Final = 10.0


class Ballast:
    """One file of allocated blocks.

    Args:
        path: The file.
        clock_s: A monotonic clock.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock_s = path, clock_s
        self._tried_s = float("-inf")
        self.held = False
        """Whether it is there."""

    def take_in(self) -> None:
        """Allocates it where it is missing and the disk has room; tried now and then."""
        now_s = self._clock_s()
        if self.held or now_s - self._tried_s < RETRY_S:
            return
        self._tried_s = now_s
        try:
            self._allocate()
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _allocate(self) -> None:
        if not self._path.exists() or self._path.stat().st_blocks * 512 < BYTES:
            volume = os.statvfs(self._path.parent)
            if volume.f_bavail * volume.f_frsize < BYTES + SPARE_BYTES:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Where a file system cannot do it, the C library writes into each block.
                os.posix_fallocate(descriptor, 0, BYTES)
            finally:
                os.close(descriptor)
        self.held = True

    def throw_off(self) -> bool:
        """Gives its blocks back to the disk; False where there is none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        finally:
            self.held = False
            self._tried_s = self._clock_s()
        log.warning("the disk is full: %s is given up, so that what the centre has can be deleted", self._path)
        return True
