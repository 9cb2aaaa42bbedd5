"""The tables of docs/operations.md: what a fleet of 10 to 1,000,000 devices needs, from what was measured.

    .venv/bin/python benchmarks/sizing.py            # prints them
    .venv/bin/python benchmarks/sizing.py --write    # puts them into the page; a test compares

Whoever measures again, or pays other prices, changes a figure here and runs it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.collector.keep import DAY_MS, Keep

PAGE: Final = Path(__file__).parent.parent / "docs" / "operations.md"
FLEETS: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
DAY_S: Final = 86_400
YEAR: Final = 365
"""Days."""


@dataclass(frozen=True)
class Figure:
    """A number and where it is from."""

    value: float
    unit: str
    what: str
    source: str


MEASURED: Final = {
    "broker_us": Figure(17.6, "us CPU", "Mosquitto, a message of 1 KB in and out, QoS 1", "[1](#sources)"),
    "ack_us": Figure(5.4, "us CPU", "Mosquitto, an acknowledgement of 100 B in and out, QoS 0", "[1](#sources)"),
    "nats_mb": Figure(
        0.14, "MB", "NATS, a cluster of three: memory of each node for a device", "[scale-out](scale-out.md)"
    ),
    "nats_ms": Figure(
        0.27, "ms/s CPU", "the same: each node's work for a device that is silent", "[scale-out](scale-out.md)"
    ),
    "tls_ms": Figure(2.8, "ms CPU", "Mosquitto, a connection with mutual TLS (P-256)", "[1](#sources)"),
    "tls_kb": Figure(20.5, "kB", "Mosquitto, memory of such a connection", "[1](#sources)"),
    "SQLite ingest_us": Figure(68, "us CPU", "SQLite: a window checked, stored and committed", "[2](#sources)"),
    "SQLite rollup_us": Figure(
        49, "us CPU", "SQLite: a window taken into the roll-ups, twelve an hour", "[2](#sources)"
    ),
    "SQLite window_b": Figure(1_686, "B", "SQLite: a window with its indexes", "[2](#sources)"),
    "SQLite rollup_b": Figure(2_876, "B", "SQLite: a roll-up with its indexes", "[2](#sources)"),
    "PostgreSQL ingest_us": Figure(94, "us CPU", "PostgreSQL: a window checked, stored and committed", "[2](#sources)"),
    "PostgreSQL rollup_us": Figure(
        79, "us CPU", "PostgreSQL: a window taken into the roll-ups, twelve an hour", "[2](#sources)"
    ),
    "PostgreSQL window_b": Figure(1_693, "B", "PostgreSQL: a window with its indexes", "[2](#sources)"),
    "PostgreSQL rollup_b": Figure(3_183, "B", "PostgreSQL: a roll-up with its indexes", "[2](#sources)"),
    "tiny_kb": Figure(8.8, "kB", "MQTT bytes of a day, both ways: 10 features, budget `tiny`", "[3](#sources)"),
    "normal_kb": Figure(45.5, "kB", "MQTT bytes of a day, both ways: 10 features, budget `normal`", "[3](#sources)"),
}
ASSUMED: Final = {
    "window_s": Figure(300, "s", "length of a window", "`[telemetry] window_s`"),
    "window_days": Figure(14, "days", "windows are kept at least, where disk is dear", "`--keep-windows 14d`"),
    "hour_days": Figure(90, "days", "hours likewise", "`--keep-hours 90d`"),
    "load": Figure(0.5, "", "of a core that may be in use, so that peaks and catching up fit", "a habit"),
    "reconnect_s": Figure(
        300, "s", "in which every device is to be connected again after a broker's restart", "a wish"
    ),
    "core": Figure(15.0, "a month", "a core with 4 GB of memory", "replace it by yours"),
    "disk": Figure(0.10, "a month", "a GB of SSD, with its backup twice", "replace it by yours"),
    "mobile": Figure(0.05, "", "a MB of mobile data", "replace it by yours"),
}


def given(name: str) -> float:
    """One of the figures."""
    return (MEASURED.get(name) or ASSUMED[name]).value


@dataclass(frozen=True)
class Size:
    """What a fleet needs."""

    devices: int

    @property
    def windows_s(self) -> float:
        """Windows, and as many messages up and acknowledgements down, a second."""
        return self.devices / given("window_s")

    @property
    def broker_cores(self) -> float:
        """Of Mosquitto, for messages."""
        return self.windows_s * (given("broker_us") + given("ack_us")) / 1e6

    @property
    def broker_mb(self) -> float:
        """Memory of its connections."""
        return self.devices * given("tls_kb") / 1000

    @property
    def connect_s(self) -> float:
        """Seconds of one core until every device is connected again."""
        return self.devices * given("tls_ms") / 1000

    @property
    def nats(self) -> str:
        """Cores and memory of each node of three."""
        cores, gigabytes = self.devices * given("nats_ms") / 1000, self.devices * given("nats_mb") / 1000
        return f"{_short(cores)}, {_short(gigabytes)} GB"

    @property
    def brokers(self) -> int:
        """Processes of Mosquitto, one core each."""
        return max(1, math.ceil(self.broker_cores / given("load")), math.ceil(self.connect_s / given("reconnect_s")))

    @property
    def collector_cores(self) -> float:
        """Taking in and rolling up, the database's work among it."""
        return self.windows_s * (given(f"{self.store} ingest_us") + given(f"{self.store} rollup_us")) / 1e6

    @property
    def collectors(self) -> int:
        """Processes, one core each."""
        return max(1, math.ceil(self.collector_cores / given("load")))

    @property
    def store(self) -> str:
        """Which one."""
        return "SQLite" if self.devices <= 10_000 else "PostgreSQL"

    @property
    def windows_day_gb(self) -> float:
        """Stored in a day."""
        return self.windows_s * DAY_S * given(f"{self.store} window_b") / 1e9

    def kept_gb(self, window_days: float, hour_days: float) -> float:
        """After a year, of which windows and hours are kept so long, and days all."""
        rollups = self.devices * (24 * min(hour_days, YEAR) + YEAR) * given(f"{self.store} rollup_b") / 1e9
        return self.windows_day_gb * min(window_days, YEAR) + rollups

    @property
    def default_gb(self) -> float:
        """As it is kept where nobody says otherwise."""
        keep = Keep()
        assert keep.days is None
        return self.kept_gb((keep.windows or math.inf) / DAY_MS, (keep.hours or math.inf) / DAY_MS)

    @property
    def least_gb(self) -> float:
        """With the retention that is assumed."""
        return self.kept_gb(given("window_days"), given("hour_days"))

    def mobile_mb(self, budget: str) -> float:
        """A device and month."""
        return given(f"{budget}_kb") / 1000 * 30

    @property
    def money(self) -> tuple[float, float, float]:
        """A month's cores, disk, and mobile data at budget `tiny`."""
        cores = self.brokers + self.collectors + (self.store == "PostgreSQL")
        mobile = self.devices * self.mobile_mb("tiny") * given("mobile")
        return cores * given("core"), self.least_gb * given("disk"), mobile


