"""Ctrl-C while a command is still being imported: one word and exit code 130, as later, instead of a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """A Ctrl-C inside ends the process at once: there is nothing to tidy up yet."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # whoever starts us in the background has it ignored
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: _end())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def command(find: Callable[[], Callable[[], int]]) -> int:
    """Imports a command and runs it.

    Args:
        find: Imports it.

    Returns:
        Its exit code.
    """
    try:
        with ended_by_interrupts():
            main = find()
        return main()
    except (KeyboardInterrupt, ImportError) as error:  # before it listens, or when it has ended
        if not _was_interrupted(error):
            raise
        _end()


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is at its root: libraries in C turn one that comes while they are imported into ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _end() -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(130)
