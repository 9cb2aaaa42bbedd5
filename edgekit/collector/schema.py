"""The store's tables. The same in every database: a table is data, and each database writes its own DDL from it.

`at_ms` is the time of a record for people: the device's own clock where it is synchronised, else when it came. `day` is
the day on which a window was stored, since 1970 in UTC; `p` is its device's partition of the topic tree.

`bins_id` names bins, not the counts of a reference: whoever knows the bins can write other counts on them. So texts of
references are kept by their SHA-256, equal ones once, and each device's windows stand on the text that it sent itself.
"""

from __future__ import annotations

from typing import Final

from edgekit.collector.database import Table

VERSION: Final = 3
"""Of all tables together. An older store is brought up to date when it is opened (`migration`)."""

DEVICE: Final = Table("device", "dev text, status bytes, received_ms integer", ("dev",))
CURSOR: Final = Table(
    "cursor",
    # Ranges, and recent windows, as MessagePack: see `cursor.Cursor`.
    "dev text, epoch integer, high integer, ranges bytes, missing bytes, lost integer, recent bytes",
    ("dev", "epoch"),
)
WINDOW: Final = Table(
    "window",
    "p integer, day integer, dev text, hour_ms integer, windows integer, records bytes",
    (),
    (("dev", "hour_ms", "windows"), ("p", "id"), ("day",)),
    numbered=True,
)
"""A row is a block of windows: those of a device and an hour of their time (`at_ms`) that came together (`blocks`). How
many is in the index, so that whoever counts reads no window."""
QUARANTINE: Final = Table(
    "quarantine",
    "dev text, epoch integer, seq integer, bins_id bytes, received_ms integer, record bytes",
    ("dev", "epoch", "seq"),
    (("bins_id",), ("received_ms",)),
)
GAP: Final = Table(
    "gap",
    "dev text, epoch integer, first integer, last integer, records integer, rows integer, bytes integer, reason text,"
    "received_ms integer, lost integer",
    ("dev", "epoch", "last"),
    (("received_ms",),),
)
EVENT: Final = Table(
    "event",
    "dev text, epoch integer, seq integer, at_ms integer, received_ms integer, name text, detail text",
    ("dev", "epoch", "seq"),
    (("received_ms",),),
)
LABELS: Final = Table(
    "labels",
    "dev text, model text, version text, epoch integer, seq integer, received_ms integer, body bytes",
    ("dev", "model", "version"),
)
"""The newest totals of each."""
PART: Final = Table(
    "part",
    "dev text, epoch integer, seq integer, bins_id bytes, model text, version text, part integer, parts integer,"
    "data bytes, received_ms integer",
    ("dev", "epoch", "seq"),
    (("received_ms",),),
)
REFERENCE: Final = Table(
    "reference", "digest bytes, bins_id bytes, json bytes, received_ms integer", ("digest",), (("bins_id",),)
)
STANDING: Final = Table(
    "standing",
    "dev text, epoch integer, bins_id bytes, model text, version text, digest bytes, received_ms integer",
    ("dev", "epoch", "bins_id", "model", "version"),
)
DEAD: Final = Table(
    "dead",
    "topic text, reason text, digest bytes, detail text, head bytes, received_ms integer, count integer",
    ("topic", "reason", "digest"),
    (("received_ms",),),
)
REFUSAL: Final = Table("refusal", "reason text, count integer", ("reason",))
"""Totals, which outlive the rows of `dead`."""
SERIES: Final = Table(
    "series", "series bytes, model text, version text, bins_id bytes, distance bytes, shadow integer", ("series",)
)
"""What is rolled up apart from one another; named by the first 16 bytes of its SHA-256."""
_OF_ROLLUP: Final = "dev text, hours integer, start_ms integer, series bytes, p integer"
ROLLUP: Final = Table(
    "rollup",
    f"{_OF_ROLLUP},windows integer, rows integer, calls integer, rejected integer, failed integer,"
    "output_nulls integer, abstained integer, resent integer, cpu_ms integer, dt_ms integer, devices integer,"
    "at_ms integer, seq integer, epoch integer, rss_kb integer, uptime_s integer, outbox_records integer,"
    "largest_rss_kb integer, latency bytes",
    ("dev", "hours", "start_ms", "series", "p"),
    (("hours", "start_ms"),),
)
"""`hours` is 1 or 24; `dev` is empty in the sum of every device of a partition. From `at_ms` on: what the last of its
windows said; the largest memory of any; the latency's bins."""
ROLLUP_COUNTS: Final = Table("rollup_counts", f"{_OF_ROLLUP}, counts bytes", ROLLUP.key)
ROLLUP_MOMENTS: Final = Table("rollup_moments", f"{_OF_ROLLUP}, moments bytes", ROLLUP.key)
"""Apart, since both are larger than all of ROLLUP. Moments: see `rollup_rows`; no row where no window had any."""
ROLLUP_MARK: Final = Table("rollup_mark", "p integer, id integer", ("p",))
"""Up to which number a partition's windows are rolled up."""
COLLECTOR: Final = Table("collector", "name text, instance integer, until_ms integer", ("name",))
LEASE: Final = Table("lease", "p integer, instance integer", ("p",))
"""Which collectors live, and who holds which partition of the topic tree (`claims`); of PostgreSQL alone."""
_RECORDS: Final = (DEVICE, CURSOR, WINDOW, QUARANTINE, GAP, EVENT, LABELS, PART, REFERENCE, STANDING, DEAD, REFUSAL)
TABLES: Final = (*_RECORDS, SERIES, ROLLUP, ROLLUP_COUNTS, ROLLUP_MOMENTS, ROLLUP_MARK, COLLECTOR, LEASE)
