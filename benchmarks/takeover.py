"""Three collectors share PostgreSQL, and one is killed: how long until the others store what it would have stored?

    .venv/bin/python benchmarks/takeover.py [--rounds N] [--devices N]

Real Mosquitto, real PostgreSQL, `edgekit collect` three times, devices that produce ten windows a second each. The
figures are seconds after `kill -9`: until the others hold all partitions; until each of its partitions is stored into
again; until all that had been produced before the kill is stored. Ends with 1 where a window is lost or stored twice.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chaos.centre import Process, collector, started
from edgekit.collector.blocks import windows_of
from edgekit.collector.database import Database
from edgekit.collector.store import open_database
from edgekit_contracts.topics import PARTITIONS
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.uplink import Uplink
from tests.brokers import Mosquitto, wait_until
from tests.postgres import Postgres
from tests.telemetry_samples import append_reference, append_window

NAMES: Final = ("one", "two", "three")
PACE_S: Final = 0.1
LIVING: Final = "FROM lease JOIN collector USING (instance)"


class Fleet:
    """Devices that go on producing, on one thread."""

    def __init__(self, stack: ExitStack, folder: Path, broker: Mosquitto, devices: int) -> None:
        self.windows: dict[str, int] = {}
        self._stopping = threading.Event()
        self._members: list[tuple[Outbox, Uplink]] = []
        for name in (f"device-{number}" for number in range(devices)):
            outbox = stack.enter_context(Outbox(folder / f"{name}.db", name))
            uplink = Uplink(broker.broker, outbox)
            append_reference(outbox)
            uplink.start()
            stack.callback(uplink.stop)
            self.windows[name] = 0
            self._members.append((outbox, uplink))
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self._thread.start()

    def _produce(self) -> None:
        while not self._stopping.wait(PACE_S):
            for outbox, uplink in self._members:
                append_window(outbox)
                self.windows[outbox.device] += 1
                uplink.wake()

    def finish(self) -> None:
        """Produces no more, and waits until all is acknowledged."""
        self._stopping.set()
        self._thread.join()
        wait_until(lambda: not any(outbox.records for outbox, _ in self._members), "all is acknowledged", 120)


def main() -> int:
    """Runs it and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, default=32)
    options = parser.parse_args()
    dice, rounds = random.Random(0), []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, broker, server = Path(name), Mosquitto(Path(name)), Postgres()
        for engine in (broker, server):
            stack.callback(engine.stop)
            engine.start()
        address = server.create("fleet")
        collectors = {
            one: stack.enter_context(started(collector(folder, broker.broker, address, one))) for one in NAMES
        }
        wait_until(lambda: "collecting" in collectors["one"].log, "a collector runs")
        database = open_database(address)
        stack.callback(database.close)
        wait_until(lambda: shared(database, len(NAMES)), "each has its share")
        fleet = Fleet(stack, folder, broker, options.devices)
        wait_until(lambda: len(stored(database)) == options.devices, "all devices are stored")
        for _ in range(options.rounds):
            time.sleep(3.0 + dice.random())
            rounds.append(kill(database, collectors, dice.choice(NAMES), fleet))
            print(", ".join(f"{what} {took:.1f} s" for what, took in rounds[-1].items()), flush=True)
            wait_until(lambda: shared(database, len(NAMES)), "each has its share again")
        fleet.finish()
        held, twice = stored(database), doubles(database)
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {options.devices} devices, medians (longest):")
    for what in rounds[0]:
        took = [one[what] for one in rounds]
        print(f"  {what:<40} {statistics.median(took):5.1f} s ({max(took):.1f} s)")
    lost = sum(fleet.windows.values()) - sum(held.values())
    print(f"  {sum(fleet.windows.values()):,} windows produced, {lost} lost, {twice} stored twice")
    return int(bool(lost or twice))


def kill(database: Database, collectors: dict[str, Process], name: str, fleet: Fleet) -> dict[str, float]:
    """Kills one, measures, and starts it again."""
    orphans = {p for (p,) in rows(database, f"SELECT p {LIVING} WHERE name = ?", name)}
    collectors[name].kill()
    begun, produced = time.monotonic(), dict(fleet.windows)
    ((newest,),) = rows(database, 'SELECT COALESCE(MAX(id), 0) FROM "window"')

    def taken() -> bool:
        return rows(database, f"SELECT COUNT(*) {LIVING} WHERE name <> ?", name) == [(PARTITIONS,)]

    def again() -> bool:
        found = rows(database, 'SELECT DISTINCT p FROM "window" WHERE id > ?', newest)
        used = {p for (p,) in rows(database, 'SELECT DISTINCT p FROM "window"')}
        return orphans & used <= {p for (p,) in found}

    def complete() -> bool:
        held = stored(database)
        return all(held[device] >= count for device, count in produced.items())

    steps: dict[str, Callable[[], bool]] = {
        "the others hold its partitions": taken,
        "each of them is stored into": again,
        "all from before the kill is stored": complete,
    }
    took = {}
    for what, condition in steps.items():
        wait_until(condition, what, 120)
        took[what] = time.monotonic() - begun
    collectors[name].start()
    return took


def shared(database: Database, collectors: int) -> bool:
    """Whether so many hold about as much."""
    counts = [count for (count,) in rows(database, f"SELECT COUNT(*) {LIVING} GROUP BY instance")]
    return len(counts) == collectors and sum(counts) == PARTITIONS and max(counts) - min(counts) <= 1


def stored(database: Database) -> dict[str, int]:
    """Windows of each device."""
    return {
        device: int(count) for device, count in rows(database, 'SELECT dev, SUM(windows) FROM "window" GROUP BY dev')
    }


def doubles(database: Database) -> int:
    """Windows that are there more than once."""
    times = Counter(
        (one.device, one.epoch, one.sequence)
        for (records,) in rows(database, 'SELECT records FROM "window"')
        for one in windows_of([records])
    )
    return sum(count > 1 for count in times.values())


def rows(database: Database, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What a query gives."""
    with database.reading() as db:
        return db.rows(sql, values)


if __name__ == "__main__":
    sys.exit(main())
