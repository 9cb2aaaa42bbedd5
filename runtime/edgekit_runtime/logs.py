"""What the service writes to standard error: text or JSON lines, bounded in rate and in length.

A device's log lies on a card that wears out, and a fault that repeats with every request must not fill it: of one
message of one logger, `BURST` lines in `PERIOD_S` are written, then one line that says how many were not.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TextIO

import msgspec

from edgekit_runtime.config import Log

BURST: Final = 10
SENTENCES: Final = 100
PERIOD_S: Final = 60.0
KEYS_MAX: Final = 512
"""Messages whose rate is known at one time; the least recent is forgotten."""
LINE_MAX_CHARS: Final = 2_000
TRACE_MAX_CHARS: Final = 8_000

_PLACE: Final = re.compile(r"%[-+ #0-9.]*[a-z]")
_SAYS_SOMETHING: Final = re.compile(r"[A-Za-z]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""What steers a terminal, or begins another line: a request could write lines of its own."""


def configure(settings: Log, stream: TextIO | None = None) -> None:
    """Sends every logger's records to one stream; may be called again, to change level and format.

    Args:
        settings: Level and format.
        stream: Where lines go, from the first call on; standard error by default.
    """
    root = logging.getLogger()
    root.setLevel(settings.level.upper())
    ours = next((one for one in root.handlers if isinstance(one, _Handler)), None)
    if ours is None:
        ours = _Handler(stream or sys.stderr)
        ours.addFilter(Rate())
        root.addHandler(ours)
    ours.setFormatter(JsonLines() if settings.format == "json" else TextLines())


class Rate(logging.Filter):
    """Passes `BURST` records of one message of one logger in `PERIOD_S`, and says how many it held back.

    A message is known by its template, so that requests with other values are one message. One whose template says
    nothing (`"%s"`) is known by its text; of such a template `SENTENCES` records pass.

    Args:
        now_s: A clock that never goes back.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, int, str], _Period] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written; how many were held back before it goes with it."""
        template = str(record.msg)
        with self._lock:
            if _SAYS_SOMETHING.search(_PLACE.sub("", template)):
                return self._passes(record, template, BURST)
            return self._passes(record, record.getMessage(), BURST) and self._passes(record, template, SENTENCES)

    def _passes(self, record: logging.LogRecord, text: str, most: int) -> bool:
        key, now = (record.name, record.levelno, text), self._now_s()
        period = self._seen.pop(key, None)
        if period is None or now - period.began_s >= PERIOD_S:
            if period is not None and period.held:
                record.suppressed = period.held
            period = _Period(now)
        self._seen[key] = period
        if len(self._seen) > KEYS_MAX:
            self._seen.popitem(last=False)
        if period.passed == most:
            period.held += 1
            return False
        period.passed += 1
        record.last_of_burst = period.passed == most
        return True


class _Period(msgspec.Struct):
    """What came of one message since a time."""

    began_s: float
    passed: int = 0
    held: int = 0


class TextLines(logging.Formatter):
    """`2026-11-28 10:00:00,000 WARNING edgekit.uplink: message`; a traceback's lines follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        line = f"{self.formatTime(record)} {record.levelname:<7} {record.name}: {message(record)}"
        trace = _trace(self, record)
        return "\n    ".join([line, *map(_clean, trace.splitlines())]) if trace else line


class JsonLines(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and `trace` of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message(record),
        }
        if trace := _trace(self, record):
            facts["trace"] = trace
        if suppressed := getattr(record, "suppressed", 0):
            facts["suppressed"] = suppressed
        return msgspec.json.encode(facts).decode()


class _Handler(logging.StreamHandler[TextIO]):
    """Ours among the root's handlers."""


def message(record: logging.LogRecord) -> str:
    """A record's message: one line, bounded, with a word on what was held back."""
    text = _clean(record.getMessage())
    if len(text) > LINE_MAX_CHARS:
        text = f"{text[:LINE_MAX_CHARS]}... ({len(text) - LINE_MAX_CHARS} more characters)"
    if suppressed := getattr(record, "suppressed", 0):
        text += f" (and {suppressed} more like it before, suppressed)"
    elif getattr(record, "last_of_burst", False):
        text += f" (more like it are counted, not written, for the rest of {PERIOD_S:g} s)"
    return text


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    trace = formatter.formatException(record.exc_info)
    # The end names the fault.
    return trace if len(trace) <= TRACE_MAX_CHARS else f"...{trace[-TRACE_MAX_CHARS:]}"


def _clean(text: str) -> str:
    return _CONTROL.sub("?", text.replace("\n", " | "))
