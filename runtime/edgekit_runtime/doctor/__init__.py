"""`edgekit-runtime doctor`: what is wrong with this device, each thing by its name, with what to do.

| module | looks at |
|---|---|
| `clock` | whether the time can be right, and is kept right |
| `hardware` | processor, heat, the supply's voltage |
| `memory` | what is free, limits of the control group, swap |
| `storage` | disk, permissions, who holds the state directory |
| `credentials` | public keys, certificates and their days, secrets that others can read |
| `network` | the service's addresses, each step of the way to the broker |
| `software` | Python, glibc, libraries, onnxruntime in a child, the bundle's golden set in a child |
| `machine` | the seam: `/proc`, `/sys`, the clock and the disk, which tests replace |
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.doctor.clock import clock
from edgekit_runtime.doctor.finding import Finding, exit_code
from edgekit_runtime.doctor.hardware import heat, processor
from edgekit_runtime.doctor.machine import Machine
from edgekit_runtime.doctor.memory import memory, processor_limit, swap
from edgekit_runtime.doctor.software import bundles, libraries, onnxruntime, proof, python

__all__ = ["Finding", "Machine", "examine", "exit_code"]


def examine(config: DeviceConfig | None, machine: Machine | None = None) -> Iterator[Finding]:
    """Looks at everything, one finding after the other, the quick ones first.

    Args:
        config: The device's settings; None: only at what does not depend on them.
        machine: What to look at.
    """
    machine = machine or Machine()
    yield from python()
    yield from libraries()
    yield from processor(machine)
    yield from clock(machine)
    manifests = _manifests(config)
    yield from memory(machine, manifests)
    yield from processor_limit(machine)
    yield from swap(machine)
    yield from heat(machine)
    if config is not None:
        yield from _of_the_settings(config, machine)
    yield from proof(manifests)
    runs = list(onnxruntime())
    yield from runs
    if config is not None and all(finding.verdict != "FAIL" for finding in runs):
        yield from bundles(config)


def _of_the_settings(config: DeviceConfig, machine: Machine) -> Iterator[Finding]:
    # Imported here: they bring libraries, and `libraries` has by now said which is missing.
    from edgekit_runtime.broker import broker_of
    from edgekit_runtime.doctor.credentials import public_keys, tls
    from edgekit_runtime.doctor.network import broker, port
    from edgekit_runtime.doctor.storage import disk, lock, permissions

    yield from disk(machine, config)
    yield from permissions(config)
    yield from lock(config)
    yield from public_keys(config)
    yield from port(machine, config)
    if config.telemetry is not None:
        yield from tls(machine, config.telemetry)
        try:
            there = broker_of(config.telemetry)
        except EdgekitError as error:
            yield Finding.of("broker", error)
        else:
            yield from broker(there)


def _manifests(config: DeviceConfig | None) -> list[Manifest]:
    """Of the bundles, for their budgets; whether they can be trusted is said elsewhere."""
    from edgekit_runtime.bundle import open_bundle

    found = []
    for model in config.served if config is not None else ():
        with contextlib.suppress(EdgekitError):
            found.append(open_bundle(model.bundle, keys=None).manifest)
    return found
