"""The announcement to Home Assistant, held against its documentation, and on a real broker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from edgekit_contracts.decode import encode_json
from edgekit_contracts.state import ModelNow, Now, Status, decode_now
from edgekit_runtime.broker import Broker
from edgekit_runtime.home_assistant import MARK, HomeAssistant, discovery, discovery_topic, withdraw
from edgekit_runtime.mqtt import Publication, Received
from tests import bundles
from tests.brokers import Mosquitto, linked, wait_until
from tests.service import Service

# Home Assistant, "MQTT", "Device discovery payload": what may stand at the top.
TOP: Final = {"device", "origin", "components", "state_topic", "availability_topic", "availability_template", "qos"}
REQUIRED: Final = {"device", "origin", "components"}
DEVICE: Final = {"identifiers", "name", "manufacturer", "model", "sw_version"}
# "MQTT Sensor", "Configuration Variables"; `platform` and `unique_id` are required of a component.
SENSOR: Final = {
    "platform",
    "unique_id",
    "name",
    "value_template",
    "state_class",
    "device_class",
    "unit_of_measurement",
    "entity_category",
    "icon",
}
# "Sensor", "Device class": the units of each.
UNITS: Final = {
    "duration": {"d", "h", "min", "s", "ms", "µs"},
    "data_size": {"bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB"},
}
NOW: Final = Now(
    device="pump-1",
    at_ms=1,
    rss_mb=81.5,
    outbox_records=3,
    models=(
        ModelNow(model="press-a", version="1.0", requests=7, failed=0, latency_p50_ms=0.25, latency_p99_ms=1.5),
        ModelNow(model="saw", version="2.0"),
    ),
)


@contextmanager
def listening(broker: Broker) -> Iterator[list[Received]]:
    """What Home Assistant would hear."""
    heard: list[Received] = []
    with linked(broker, "home", ("homeassistant/#", "ek/1/now/+"), heard.append):
        yield heard


def standing(heard: list[Received]) -> dict[str, bytes]:
    """What stands at the broker, by topic; empty messages take it away."""
    return {topic: said for topic, said in {one.topic: one.payload for one in list(heard)}.items() if said}


def test_the_announcement_has_the_documented_keys_alone() -> None:
    said = json.loads(msgspec.json.encode(discovery(NOW)))
    assert REQUIRED <= said.keys() <= TOP
    assert said["device"].keys() == DEVICE
    assert said["origin"]["name"] == "edgekit"
    # "Discovery topic": prefix, component, node and object; the latter two are of [a-zA-Z0-9_-].
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config", discovery_topic("pump-1"))
    assert len(said["components"]) == 10
    assert len({one["unique_id"] for one in said["components"].values()}) == 10
    for sensor in said["components"].values():
        assert {"platform", "unique_id", "name", "value_template"} <= sensor.keys() <= SENSOR
        assert sensor["platform"] == "sensor"
        assert sensor["state_class"] == "measurement"
        assert sensor.get("entity_category", "diagnostic") == "diagnostic"
        assert ("device_class" in sensor) == ("unit_of_measurement" in sensor)
        if "device_class" in sensor:
            assert sensor["unit_of_measurement"] in UNITS[sensor["device_class"]]


def test_the_templates_give_the_values_of_real_messages() -> None:
    jinja2 = pytest.importorskip("jinja2")

    def rendered(template: str, message: bytes) -> str:
        text: str = jinja2.Template(template, undefined=jinja2.StrictUndefined).render(value_json=json.loads(message))
        return text

    said, message = discovery(NOW), encode_json(NOW)
    values = {name: rendered(one["value_template"], message) for name, one in said["components"].items()}
    assert values == {
        "rss_mb": "81.5",
        "outbox_records": "3",
        "press-a_requests": "7",
        "press-a_failed": "0",
        "press-a_latency_p50_ms": "0.25",
        "press-a_latency_p99_ms": "1.5",
        "saw_requests": "None",  # which Home Assistant shows as unknown
        "saw_failed": "None",
        "saw_latency_p50_ms": "None",
        "saw_latency_p99_ms": "None",
    }
    for dead, shown in ((False, "online"), (True, "offline")):
        status = encode_json(Status(device="pump-1", session=1, dead=dead))
        assert rendered(said["availability_template"], status) == shown


def test_a_model_that_is_gone_is_removed_by_its_platform_alone(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []
    fleet = [NOW]

    def publish(publication: Publication, qos: int) -> bool:
        if publication.topic.startswith("homeassistant"):
            assert (publication.retain, qos) == (True, 1)
            said.append(json.loads(publication.payload))
        return True

    home = HomeAssistant(lambda: fleet[0], publish, tmp_path)
    home.connected()
    home.update()
    assert len(said) == 1  # it is not said again before it changes
    fleet[0] = msgspec.structs.replace(NOW, models=NOW.models[1:])
    home.update()
    assert said[1]["components"]["press-a_failed"] == {"platform": "sensor"}
    assert said[1]["components"]["saw_failed"] == said[0]["components"]["saw_failed"]


def test_what_could_not_be_taken_back_is_taken_back_later(tmp_path: Path) -> None:
    said: list[str] = []

    def taken(publication: Publication, qos: int) -> bool:
        said.append(publication.topic)
        return True

    withdraw("pump-1", taken, tmp_path)
    assert said == []  # nothing was announced
    (tmp_path / MARK).touch()
    withdraw("pump-1", lambda publication, qos: False, tmp_path)
    assert (tmp_path / MARK).exists()
    withdraw("pump-1", taken, tmp_path)
    assert said == ["homeassistant/device/edgekit/pump-1/config", "ek/1/now/pump-1"]
    assert not (tmp_path / MARK).exists()


def test_a_device_announces_itself_and_takes_it_back_when_it_is_switched_off(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    service = Service(tmp_path, bundles.make(tmp_path), broker=str(mosquitto.broker), telemetry="home_assistant = true")
    with listening(mosquitto.broker) as heard:
        try:
            service.start()
            wait_until(lambda: len(standing(heard)) == 2, "the announcement")
            assert service.infer()[0] == 200

            def counted() -> bool:
                # Of all that was heard: what stands is another window's 0.3 s later.
                now = [decode_now(one.payload) for one in list(heard) if one.topic == "ek/1/now/dev-1"]
                return any(one.models[0].requests == 1 for one in now)

            wait_until(counted, "the window's scalars")
            said = json.loads(standing(heard)["homeassistant/device/edgekit/dev-1/config"])
            assert said["device"]["model"] == "tiny 1.0"
            service.stop()
            assert len(standing(heard)) == 2
            service.config.write_text(service.config.read_text().replace("home_assistant = true", ""))
            service.start()
            wait_until(lambda: not standing(heard), "both are gone")
        finally:
            service.stop()
            service.close()
