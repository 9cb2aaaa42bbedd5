"""The store as Parquet files, for pandas, DuckDB and the like: one file for each table and day (UTC).

Only some thousand rows are in memory at a time. A day that has not changed since its file was written is left as it
is, so a command that was killed goes on when it is given again. So is a day that the store no longer has all of,
because its retention removed rows: a folder that is exported into every night keeps everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from edgekit.collector import rollup_rows, tables
from edgekit.collector.archive import Archive
from edgekit.collector.parquet_files import File, Holds, held, holds
from edgekit.collector.rollup import DAY, DAY_MS, EVERY_DEVICE, HOUR, by_kind, rows_of_kind
from edgekit_contracts.errors import UsageError
from edgekit_contracts.reference import Bins

WINDOWS: Final = 1024
"""Made into tables at once."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of the store a folder is of."""

    devices: tuple[str, ...] = ()
    """None is all."""
    models: tuple[str, ...] = ()


@dataclass(slots=True)
class Exported:
    """What became of one table."""

    rows: int = 0
    """Written now."""
    files: int = 0
    unchanged: int = 0
    kept: int = 0
    """Files of days that the store no longer has all of."""


Tables = Iterator[tuple[pa.Table, ...]]


@dataclass(frozen=True, slots=True)
class _Part:
    """Tables whose files are written together, a day at a time."""

    schemas: dict[str, pa.Schema]
    at: str
    """The column of its time."""
    counted: str
    """SQL, as `Holds`: the outer two grow with whatever comes, the middle one when rows are removed."""
    read: Callable[[Archive, str, tuple[int, int], Selection], Tables]
    """A device's rows of a span."""
    everyone: bool = False
    """Whether there are rows of every device together."""


def export(
    store: Archive,
    folder: Path,
    *,
    since: date | None = None,
    until: date | None = None,
    selection: Selection | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Exported]:
    """Writes the store's windows, features, roll-ups, gaps and events.

    Args:
        store: Where the collector stores; it may do so meanwhile.
        folder: Made where it is missing.
        since: The first day.
        until: The last day.
        selection: Devices and models.
        progress: Told which file is being written.

    Returns:
        What became of each table.

    Raises:
        StorageFault: The store cannot be read, or the folder not be written.
        UsageError: The folder is of another selection, or the store knows no such device.
        EnvironmentFault: Another process writes into the folder.
    """
    chosen = selection or Selection()
    known = list(store.devices())
    if unknown := sorted({*chosen.devices} - {*known}):
        raise UsageError(f"the store knows no device '{unknown[0]}'", "look at `edgekit fleet status`")
    span = (_ms(since, 0) or 0, _ms(until, 1) or 2**62)
    done: dict[str, Exported] = {}
    with held(folder, msgspec.json.encode(chosen, order="sorted")):
        _write_bins(store, folder)
        for table, part in _PARTS.items():
            devices = [*([EVERY_DEVICE] if part.everyone and not chosen.devices else []), *(chosen.devices or known)]
            for day, here in _days(store, table, part, chosen.devices, span):
                _write_day(store, folder, part, (day, here), devices, chosen, done, progress)
    return done


def _days(
    store: Archive, table: str, part: _Part, devices: Sequence[str], span: tuple[int, int]
) -> list[tuple[int, Holds]]:
    """Each day that has rows, and how much of them."""
    some = f" AND dev IN ({', '.join('?' * len(devices))})" if devices else ""
    with store.database.reading() as db:
        rows = db.rows(
            f'SELECT {part.at} / {DAY_MS}, {part.counted} FROM "{table}" WHERE {part.at} >= ? AND {part.at} < ?{some}'
            f" GROUP BY {part.at} / {DAY_MS}",
            (*span, *devices),
        )
    return sorted((int(day), Holds(*map(int, numbers))) for day, *numbers in rows)


