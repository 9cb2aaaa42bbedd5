from __future__ import annotations

import functools
import platform

import numpy as np
import pytest

from edgekit import profiles
from edgekit_contracts.errors import EnvironmentFault
from edgekit_contracts.profile import DeviceProfile, Figure
from edgekit_converters import calibrate
from edgekit_converters import calibration_graphs as graphs
from edgekit_converters.cost import cost
from edgekit_converters.fit import predict


@functools.cache
def machine() -> DeviceProfile:
    return profiles.load("this-machine")


def test_every_rate_of_this_machine_is_measured_and_dated() -> None:
    rates = machine().rates
    figures = [getattr(rates, name) for name in rates.__struct_fields__]
    assert all(isinstance(figure, Figure) and figure.kind == "measured" for figure in figures)
    assert all(figure.source.startswith("measured on 2") and "onnxruntime" in figure.source for figure in figures)


def test_this_machine_says_what_it_is() -> None:
    profile = machine()
    assert (profile.name, profile.title) == ("this-machine", "this machine")
    assert profile.board.architecture == platform.machine()
    assert profile.board.ram_mb.value > 100
    assert profile.runtime.supported


def test_the_rates_have_a_sane_order() -> None:
    # Orders of magnitude, which no load changes: a node is cheaper than a call, p99 is not under the median.
    rates = machine().rates
    assert rates.node_us.value < rates.call_us.value
    assert rates.tail_ratio.value >= 1
    assert 20 < rates.runtime_mb.value < 500


def test_a_model_is_predicted_for_this_machine() -> None:
    budget = predict(cost(graphs.forest()), machine(), 1_000_000)
    assert budget.profile == "this-machine"
    assert 0 < budget.latency_ms_low < budget.latency_ms < budget.latency_ms_high


def test_a_model_is_timed_row_by_row() -> None:
    rows = [{"x": np.full((1, graphs.WIDTH), value, dtype=np.float32)} for value in (0.0, 0.5, 1.0)]
    median, tail, longest = calibrate.measure_latency(graphs.identity(), rows, calls=50)
    assert 0 < median <= tail <= longest


def test_the_graphs_cost_what_their_rates_are_divided_by() -> None:
    assert cost(graphs.chain()).nodes == graphs.CHAINED
    assert 2 * cost(graphs.product()).madds == graphs.PRODUCT_FLOPS
    assert cost(graphs.stream()).elements == graphs.STREAMED * graphs.STREAM_NODES
    assert cost(graphs.forest()).tree_comparisons == graphs.FOREST_STEPS
    assert cost(graphs.identity()).nodes == 0


def test_a_machine_without_a_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "armv7l")
    with pytest.raises(EnvironmentFault, match="armv7l"):
        calibrate.this_machine()
