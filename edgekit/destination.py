"""Where a result is to be written is looked at before the work for it begins."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from edgekit_contracts.errors import StorageFault, UsageError

TRIAL_BYTES: Final = 4096
"""What is written for trial: a full disk still makes files, and has no room for what is in them."""


def check(path: Path, suffix: str) -> None:
    """Sees that a file can be written there, and that it replaces none of another kind.

    Args:
        path: The file that is to be written; its folder need not be there.
        suffix: Of files of its kind.

    Raises:
        UsageError: It is a folder, or a file of another kind, which may be the model or the data.
        StorageFault: Nothing can be written there.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder", f"name the file to write, which ends in {suffix}")
        if path.exists() and not (path.is_file() and path.suffix.lower() == suffix):
            raise UsageError(
                f"{path} is there already, and is no {suffix} file", f"name the file to write, which ends in {suffix}"
            )
        folder = next(one for one in path.absolute().parents if one.exists())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
    except OSError as error:
        raise StorageFault(str(path), error.strerror or str(error)) from error
