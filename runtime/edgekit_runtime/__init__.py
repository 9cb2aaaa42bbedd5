"""The device's side: verify, load, test itself, answer, observe, report.

A request goes `serving.app` (HTTP) -> `serving.oip` (tensors) -> `served`
(whose) -> `engine` (rows -> ONNX Runtime -> answers) and back.
On the way `observe` copies the rows into a block; the request that fills it has it counted. Nothing else runs on a
request's time. A program that holds the bundle itself asks `model`, which answers a row where ONNX Runtime reads it.

| module | does |
|---|---|
| `signature`, `bundle` | check who signed the bundle and every byte of it, then read its manifest |
| `trust` | whose signature is believed where nobody says it |
| `vouching` | has a start's bundles checked by a child |
| `encoding` | named columns become the model's tensors; refusals name the feature |
| `session`, `engine` | rows in, answers out: the only place that calls ONNX Runtime |
| `selftest` | the golden set, replayed on this machine |
| `observe`, `block`, `tally`, `distance` | counts on the reference's bins, moments, latency; closes windows |
| `varints` | the counts of a window, written and read as a whole |
| `resent` | requests that come twice |
| `model`, `rows`, `single`, `ring` | what `load` gives: rows of any kind in, answers out; one row makes no array |
| `outbox`, `records`, `outfile` | records on disk until the collector has said that it stored them |
| `overflow`, `merging`, `ballast` | a full outbox: windows are merged before anything is given up; a full disk |
| `transaction` | all of it, or nothing: SQLite, for `outbox`, the review queue and the collector |
| `broker`, `mqtt`, `connection`, `dialect`, `uplink`, `flight` | the way to the broker and back; what is on its way |
| `ledger`, `thrift` | what that costs, byte by byte; budgets and the daily cap |
| `tls`, `identity` | the way is encrypted; the device's own key and certificate |
| `enrolment`, `enrolling`, `renewal` | a first certificate for a token, the next ones for the last |
| `reporter`, `source` | a window every so often: observe -> outbox -> uplink |
| `events` | what happened here, on its way to the outbox |
| `readings`, `outlets`, `sparkplug`, `home_assistant` | scalars for other tools |
| `served`, `route`, `interface` | which bundle answers a request, and who does if it fails |
| `strategies` | shadow and canary: what they cost, and what they tell |
| `oversight` | levels of automation, doubtful answers, the review queue |
| `models`, `loading`, `assembly`, `slots` | several models: loaded, exchanged, let go, kept over a restart |
| `commanding`, `showing` | what a person commands of them, and how they stand |
| `serving` | Open Inference Protocol v2 over TCP, a Unix socket and a broker |
| `batch` | CSV, JSON Lines or Parquet through the model |
| `config`, `settings` | `device.toml`, the environment and the command line |
| `entry`, `interrupts` | where the command begins, and Ctrl-C while it is imported |
| `service`, `telemetry`, `again` | the process that puts all of it together; what it starts behind its first answers |
| `lean` | imports of numpy, paho and digests without what a service does not use |
| `yielding` | loading in short pieces, with rests in which requests are answered |
| `keeper`, `reload`, `pulse`, `notify`, `logs` | reload, self-test on demand, the watchdog, what is written |
| `replacing` | a file is there whole, or as it was |
| `lock`, `ask` | whose the state directory is; asking the service that runs |
| `probe`, `doctor` | whether onnxruntime runs here at all; what is wrong with this device |
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgekit_runtime.model import Model

__version__: Final = "0.1.0"

# onnxruntime 1.29 and later report sessions, models and errors to their maker, and write a device identifier to disk,
# unless this is set before they are imported (microsoft/onnxruntime#27379). A device reports to its owner alone.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(
    path: str | Path, *, keys: str | Path | Sequence[str | Path] | None = None, observe: bool = False, threads: int = 1
) -> Model:
    """Opens a bundle, checks its signature and its golden set, and returns the model that answers.

    Args:
        path: A `.edge` file.
        keys: Public key files (PEM) that are trusted, or one. By default those that the device's settings name
            (`$EDGEKIT_CONFIG`, ./device.toml, /etc/edgekit/device.toml); where there are none, the user's own.
        observe: Whether what passes is counted: `model.observer.close().counts` are those since the last time.
        threads: Threads for one call of ONNX Runtime, 1 to 64.

    Raises:
        UsageError: There are no such threads; or no keys are named or found.
        EdgekitError: The bundle is missing, damaged, not signed by one of `keys`, or answers wrongly here.

    Example:
        >>> with edgekit_runtime.load("press-1.0.edge") as model:
        ...     model.predict({"temperature": 71.5, "material": "steel"}).label
        ...     model.predict(frame).probabilities
    """
    from edgekit_contracts.errors import UsageError
    from edgekit_runtime.bundle import open_bundle
    from edgekit_runtime.loading import load_bundle
    from edgekit_runtime.model import Model
    from edgekit_runtime.observe import Observer
    from edgekit_runtime.signature import load_public_keys
    from edgekit_runtime.trust import keys_here

    if not 1 <= threads <= 64:
        raise UsageError(f"{threads} threads cannot be", "give 1 to 64")
    named = keys_here() if keys is None else [keys] if isinstance(keys, str | Path) else keys
    trusted = load_public_keys(named)
    loaded = load_bundle(open_bundle(path, keys=trusted), threads=threads)
    return Model(loaded.engine, Observer(loaded.manifest, loaded.bins, loaded.distance) if observe else None)