def tables() -> str:
    """All of them, in Markdown."""
    sizes = [Size(devices) for devices in FLEETS]
    return "\n".join(
        [
            _figures(["measured", "", "", "source"], MEASURED.values()),
            _figures(["assumed", "", "", "from"], ASSUMED.values()),
            _columns(
                sizes,
                {
                    "windows/s": lambda one: _short(one.windows_s),
                    "Mosquitto: % of a core": lambda one: _percent(one.broker_cores),
                    "memory MB": lambda one: _short(one.broker_mb),
                    "a core connects all in": lambda one: _span(one.connect_s),
                    "Mosquittos": lambda one: str(one.brokers),
                    "or each of three NATS: cores, memory": lambda one: one.nats,
                    "collector: % of a core": lambda one: _percent(one.collector_cores),
                    "collectors": lambda one: str(one.collectors),
                },
            ),
            _columns(
                sizes,
                {
                    "store": lambda one: one.store,
                    "windows GB/day": lambda one: _short(one.windows_day_gb),
                    "kept for ever, after a year GB": lambda one: _short(one.kept_gb(YEAR, YEAR)),
                    "by default": lambda one: _short(one.default_gb),
                    "14 days of windows, 90 of hours": lambda one: _short(one.least_gb),
                },
            ),
            _columns(
                sizes,
                {
                    "cores": lambda one: _short(one.money[0]),
                    "disk": lambda one: _short(one.money[1]),
                    "mobile data (`tiny`)": lambda one: _short(one.money[2]),
                    "together": lambda one: _short(sum(one.money)),
                    "a device": lambda one: _short(sum(one.money) / one.devices),
                },
            ),
        ]
    )


def _figures(header: Sequence[str], figures: Iterable[Figure]) -> str:
    rows = [[one.what, f"{one.value:,g}", one.unit, one.source] for one in figures]
    return _table(header, ("---", "---:", "---", "---"), rows)


def _columns(sizes: Sequence[Size], columns: Mapping[str, Callable[[Size], str]]) -> str:
    rows = [[f"{one.devices:,}", *(column(one) for column in columns.values())] for one in sizes]
    return _table(["devices", *columns], ("---:",) * (len(columns) + 1), rows)


def _table(header: Sequence[str], marks: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(header), "|".join(marks), *(" | ".join(row) for row in rows)]
    return "\n".join([f"|{one}|" if at == 1 else f"| {one} |" for at, one in enumerate(lines)] + [""])


def _percent(cores: float) -> str:
    return _short(100 * cores) if cores >= 1e-5 else "< 0.001"


def _short(value: float) -> str:
    """The digits that count."""
    if value >= 100 or value == int(value):
        return f"{round(value, -max(0, len(str(int(value))) - 3)):,.0f}"
    return f"{value:.2g}"


def _span(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"


def written(page: str) -> str:
    """The page with these tables in it: each takes the place of the one that begins with the same header."""
    lines = page.splitlines()
    for table in tables().strip().split("\n\n"):
        fresh = table.splitlines()
        start = lines.index(fresh[0])
        end = next(at for at in range(start, len(lines) + 1) if at == len(lines) or not lines[at].startswith("|"))
        lines[start:end] = fresh
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints or writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PAGE.write_text(written(PAGE.read_text()))
    else:
        print(tables())


if __name__ == "__main__":
    main()
