from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgekit import cli
from edgekit.cli import output
from edgekit.cli.demo import typed
from tests import bundles
from tests.brokers import Mosquitto, free_port, wait_until
from tests.service import STOP_S, Service
from tests.terminal import shown
from tests.toolkit.conftest import Run


def every_command() -> list[list[str]]:
    found: list[list[str]] = [[]]
    for name, command in cli.cli.commands.items():
        found.append([name])
        if isinstance(command, click.Group):
            found += [[name, inner] for inner in command.commands]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_explains_itself(command: list[str], run: Run) -> None:
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    usage, _, rest = out.partition("\n")
    assert usage.startswith("Usage: edgekit")
    assert "...\n" not in rest, "a line of the list of commands that is cut off"


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version")[1] == "edgekit, version 0.1.0\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["build"], ["profiles", "show"], ["check", "a", "--color"]])
def test_wrong_usage_is_exit_2(arguments: list[str], run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_profiles_are_listed_and_shown_with_their_sources(run: Run) -> None:
    code, out, _ = run("profiles", "list")
    assert code == 0
    for name in ("raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "intel-n100", "this-machine"):
        assert name in out
    assert len(json.loads(run("profiles", "list", "--json")[1])["profiles"]) == 4
    code, out, _ = run("profiles", "show", "raspberry-pi-5")
    assert code == 0
    assert "sbc-bench" in out
    assert json.loads(run("profiles", "show", "raspberry-pi-5", "--json")[1])["profile"]["name"] == "raspberry-pi-5"


def test_an_unknown_profile_names_the_known_ones(run: Run) -> None:
    code, _, err = run("profiles", "show", "toaster")
    assert code == 2
    assert "there is no device profile 'toaster'" in err
    assert "raspberry-pi-4" in err


def test_this_machine_is_measured_now(run: Run) -> None:
    code, out, _ = run("profiles", "show", "this-machine", "--json")
    assert code == 0
    assert json.loads(out)["profile"]["rates"]["call_us"]["kind"] == "measured"


def test_the_doctor_finds_this_machine_well(run: Run, own_keys: Path) -> None:
    code, out, _ = run("doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(out)["findings"]}
    assert findings["onnxruntime"]["verdict"] == "ok"
    assert findings["signing key"]["verdict"] == "warn"
    assert code == 0
    run("keys", "create")
    (own_keys / "edgekit.pem").chmod(0o644)
    code, out, _ = run("doctor")
    assert code == 3
    assert "chmod 600" in out


def test_the_doctor_names_a_broker_that_is_down(run: Run) -> None:
    code, out, _ = run("doctor", "--broker", f"mqtt://127.0.0.1:{free_port()}")
    assert code == 3
    assert "no MQTT broker answers at" in out


def test_a_missing_library_names_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, err = run("verify", tmp_path / "x.edge")
    assert code == 2
    assert "this needs the library 'onnxruntime', which is not installed" in err
    assert "pip install 'edgekit-toolkit[build]'" in err


def test_own_keys_are_made_shown_and_secret(run: Run, own_keys: Path) -> None:
    assert run("keys", "show") == (
        2,
        "",
        f"Error: there is no key of yours in {own_keys}\nTry:   edgekit keys create, or build a bundle\n",
    )
    code, out, _ = run("keys", "create")
    assert (code, out.strip()) == (0, str(own_keys / "edgekit.pub.pem"))
    assert (own_keys / "edgekit.pem").stat().st_mode & 0o077 == 0
    assert len(json.loads(run("keys", "show", "--json")[1])["key"]) == 64


def test_a_key_that_does_not_fit_on_the_disk_leaves_room_for_the_next(run: Run, own_keys: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        code, _, _ = run("keys", "create")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 3
    assert list(own_keys.iterdir()) == []
    assert run("keys", "create")[0] == 0
    assert run("keys", "create", "--dir", own_keys / "edgekit.pem")[0] == 3


@pytest.mark.parametrize("hours", ["0", "-5", "nan", "inf", "1e9"])
def test_hours_that_are_no_length_of_time_are_refused(run: Run, tmp_path: Path, hours: str) -> None:
    for command in (["fleet", "status"], ["report", tmp_path / "x.edge"]):
        code, _, err = run(*command, "--store", tmp_path / "x.db", "--hours", hours)
        assert code == 2
        assert "'--hours'" in err


def test_a_demo_that_has_no_folder_to_write_into_is_exit_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("demo", "--dir", tmp_path / "file")
    assert code == 3
    assert "cannot use" in err


def test_collect_without_a_broker_is_exit_3(run: Run, tmp_path: Path) -> None:
    code, _, err = run("collect", "--broker", f"mqtt://127.0.0.1:{free_port()}", "--store", tmp_path / "fleet.db")
    assert code == 3
    assert "Error: no MQTT broker answers at mqtt://127.0.0.1:" in err
    assert "Try:   start the broker" in err


def test_collect_says_what_the_broker_speaks_and_where_it_takes_too_little(run: Run, tmp_path: Path) -> None:
    small = Mosquitto(tmp_path, "max_packet_size 20000\n")
    small.start()
    try:
        common = ("collect", "--broker", str(small.broker), "--store", tmp_path / "fleet.db", "--for", "0.1")
        code, _, err = run(*common)
        assert code == 0
        assert "speaks MQTT 5 (packets of up to 20000 bytes, 20 at once); MQTT 3.1.1 is used" in err
        assert "warning: devices send messages of up to 32768 bytes" in err
        code, _, err = run(*common, "--protocol", "5")
        assert code == 0
        assert "speaks" not in err
    finally:
        small.stop()


def test_a_wrong_broker_address_is_exit_2(run: Run, tmp_path: Path) -> None:
    code, _, err = run("collect", "--broker", "http://u:secret@x", "--store", tmp_path / "fleet.db")
    assert code == 2
    assert "secret" not in err


def test_fleet_status_without_a_store_is_exit_2(run: Run, tmp_path: Path) -> None:
    code, _, err = run("fleet", "status", "--store", tmp_path / "none.db")
    assert code == 2
    assert "none.db" in err
    assert not (tmp_path / "none.db").exists()


def test_a_store_that_is_none_is_exit_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_text("this is not a database, but long enough to be taken for one" * 20)
    code, _, err = run("fleet", "status", "--store", tmp_path / "fleet.db")
    assert code == 3
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_collect_stores_what_a_device_sends_and_fleet_status_shows_it(
    mosquitto: Mosquitto, tmp_path: Path, run: Run, number: int
) -> None:
    store = tmp_path / "fleet.db"
    service = Service(tmp_path, bundles.make(tmp_path), broker=str(mosquitto.broker))
    arguments = ["collect", "--broker", str(mosquitto.broker), "--store", str(store), "--alerts", "--json"]
    collector = subprocess.Popen(
        [sys.executable, "-m", "edgekit", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        service.start()
        for _ in range(5):
            assert service.infer()[0] == 200

        def seen() -> bool:
            code, out, _ = run("fleet", "status", "--store", store, "--json")
            devices = json.loads(out)["devices"] if code == 0 else []
            return bool(devices) and devices[0]["rows"] == 20

        wait_until(seen, "the device's rows in the fleet's table")
        code, out, _ = run("fleet", "status", "--store", store)
        assert code == 0
        assert "dev-1" in out
        assert "tiny 1.0" in out
        assert "online" in out
        service.stop()
        os.kill(collector.pid, number)
        out, err = collector.communicate(timeout=STOP_S)
        assert collector.returncode == 0, err
        assert json.loads(out)["counts"]["stored"] > 0
        assert "speaks MQTT 5" in err
    finally:
        service.close()
        collector.kill()
        collector.communicate()


def test_a_table_keeps_its_columns_on_a_narrow_terminal(run: Run) -> None:
    arguments = ["profiles", "show", "raspberry-pi-4"]
    lines = shown([sys.executable, "-m", "edgekit", *arguments], columns=80)
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split() == run(*arguments)[1].split()


def test_a_name_with_a_line_break_stays_in_its_row_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo_table(["feature", "type"], [["a\nb", "float64"], ["cc\t\u2028d", "text"]])
    assert capsys.readouterr().out == "feature  type\na?b      float64\ncc??d    text\n"


def test_what_steers_a_terminal_is_shown_instead_of_sent() -> None:
    assert output.printable("\x1b]0;owned\x07 \x1b[31mred\x1b[0m\x9b") == "?]0;owned? \x1b[31mred\x1b[0m?"


def test_the_next_commands_are_named_as_a_shell_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "edgekit"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "")
    assert typed() == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed() == "edgekit"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py")])
    assert typed() == f"{sys.executable} -m edgekit"
