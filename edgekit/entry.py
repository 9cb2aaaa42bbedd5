"""Where the command `edgekit` begins."""

from __future__ import annotations

import sys
from collections.abc import Callable

from edgekit_runtime.interrupts import command


def main() -> int:
    """Runs it."""
    return command(_find)


def _find() -> Callable[[], int]:
    from edgekit.cli import run

    return lambda: run(sys.argv[1:])
