"""What systemd is told of this service, over the socket that it names; where there is none, nothing is said.

Source: sd_notify(3), "Notes": one datagram of `NAME=value` lines to `$NOTIFY_SOCKET`, whose leading `@` stands for the
NUL of an abstract socket; `$WATCHDOG_USEC` and `$WATCHDOG_PID` as sd_watchdog_enabled(3) reads them.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

STATUS_MAX_CHARS: Final = 200

_log = logging.getLogger("edgekit.notify")


class Notifier:
    """The way to the service manager.

    Args:
        environ: The environment.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self.watchdog_s = _watchdog_s(environ)
        """A ping is wanted at least this often, in seconds; None where nobody waits for one."""

    def ready(self, status: str) -> None:
        """The service answers; also the end of a reload."""
        self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """The settings are read again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """No new requests; what is under way is finished."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(_status(text))

    def alive(self) -> None:
        """The watchdog's ping."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)  # a manager that does not read must not stop the answers
                out.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("the service manager was not told %s: %s", lines[0], error.strerror or error)


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:STATUS_MAX_CHARS]


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or not int(microseconds) or pid not in {"", str(os.getpid())}:
        return None
    return int(microseconds) / 1e6
