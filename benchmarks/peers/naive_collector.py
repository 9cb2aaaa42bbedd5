"""The collector that one writes first: paho-mqtt, its own acknowledgements, and a commit for each message.

    python naive_collector.py PORT STORE.db

Ended by SIGTERM. It says every 64 messages on `bench/heard` how many it has stored.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

SAY = 64


def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]
    store = sqlite3.connect(path, check_same_thread=False)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = FULL")
    store.execute("CREATE TABLE record (dev, epoch, seq, kind, t0, n, body, PRIMARY KEY (dev, epoch, seq))")
    heard = 0

    def on_connect(client: mqtt.Client, *_: Any) -> None:
        client.subscribe("ek/1/up/#", qos=1)

    def on_subscribe(*_: Any) -> None:
        print("ready", flush=True)

    def on_message(client: mqtt.Client, _user: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal heard
        rows = []
        for record in msgspec.msgpack.decode(message.payload):
            _version, device, epoch, sequence, kind, t0, _dt, _clock, _bins, n, body, *_ = record
            rows.append((device, epoch, sequence, kind, t0, n, msgspec.msgpack.encode(body)))
        store.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        store.commit()
        heard += 1
        if heard % SAY == 0:
            client.publish("bench/heard", str(heard))

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-naive")
    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    signal.signal(signal.SIGTERM, lambda *_: client.disconnect())
    client.connect("127.0.0.1", port)
    client.loop_forever()
    store.close()


if __name__ == "__main__":
    main()
