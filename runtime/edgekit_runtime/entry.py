"""Where the command `edgekit-runtime` begins."""

from __future__ import annotations

from collections.abc import Callable

from edgekit_runtime.interrupts import command


def main() -> int:
    """Runs it."""
    return command(_find)


def _find() -> Callable[[], int]:
    from edgekit_runtime.__main__ import main as found

    return found
