"""A terminal of so many columns, and what a command shows on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path


def shown(command: Sequence[str], columns: int, cwd: Path | None = None) -> list[str]:
    """The lines of standard output, without colours."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, stdout=inner, stderr=subprocess.DEVNULL, cwd=cwd):
        os.close(inner)
        text = b"".join(iter(lambda: _more(outer), b"")).decode()
    os.close(outer)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def _more(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so once nobody has the other end
        return b""
