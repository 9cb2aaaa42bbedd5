"""Ten thousand hostile messages at a running collector, and an honest device beside them.

    .venv/bin/python benchmarks/hostile.py            # make hostile
    .venv/bin/python benchmarks/hostile.py --messages 2400 --seed 7

Bombs, others' names, replays, jumps, clocks from the future, moments and counts that cannot be, unknown bins
(tests/hostile.py), as fast as a Mosquitto without access rules takes them. `edgekit collect` is a process of its own.
Every message must be counted as what it is, nothing be stored under another's name, and no clock be believed that
cannot be. The honest device sends a window every 50 ms, alone and then beside the attack: how long it waits for the
collector's acknowledgement, which follows the commit. Ends by itself; exit code 1 where something was counted or
stored wrongly, or the honest device once waited for a second.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

from edgekit.collector.blocks import windows_of
from edgekit_contracts import limits, topics
from edgekit_contracts.decode import decode_msgpack
from edgekit_contracts.telemetry import Ack
from edgekit_runtime.broker import Broker
from edgekit_runtime.mqtt import Publication, Received
from tests.brokers import Mosquitto, link, wait_until
from tests.hostile import AHEAD, STRANGER, VICTIM, Attacker, Hostile, expected, honest, honest_reference

ALONE: Final = 60
"""Windows of the honest device before the attack."""
PACE_S: Final = 0.05
LAG_MAX_S: Final = 1.0
ON_THE_WAY: Final = 20
"""Hostile messages that the broker has not taken over."""


class Honest:
    """A device that sends one window after the other, and waits for each acknowledgement."""

    def __init__(self, broker: Broker) -> None:
        self._acknowledged, self._heard, self._listened_to = 0, threading.Condition(), threading.Event()
        self._link = link(broker, "honest", (topics.ack(VICTIM), topics.ALL_HOSTS), self._on_message)
        self._topic = str(topics.Up(VICTIM))
        assert self._listened_to.wait(60)
        self.sequence = 1
        self._publish(honest_reference())

    def send(self) -> float:
        """Seconds until the collector has stored a window."""
        self.sequence += 1
        started = time.perf_counter()
        self._publish(honest(self.sequence, time.time_ns() // 1_000_000))
        return time.perf_counter() - started

    def _publish(self, payload: bytes) -> None:
        assert self._link.publish(Publication(self._topic, payload))
        with self._heard:
            if not self._heard.wait_for(lambda: self._acknowledged >= self.sequence, timeout=60):
                raise TimeoutError(f"no acknowledgement of {self.sequence} within 60 s")

    def _on_message(self, received: Received) -> None:
        if received.topic != topics.ack(VICTIM):
            self._listened_to.set()  # a collector is there
            return
        ack = decode_msgpack(received.payload, Ack, what="acknowledgement", limit=limits.MESSAGE_MAX_BYTES)
        with self._heard:
            self._acknowledged = max(self._acknowledged, ack.high)
            self._heard.notify()

    def stop(self) -> None:
        """Disconnects."""
        self._link.stop()


def attack(broker: Broker, messages: list[Hostile]) -> None:
    attacker = link(broker, "attacker", ())
    for message in messages:
        wait_until(lambda: attacker.outstanding < ON_THE_WAY, "room at the broker")
        assert attacker.publish(Publication(message.topic, message.payload))
    wait_until(lambda: not attacker.outstanding, "the broker has all of them")
    attacker.stop()


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def stored_wrongly(store: Path, windows: int) -> list[str]:
    """What is in the store that should not be."""
    with closing(sqlite3.connect(store)) as db:
        names = Counter(dict(db.execute("SELECT dev, SUM(windows) FROM window GROUP BY dev")))
        waiting = {dev for (dev,) in db.execute("SELECT DISTINCT dev FROM quarantine")}
        (devices,) = db.execute("SELECT COUNT(*) FROM device").fetchone()
        blocks = [records for (records,) in db.execute("SELECT records FROM window")]
    latest = max(one.at_ms for one in windows_of(blocks))
    faults = {
        f"windows of {sorted(names)}": names.keys() != {VICTIM, AHEAD},
        f"{names[VICTIM]} windows of the honest device, which sent {windows}": names[VICTIM] != windows,
        f"in quarantine: {sorted(waiting)}": waiting != {STRANGER},
        f"{devices} births": devices != 0,
        "a window dated in the future": latest > time.time_ns() // 1_000_000 + limits.CLOCK_MAX_FUTURE_MS,
    }
    return [fault for fault, is_one in faults.items() if is_one]


def shown(name: str, waits: list[float]) -> str:
    ranked = sorted(waits)
    at = ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))]
    return (
        f"{name:<24} {len(waits):>5} windows   median {1000 * statistics.median(waits):7.1f} ms   "
        f"99th {1000 * at:7.1f} ms   longest {1000 * ranked[-1]:7.1f} ms"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="hostile messages at a running collector")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mosquitto = Mosquitto(folder)
        mosquitto.start()
        store = folder / "fleet.db"
        command = [str(Path(sys.executable).with_name("edgekit")), "collect", "--broker", str(mosquitto.broker)]
        with (folder / "collector.log").open("wb") as log:
            collector = subprocess.Popen(
                [*command, "--store", str(store), "--json"], stdout=subprocess.PIPE, stderr=log
            )
        try:
            wait_until(lambda: b"collecting from" in (folder / "collector.log").read_bytes(), "the collector")
            device = Honest(mosquitto.broker)
            alone = [paced(device) for _ in range(ALONE)]
            attacker = Attacker(options.seed, honest(2, 0))
            messages = list(attacker.messages(options.messages))
            before_mb, started = memory_mb(collector), time.perf_counter()
            thread = threading.Thread(target=attack, args=(mosquitto.broker, messages))
            thread.start()
            beside = [paced(device)]
            while thread.is_alive():
                beside.append(paced(device))
            lasted, after_mb = time.perf_counter() - started, memory_mb(collector)
            beside.append(device.send())  # behind the last of them: what came before is counted now
            device.stop()
            collector.send_signal(signal.SIGTERM)
            output, _ = collector.communicate(timeout=60)
        finally:
            collector.kill()
            mosquitto.stop()
        counts = json.loads(output)["counts"]
        found = Counter(counts["refused"])
        found["stored"], found["duplicate"] = counts["stored"] - device.sequence, counts["duplicates"]
        wanted = expected(messages)
        faults = stored_wrongly(store, device.sequence - 1)
    for kind, sent in Counter(message.kind for message in messages).items():
        outcomes = next(message.outcomes for message in messages if message.kind == kind)
        print(f"{sent:>6}  {kind:<28} {', '.join(dict.fromkeys(outcomes))}")
    print(f"\n{options.messages:,} in {lasted:.1f} s; the collector's memory {before_mb:.0f} -> {after_mb:.0f} MB")
    print(shown("honest device, alone", alone))
    print(shown("beside the attack", beside))
    for outcome in sorted(wanted | found):
        if wanted[outcome] != found[outcome]:
            faults.append(f"{outcome}: {found[outcome]} counted, {wanted[outcome]} sent")
    if counts["ahead"] != (ahead := sum(message.ahead for message in messages)):
        faults.append(f"from the future: {counts['ahead']} counted, {ahead} sent")
    if counts["let_go"]:
        faults.append(f"{counts['let_go']} messages let go")
    if max(beside) >= LAG_MAX_S:
        faults.append(f"the honest device waited {max(beside):.2f} s")
    print("\n".join(faults) or "every message counted as what it is, nothing stored under another's name")
    return 1 if faults else 0


def paced(device: Honest) -> float:
    waited = device.send()
    time.sleep(max(0.0, PACE_S - waited))
    return waited


if __name__ == "__main__":
    sys.exit(main())
