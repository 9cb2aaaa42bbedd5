"""A real collector on a real Mosquitto that lets everything through, against whoever would break it.

`make hostile` does the same with 10,000 messages, and measures how long others wait meanwhile.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from pathlib import Path

from edgekit.collector.blocks import windows_of
from edgekit.collector.service import Collector
from edgekit_contracts import topics
from edgekit_runtime.mqtt import Publication, Received
from tests.brokers import Mosquitto, linked, wait_until
from tests.hostile import AHEAD, MALLORY, STRANGER, VICTIM, Attacker, expected, honest, honest_reference

ROUNDS = 4


def test_nothing_is_stored_under_another_name_and_everything_is_counted(tmp_path: Path) -> None:
    mosquitto = Mosquitto(tmp_path)
    mosquitto.start()
    up, presences = str(topics.Up(VICTIM)), list[Received]()
    try:
        with (
            linked(mosquitto.broker, "sender", (topics.ALL_HOSTS,), presences.append) as link,
            Collector(mosquitto.broker, tmp_path / "fleet.db") as collector,
        ):

            def send(topic: str, payload: bytes) -> None:
                wait_until(lambda: link.outstanding < 20, "room")
                assert link.publish(Publication(topic, payload))

            wait_until(lambda: presences, "the collector listens")
            now_ms = time.time_ns() // 1_000_000
            send(up, honest_reference())
            send(up, honest(2, now_ms))
            wait_until(lambda: collector.counts.stored == 2, "the victim's own")
            attacker = Attacker(1, honest(2, now_ms))
            messages = list(attacker.messages(ROUNDS * len(attacker.kinds)))
            for message in messages:
                send(message.topic, message.payload)
            send(up, honest(3, now_ms))

            def counted() -> Counter[str]:
                counts = collector.counts
                found = Counter(counts.refused)
                found["stored"], found["duplicate"] = counts.stored - 3, counts.duplicates
                return found

            wait_until(lambda: collector.counts.messages == len(messages) + 3, "all messages")
            assert counted() == expected(messages)
            assert collector.counts.ahead == sum(message.ahead for message in messages) > 0
            assert (collector.counts.let_go, collector.fault) == (0, None)
    finally:
        mosquitto.stop()

    with sqlite3.connect(tmp_path / "fleet.db") as db:
        windows = Counter(dict(db.execute("SELECT dev, SUM(windows) FROM window GROUP BY dev")))
        assert windows.keys() == {VICTIM, AHEAD}
        assert windows[VICTIM] == 2
        assert {dev for (dev,) in db.execute("SELECT DISTINCT dev FROM quarantine")} == {STRANGER}
        assert db.execute("SELECT COUNT(*) FROM device").fetchone() == (0,)
        assert {dev for (dev,) in db.execute("SELECT DISTINCT dev FROM part")} == {VICTIM, STRANGER}
        # A clock beyond every bound dates nothing.
        latest = max(
            one.at_ms for one in windows_of(records for (records,) in db.execute("SELECT records FROM window"))
        )
        assert latest < time.time_ns() // 1_000_000 + 600_000
        heads = dict(db.execute("SELECT reason, MAX(LENGTH(head)) FROM dead GROUP BY reason"))
        assert max(heads.values()) <= 4096
        assert MALLORY not in windows
    db.close()
