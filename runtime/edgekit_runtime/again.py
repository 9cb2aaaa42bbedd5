"""What failed for want of room, say, and is tried again until it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Self

FIRST_S: Final = 1.0
CAP_S: Final = 60.0


class Again:
    """Tries something again on a thread of its own, ever more seldom, while the context lasts.

    Args:
        attempt: Gives whether it is done.
    """

    def __init__(self, attempt: Callable[[], bool]) -> None:
        self._attempt, self._ended = attempt, threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgekit-again", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s = FIRST_S
        while not self._ended.wait(wait_s) and not self._attempt():
            wait_s = min(CAP_S, 2 * wait_s)
