from __future__ import annotations

import time

import msgspec

from edgekit_runtime.config import DeviceConfig, Log, ModelSettings, Serve, Telemetry
from edgekit_runtime.observe import Observer
from edgekit_runtime.reload import applicable, changes
from edgekit_runtime.source import Source
from tests import bundles

OLD = DeviceConfig(
    device="dev-1", bundle="/a.edge", keys=("/k.pem",), telemetry=Telemetry(broker="mqtt://b", window_s=60.0)
)


def test_addresses_threads_and_the_state_wait_for_a_restart() -> None:
    wanted = DeviceConfig(
        device="dev-2",
        models=(ModelSettings(bundle="/b.edge"), ModelSettings(bundle="/c.edge")),
        keys=("/other.pem",),
        state_dir="/elsewhere",
        serve=Serve(host="0.0.0.0", port=9000, socket="/s", threads=4, max_rows=7),
        telemetry=Telemetry(broker="mqtt://other", window_s=5.0),
        log=Log(level="debug"),
    )
    now = applicable(OLD, wanted)
    assert set(changes(OLD, now)) == {
        "bundle",
        "models[0].bundle",
        "models[1].bundle",
        "keys",
        "log.level",
        "serve.max_rows",
        "telemetry.window_s",
    }
    assert set(changes(now, wanted)) == {
        "device",
        "serve.host",
        "serve.port",
        "serve.socket",
        "serve.threads",
        "state_dir",
        "telemetry.broker",
    }


def test_telemetry_begins_and_ends_with_a_restart() -> None:
    without = msgspec.structs.replace(OLD, telemetry=None)
    assert applicable(OLD, without).telemetry == OLD.telemetry
    assert applicable(without, OLD).telemetry is None
    assert "telemetry.broker" in changes(applicable(without, OLD), OLD)


def test_the_same_settings_change_nothing() -> None:
    assert applicable(OLD, OLD) == OLD
    assert not changes(OLD, OLD)


def test_a_window_that_is_open_ends_no_later_than_one_of_the_new_length() -> None:
    observer = Observer(bundles.manifest(), bundles.reference().bins)
    source = Source(bundles.manifest(), b"", b"", observer, 3600.0)
    source.resize(1.0)
    assert source.due_s <= time.monotonic() + 1.0
    source.resize(3600.0)
    assert source.due_s <= time.monotonic() + 1.0
