"""Windows added up by hour and by day, of each device and of all: pure, whole arrays at a time.

A window, an hour and a day are rows of the same columns, so there is one operation: rows with equal keys are added.
Counts and sums are integers, hence exact in any order. Of what the process said last, the latest row's word holds.
Moments are merged by Chan's formula over all rows of a group at once, in float64: in another order they may differ in
the last digits. Source: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
Sample Variances", 1979.

A window belongs to the hour and the day (UTC) of its start, however long it is: counts cannot be split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.monitor.varint_rows import decode_varint_rows
from edgekit_contracts.errors import FormatError
from edgekit_contracts.reference import LATENCY_BINS, Bins

if TYPE_CHECKING:
    from edgekit.collector.blocks import StoredWindow

HOUR_MS: Final = 3_600_000
HOUR, DAY = 1, 24
DAY_MS: Final = DAY * HOUR_MS
EVERY_DEVICE: Final = ""
"""In the place of a device's name: no device can be called so."""
LONGEST_MS: Final = 2**40
"""35 years: what a window says of its length and processor time counts up to here, so that no sum passes 63 bits."""


class Key(NamedTuple):
    """What rows are added up by."""

    hours: int
    """1 for an hour, 24 for a day, 0 for a window."""
    start_ms: int
    device: str
    """Or `EVERY_DEVICE`."""
    model: str
    version: str
    bins_id: bytes
    distance: bytes
    """The distance's name and number of bins, 5 bytes; empty where there is none."""
    shadow: bool
    """Rows that nobody was given the answers of."""

    def of(self, hours: int, device: str | None = None) -> Key:
        """The hour's or the day's key that this one's rows belong to."""
        length_ms = hours * HOUR_MS
        return self._replace(
            hours=hours,
            start_ms=self.start_ms // length_ms * length_ms,
            device=self.device if device is None else device,
        )


SUMS: Final = (
    "windows",
    "rows",
    "calls",
    "rejected",
    "failed",
    "output_nulls",
    "abstained",
    "resent",
    "cpu_ms",
    "dt_ms",
    "devices",
)
"""What is added, beside counts. `devices` is 1 for a device, and for all the number of those that sent something."""
LAST: Final = ("at_ms", "sequence", "epoch", "rss_kb", "uptime_s", "outbox_records")
"""Of the row that is latest by the first three."""
MOMENTS: Final = 5
"""Of each numeric feature: values, mean, M2, minimum, maximum."""

Integers = NDArray[np.int64]

_GOING_ON: Final = bytes(range(0x80, 0x100))
"""Octets of a varint behind which others follow."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows whose counts are of one length: those on equal bins, by an equal distance."""

    keys: Sequence[Key]
    sums: Integers
    """[rows, SUMS]."""
    last: Integers
    """[rows, LAST]."""
    rss_kb: Integers
    """[rows], the largest."""
    counts: Integers
    """[rows, numbers]: those of `Window.counts`, then of the distance."""
    moments: NDArray[np.float64]
    """[rows, numeric features, MOMENTS]; no values: 0, 0, 0, inf, -inf."""

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> Integers:
        """One of SUMS."""
        return self.sums[:, SUMS.index(name)]

    @property
    def measured(self) -> int:
        """How many of the counts are of the distance."""
        return self.keys[0].distance[4] if self.keys and self.keys[0].distance else 0

    @property
    def latency(self) -> Integers:
        """[rows, latency bins]."""
        end = self.counts.shape[1] - self.measured
        return self.counts[:, end - LATENCY_BINS : end]

    def without_moments(self) -> Rows:
        """The same of no numeric feature."""
        return replace(self, moments=self.moments[:, :0])

    def take(self, which: Sequence[int]) -> Rows:
        """Some of them."""
        return Rows(
            tuple(self.keys[at] for at in which),
            self.sums[which],
            self.last[which],
            self.rss_kb[which],
            self.counts[which],
            self.moments[which],
        )


Kind = tuple[bytes, bytes]
"""What rows must have in common to be added: `bins_id` and `Key.distance`."""


def by_kind(windows: Iterable[StoredWindow]) -> dict[Kind, list[StoredWindow]]:
    """Windows whose counts are of one length, together."""
    alike: dict[Kind, list[StoredWindow]] = {}
    for one in windows:
        distances = one.window.distances
        name = distances[:4] + bytes([len(distances[4:].translate(None, _GOING_ON))]) if distances else b""
        alike.setdefault((one.bins_id, name), []).append(one)
    return alike


def rows_of(windows: Iterable[StoredWindow], bins: Callable[[bytes], Bins | None]) -> list[Rows]:
    """Windows as rows, in the order of each kind.

    Args:
        windows: Checked when they were ingested.
        bins: The bins of a name.

    Raises:
        FormatError: The counts are not those of their bins; such windows are in no store that nobody has changed.
    """
    return [rows_of_kind(ones, kind[1], bins(kind[0])) for kind, ones in by_kind(windows).items()]


def add_up(rows: Rows, key: Callable[[Key], Key]) -> Rows:
    """Adds the rows whose new keys are equal.

    Args:
        rows: What to add.
        key: From a row's key to that of the sum.
    """
    places: dict[Key, int] = {}
    place = np.fromiter((places.setdefault(key(one), len(places)) for one in rows.keys), np.intp, len(rows))
    if len(places) == len(rows):
        return replace(rows, keys=tuple(places))
    order = np.argsort(place, kind="stable")
    place = place[order]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    return Rows(
        tuple(places),
        np.add.reduceat(rows.sums[order], starts),
        latest(rows.last[order], place),
        np.maximum.reduceat(rows.rss_kb[order], starts),
        np.add.reduceat(rows.counts[order], starts),
        merge_moments(rows.moments[order], place, starts),
    )


