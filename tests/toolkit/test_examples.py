"""The snippets for other tools, held against real messages: every path that they name is in one."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from edgekit_contracts import topics

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT / "tests" / "corpus"
MESSAGES: Final = {
    "ek/1/st/+": ("state-1.0/birth.json", "state-1.0/will.json"),
    "ek/1/now/+": ("state-1.0/now.json",),
    "ek/1/alert/+": ("alert-1.0/event.json", "alert-1.0/over.json"),
}
TYPES: Final[dict[str, tuple[type, ...]]] = {"bool": (bool,), "int": (int,), "float": (int, float), "string": (str,)}


def messages(topic: str) -> list[dict[str, Any]]:
    return [json.loads((CORPUS / name).read_bytes()) for name in MESSAGES[topic]]


def test_the_topics_are_ours() -> None:
    named = {topics.status("+"), topics.now("+"), topics.alert("+")}
    assert named == MESSAGES.keys()


def telegraf() -> list[dict[str, Any]]:
    with (ROOT / "examples" / "telegraf" / "telegraf.conf").open("rb") as file:
        found: list[dict[str, Any]] = tomllib.load(file)["inputs"]["mqtt_consumer"]
    return found


@pytest.mark.parametrize("reader", telegraf(), ids=lambda reader: reader["client_id"])
def test_telegraf_names_what_is_in_our_messages(reader: dict[str, Any]) -> None:
    assert reader["data_format"] == "json_v2"
    # Telegraf multiplies the objects of a table with the lines of the tables before it.
    (table,) = reader["json_v2"]
    for message in messages(*reader["topics"]):
        if "timestamp_path" in table:
            assert table["timestamp_format"] == "unix_ms"
            assert message[table["timestamp_path"]] > 1_700_000_000_000
        for part in (*table["tag"], *table.get("field", ())):
            assert part["path"] in message
            value = message[part["path"]]
            assert isinstance(value, TYPES[part.get("type", "string")]) or (value is None and part["optional"])
        for part in table.get("object", ()):
            assert all(one.keys() >= set(part["tags"]) for one in message[part["path"]])


def test_telegraf_s_connections_do_not_replace_each_other() -> None:
    identifiers = [reader["client_id"] for reader in telegraf()]
    assert len(set(identifiers)) == len(identifiers)


def test_the_node_red_flow_hangs_together() -> None:
    nodes = {one["id"]: one for one in json.loads((ROOT / "examples" / "node-red" / "flow.json").read_bytes())}
    readers = [one for one in nodes.values() if one["type"] == "mqtt in"]
    assert {one["topic"] for one in readers} == MESSAGES.keys()
    assert all(nodes[one["broker"]]["type"] == "mqtt-broker" for one in readers)
    wired = {target for one in nodes.values() for targets in one.get("wires", []) for target in targets}
    assert wired <= nodes.keys()
    # Everything on the tab is reached, but for what reads.
    assert {one["id"] for one in nodes.values() if "wires" in one} - wired == {one["id"] for one in readers}
