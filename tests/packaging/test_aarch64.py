"""The device's wheel on a Raspberry Pi 4's processor, emulated: real aarch64 wheels, a real service. `make aarch64`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_runtime.ask import UnixConnection
from tests import aarch64
from tests.aarch64 import Board
from tests.brokers import wait_until

CORPUS = aarch64.ROOT / "tests" / "corpus" / "bundle-1.0"
BUNDLE, KEY = CORPUS / "progression-1.0.edge", CORPUS / "signer.pub.pem"
SLOW_S = 600
"""An emulated processor on a busy machine."""

pytestmark = pytest.mark.aarch64


@pytest.fixture(scope="module")
def board() -> Board:
    return aarch64.board()


@pytest.fixture(scope="module")
def python(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board's Python with the device's wheel and what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    aarch64.run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, aarch64.ROOT / "runtime")
    (wheel,) = folder.glob("edgekit_runtime-*.whl")
    constraints = str(aarch64.ROOT / "constraints.txt")
    return board.python("device", board.site("device", ["--constraint", constraints, str(wheel)]))


def command(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "edgekit_runtime", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOW_S,
    )


def test_a_bundle_answers_as_it_was_built(python: Path) -> None:
    done = command(python, "verify", BUNDLE, "--key", KEY, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["golden_rows"] == 65
    assert facts["max_difference"] < 1e-6


def test_the_service_answers_and_its_doctor_finds_the_board_well(python: Path, tmp_path: Path) -> None:
    config = tmp_path / "device.toml"
    config.write_text(f'bundle = "{BUNDLE}"\nkeys = ["{KEY}"]\n[serve]\nport = "off"\nsocket = "s.sock"\n')
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([python, "-m", "edgekit_runtime", "run", "--config", config], stderr=file)
    try:
        wait_until(lambda: "serving" in log.read_text() or process.poll() is not None, "the service", SLOW_S)
        assert "serving     progression 1.0" in log.read_text()
        numbers = [59.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, None]
        inputs = [
            {"name": "numbers", "shape": [1, 9], "datatype": "FP64", "data": numbers},
            {"name": "text", "shape": [1, 2], "datatype": "BYTES", "data": ["female", "obese"]},
        ]
        connection = UnixConnection(str(tmp_path / "s.sock"), timeout_s=30)
        connection.request("POST", "/v2/models/progression/infer", json.dumps({"inputs": inputs}))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        outputs = {one["name"]: one["data"] for one in answer["outputs"]}
        assert outputs["label"] == ["fast"]
        assert outputs["probabilities"] == pytest.approx([0.944460, 0.055540], abs=1e-6)  # as on x86-64
        done = command(python, "doctor", "--config", config, "--json")
        findings = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
        assert done.returncode == 0, done.stdout
        assert "aarch64 with asimd; without asimddp" in findings["processor"]["sentence"]
        assert findings["socket"]["sentence"].endswith("our own service, device " + os.uname().nodename.lower())
        assert findings["onnxruntime"]["verdict"] == "ok"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SLOW_S) == 0


def test_an_onnxruntime_for_other_processors_is_one_sentence(
    board: Board, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real release and the real instruction of microsoft/onnxruntime#23957."""
    older = board.site("older", ["--no-deps", "onnxruntime==1.21.0"])
    both = board.python("older", older, board.folder / "site-device")
    done = command(both, "run", BUNDLE, "--key", KEY)
    assert done.returncode == 3
    assert done.stderr.startswith(
        "Error: onnxruntime 1.21.0 does not run here: importing it ends with an illegal instr"
    )
    assert "Try:   install another release of it: pip install 'onnxruntime!=1.21.0'" in done.stderr
