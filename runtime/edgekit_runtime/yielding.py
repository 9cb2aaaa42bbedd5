"""Work that can wait, beside the thread that answers: short pieces with rests between them.

Python runs one thread at a time, and a request needs the interpreter four times (it is read, encoded, answered,
written). Beside a thread that works without a rest it waits each time until that one is made to pause, and those behind
it wait as well: the longest wait is many times what was worked. After a rest they have all been answered.
"""

from __future__ import annotations

import threading
import time
from typing import Final

WORK_S: Final = 0.0001
REST_S: Final = 0.001

_here = threading.local()


def give_way() -> None:
    """From now on `rest` rests on this thread."""
    _here.since = time.monotonic()


def rest() -> None:
    """Lets requests go on, where this thread gives way and has worked for a while; elsewhere nothing happens."""
    since: float | None = getattr(_here, "since", None)
    if since is not None and time.monotonic() - since >= WORK_S:
        time.sleep(REST_S)
        _here.since = time.monotonic()
