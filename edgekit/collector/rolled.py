"""Roll-ups in the store: taking windows in, and reading them back.

A window is taken in once: windows have numbers that grow with every commit within a partition of the topic tree, and
`rollup_mark` says up to which number a partition's are in the roll-ups. Both change in one transaction, so it may be
killed at any moment and run again. A late window has a number beyond the mark like any other: it re-opens its hour and
day. What is beyond the mark is read from the windows themselves (`lookback`), so nobody waits for a pass (ADR-0022).

Scalars, with the latency's bins, stand in `rollup`; counts and moments, ten times as large, in tables of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.collector.archive import StoredWindow
from edgekit.collector.database import Database, Row, Transaction
from edgekit.collector.rollup import (
    DAY,
    EVERY_DEVICE,
    HOUR,
    LAST,
    MOMENTS,
    SUMS,
    Key,
    Kind,
    Rows,
    add_up,
    by_kind,
    joined,
    rows_of_kind,
)
from edgekit.collector.schema import ROLLUP, ROLLUP_COUNTS, ROLLUP_MARK, ROLLUP_MOMENTS, SERIES
from edgekit.monitor.varint_rows import decode_varint_rows, encode_varint_rows
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Window
from edgekit_contracts.topics import PARTITIONS

BLOCK_WINDOWS: Final = 1024
"""Read at once."""
SUMS_MAX: Final = 4096
"""Hours of devices that one transaction writes, about; ingest into their partition waits meanwhile."""

_WINDOWS: Final = (
    'SELECT id, dev, epoch, seq, at_ms, dt_ms, received_ms, bins_id, n, model, version, body FROM "window"'
)

_NAME: Final = ROLLUP.key
_SPAN: Final = "r.dev = ? AND r.hours = ? AND r.start_ms >= ? AND r.start_ms < ?"

BinsOf = Callable[[bytes], Bins | None]


def take_in(database: Database, p: int, bins: BinsOf, *, sums_max: int = SUMS_MAX) -> int:
    """Adds windows beyond the mark of a partition to their hours and days, in one transaction.

    Whoever else does the same meanwhile, each window is taken in once.

    Args:
        database: Where the tables are.
        p: The partition of the topic tree.
        bins: The bins of a name.
        sums_max: No more windows are read once there are so many hours of devices.

    Returns:
        How many were taken in; 0 when none is left.

    Raises:
        StorageFault: None was, or none of those that are left.
    """
    while True:
        with database.writing() as db:
            # Nobody is about to commit windows of lower numbers than those that are seen.
            db.lock([p], [])
            before = mark(db, p)
            newest = db.rows('SELECT MAX(id) FROM "window" WHERE p = ? AND id > ?', (p, before))[0][0]
        if newest is None:
            return 0
        hours, taken, last = _read_hours(database, p, (before, newest), bins, sums_max)
        with database.writing() as db:
            db.lock([p], [])
            # Else another pass took them in meanwhile.
            if mark(db, p) == before:
                for level in hours:
                    _add(db, p, level)
                    _add(db, p, add_up(level, lambda key: key.of(DAY)))
                db.put(ROLLUP_MARK, [(p, last)])
                return taken


def roll_up(database: Database, bins: BinsOf, partitions: Iterable[int] = range(PARTITIONS)) -> int:
    """Takes in all windows beyond the marks of partitions, as `take_in`; returns how many."""
    total = 0
    for p in partitions:
        while taken := take_in(database, p, bins):
            total += taken
    return total


def mark(db: Transaction, p: int) -> int:
    """The number up to which a partition's windows are in the roll-ups; 0 before the first."""
    return next((int(number) for (number,) in db.rows("SELECT id FROM rollup_mark WHERE p = ?", (p,))), 0)


