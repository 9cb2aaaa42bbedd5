"""The demo's story. Everything in it is the real thing: only the broker is small and the devices share a machine."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from edgekit.building import Build, build
from edgekit.collector.service import Collector
from edgekit.demo import world
from edgekit.demo.broker import embedded_broker
from edgekit.demo.devices import Device, running
from edgekit.fleet.status import DeviceStatus, fleet_status
from edgekit.report.page import write_report
from edgekit.steps import Step
from edgekit_contracts.errors import EnvironmentFault, StorageFault
from edgekit_converters.signing import PRIVATE_NAME, SigningKey
from edgekit_runtime.broker import Broker
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.signature import load_public_keys
from edgekit_runtime.trust import PUBLIC_NAME

NAMES: Final = ("clinic-1", "clinic-2", "clinic-3")
DRIFTED: Final = "clinic-3"
REQUESTS: Final = 300
"""For each device, before and after the drift begins."""
ARRIVAL_S: Final = 60


@dataclass(frozen=True)
class Outcome:
    """What the demo leaves."""

    built: Build
    fleet: list[DeviceStatus]
    report: Path
    store: Path


def run(directory: Path, say: Callable[[str], None], on_step: Callable[[Step], None]) -> Outcome:
    """Plays the whole road and leaves bundle, store and report in `directory`.

    Args:
        directory: For what is left; made where it is missing, and what an earlier demo left is replaced.
        say: Takes a line for a person.
        on_step: Takes each step of the build.

    Raises:
        EdgekitError: A station refused.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFault(str(directory), error.strerror or str(error)) from error
    with _workshop() as work:
        say("a model is trained: gradient boosting over scaled numbers and one-hot texts, with missing values")
        patients = world.patients()
        half = len(patients) // 2
        model = world.train(patients[:half])
        reference = patients[half:].reset_index(drop=True)
        SigningKey.create(work)

        say("the desk: converted, proved against the original on rows it was not trained on, checked, signed")
        built = build(
            model,
            reference,
            target=world.TARGET,
            device="raspberry-pi-4",
            out=directory / "progression-1.0.edge",
            key=work / PRIVATE_NAME,
            on_step=on_step,
        )
        public, store = work / PUBLIC_NAME, work / "fleet.db"
        with (
            embedded_broker() as address,
            Collector(Broker.parse(address), store) as collector,
            running(work, NAMES, built.path.resolve(), public, address) as devices,
        ):
            say(f"the devices: {', '.join(NAMES)} verified the bundle, tested themselves, and serve; broker {address}")
            say(
                f"traffic: {REQUESTS} patients at each clinic; then {DRIFTED} gets a scale that reports pounds, "
                "and its glucose meter drops out"
            )
            _send(devices, reference)
            say("the centre: waiting until every window is stored and acknowledged")
            fleet = _arrived(collector, 2 * REQUESTS)
            opened = open_bundle(built.path, keys=load_public_keys([public]))
            report = write_report(opened, directory / "report.html", store)
        shutil.copyfile(store, directory / "fleet.db")
    return Outcome(built, fleet, report, directory / "fleet.db")


def _send(devices: list[Device], patients: pd.DataFrame) -> None:
    def visit(number: int, device: Device) -> None:
        for phase in (0, 1):
            drifted = phase == 1 and device.name == DRIFTED
            for row in world.readings(patients, REQUESTS, seed=10 * number + phase, drifted=drifted):
                device.infer("progression", row)

    with ThreadPoolExecutor(len(devices)) as clients:
        for done in [clients.submit(visit, number, device) for number, device in enumerate(devices)]:
            done.result()


def _arrived(collector: Collector, rows: int) -> list[DeviceStatus]:
    deadline = time.monotonic() + ARRIVAL_S
    while time.monotonic() < deadline:
        fleet = fleet_status(collector.store, time.time_ns() // 1_000_000)
        if len(fleet) == len(NAMES) and all(one.rows >= rows for one in fleet):
            return fleet
        time.sleep(0.2)
    raise EnvironmentFault(
        f"after {ARRIVAL_S} s not every window had arrived",
        "try again; if it stays so, report it with 'edgekit doctor --json'",
    )


@contextmanager
def _workshop() -> Iterator[Path]:
    """A directory for keys and states, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="edgekit-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
