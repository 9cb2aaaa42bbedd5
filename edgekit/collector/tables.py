"""Windows and roll-ups as Arrow tables: a row for each, and a row for each of its features.

Counts are lists; what their places mean stands once in the table `bins`. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgekit.collector.blocks import StoredWindow
from edgekit.collector.rollup import EVERY_DEVICE, LAST, SUMS, Rows
from edgekit_contracts.reference import LATENCY_BINS, Bins, latency_edges_us

TIME: Final = pa.timestamp("ms", tz="UTC")
COUNTS: Final = pa.list_(pa.int64())
_TEXT: Final = pa.dictionary(pa.int32(), pa.string())

_MOMENTS: Final = ("values", "mean", "m2", "minimum", "maximum")
_MODEL: Final = [("model", _TEXT), ("version", _TEXT), ("bins_id", _TEXT), ("shadow", pa.bool_())]
_WINDOW: Final = [("device", _TEXT), ("epoch", pa.int64()), ("sequence", pa.int64()), ("start", TIME)]
_ROLLUP: Final = [("hours", pa.int64()), ("start", TIME), ("device", _TEXT)]
_ANSWERS: Final = [("classes", COUNTS), ("scores", COUNTS), ("latency", COUNTS), ("distances", COUNTS)]
_FEATURE: Final = [
    ("feature", _TEXT),
    ("bins", COUNTS),
    ("null", pa.int64()),
    ("invalid", pa.int64()),
    ("out_of_range", pa.int64()),
    *((name, pa.int64() if name == "values" else pa.float64()) for name in _MOMENTS),
]
_SUMS: Final = [name for name in SUMS if name not in {"windows", "devices"}]

WINDOWS: Final = pa.schema(
    [
        *_WINDOW,
        ("received", TIME),
        *_MODEL,
        *((name, pa.int64()) for name in (*_SUMS, "rss_kb", "uptime_s", "outbox_records")),
        *_ANSWERS,
    ]
)
FEATURES: Final = pa.schema([*_WINDOW, *_MODEL, *_FEATURE])
ROLLUPS: Final = pa.schema(
    [
        *_ROLLUP,
        *_MODEL,
        *((name, pa.int64()) for name in (*SUMS, "largest_rss_kb")),
        ("last", TIME),
        *((name, pa.int64()) for name in ("rss_kb", "uptime_s", "outbox_records")),
        *_ANSWERS,
    ]
)
ROLLUP_FEATURES: Final = pa.schema([*_ROLLUP, *_MODEL, *_FEATURE])
GAPS: Final = pa.schema(
    [
        ("device", _TEXT),
        *((name, pa.int64()) for name in ("epoch", "first", "last", "records", "rows", "bytes")),
        ("reason", _TEXT),
        ("received", TIME),
    ]
)
EVENTS: Final = pa.schema([*_WINDOW, ("received", TIME), ("name", pa.string()), ("detail", pa.string())])
BINS: Final = pa.schema(
    [
        ("bins_id", pa.string()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("edges", pa.list_(pa.float64())),
        ("categories", pa.list_(pa.string())),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
    ]
)


def window_tables(windows: Sequence[StoredWindow], rows: Rows, bins: Bins) -> tuple[pa.Table, pa.Table]:
    """The tables `windows` and `features` of windows of one kind.

    Args:
        windows: In the order of `rows`.
        rows: Their `rows_of_kind`.
        bins: What they are counted on.
    """
    last = dict(zip(LAST, rows.last.T, strict=True))
    names: dict[str, Any] = {
        "device": [key.device for key in rows.keys],
        "epoch": last["epoch"],
        "sequence": last["sequence"],
        "start": last["at_ms"],
        **_model(rows),
    }
    whole = {
        **names,
        "received": [one.received_ms for one in windows],
        **{name: rows.column(name) for name in _SUMS},
        **{name: last[name] for name in ("rss_kb", "uptime_s", "outbox_records")},
        **_answers(rows, bins),
    }
    return _table(WINDOWS, whole), _features(FEATURES, names, rows, bins)


def rollup_tables(rows: Rows, bins: Bins) -> tuple[pa.Table, pa.Table]:
    """The tables `rollups` and `rollup_features`; `device` is missing in a row of every device."""
    last = dict(zip(LAST, rows.last.T, strict=True))
    names: dict[str, Any] = {
        "hours": [key.hours for key in rows.keys],
        "start": [key.start_ms for key in rows.keys],
        "device": [None if key.device == EVERY_DEVICE else key.device for key in rows.keys],
        **_model(rows),
    }
    whole = {
        **names,
        **{name: rows.column(name) for name in SUMS},
        "largest_rss_kb": rows.rss_kb,
        "last": last["at_ms"],
        **{name: last[name] for name in ("rss_kb", "uptime_s", "outbox_records")},
        **_answers(rows, bins),
    }
    return _table(ROLLUPS, whole), _features(ROLLUP_FEATURES, names, rows, bins)


def bins_table(known: Mapping[bytes, Bins]) -> pa.Table:
    """The table `bins`: what each place of a list of counts stands for.

    Bin `i` of a number is (edges[i-1], edges[i]]; a text has its category's bin, and the last is every other text.
    """
    rows: list[tuple[object, ...]] = []
    for bins_id, bins in known.items():
        name = bins_id.hex()
        for feature in bins.features:
            edges = None if feature.categories is not None else list(feature.edges)
            rows.append((name, "feature", feature.name, edges, feature.categories, feature.minimum, feature.maximum))
        if bins.classes:
            rows.append((name, "classes", None, None, [str(one) for one in bins.classes], None, None))
        rows.append((name, "scores", None, list(bins.score_edges), None, None, None))
        rows.append((name, "latency_us", None, list(latency_edges_us()), None, None, None))
    columns = zip(*rows, strict=True) if rows else ([] for _ in BINS)
    return _table(BINS, dict(zip(BINS.names, columns, strict=True)))


def plain_table(schema: pa.Schema, rows: Sequence[Sequence[object]]) -> pa.Table:
    """Rows as they are, in the schema's order of columns."""
    return _table(schema, dict(zip(schema.names, zip(*rows, strict=True), strict=True)))