def read(
    db: Transaction,
    device: str,
    hours: int,
    span_ms: tuple[int, int],
    bins: BinsOf | None = None,
) -> list[Rows]:
    """A device's hours or days that begin within a span, or those of every device; one `Rows` for each kind.

    Args:
        db: To read with.
        device: Its name, or `EVERY_DEVICE`: then there may be a row for each partition.
        hours: HOUR or DAY.
        span_ms: The first start, and what starts lie before.
        bins: The bins of a name; without it, no moments are read.
    """
    found = db.rows(
        f"SELECT {', '.join(f'r.{name}' for name in ROLLUP.columns)}, c.counts, s.model, s.version, s.bins_id,"
        f" s.distance, s.shadow FROM rollup r JOIN rollup_counts c ON {_same('c')} JOIN series s ON s.series = r.series"
        f" WHERE {_SPAN} ORDER BY r.start_ms",
        (device, hours, *span_ms),
    )
    moments = {}
    if bins is not None:
        sql = f"SELECT {', '.join(f'm.{name}' for name in _NAME)}, m.moments FROM rollup r JOIN rollup_moments m"
        rows = db.rows(f"{sql} ON {_same('m')} WHERE {_SPAN}", (device, hours, *span_ms))
        moments = {row[:-1]: row[-1] for row in rows}
    kinds: dict[Kind, list[Row]] = {}
    for row in found:
        kinds.setdefault((row[-3], row[-2]), []).append(row)
    parts = []
    for (bins_id, _), rows in kinds.items():
        known = bins(bins_id) if bins is not None else None
        numeric = sum(feature.categories is None for feature in known.features) if known is not None else 0
        keys = [Key(row[1], row[2], row[0], *row[-5:]) for row in rows]
        parts.append(
            _rows(keys, rows, [row[-6] for row in rows], [moments.get(row[: len(_NAME)]) for row in rows], numeric)
        )
    return parts


def read_windows(
    db: Transaction, device: str, from_ms: int, until_ms: int, beyond: int
) -> list[tuple[int, StoredWindow]]:
    """A device's windows of a span, and later ones whose number is beyond that one; with their numbers, in time."""
    found = db.rows(
        f"{_WINDOWS} WHERE dev = ? AND at_ms >= ? AND (at_ms < ? OR id > ?) ORDER BY at_ms, seq, epoch",
        (device, from_ms, until_ms, beyond),
    )
    return [(row[0], _window(row)) for row in found]


def _read_hours(
    database: Database, p: int, between: tuple[int, int], bins: BinsOf, sums_max: int
) -> tuple[list[Rows], int, int]:
    """Windows by their numbers, added up by hour.

    Returns:
        The hours of each kind; how many windows they are; the last number.
    """
    hours: dict[Kind, Rows] = {}
    taken, (last, newest) = 0, between
    while last < newest and sum(map(len, hours.values())) < sums_max:
        with database.reading() as db:
            values = (p, last, newest, BLOCK_WINDOWS)
            found = db.rows(f"{_WINDOWS} WHERE p = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?", values)
        for kind, windows in by_kind(map(_window, found)).items():
            rows = rows_of_kind(windows, kind[1], bins(kind[0]))
            parts = [hours[kind], rows] if kind in hours else [rows]
            hours[kind] = add_up(joined(parts), lambda key: key.of(HOUR))
        taken, last = taken + len(found), found[-1][0] if len(found) == BLOCK_WINDOWS else newest
    return list(hours.values()), taken, last


def _window(row: Row) -> StoredWindow:
    return StoredWindow._make((*row[1:-1], msgspec.msgpack.decode(row[-1], type=Window)))


def _add(db: Transaction, p: int, fresh: Rows) -> None:
    """Adds the sums of devices to what is known of them, and to those of every device."""
    known = _pick(db, p, fresh)
    here = set(known.keys) if known else set()
    sums = fresh.sums.copy()
    sums[:, SUMS.index("devices")] = [key not in here for key in fresh.keys]
    fresh = replace(fresh, sums=sums)
    everyone = add_up(fresh, lambda key: key.of(key.hours, EVERY_DEVICE))
    _put(db, p, fresh, known)
    _put(db, p, everyone, _pick(db, p, everyone))


