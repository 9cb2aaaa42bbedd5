"""What telemetry costs: bytes of a window and of a day, and microseconds, beside whylogs and the broker's own counters.

    .venv/bin/python benchmarks/telemetry.py                              # about a minute
    .venv/bin/python benchmarks/telemetry.py --environment ~/.cache/ek    # keeps whylogs' environment

The window: 30 numeric features of 20 bins, 1,000 rows, as a message of its own and as one of eight. whylogs profiles
the same rows; it is installed into an environment of its own, and left out where it cannot be.

The day: the real observer, reporter, outbox, uplink and collector with a real Mosquitto; 10 features, a window closed
every 5 minutes, 1,000 rows in each, 288 of them. Only the clock is moved: `time.time` and `time.monotonic` of this
process are put on, a minute at a time, and each minute has its pings. The broker's counters (`$SYS/broker/bytes/...`)
are those of all its connections; the collector's bytes are counted at its connection and taken off.

Times are processor time: the least of many runs, each of which is the mean of as many calls as take a millisecond, at
least ten; the ways come in turn.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import edgekit
from edgekit.collector.hours import added
from edgekit.collector.ingest import Message, read_batch
from edgekit.collector.plain import envelopes_from, window_in
from edgekit.collector.rollup import unseen_of, width_of
from edgekit.collector.service import Collector
from edgekit.fleet.status import fleet_status
from edgekit_contracts import topics
from edgekit_contracts.counts import encode_varints
from edgekit_contracts.reference import Bins
from edgekit_contracts.telemetry import (
    Clock,
    Envelope,
    Kind,
    Window,
    encode,
    encode_message,
    pack_message,
    unpack_message,
)
from edgekit_converters.signing import SigningKey
from edgekit_runtime.block import Rows
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.config import Telemetry
from edgekit_runtime.ledger import Account, Ledger
from edgekit_runtime.loading import Loaded, load_bundle
from edgekit_runtime.mqtt import Timing
from edgekit_runtime.observe import Observer
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.reporter import Reporter
from edgekit_runtime.signature import load_public_keys
from edgekit_runtime.source import Source
from edgekit_runtime.thrift import BUDGETS, Thrift, keepalive_s, rhythm, sends_moments
from edgekit_runtime.uplink import Uplink
from edgekit_runtime.varints import decode_varint_block, encode_varint_block
from tests.brokers import Counters, Mosquitto, wait_until

HERE: Final = Path(__file__).parent
DAY_S: Final = 86_400
WINDOW_S: Final = 300
ROWS: Final = 1_000
"""In a window."""
TOGETHER: Final = 8
LATENCIES_US: Final = (30.0, 40.0, 55.0, 70.0, 90.0, 120.0, 400.0)


@dataclass(frozen=True)
class Day:
    """What one day cost."""

    budget: str
    account: Account
    broker: int
    """Bytes of this device by the broker's own counters."""
    windows: int
    """That were closed."""
    stored: int
    rows: int
    merge_s: float
    send_s: float


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", help="where whylogs is installed, and found again (default: a new one)")
    parser.add_argument("--no-peers", action="store_true", help="without whylogs")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wide, narrow = bundle(folder, 30), bundle(folder, 10)
        peer = None if options.no_peers else whylogs(folder, options.environment, rows_of(30, ROWS))
        window(wide, peer)
        for budget in BUDGETS:
            show_day(day(folder / budget, narrow, budget))


def bundle(folder: Path, columns: int) -> Loaded:
    """A logistic regression of so many features, built, signed and loaded as on a device."""
    names = [f"f{at}" for at in range(columns)]
    X = rows_of(columns, 4_000)
    y = X[:, 0] + X[:, 1] > 0
    import pandas as pd

    frame = pd.DataFrame(X, columns=names)
    fitted = LogisticRegression().fit(frame, y)
    keys = folder / "keys"
    if not keys.exists():
        SigningKey.create(keys)
    path = folder / f"lr{columns}.edge"
    edgekit.build(
        fitted, frame.assign(y=y), target="y", name="press", version="1.0", out=path, key=keys / "edgekit.pem"
    )
    return load_bundle(open_bundle(path, keys=load_public_keys([str(keys / "edgekit.pub.pem")])))


