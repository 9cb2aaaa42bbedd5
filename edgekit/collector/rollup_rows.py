"""Hours and days as rows of the store's tables: scalars in one, counts and moments in tables of their own.

The latency's bins stand beside the scalars, so that percentiles need no wide row. Counts and latency are runs of
varints. Moments are, for all numeric features: mean and M2 as little-endian float64, minimum and maximum as float32,
which they came as, and the numbers of values as varints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.collector.database import Row, Table, Transaction
from edgekit.collector.rollup import LAST, MOMENTS, SUMS, Key, Kind, Rows, add_up, joined
from edgekit.collector.schema import ROLLUP, ROLLUP_COUNTS, ROLLUP_MOMENTS, SERIES
from edgekit.monitor.varint_rows import decode_varint_rows, encode_varint_rows
from edgekit_contracts.reference import Bins

Written = dict[Table, list[Row]]
"""Rows of each table."""

_NAME: Final = ROLLUP.key
_SPAN: Final = "r.dev = ? AND r.hours = ? AND r.start_ms >= ? AND r.start_ms < ?"


def read(
    db: Transaction,
    device: str,
    hours: int,
    span_ms: tuple[int, int],
    bins: Callable[[bytes], Bins | None] | None = None,
) -> list[Rows]:
    """A device's hours or days that begin within a span, or those of every device; one `Rows` for each kind.

    Args:
        db: To read with.
        device: Its name, or `EVERY_DEVICE`.
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
        said = [moments.get(row[: len(_NAME)]) for row in rows]
        # Those of every device are stored for each partition.
        parts.append(add_up(_rows(keys, rows, [row[-6] for row in rows], said, numeric), lambda key: key))
    return parts


def pick(db: Transaction, p: int, fresh: Rows) -> Rows | None:
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


def written(p: int, fresh: Rows, known: Rows | None) -> Written:
    """The sums of what is new and what is known, if anything is, under the same keys."""
    rows = fresh if known is None else add_up(joined([known, fresh]), lambda key: key)
    names = [_name(key, p) for key in rows.keys]
    latencies, counts = encode_varint_rows(rows.latency), encode_varint_rows(rows.counts)
    moments = _encode_moments(rows.moments)
    scalars = np.hstack([rows.sums, rows.last, rows.rss_kb[:, None]]).tolist()
    return {
        SERIES: list({name[3]: _series(key) for name, key in zip(names, rows.keys, strict=True)}.values()),
        ROLLUP: [(*a, *b, c) for a, b, c in zip(names, scalars, latencies, strict=True)],
        ROLLUP_COUNTS: [(*a, b) for a, b in zip(names, counts, strict=True)],
        ROLLUP_MOMENTS: [(*a, b) for a, b in zip(names, moments, strict=True) if b],
    }


def put(db: Transaction, rows: Written) -> None:
    """Writes them over what is known."""
    db.insert(SERIES, rows[SERIES])
    for table in (ROLLUP, ROLLUP_COUNTS, ROLLUP_MOMENTS):
        db.put(table, rows[table])


def remove(db: Transaction, hours: int, before_ms: int, limit: int) -> int:
    """Removes the oldest hours or days, and returns how many.

    Args:
        db: To write with.
        hours: HOUR or DAY.
        before_ms: Those that begin before this.
        limit: So many at most.
    """
    name = ", ".join(_NAME)
    oldest = f"SELECT {name} FROM rollup WHERE hours = ? AND start_ms < ? ORDER BY start_ms, {name} LIMIT ?"
    # `rollup` last: the others are found through it.
    return [
        db.run(f"DELETE FROM {table.name} WHERE ({name}) IN ({oldest})", (hours, before_ms, limit))
        for table in (ROLLUP_MOMENTS, ROLLUP_COUNTS, ROLLUP)
    ][-1]


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
    """Of each row: every mean and M2, every minimum and maximum, then the numbers of values; empty without any."""
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
