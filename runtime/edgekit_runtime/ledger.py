"""The byte ledger: what telemetry costs on the wire, by stream, by day and since the start.

Every byte of MQTT is counted where it goes into the connection and comes out of it (inside TLS, where there is TLS), so
the sums are those of the broker's own counters. What a stream carried is its payloads; all else is `protocol`: CONNECT
with the will in it, topics and headers, PUBACK, SUBSCRIBE, PINGREQ. What TCP, IP and TLS add is not in it.

The file is small and written at most once a minute, and at the end: a device that is killed forgets a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

FILE: Final = "ledger.json"
DAYS: Final = 8
"""Days that are kept, today among them."""
SAVE_S: Final = 60.0

Stream = Literal[
    "windows", "gaps", "events", "reference", "births", "acknowledgements", "presences", "inference", "labels", "others"
]
Octets = Annotated[int, msgspec.Meta(ge=0)]

_log = logging.getLogger("edgekit.ledger")


class Account(msgspec.Struct, frozen=True):
    """What a person is shown of `Bytes`."""

    total: int
    sent: int
    received: int
    protocol: int
    """What is no payload."""
    streams: Mapping[str, int]


class Bytes(msgspec.Struct):
    """Bytes of some time."""

    sent: Octets = 0
    """Of MQTT, all of them."""
    received: Octets = 0
    streams: dict[str, Octets] = {}
    """Payloads by stream, in either direction."""

    @property
    def total(self) -> int:
        """Both ways."""
        return self.sent + self.received

    @property
    def account(self) -> Account:
        """For people."""
        streams = dict(sorted(self.streams.items()))
        # What a lost connection took with it was carried, and is not on the wire.
        protocol = max(0, self.total - sum(streams.values()))
        return Account(self.total, self.sent, self.received, protocol, streams)


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says."""

    today: Account
    since_start: Account
    """Of this process."""
    days: Mapping[str, int]
    """Total of each day that is kept, by its date in UTC."""


class _Kept(msgspec.Struct, frozen=True):
    days: dict[str, Bytes] = {}


class Ledger:
    """Counts bytes; safe to use from several threads.

    A day is one of UTC by the device's clock: a clock that is set begins another one.

    Args:
        path: Where it is kept; None: nowhere.
        now_s: The wall clock, seconds since 1970.
    """

    def __init__(self, path: Path | None = None, now_s: Callable[[], float] = time.time) -> None:
        self._path, self._now_s = path, now_s
        self._lock = threading.Lock()  # all that follows
        self._days = {} if path is None else _read(path)
        self._start = Bytes()
        self._day, self._today = -1, Bytes()
        self._saved_s, self._changed = now_s(), False

    def wire(self, sent: int, received: int) -> None:
        """Bytes went over a connection."""
        with self._lock:
            for one in (self._turned(), self._start):
                one.sent += sent
                one.received += received

    def carried(self, octets: int, *streams: tuple[Stream, int]) -> None:
        """Some of these bytes were a payload.

        Args:
            octets: Its size.
            streams: Whose it was, and how much each had in it before it was packed.
        """
        whole, left = sum(size for _, size in streams), octets
        with self._lock:
            for stream, size in streams:
                share = octets * size // whole
                left -= share
                self._carry(stream, share)
            self._carry(streams[-1][0], left)

    @property
    def today(self) -> int:
        """Today's bytes, both ways, but for the reference."""
        with self._lock:
            today = self._turned()
            return today.total - today.streams.get("reference", 0)

    @property
    def accounts(self) -> Accounts:
        """For people."""
        with self._lock:
            today = self._turned().account
            days = {date: one.total for date, one in sorted(self._days.items())}
            return Accounts(today=today, since_start=self._start.account, days=days)

    def save(self) -> None:
        """Writes the file. A disk that refuses it is no reason to stop: it is said, and tried again."""
        with self._lock:
            self._changed, self._saved_s = False, self._now_s()
            data = msgspec.json.encode(_Kept(self._days))
        if self._path is None:
            return
        beside = self._path.with_suffix(".new")
        try:
            beside.write_bytes(data)
            beside.replace(self._path)
        except OSError as error:
            _log.warning("the byte ledger %s is not written: %s", self._path, error)

    def save_in_time(self) -> None:
        """Writes the file where there is news and the last time is a minute ago."""
        if self._changed and abs(self._now_s() - self._saved_s) >= SAVE_S:
            self.save()

    def _carry(self, stream: Stream, octets: int) -> None:
        for one in (self._turned(), self._start):
            one.streams[stream] = one.streams.get(stream, 0) + octets

    def _turned(self) -> Bytes:
        """Today's page, a new one where the day has changed."""
        self._changed = True
        day = int(self._now_s() // 86_400)
        if day != self._day:
            date = datetime.fromtimestamp(86_400 * day, UTC).date().isoformat()
            self._day, self._today = day, self._days.setdefault(date, Bytes())
            for old in sorted(self._days.keys() - {date})[: -(DAYS - 1)]:
                del self._days[old]
        return self._today


def _read(path: Path) -> dict[str, Bytes]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept).days
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _log.warning("the byte ledger %s cannot be read (%s): it begins anew", path, error)
        return {}