def rows_of(columns: int, rows: int, seed: int = 0) -> NDArray[np.float64]:
    """Normal rows, correlated."""
    random = np.random.default_rng([seed, columns])
    return random.normal(size=(rows, columns)) + 0.5 * random.normal(size=(rows, 1))


def count(observer: Observer, loaded: Loaded, rows: NDArray[np.float64], seed: int) -> None:
    """Rows that were answered, each in a call of its own."""
    names = [feature.name for feature in loaded.manifest.features]
    batch = loaded.engine.encode({name: rows[:, at] for at, name in enumerate(names)})
    answers = loaded.engine.run(batch)
    assert answers.labels is not None
    latencies = 1000 * np.random.default_rng(seed).choice(
        LATENCIES_US, len(rows), p=(0.2, 0.4, 0.2, 0.1, 0.05, 0.04, 0.01)
    )
    observer.count(Rows(batch.rows, batch.numbers, (), answers.labels, answers.probabilities), latencies.tolist())


# --- a window ---------------------------------------------------------------------------------------------------------


def window(loaded: Loaded, peer: dict[str, Any] | None) -> None:
    """Prints what one window takes."""
    observer = Observer(loaded.manifest, loaded.bins, loaded.distance)
    bodies: list[Window] = []
    for seed in range(TOGETHER):
        count(observer, loaded, rows_of(30, ROWS, seed), seed)
        bodies.append(observer.close().body)
    print(f"\na window: {len(loaded.bins.features)} features x 20 bins, {ROWS} rows\n")
    print("| | payload of a message, bytes | in one of eight |\n|---|---:|---:|")
    for words, keep in (("counts", False), ("counts and moments", True)):
        sent = [body if keep else msgspec.structs.replace(body, moments=b"") for body in bodies]
        records = [record(loaded, body, at + 1) for at, body in enumerate(sent)]
        plain, packed = len(encode_message(records[:1])), len(pack_message(encode_message(records[:1])))
        eight = len(pack_message(encode_message(records))) / TOGETHER
        print(f"| edgekit, {words} (unpacked {plain:,}) | {packed:,} | {eight:,.0f} |")
    if peer is not None:
        print(f"| whylogs {peer['version']}, serialized | {peer['bytes']:,} | |")
    times(loaded, bodies, peer)


def record(loaded: Loaded, body: Window, sequence: int) -> bytes:
    """A window as it travels."""
    envelope = Envelope(
        1, "press-7", 2**62 + 12_345, sequence, Kind.WINDOW, 1_795_000_000_000 + 300_000 * sequence, 300_004,
        Clock.SYNCED, loaded.bins_id, ROWS, msgspec.Raw(encode(body)),
    )  # fmt: skip
    return encode(envelope)


def times(loaded: Loaded, bodies: list[Window], peer: dict[str, Any] | None) -> None:
    """Prints what writing and reading take."""
    plain = [msgspec.structs.replace(body, moments=b"") for body in bodies]
    message = encode_message(record(loaded, body, at + 1) for at, body in enumerate(plain))
    arrived = [Message(str(topics.Up("press-7")), pack_message(message), 0)] * 16
    array, bins = decode_varint_block(bodies[0].counts), loaded.bins
    values: list[int] = array.tolist()
    closing = closer(loaded)
    read_batch(arrived, Stored(bins))  # the model's name and version are known from now on
    # One after the other, for they are two machines: what one does, the other's caches do not know.
    device = least(
        {
            "device: counts to bytes": (lambda: encode_varint_block(array), 1),
            "device: the same by the contract's own writer": (lambda: encode_varints(values), 1),
            "device: a window closed: from its sums, moments included, to the bytes of its record": (closing, 1),
            "device: packing a message of eight": (lambda: pack_message(message), TOGETHER),
        }
    )
    centre = least(
        {
            "centre: from packed messages of eight to counts, added up": (
                lambda: added_up(arrived, bins),
                TOGETHER * len(arrived),
            ),
            "centre: unpacking these messages, alone": (
                lambda: [unpack_message(message.payload) for message in arrived],
                TOGETHER * len(arrived),
            ),
            "centre: from packed messages of eight to windows that were checked": (
                lambda: read_batch(arrived, Stored(bins)),
                TOGETHER * len(arrived),
            ),
        }
    )
    print("\n| | us a window |\n|---|---:|")
    for name, us in (device | centre).items():
        print(f"| {name} | {us:.1f} |")
    if peer is not None:
        print(f"| whylogs: serialize | {peer['encode_us']:,.0f} |")
        print(f"| whylogs: deserialize and merge | {peer['merge_us']:,.0f} |")


