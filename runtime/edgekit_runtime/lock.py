"""The state directory belongs to one service: two on one outbox would use the same keys for different records.

The lock is the kernel's, so that a crash releases it. The file says who holds it and where that service answers;
what a crash left in it is read by nobody, because nobody holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from edgekit_contracts.errors import EnvironmentFault, StorageFault

NAME: Final = "lock"
_PATIENCE_S: Final = 0.3
"""For another process that only looks who holds it."""


class Holder(msgspec.Struct, frozen=True):
    """The service that holds a state directory."""

    pid: int
    addresses: tuple[str, ...] = ()
    """Where it answers, as it says at its start; empty until it does."""


class Lock:
    """A state directory, held."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.tell(())

    def tell(self, addresses: Sequence[str]) -> None:
        """Writes down where this service answers."""
        text = msgspec.json.encode(Holder(os.getpid(), tuple(addresses)))
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.pwrite(self._file, text, 0)
            os.ftruncate(self._file, len(text))


@contextmanager
def hold(state_dir: Path) -> Iterator[Lock]:
    """Holds the state directory.

    Raises:
        StorageFault: It cannot be made, or written into.
        EnvironmentFault: Another service holds it.
    """
    path = state_dir / NAME
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageFault(str(path), error.strerror or str(error)) from error
    try:
        end = time.monotonic() + _PATIENCE_S
        while not _locked(file, fcntl.LOCK_EX):
            if time.monotonic() > end:
                other = holder(state_dir)
                who = f"another edgekit-runtime (process {other.pid})" if other else "another edgekit-runtime"
                raise EnvironmentFault(f"{who} uses {state_dir}", "stop it, or give this one another state_dir")
            time.sleep(0.05)
        yield Lock(file)
    finally:
        os.close(file)


def holder(state_dir: Path) -> Holder | None:
    """Who holds a state directory; None where nobody does."""
    try:
        file = os.open(state_dir / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _locked(file, fcntl.LOCK_SH):
            return None
        return msgspec.json.decode(os.pread(file, 4096, 0), type=Holder)
    except (OSError, msgspec.DecodeError):
        return Holder(0)
    finally:
        os.close(file)


def _locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
