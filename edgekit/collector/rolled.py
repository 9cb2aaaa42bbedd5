"""Roll-ups in the store: taking windows in, and reading them back.

A window is taken in once: windows have numbers that grow with every commit within a partition of the topic tree, and
`rollup_mark` says up to which number a partition's are in the roll-ups. Both change in one transaction, so it may be
killed at any moment and run again. A late window has a number beyond the mark like any other: it re-opens its hour and
day. What is beyond the mark is read from the windows themselves (`lookback`), so nobody waits for a pass (ADR-0022).

Scalars, with the latency's bins, stand in `rollup`; the counts and moments, ten times as large, in `rollup_counts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np

from edgekit.collector.archive import StoredWindow
from edgekit.collector.database import Database, Row, Transaction
from edgekit.collector.rollup import DAY, EVERY_DEVICE, HOUR, LAST, MOMENTS, SUMS, Key, Rows, add_up, joined, rows_of
from edgekit.collector.schema import ROLLUP, ROLLUP_COUNTS, ROLLUP_MARK, SERIES
from edgekit.monitor.varint_rows import decode_varint_rows, encode_varint_rows
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import Window
from edgekit_contracts.topics import PARTITIONS

WINDOWS_MAX: Final = 4096
"""Taken in by one transaction."""

_WINDOWS: Final = (
    'SELECT id, dev, epoch, seq, at_ms, dt_ms, received_ms, bins_id, n, model, version, body FROM "window"'
)

BinsOf = Callable[[bytes], Bins | None]


def take_in(database: Database, p: int, bins: BinsOf, *, limit: int = WINDOWS_MAX) -> int:
    """Adds windows beyond the mark of a partition to their hours and days, in one transaction.

    Args:
        database: Where the tables are.
        p: The partition of the topic tree.
        bins: The bins of a name.
        limit: Windows at most.

    Returns:
        How many were taken in; fewer than `limit` when none is left.

    Raises:
        StorageFault: None was.
    """
    with database.reading() as db:
        if not _beyond(db, p, 1):
            return 0
    with database.writing() as db:
        db.lock([p], [])
        found = _beyond(db, p, limit)
        for rows in rows_of(map(_window, found), bins):
            hours = add_up(rows, lambda key: key.of(HOUR))
            for level in (hours, add_up(hours, lambda key: key.of(DAY))):
                _add(db, p, level)
        if found:
            db.put(ROLLUP_MARK, [(p, found[-1][0])])
    return len(found)


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


def read(db: Transaction, device: str, hours: int, from_ms: int, until_ms: int, bins: BinsOf) -> list[Rows]:
    """A device's hours or days that begin within a span, or those of every device; one `Rows` for each kind.

    Args:
        db: To read with.
        device: Its name, or `EVERY_DEVICE`: then there may be a row for each partition.
        hours: HOUR or DAY.
        from_ms: The first start.
        until_ms: Starts are before this.
        bins: The bins of a name.
    """
    key = " AND ".join(f"c.{name} = r.{name}" for name in ROLLUP.key)
    found = db.rows(
        f"SELECT {', '.join(f'r.{name}' for name in ROLLUP.columns)}, counts, moments, model, version, bins_id,"
        f" distance, shadow FROM rollup r JOIN rollup_counts c ON {key} JOIN series s ON s.series = r.series"
        " WHERE r.dev = ? AND r.hours = ? AND r.start_ms >= ? AND r.start_ms < ? ORDER BY r.start_ms",
        (device, hours, from_ms, until_ms),
    )
    kinds: dict[tuple[bytes, bytes], list[Row]] = {}
    for row in found:
        kinds.setdefault((row[-3], row[-2]), []).append(row)
    parts = []
    for (bins_id, _), rows in kinds.items():
        known = bins(bins_id)
        assert known is not None, "nothing is rolled up without its bins"
        numeric = sum(feature.categories is None for feature in known.features)
        keys = [Key(row[1], row[2], row[0], *row[-5:]) for row in rows]
        parts.append(_rows(keys, rows, [(row[-7], row[-6]) for row in rows], numeric))
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


def _beyond(db: Transaction, p: int, limit: int) -> list[Row]:
    return db.rows(f"{_WINDOWS} WHERE p = ? AND id > ? ORDER BY id LIMIT ?", (p, mark(db, p), limit))


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
    found = {row[: len(ROLLUP.key)]: row for row in db.pick(ROLLUP, names)}
    if not found:
        return None
    counts = {row[: len(ROLLUP.key)]: row[len(ROLLUP.key) :] for row in db.pick(ROLLUP_COUNTS, found)}
    return _rows(
        [names[name] for name in found],
        list(found.values()),
        [counts[name] for name in found],
        fresh.moments.shape[1],
    )


def _put(db: Transaction, p: int, fresh: Rows, known: Rows | None) -> None:
    rows = fresh if known is None else add_up(joined([known, fresh]), lambda key: key)
    names = [_name(key, p) for key in rows.keys]
    latencies, counts = encode_varint_rows(rows.latency), encode_varint_rows(rows.counts)
    spoken = rows.moments[:, :, 0].any(axis=1)
    moments = [one.astype("<f8").tobytes() if says else b"" for one, says in zip(rows.moments, spoken, strict=True)]
    scalars = np.hstack([rows.sums, rows.last, rows.rss_kb[:, None]]).tolist()
    db.insert(SERIES, list({name[3]: _series(key) for name, key in zip(names, rows.keys, strict=True)}.values()))
    db.put(ROLLUP, [(*a, *b, c) for a, b, c in zip(names, scalars, latencies, strict=True)])
    db.put(ROLLUP_COUNTS, [(*a, b, c) for a, b, c in zip(names, counts, moments, strict=True)])


def _rows(keys: Sequence[Key], scalars: Sequence[Row], counts: Iterable[tuple[bytes, bytes]], numeric: int) -> Rows:
    """From rows of ROLLUP, and the counts and moments of each."""
    start, width = len(ROLLUP.key), len(SUMS) + len(LAST) + 1
    numbers = np.array([row[start : start + width] for row in scalars], np.int64)
    runs, moments = zip(*counts, strict=True)
    silent = np.zeros((numeric, MOMENTS))
    silent[:, 3:] = np.inf, -np.inf
    return Rows(
        keys,
        numbers[:, : len(SUMS)],
        numbers[:, len(SUMS) : -1],
        numbers[:, -1],
        decode_varint_rows(runs),
        np.array([np.frombuffer(one, "<f8").reshape(silent.shape) if one else silent for one in moments]),
    )


def _name(key: Key, p: int) -> Row:
    return (key.device, key.hours, key.start_ms, _series(key)[0], p)


def _series(key: Key) -> Row:
    what = (key.model, key.version, key.bins_id, key.distance, int(key.shadow))
    return (hashlib.sha256(msgspec.msgpack.encode(what)).digest()[:16], *what)
