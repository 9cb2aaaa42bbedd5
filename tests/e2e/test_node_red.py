"""The flow of examples/node-red in a real Node-RED, headless, against a real broker."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from edgekit_runtime.mqtt import Publication, publish_once
from tests.brokers import Mosquitto, free_port, wait_until
from tests.javascript import NODE, npm_packages

ROOT: Final = Path(__file__).parents[2]
SAID: Final = {
    ("ek/1/st/clinic-1", "state-1.0/birth.json"): "clinic-1 runs progression 1.0",
    ("ek/1/st/clinic-1", "state-1.0/will.json"): "clinic-1 is gone",
    ("ek/1/now/clinic-1", "state-1.0/now.json"): "clinic-1: p99 0.4311 ms, 118 requests",
    ("ek/1/alert/clinic-1", "alert-1.0/event.json"): "WARNING clinic-1 shadow stopped: progression 1.1: it failed",
    ("ek/1/alert/clinic-1", "alert-1.0/over.json"): "WARNING clinic-1 drift (over): progression 1.0: drift: bmi",
}


@pytest.mark.node_red
def test_node_red_says_what_our_messages_say(mosquitto: Mosquitto, tmp_path: Path) -> None:
    modules, log = npm_packages("node-red@5.0.7"), tmp_path / "log"
    flow = (ROOT / "examples" / "node-red" / "flow.json").read_text()
    (tmp_path / "flow.json").write_text(flow.replace('"port": "1883"', f'"port": "{mosquitto.port}"'))
    (tmp_path / "settings.js").write_text(
        "module.exports = {httpAdminRoot: false, httpNodeRoot: false, credentialSecret: false,"
        f" uiHost: '127.0.0.1', uiPort: {free_port()}}}"
    )
    with log.open("wb") as said:
        process = subprocess.Popen(
            [NODE, modules / "node-red" / "red.js", "-u", tmp_path, "-s", tmp_path / "settings.js", "flow.json"],
            cwd=tmp_path,
            stdout=said,
            stderr=said,
        )
    try:
        wait_until(lambda: "Connected to broker" in log.read_text(), "Node-RED is connected", 120)
        for (topic, name), line in SAID.items():
            # Until it hears us: connected, it may not have subscribed yet. None of these is retained.
            payload = (ROOT / "tests" / "corpus" / name).read_bytes()

            def heard(topic: str = topic, payload: bytes = payload, line: str = line) -> bool:
                publish_once(mosquitto.broker, "stranger", Publication(topic, payload))
                return f"[debug:say] {line}" in log.read_text()

            wait_until(heard, line)
    finally:
        process.terminate()
        process.wait(30)
