"""What the centre's processes have in common: the collector, those that it starts, and the enrolment service."""

from __future__ import annotations

import gc
import logging
import signal
from typing import Final

END_S: Final = 60.0
"""How long one that was started may take to end: a transaction that is under way waits up to 30 s for another's."""


def log_to_stderr(level: int = logging.INFO) -> None:
    """What is logged goes to standard error, with time, level and name."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def heed_no_signals() -> None:
    """Ctrl-C and SIGTERM, which go to all processes of a terminal, are for the one that started this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def collect_rarely() -> None:
    """Has Python look for circles of objects seldom, and never among those that are there now.

    A batch makes thousands of objects and hardly ever a circle of them: looking took a tenth of the time.
    """
    gc.freeze()
    gc.set_threshold(50_000)