def _pick(db: Transaction, p: int, fresh: Rows) -> Rows | None:
    """What is known under the keys of rows."""
    names = {_name(key, p): key for key in fresh.keys}
    found = db.pick(ROLLUP, names)
    if not found:
        return None
    here = [row[: len(_NAME)] for row in found]
    counts, moments = ({row[:-1]: row[-1] for row in db.pick(table, here)} for table in (ROLLUP_COUNTS, ROLLUP_MOMENTS))
    return _rows(
        [names[name] for name in here],
        found,
        [counts[name] for name in here],
        [moments.get(name) for name in here],
        fresh.moments.shape[1],
    )


def _put(db: Transaction, p: int, fresh: Rows, known: Rows | None) -> None:
    rows = fresh if known is None else add_up(joined([known, fresh]), lambda key: key)
    names = [_name(key, p) for key in rows.keys]
    latencies, counts = encode_varint_rows(rows.latency), encode_varint_rows(rows.counts)
    moments = _encode_moments(rows.moments)
    scalars = np.hstack([rows.sums, rows.last, rows.rss_kb[:, None]]).tolist()
    db.insert(SERIES, list({name[3]: _series(key) for name, key in zip(names, rows.keys, strict=True)}.values()))
    db.put(ROLLUP, [(*a, *b, c) for a, b, c in zip(names, scalars, latencies, strict=True)])
    db.put(ROLLUP_COUNTS, [(*a, b) for a, b in zip(names, counts, strict=True)])
    if spoken := [(*a, b) for a, b in zip(names, moments, strict=True) if b]:
        db.put(ROLLUP_MOMENTS, spoken)


def _rows(
    keys: Sequence[Key], scalars: Sequence[Row], counts: Sequence[bytes], moments: Sequence[bytes | None], numeric: int
) -> Rows:
    """From rows of ROLLUP, and the counts and moments of each."""
    start, width = len(_NAME), len(SUMS) + len(LAST) + 1
    numbers = np.array([row[start : start + width] for row in scalars], np.int64)
    return Rows(
        keys,
        numbers[:, : len(SUMS)],
        numbers[:, len(SUMS) : -1],
        numbers[:, -1],
        decode_varint_rows(counts),
        _decode_moments(moments, numeric),
    )


def _encode_moments(moments: NDArray[np.float64]) -> list[bytes]:
    """Of each row: every mean and M2 as float64, every minimum and maximum as float32 as they came, then the numbers of
    values as varints; empty without any."""
    if not moments.shape[1]:
        return [b""] * len(moments)
    values = encode_varint_rows(moments[:, :, 0].astype(np.int64))
    return [
        one[:, 1:3].astype("<f8").tobytes() + one[:, 3:].astype("<f4").tobytes() + counted if one[:, 0].any() else b""
        for one, counted in zip(moments, values, strict=True)
    ]


def _decode_moments(moments: Sequence[bytes | None], numeric: int) -> NDArray[np.float64]:
    read = np.zeros((len(moments), numeric, MOMENTS))
    read[:, :, 3:] = np.inf, -np.inf
    spoken = [(at, one) for at, one in enumerate(moments) if one]
    if spoken:
        places = [at for at, _ in spoken]
        read[places, :, 0] = decode_varint_rows([one[24 * numeric :] for _, one in spoken])
        for columns, kind, start, size in ((slice(1, 3), "<f8", 0, 16), (slice(3, 5), "<f4", 16, 8)):
            data = b"".join(one[start * numeric : (start + size) * numeric] for _, one in spoken)
            read[places, :, columns] = np.frombuffer(data, kind).reshape(len(spoken), numeric, 2)
    return read


def _same(other: str) -> str:
    return " AND ".join(f"{other}.{name} = r.{name}" for name in _NAME)


def _name(key: Key, p: int) -> Row:
    return (key.device, key.hours, key.start_ms, _series(key)[0], p)


def _series(key: Key) -> Row:
    return _series_of((key.model, key.version, key.bins_id, key.distance, int(key.shadow)))


@lru_cache(1024)
def _series_of(what: Row) -> Row:
    return (hashlib.sha256(msgspec.msgpack.encode(what)).digest()[:16], *what)
