from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_contracts import topics
from edgekit_contracts.errors import UnknownName
from edgekit_contracts.names import DEVICE_PATTERN, MODEL_PATTERN, check_device


@given(st.from_regex(DEVICE_PATTERN[1:-1], fullmatch=True), st.sampled_from(["w", "e"]))
def test_a_lane_is_read_back_from_its_topic(device: str, lane: str) -> None:
    up = topics.Up(device, lane)  # type: ignore[arg-type]
    assert topics.Up.parse(str(up)) == up
    assert topics.status_device(topics.status(device)) == device


@given(st.from_regex(DEVICE_PATTERN[1:-1], fullmatch=True), st.from_regex(MODEL_PATTERN[1:-1], fullmatch=True))
def test_a_request_is_read_back_from_its_topic_and_its_answer_is_no_lane(device: str, model: str) -> None:
    infer = topics.Infer(device, model)
    assert topics.Infer.parse(str(infer)) == infer
    assert topics.Up.parse(infer.answer) is None
    assert infer.answer.count("/") > topics.ALL_UP.count("/")  # so that no collector hears it


@pytest.mark.parametrize(
    "topic",
    [
        "ek/1/up/3/dev1/../w",
        "ek/1/up/99/dev1/w",
        f"ek/1/up/{(topics.partition('dev1') + 1) % 16}/dev1/w",
        f"ek/1/up/{topics.partition('dev1')}/dev1/x",
        f"ek/1/up/{topics.partition('dev1')}/dev1/w/more",
        "ek/2/up/3/dev1/w",
        "ek/1/dn/dev1/infer/+",
        "ek/1/dn/dev1/infer/Pump",
        "ek/1/dn/dev1/infer/pump/1.0",
        "",
    ],
)
def test_a_topic_that_is_not_ours_is_none(topic: str) -> None:
    assert topics.Up.parse(topic) is None
    assert topics.status_device(topic) is None
    assert topics.host_collector(topic) is None
    assert topics.Infer.parse(topic) is None


@pytest.mark.parametrize("name", ["", "Dev", "dev/1", "dev+", "dev#", "-dev", "dev.1", "x" * 64, "dev 1", "dév"])
def test_a_name_that_could_leave_its_topic_is_refused(name: str) -> None:
    with pytest.raises(UnknownName, match="cannot be a device's name"):
        check_device(name)