def _model(rows: Rows) -> dict[str, Any]:
    return {
        "model": [key.model for key in rows.keys],
        "version": [key.version for key in rows.keys],
        "bins_id": [key.bins_id.hex() for key in rows.keys],
        "shadow": [key.shadow for key in rows.keys],
    }


def _answers(rows: Rows, bins: Bins) -> dict[str, Any]:
    start = sum(feature.size + 3 for feature in bins.features)
    scores = start + len(bins.classes)
    end = scores + bins.score_size + 3 + LATENCY_BINS
    return {
        "classes": _lists(rows.counts[:, start:scores]),
        "scores": _lists(rows.counts[:, scores : scores + bins.score_size]),
        "latency": _lists(rows.latency),
        "distances": _lists(rows.counts[:, end:]),
    }


def _features(schema: pa.Schema, names: Mapping[str, Any], rows: Rows, bins: Bins) -> pa.Table:
    tables, at, number = [], 0, 0
    for feature in bins.features:
        end = at + feature.size
        null, invalid, out_of_range = rows.counts[:, end : end + 3].T
        moments: dict[str, Any] = dict.fromkeys(_MOMENTS, [None] * len(rows))
        if feature.categories is None:
            values = rows.moments[:, number, 0]
            # Where no window said anything there is nothing: not a mean of 0.
            moments = {
                name: np.where(values > 0, c, np.nan)
                for name, c in zip(_MOMENTS, rows.moments[:, number].T, strict=True)
            }
            moments["values"] = values.astype(np.int64)
            number += 1
        columns = {
            **names,
            "feature": [feature.name] * len(rows),
            "bins": _lists(rows.counts[:, at:end]),
            "null": null,
            "invalid": invalid,
            "out_of_range": out_of_range,
            **moments,
        }
        tables.append(_table(schema, columns))
        at = end + 3
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _lists(table: NDArray[np.int64]) -> Any:
    rows, width = table.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(table).ravel()))


def _table(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    arrays = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        values = columns[name]
        if not isinstance(values, pa.Array):
            values = pa.array(values, from_pandas=True)
        if kind == _TEXT and not pa.types.is_null(values.type):
            values = values.dictionary_encode()
        arrays.append(values.cast(kind))
    return pa.Table.from_arrays(arrays, schema=schema)
