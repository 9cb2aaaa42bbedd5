"""Kills, cuts, repeats, full disks; then compares what was produced with what is stored.

    .venv/bin/python -m benchmarks.chaos [--broker mosquitto|nats|nats-cluster|amqtt] [--store sqlite|postgresql]
        [--short] [--seed N]

Ends with 1 where a record or a row is lost or stored twice, or where a device fails by itself: one whose outbox passes
its limit does. The figures are counts, not times. Of a cluster one node at a time is killed. Three collectors share
PostgreSQL: instead of a full disk one of them sleeps for a while, and the database is killed too.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from benchmarks.chaos.centre import Process, collector, started
from benchmarks.chaos.network import Echo, Relay
from benchmarks.chaos.outcome import Outcome, compare
from edgekit_runtime.broker import Broker
from tests.brokers import Amqtt, Engine, Mosquitto, Nats, NatsCluster
from tests.postgres import Postgres

ENGINES: Final[dict[str, type[Engine | NatsCluster]]] = {
    "mosquitto": Mosquitto,
    "nats": Nats,
    "nats-cluster": NatsCluster,
    "amqtt": Amqtt,
}


class Plan(NamedTuple):
    """How much of everything."""

    devices: int
    records: int
    """Of all devices together."""
    kills: int
    cuts: int
    troubles: int
    """Times that the collector's disk is full; or, of several, that one sleeps and the database is killed."""
    outbox_bytes: int
    limit_s: float


FULL = Plan(devices=16, records=100_000, kills=200, cuts=50, troubles=10, outbox_bytes=20_000, limit_s=3600.0)
SHORT = Plan(devices=4, records=2_000, kills=16, cuts=6, troubles=1, outbox_bytes=10_000, limit_s=300.0)


class Scene(NamedTuple):
    """Who takes part."""

    broker: Engine | NatsCluster
    database: Postgres | None
    """None: one collector, with a file."""
    collectors: list[Process]
    devices: list[Process]
    relays: list[Relay]
    """Between the devices and each place of the broker."""
    echo: Echo


def main() -> int:
    """Runs it and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=ENGINES, default="mosquitto")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--short", action="store_true", help="4 devices, 2,000 records, 16 kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plan = SHORT if options.short else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.monotonic()
        try:
            shared = options.store == "postgresql"
            done, found = run(plan, folder, random.Random(options.seed), ENGINES[options.broker], shared=shared)
        except pytest.skip.Exception as missing:  # what the tests' engines say where one is not installed
            raise SystemExit(str(missing)) from None
    print(
        f"{options.broker}, {options.store}: {plan.devices} devices, {time.monotonic() - begun:.0f} s; "
        + ", ".join(f"{count} {what}" for what, count in done.items())
    )
    print(", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in found._asdict().items()))
    return int(bool(found.twice or found.missing or found.missing_rows or found.forgotten or done["device failures"]))


def run(
    plan: Plan,
    folder: Path,
    dice: random.Random,
    engine: type[Engine | NatsCluster] = Mosquitto,
    *,
    shared: bool = False,
) -> tuple[Counter[str], Outcome]:
    """Starts everything, kills and cuts it, waits until every outbox is empty, and looks what is stored.

    Args:
        plan: How much.
        folder: For everybody's files.
        dice: What happens when.
        engine: The broker.
        shared: Three collectors share PostgreSQL.
    """
    done = Counter[str]()
    with ExitStack() as stack:
        database, store, names = None, str(folder / "fleet.db"), ["collector"]
        if shared:
            database = Postgres()
            stack.callback(database.stop)
            database.start()
            store, names = database.create("fleet"), ["one", "two", "three"]
        broker = engine(folder)
        stack.callback(broker.stop)
        broker.start()
        collectors = [stack.enter_context(started(collector(folder, broker.broker, store, name))) for name in names]
        relays = [stack.enter_context(Relay(place.port)) for place in broker.broker.places]
        echo = stack.enter_context(Echo(broker.broker))
        near = Broker.parse("mqtt://" + ",".join(f"127.0.0.1:{relay.port}" for relay in relays))
        devices = [
            stack.enter_context(started(_device(plan, folder, number, near, dice))) for number in range(plan.devices)
        ]
        echo.wait()
        scene = Scene(broker, database, collectors, devices, relays, echo)
        _disturb(plan, dice, done, scene)
        _finish(plan, scene)
        done["device failures"] = sum(device.failures for device in devices)
        return done, compare(folder, plan.devices, store)


def _device(plan: Plan, folder: Path, number: int, broker: Broker, dice: random.Random) -> Process:
    command = [sys.executable, "-m", "benchmarks.chaos.device", f"device-{number}", str(folder), str(broker)]
    windows = plan.records // plan.devices
    return Process(
        [*command, str(windows), str(plan.outbox_bytes), str(dice.randrange(2**31))], folder / f"device-{number}.log"
    )


def _disturb(plan: Plan, dice: random.Random, done: Counter[str], scene: Scene) -> None:
    acts = ["kill"] * plan.kills + ["cut"] * plan.cuts + ["again"] * plan.cuts
    acts += (["full"] if scene.database is None else ["asleep", "database"]) * plan.troubles
    dice.shuffle(acts)
    for act in acts:
        time.sleep(dice.uniform(0.02, 0.3))
        if act == "cut":
            done["connections cut"] += sum(relay.cut(0.5, dice) for relay in scene.relays)
        elif act == "again":
            done["messages delivered again"] += scene.echo.again(20, dice)
        elif act == "full":
            done["full disks of the collector"] += 1
            with scene.collectors[0].full_disk():
                time.sleep(dice.uniform(0.2, 1.0))
        elif act == "asleep":
            done["collectors asleep"] += 1
            with dice.choice(scene.collectors).asleep():
                time.sleep(dice.uniform(5.5, 7.0))  # longer than a lease
        elif act == "database" and scene.database is not None:
            done["database kills"] += 1
            scene.database.kill()
            scene.database.start()
        else:
            what = dice.choices(("device", "broker", "collector"), (6, 1, 2))[0]
            done[f"{what} kills"] += 1
            if what == "device":
                dice.choice(scene.devices).kill()
            else:
                killed = scene.broker if what == "broker" else dice.choice(scene.collectors)
                killed.kill()
                time.sleep(dice.uniform(0.0, 0.3))
                killed.start()
        for process in (*scene.collectors, *scene.devices):
            process.tend()


def _finish(plan: Plan, scene: Scene) -> None:
    end = time.monotonic() + plan.limit_s
    while any(device.ended is None for device in scene.devices):
        for process in (*scene.collectors, *scene.devices):
            process.tend()
        if time.monotonic() > end:
            waiting = next(device for device in scene.devices if device.ended is None)
            logs = "\n".join(one.log for one in (waiting, *scene.collectors))
            raise SystemExit(f"a device still waits after {plan.limit_s:g} s; its log, and the collectors':\n{logs}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
