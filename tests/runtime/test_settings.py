from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekit_contracts.errors import FormatError, MissingFile, UsageError
from edgekit_runtime import ask
from edgekit_runtime.ask import places
from edgekit_runtime.cli import settings_of
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.settings import _fill_in, find_file, load_settings, variables
from edgekit_runtime.trust import PUBLIC_NAME


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "device.toml"
    path.write_text('device = "dev-1"\nbundle = "a.edge"\nkeys = ["a.pem"]\n[serve]\nport = 9000\n')
    return path


def test_paths_in_the_file_are_relative_to_it(file: Path) -> None:
    config = load_settings(file, environ={}).config
    assert config.bundle == str(file.parent / "a.edge")
    assert config.keys == (str(file.parent / "a.pem"),)
    assert config.state_dir == str(file.parent / "state")


def test_a_bundle_and_a_key_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"bundle": ("a.edge", "BUNDLE"), "keys": (["a.pem"], "--key")}
    settings = load_settings(None, environ={"XDG_STATE_HOME": "/x"}, given=given)
    assert settings.config.bundle == str(tmp_path / "a.edge")
    assert settings.config.serve.port == 8080
    assert settings.config.state_dir == "/x/edgekit"
    assert settings.config.telemetry is None
    origins = {one.name: one.origin for one in settings.listed()}
    assert (origins["keys"], origins["serve.port"], origins["device"]) == ("--key", "default", "the host's name")


def test_a_bundle_alone_is_enough_for_who_has_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_KEYS", str(tmp_path))
    options = argparse.Namespace(config=None, bundle=Path("a.edge"), key=None)
    with pytest.raises(UsageError, match="no public key is named"):
        settings_of(options)
    (tmp_path / PUBLIC_NAME).touch()
    settings = settings_of(options)
    assert settings.config.keys == (str(tmp_path / PUBLIC_NAME),)
    assert settings.origins["keys"] == "your own key"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    environ = {"EDGEKIT_SERVE_PORT": "9001", "EDGEKIT_LOG_LEVEL": "debug", "EDGEKIT_SERVE_SOCKET": "x.sock"}
    settings = load_settings(file, environ=environ, given={"log.level": ("error", "--log-level")})
    assert settings.config.serve.port == 9001
    assert settings.config.serve.socket == str(Path.cwd() / "x.sock")
    assert settings.config.log.level == "error"
    found = {one.name: one for one in settings.listed()}
    assert found["serve.port"].origin == "EDGEKIT_SERVE_PORT"
    assert found["device"].origin == str(file)


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("EDGEKIT_SERVE_PORT", "http", """expected a whole number or "off", found the text 'http'"""),
        ("EDGEKIT_SERVE_PORT", "70000", "expected `int` <= 65535"),
        ("EDGEKIT_SERVE_PROT", "80", "there is no such setting; there is EDGEKIT_SERVE_PORT"),
        ("EDGEKIT_LOG_FORMAT", "xml", """expected "json" or "text", found the text 'xml'"""),
        ("EDGEKIT_TELEMETRY_WINDOW_S", "soon", "expected `float | null`, got `str`"),
    ],
)
def test_a_wrong_variable_is_named(file: Path, variable: str, value: str, fault: str) -> None:
    with pytest.raises(FormatError) as caught:
        load_settings(file, environ={variable: value})
    assert caught.value.sentence.startswith(f"configuration is not valid at {variable}: {fault}")


def test_variables_of_our_other_programs_are_not_ours(file: Path) -> None:
    environ = {"EDGEKIT_KEYS": "/keys", "EDGEKIT_RUNTIMES": "/r", "EDGEKIT_CONFIG": "x"}
    assert load_settings(file, environ=environ).config.keys == (str(file.parent / "a.pem"),)


def test_every_setting_of_one_value_has_a_variable() -> None:
    names = variables()
    assert names["EDGEKIT_TELEMETRY_OUTBOX_MB"] == "telemetry.outbox_mb"
    assert names["EDGEKIT_SERVE_THREADS"] == "serve.threads"
    assert "EDGEKIT_KEYS" not in names  # a list


def test_telemetry_needs_a_device_s_name(file: Path) -> None:
    file.write_text('bundle = "a.edge"\nkeys = ["a.pem"]\n[telemetry]\nbroker = "mqtt://b"\n')
    with pytest.raises(FormatError, match="missing required field `device`"):
        load_settings(file, environ={})
    assert load_settings(file, environ={"EDGEKIT_DEVICE": "dev-9"}).config.device == "dev-9"


def test_a_section_that_is_no_table_is_named(file: Path) -> None:
    file.write_text('bundle = "a.edge"\nkeys = ["a.pem"]\nserve = 8080\n')
    with pytest.raises(FormatError, match=r"\$\.serve"):
        load_settings(file, environ={"EDGEKIT_SERVE_PORT": "9000"})


def test_a_password_in_an_address_is_not_shown(file: Path) -> None:
    environ = {"EDGEKIT_TELEMETRY_BROKER": "mqtt://me:sec@ret@host:1883"}
    shown = {one.name: one.value for one in load_settings(file, environ=environ).listed()}
    assert shown["telemetry.broker"] == "mqtt://...@host:1883"


def test_systemd_s_state_directory_is_the_default(file: Path) -> None:
    settings = load_settings(file, environ={"STATE_DIRECTORY": "/var/lib/edgekit"})
    assert settings.config.state_dir == "/var/lib/edgekit"


def test_the_file_is_found_by_variable_and_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgekit_runtime.settings.PLACES", ("device.toml",))
    assert find_file(None, {}) is None
    (tmp_path / "device.toml").touch()
    assert find_file(None, {}) == Path("device.toml")
    assert find_file(None, {"EDGEKIT_CONFIG": "/x"}) == Path("/x")
    assert find_file(Path("y"), {"EDGEKIT_CONFIG": "/x"}) == Path("y")


def test_without_file_and_bundle_it_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="there is no configuration"):
        load_settings(None, environ={})
    with pytest.raises(UsageError, match="no public key is named"):
        load_settings(None, environ={}, given={"bundle": ("x.edge", "BUNDLE")})
    with pytest.raises(MissingFile, match="cannot read the configuration /nowhere"):
        load_settings(Path("/nowhere"), environ={})


def test_several_models_are_found_beside_the_file_and_listed_one_by_one(file: Path) -> None:
    file.write_text('keys = ["a.pem"]\n[[models]]\nbundle = "a.edge"\n[[models]]\nbundle = "/b.edge"\n')
    settings = load_settings(file, environ={})
    assert [one.bundle for one in settings.config.served] == [str(file.parent / "a.edge"), "/b.edge"]
    found = {one.name: one.origin for one in settings.listed()}
    assert found["models[1].bundle"] == str(file)
    assert found["models[0].threads"] == "default"


def test_a_service_under_systemd_is_found_by_its_file_in_etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree: dict[str, Any] = {"bundle": "b.edge", "keys": ["k"]}
    _fill_in(tree, {}, Path("/etc/edgekit/device.toml"), {})
    config = msgspec.convert(tree, DeviceConfig)
    assert config.state_dir == "/var/lib/edgekit"
    assert places(config) == ["http://127.0.0.1:8080"]
    (tmp_path / "edgekit.sock").touch()
    monkeypatch.setattr(ask, "SYSTEM_SOCKET", str(tmp_path / "edgekit.sock"))
    assert places(config) == [f"unix:{tmp_path}/edgekit.sock", "http://127.0.0.1:8080"]