def closer(loaded: Loaded) -> Callable[[], object]:
    """Closes the same window again and again, its rows counted already."""
    observer = Observer(loaded.manifest, loaded.bins, loaded.distance)
    count(observer, loaded, rows_of(30, ROWS), 0)
    observer._count_block()
    observer._count_latencies()
    tally, latencies = observer._tally, observer._latency_below

    def close() -> bytes:
        observer._tally, observer._latency_below = tally, latencies
        return record(loaded, observer.close().body, 1)

    return close


def added_up(messages: Iterable[Message], bins: Bins) -> NDArray[np.int64]:
    """The sum of all windows in some messages, read as the collector does it."""
    runs: list[bytes] = []
    for message in messages:
        envelopes = envelopes_from(unpack_message(message.payload), "press-7")
        assert envelopes is not None
        for envelope in envelopes:
            body = window_in(envelope)
            assert body is not None
            runs.append(body.counts)
    sums, _ = added(runs, [len(runs)], width_of(bins), unseen_of(bins)[:0])
    return sums


class Stored:
    """What a store would know."""

    def __init__(self, bins: Bins) -> None:
        self._bins = bins

    def highest(self, device: str, epoch: int) -> int:
        """Nothing."""
        return 0

    def bins(self, bins_id: bytes) -> Bins:
        """The bins of all."""
        return self._bins


