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
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StorageFault(str(path), error.strerror or str(error)) from error


def sync(path: Path) -> None:
    """Returns when the disk has what was written to a file, or which files a folder holds.

    Raises:
        OSError: It has not.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
