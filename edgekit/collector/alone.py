"""Of one name one collector stores into a file: two would take the connection to the broker from each other for ever.

The lock is the kernel's, so that a crash releases it. Collectors of one PostgreSQL have `claims` for it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_contracts.errors import StorageFault, UsageError


@contextmanager
def alone(store: Path, name: str) -> Iterator[None]:
    """Holds the name, beside the store.

    Args:
        store: The file.
        name: The collector's.

    Raises:
        UsageError: Another collector of this store has the name.
        StorageFault: Nothing can be written beside the store.
    """
    path = store.with_name(f"{store.name}.{name}.lock")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageFault(str(path), error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"a collector named '{name}' stores into {store} already",
                "let that one do it, or give this one another --name",
            ) from None
        yield
    finally:
        os.close(file)