def least(ways: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Microseconds of processor time a window: the least of 40 means, the ways in turn.

    Each mean is of as many calls as take a millisecond, at least ten: all come to warm caches alike.
    """
    found, calls = dict.fromkeys(ways, float("inf")), dict.fromkeys(ways, 10)
    for _ in range(40):
        for name, (call, windows) in ways.items():
            start = time.thread_time()
            for _ in range(calls[name]):
                call()
            one_s = (time.thread_time() - start) / calls[name]
            found[name] = min(found[name], 1e6 * one_s / windows)
            calls[name] = max(10, round(0.001 / one_s))
    return found


def whylogs(folder: Path, environment: str | None, rows: NDArray[np.float64]) -> dict[str, Any] | None:
    """What whylogs makes of the rows; None where it cannot be installed."""
    home = Path(environment or folder / "whylogs")
    python = home / "bin" / "python"
    try:
        if not python.exists():
            venv.create(home, with_pip=True)
            # What it needs and does not name.
            wanted = ["whylogs==1.6.4", "numpy<2", "pandas<3"]
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
            subprocess.run(command, check=True)
        np.save(folder / "rows.npy", rows)
        script = str(HERE / "peers" / "whylogs_profile.py")
        out = subprocess.run([str(python), script, str(folder / "rows.npy")], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"without whylogs: {error}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(out)
    return found


# --- a day ------------------------------------------------------------------------------------------------------------


class Moved:
    """The clocks of this process, put on by hand."""

    def __init__(self) -> None:
        self.by_s = 0.0
        self._wall, self._monotonic = time.time, time.monotonic

    def __enter__(self) -> Moved:
        # The day before this one, so that nothing is dated ahead of the collector.
        self.by_s = -(self._wall() % DAY_S) - DAY_S + 1.0
        start, offset = self._monotonic(), self.by_s
        time.time = lambda: self._wall() + self.by_s
        time.monotonic = lambda: self._monotonic() - start + self.by_s - offset
        return self

    def __exit__(self, *_: object) -> None:
        time.time, time.monotonic = self._wall, self._monotonic


def day(folder: Path, loaded: Loaded, budget: str) -> Day:
    """One day of a device at a budget."""
    folder.mkdir()
    settings = Telemetry(broker="mqtt://127.0.0.1", budget=budget)  # type: ignore[arg-type]
    manifest = loaded.manifest
    privacy = msgspec.structs.replace(manifest.privacy, moments=sends_moments(settings))
    manifest = msgspec.structs.replace(manifest, privacy=privacy)
    mosquitto = Mosquitto(folder, "sys_interval 1\n")
    mosquitto.start()
    centre, ledger, thrift = Ledger(), Ledger(), Thrift(keepalive_s=keepalive_s(settings))
    thrift.rhythm = rhythm(settings, [loaded.bins])
    with ExitStack() as stack:
        stack.callback(mosquitto.stop)
        counters = stack.enter_context(Counters(mosquitto.broker))
        clock = stack.enter_context(Moved())
        collector = Collector(mosquitto.broker, folder / "fleet.db", timing=Timing(keepalive_s=65_535))
        collector._link._meter = centre.wire
        stack.enter_context(collector)
        outbox = stack.enter_context(Outbox(folder / "outbox.db", "press-7"))
        timing = Timing(keepalive_s=keepalive_s(settings))
        uplink = Uplink(mosquitto.broker, outbox, timing=timing, ledger=ledger, thrift=thrift)
        reporter = Reporter(outbox, uplink.wake)
        observer = Observer(manifest, loaded.bins, loaded.distance)
        source = Source(manifest, loaded.reference, loaded.bins_id, observer, WINDOW_S)
        uplink.start()
        wait_until(lambda: uplink.state.state == "connected", "the device is connected")
        reporter.start([source])
        settle(uplink, outbox, thrift)
        windows = 1  # the last one
        for minute in range(1, DAY_S // 60):
            clock.by_s += 60.0
            if minute * 60 % WINDOW_S == 0:
                count(observer, loaded, rows_of(len(loaded.bins.features), ROWS, minute), minute)
                before = outbox.produced
                reporter.pulse.ask()
                wait_until(lambda before=before: outbox.produced > before, "a window is closed")  # type: ignore[misc]
                windows += 1
            settle(uplink, outbox, thrift)
        count(observer, loaded, rows_of(len(loaded.bins.features), ROWS, 0), 0)
        uplink.hurry()
        reporter.stop()
        wait_until(lambda: outbox.records == 0, "all of it is stored")
        account = ledger.accounts.today
        uplink.stop()
        ended = ledger.accounts.since_start
        rows = sum(one.rows for one in fleet_status(collector.store, 0, look_back_ms=10**15))
        stored = collector.counts.stored
        collector.stop()
        received, sent = counters.read()
        own = centre.accounts.since_start
        broker = received + sent - own.total - (ended.total - account.total)
    return Day(budget, account, broker, windows, stored, rows, thrift.rhythm.merge_s, thrift.rhythm.send_s)


def settle(uplink: Uplink, outbox: Outbox, thrift: Thrift) -> None:
    """Until what is due has been sent and stored, and a ping that is due has its answer."""
    client: Any = uplink._link._client
    client._interrupt()  # the network's thread would look at the clock within a second
    for _ in range(2):  # the second answer comes after the first round is over
        uplink.pulse.ask()
        wait_until(lambda: uplink.pulse.answered, "the uplink comes round")
    wait_until(lambda: outbox.keyed == 0 and not client._ping_t, "what was sent is stored")


def show_day(found: Day) -> None:
    """Prints what a day cost."""
    streams = found.account.streams
    reference = streams.get("reference", 0)
    total = found.account.total - reference
    rest = {name: size for name, size in streams.items() if name != "reference"} | {"protocol": found.account.protocol}
    print(
        f"\nbudget {found.budget}: windows of {found.merge_s / 60:g} minutes, sent every {found.send_s / 60:g};"
        f" {found.windows} of 5 minutes were closed, {found.stored} records and {found.rows:,} rows stored\n"
    )
    print(f"| day of 10 features, {found.budget} | bytes |\n|---|---:|")
    for name, size in sorted(rest.items(), key=lambda item: -item[1]):
        print(f"| {name} | {size:,} |")
    print(f"| **all of it** | **{total:,}** |")
    print(f"| beside it, once: the reference | {reference:,} |")
    off = found.broker / found.account.total - 1
    print(f"| with it, by the ledger and by Mosquitto | {found.account.total:,} and {found.broker:,} ({off:+.1%}) |")


if __name__ == "__main__":
    main()