def _write_day(
    store: Archive,
    folder: Path,
    part: _Part,
    day: tuple[int, Holds],
    devices: Sequence[str],
    chosen: Selection,
    done: dict[str, Exported],
    progress: Callable[[str], None],
) -> None:
    number, here = day
    name = datetime.fromtimestamp(number * 86_400, UTC).strftime("%Y-%m-%d")
    paths = {table: folder / table / f"day={name}" / f"{table}.parquet" for table in part.schemas}
    before = [found for path in paths.values() if (found := holds(path)) is not None]
    results = [done.setdefault(table, Exported()) for table in part.schemas]
    # All of a part, or none: whoever was killed between two of them writes both again.
    if len(before) == len(paths) and not all(here.covers(one) for one in before):
        for result in results:
            result.kept += 1
        return
    if len(before) == len(paths) and all(one.covers(here) for one in before):
        for result in results:
            result.unchanged += 1
        return
    progress(f"{next(iter(paths))} of {name}")
    with ExitStack() as stack:
        files = [stack.enter_context(File(paths[table], schema, here)) for table, schema in part.schemas.items()]
        for device in devices:
            for rows in part.read(store, device, (number * DAY_MS, (number + 1) * DAY_MS), chosen):
                for file, table in zip(files, rows, strict=True):
                    file.add(table)
    for file, result in zip(files, results, strict=True):
        result.rows += file.rows
        result.files += bool(file.rows)


def _windows(store: Archive, device: str, span: tuple[int, int], chosen: Selection) -> Tables:
    found = [one for one in store.windows(device, *span) if not chosen.models or one.model in chosen.models]
    for start in range(0, len(found), WINDOWS):
        for (bins_id, distance), windows in by_kind(found[start : start + WINDOWS]).items():
            bins = _bins(store, bins_id)
            yield tables.window_tables(windows, rows_of_kind(windows, distance, bins), bins)


def _rollups(store: Archive, device: str, span: tuple[int, int], chosen: Selection) -> Tables:
    with store.database.reading() as db:
        found = [one for hours in (HOUR, DAY) for one in rollup_rows.read(db, device, hours, span, store.bins)]
    for rows in found:
        some = [at for at, key in enumerate(rows.keys) if not chosen.models or key.model in chosen.models]
        if some:
            yield tables.rollup_tables(rows.take(some), _bins(store, rows.keys[0].bins_id))


def _plain(table: str, columns: str, at: str, schema: pa.Schema) -> Callable[..., Tables]:
    def read(store: Archive, device: str, span: tuple[int, int], _: Selection) -> Tables:
        with store.database.reading() as db:
            rows = db.rows(
                f"SELECT {columns} FROM {table} WHERE dev = ? AND {at} >= ? AND {at} < ? ORDER BY {at}", (device, *span)
            )
        if rows:
            yield (tables.plain_table(schema, rows),)

    return read


_GAP: Final = "dev, epoch, first, last, records, rows, bytes, reason, received_ms"
_EVENT: Final = "dev, epoch, seq, at_ms, received_ms, name, detail"
_PARTS: Final = {
    "window": _Part(
        {"windows": tables.WINDOWS, "features": tables.FEATURES}, "hour_ms", "SUM(windows), MIN(id), MAX(id)", _windows
    ),
    "rollup": _Part(
        {"rollups": tables.ROLLUPS, "rollup_features": tables.ROLLUP_FEATURES},
        "start_ms",
        "COUNT(*), MIN(hours), SUM(windows)",
        _rollups,
        everyone=True,
    ),
    # A gap grows by swallowing others.
    "gap": _Part(
        {"gaps": tables.GAPS},
        "received_ms",
        "SUM(records), 0, MAX(received_ms)",
        _plain("gap", _GAP, "received_ms", tables.GAPS),
    ),
    "event": _Part(
        {"events": tables.EVENTS},
        "at_ms",
        "COUNT(*), MIN(received_ms), MAX(received_ms)",
        _plain("event", _EVENT, "at_ms", tables.EVENTS),
    ),
}


def _write_bins(store: Archive, folder: Path) -> None:
    """What the places of counts mean; of bins that the store has forgotten, what the folder says already."""
    with store.database.reading() as db:
        names = sorted(bytes(name) for (name,) in db.rows("SELECT DISTINCT bins_id FROM reference"))
    table = tables.bins_table({name: _bins(store, name) for name in names})
    path = folder / "bins" / "bins.parquet"
    before: Any
    try:
        before = pq.read_table(path, schema=tables.BINS)
    except (OSError, pa.ArrowException):
        before = tables.BINS.empty_table()
    known = {name.hex() for name in names}
    old = before.filter(pa.array([name not in known for name in before["bins_id"].to_pylist()], pa.bool_()))
    with File(path, tables.BINS, Holds(len(names), 0, 0)) as file:
        file.add(pa.concat_tables([old, table]))


def _bins(store: Archive, bins_id: bytes) -> Bins:
    found = store.bins(bins_id)
    assert found is not None, "windows without bins are in quarantine"
    return found


def _ms(day: date | None, later: int) -> int | None:
    if day is None:
        return None
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000) + later * DAY_MS