def latest(last: Integers, place: NDArray[np.intp]) -> Integers:
    """Of each place the row that is latest, by the first three of LAST.

    Args:
        last: [rows, LAST], by place.
        place: Of each row, ascending.
    """
    order = np.lexsort((last[:, 2], last[:, 1], last[:, 0], place))
    found: Integers = last[order[np.append(np.flatnonzero(np.diff(place)), len(place) - 1)]]
    return found


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one kind, one after the other."""
    return Rows(
        tuple(key for part in parts for key in part.keys),
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("sums", "last", "rss_kb", "counts", "moments")
        ),
    )


def rows_of_kind(windows: Sequence[StoredWindow], distance: bytes, bins: Bins | None) -> Rows:
    """Windows of one kind as rows; as `rows_of`."""
    assert bins is not None, "windows without bins are in quarantine"
    bodies = [one.window for one in windows]
    counts = decode_varint_rows([body.counts for body in bodies])
    if counts.shape[1] != width_of(bins):
        raise FormatError("window", "$.counts", "these are not the counts of its bins")
    nulls, abstained, resent = counts[:, -LATENCY_BINS - 3 : -LATENCY_BINS].T
    moments = moments_of(windows, counts[:, unseen_of(bins)])
    if distance:
        counts = np.hstack([counts, decode_varint_rows([body.distances[4:] for body in bodies])])
    said = [body.software for body in bodies]
    sums = np.zeros((len(windows), len(SUMS)), np.int64)
    for column, values in {
        "windows": 1,
        "rows": [one.n for one in windows],
        "calls": [one.calls for one in said],
        "rejected": [one.rejected for one in said],
        "failed": [one.failed for one in said],
        "output_nulls": nulls,
        "abstained": abstained,
        "resent": resent,
        "cpu_ms": [min(one.cpu_ms, LONGEST_MS) for one in said],
        "dt_ms": [min(one.dt_ms, LONGEST_MS) for one in windows],
    }.items():
        sums[:, SUMS.index(column)] = values
    last = [
        (one.at_ms, one.sequence, one.epoch, says.rss_kb, says.uptime_s, says.outbox_records)
        for one, says in zip(windows, said, strict=True)
    ]
    return Rows(
        tuple(
            Key(
                0,
                one.at_ms,
                one.device,
                one.model,
                one.version,
                one.bins_id,
                distance,
                bool(one.n) and not one.window.software.calls,
            )
            for one in windows
        ),
        sums,
        np.array(last, np.int64),
        np.array([one.rss_kb for one in said], np.int64),
        counts,
        moments,
    )


def width_of(bins: Bins) -> int:
    """Numbers of `Window.counts`."""
    features = sum(one.size + 3 for one in bins.features)
    return features + len(bins.classes) + bins.score_size + 3 + LATENCY_BINS


def unseen_of(bins: Bins) -> NDArray[np.intp]:
    """Where in the counts the rows stand that a numeric feature had no finite value in; shape (numeric features, 2)."""
    ends = np.cumsum([one.size + 3 for one in bins.features], dtype=np.intp)
    numeric = [one.categories is None for one in bins.features]
    return np.stack([ends - 3, ends - 2], axis=1)[numeric].reshape(-1, 2)


def moments_of(windows: Sequence[StoredWindow], unseen: NDArray[Any]) -> NDArray[np.float64]:
    """From what windows send; a quadruple that is not of finite numbers says nothing.

    Args:
        windows: Of one kind.
        unseen: Of each, the counts that `unseen_of` names; shape (windows, numeric features, 2).

    Returns:
        As `Rows.moments`.
    """
    moments = np.zeros((len(windows), unseen.shape[1], MOMENTS))
    moments[:, :, 3:] = np.inf, -np.inf
    sent = [at for at, one in enumerate(windows) if one.window.moments]
    if not sent or not unseen.shape[1]:
        return moments
    quadruples = b"".join([windows[at].window.moments for at in sent])
    seen = np.frombuffer(quadruples, "<f4").reshape(len(sent), -1, 4).astype(np.float64)
    rows = np.array([windows[at].n for at in sent], np.int64)
    values = rows[:, None] - unseen[sent].sum(axis=2, dtype=np.int64)
    says = np.isfinite(seen).all(axis=2) & (values > 0) & (seen[:, :, 1] >= 0)
    whole = np.concatenate([values[:, :, None], seen], axis=2)
    moments[sent] = np.where(says[:, :, None], whole, moments[sent])
    return moments


def merge_moments(
    moments: NDArray[np.float64], place: NDArray[np.intp], starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Moments of sorted rows, one result for each place: M2 = sum of M2 + sum of n (mean - mean of all)^2."""
    values, means = moments[:, :, 0], moments[:, :, 1]
    merged = np.zeros((len(starts), *moments.shape[1:]))
    total = np.add.reduceat(values, starts)
    mean = np.add.reduceat(values * means, starts) / np.maximum(total, 1)
    merged[:, :, 0], merged[:, :, 1] = total, mean
    merged[:, :, 2] = np.add.reduceat(moments[:, :, 2] + values * (means - mean[place]) ** 2, starts)
    merged[:, :, 3] = np.minimum.reduceat(moments[:, :, 3], starts)
    merged[:, :, 4] = np.maximum.reduceat(moments[:, :, 4], starts)
    return merged
