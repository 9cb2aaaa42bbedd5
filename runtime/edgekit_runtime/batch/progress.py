"""How far it is, on a terminal: rows, rows a second, share, time left."""

from __future__ import annotations

import sys
import time
from typing import Final

EVERY_S: Final = 0.2


class Progress:
    """Writes one line on standard error and writes it anew; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._began: tuple[float, int, float] | None = None
        self._last = 0.0

    def __call__(self, rows: int, share: float) -> None:
        """So many rows are done, which is so much of the table (0 to 1).

        The first call says where this run began: its rate is that of its own rows.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = (now, rows, share)
            return
        if not self._shown or now - self._last < EVERY_S:
            return
        self._last = now
        began, first, before = self._began
        taken = max(now - began, 1e-9)
        left = taken * (1 - share) / (share - before) if share > before else 0.0
        text = f"{rows:,} rows, {(rows - first) / taken:,.0f} rows/s, {share:.0%}, {_time(left)} left"
        sys.stderr.write(f"\r{text:<60}")
        sys.stderr.flush()

    def close(self) -> None:
        """Takes the line away."""
        if self._shown and self._last:
            sys.stderr.write(f"\r{'':<60}\r")
            sys.stderr.flush()


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
