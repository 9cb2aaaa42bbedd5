"""The device's commands beside a service: `status`, `doctor`, `config`, and `run` with nothing but a bundle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.brokers import wait_until
from tests.service import Service
from tests.terminal import shown


def command(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit_runtime", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, bundles.make(tmp_path))
    yield service
    service.close()


def test_the_service_is_asked_over_its_socket_and_over_any_port(service: Service, tmp_path: Path) -> None:
    service.start()
    done = command("status", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["live"]["version"] == "1.0"
    assert command("doctor", "--json", cwd=tmp_path).returncode == 0
    # Port 0 took any port, and the socket is gone: the lock's holder says where it answers.
    service.socket_path.unlink()
    done = command("status", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names, values = zip(*(line.split(maxsplit=1) for line in done.stdout.splitlines()[:3]), strict=True)
    assert names == ("device", "agent", "onnxruntime")
    assert values[0] == "dev-1"
    assert len({line.index(value) for line, value in zip(done.stdout.splitlines(), values, strict=False)}) == 1
    findings = {one["check"]: one for one in json.loads(command("doctor", "--json", cwd=tmp_path).stdout)["findings"]}
    assert f"answers at http://127.0.0.1:{service.port}, unix:" in findings["lock"]["sentence"]
    assert service.stop() == 0
    done = command("status", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith(
        f"Error: no service answers at unix:{service.socket_path} (No such file or directory)"
    )


def test_a_bundle_and_its_key_are_enough_to_serve(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    environ = {"EDGEKIT_SERVE_PORT": "off", "EDGEKIT_SERVE_SOCKET": "x.sock", "XDG_STATE_HOME": str(tmp_path / "home")}
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit_runtime", "run", str(made.path), "--key", str(made.public)],
            stderr=file,
            cwd=tmp_path,
            env=os.environ | environ,
        )
    try:
        wait_until(lambda: "serving" in log.read_text() or process.poll() is not None, "the service")
        done = command("status", "--json", cwd=tmp_path, XDG_STATE_HOME=str(tmp_path / "home"))
        assert done.returncode == 0, log.read_text() + done.stderr
        assert json.loads(done.stdout)["models"][0]["model"] == "tiny"
        assert (tmp_path / "home" / "edgekit" / "lock").exists()
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_every_setting_is_shown_with_its_origin(service: Service, tmp_path: Path) -> None:
    done = command("config", "--json", cwd=tmp_path, EDGEKIT_SERVE_THREADS="2")
    shown = {one["name"]: (one["value"], one["origin"]) for one in json.loads(done.stdout)["settings"]}
    assert shown["serve.threads"] == (2, "EDGEKIT_SERVE_THREADS")
    assert shown["serve.port"] == (0, "device.toml")
    done = command("config", cwd=tmp_path, EDGEKIT_SERVE_THREADS="many")
    assert done.returncode == 1
    assert "configuration is not valid at EDGEKIT_SERVE_THREADS" in done.stderr


def test_the_doctor_goes_on_where_the_settings_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text("device = 1")
    done = command("doctor", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  settings      configuration device.toml is not valid")
    assert "ok    onnxruntime" in done.stdout


def test_the_doctor_s_words_keep_their_column_on_a_narrow_terminal(tmp_path: Path) -> None:
    lines = shown([sys.executable, "-m", "edgekit_runtime", "doctor"], columns=80, cwd=tmp_path)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(" " * 20) for line in lines)
    assert all(line[:4].strip() in {"", "ok", "warn", "FAIL"} for line in lines)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("edgekit-runtime")
    done = subprocess.run([program, "unit"], capture_output=True, text=True, check=True)
    assert f"\nExecStart={program} run --config /etc/edgekit/device.toml\n" in done.stdout
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "edgekit-runtime.service"
    unit.write_text(done.stdout)
    checked = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


SLOW = """
import sys, time
from edgekit_runtime.interrupts import command

def find():
    {while_imported}
    return main

def main():
    raise error

def late():
    print("importing", flush=True)
    time.sleep(60)

error = ImportError("initialization failed")
error.__cause__ = {cause}
sys.exit(command(find))
"""


@pytest.mark.parametrize(
    ("while_imported", "cause", "signalled", "code", "said"),
    [
        ("late()", "None", True, 130, "interrupted\n"),
        # Into which onnxruntime turns a Ctrl-C that it gets while it is imported.
        ("pass", "KeyboardInterrupt()", False, 130, "interrupted\n"),
        ("pass", "OSError()", False, 1, "ImportError: initialization failed\n"),
    ],
)
def test_a_ctrl_c_while_a_command_is_imported_is_an_interruption(
    while_imported: str, cause: str, signalled: bool, code: int, said: str
) -> None:
    script = SLOW.format(while_imported=while_imported, cause=cause)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        if signalled:
            assert child.stdout is not None
            assert child.stdout.readline() == "importing\n"
            child.send_signal(signal.SIGINT)
        _, heard = child.communicate(timeout=60)
    assert (child.returncode, heard.endswith(said)) == (code, True)
    assert ("Traceback" in heard) == (code == 1)
