"""A file is there whole, or as it was before, whatever ends the process or the power."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgekit_contracts.errors import StorageFault


def replace(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file beside, syncs it, renames it, and syncs the folder, which is made where it is missing.

    Args:
        path: The file.
        data: All of it.
        mode: Its permissions, before a byte is in it.

    Raises:
        StorageFault: It cannot be written; what was there is there still.
    """
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            if os.geteuid() == 0:
                # What root puts into a service's folder is the service's.
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StorageFault(str(path), error.strerror or str(error)) from error
