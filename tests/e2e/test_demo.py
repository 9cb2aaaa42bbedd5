from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.brokers import wait_until
from tests.service import STOP_S

PROGRAM: Final = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from edgekit.entry import main; sys.exit(main())"
)
"""As at a terminal: what a shell starts in the background, these tests perhaps, is born deaf to Ctrl-C."""


@contextmanager
def started(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process of its own, ended whatever happens."""
    environment = os.environ | {"TMPDIR": str(directory / "tmp"), "EDGEKIT_KEYS": str(directory / "keys")}
    (directory / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "demo"],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def devices_of(directory: Path) -> list[int]:
    """Processes whose configuration lies in the demo's own directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"edgekit_runtime" in line and str(directory).encode() in line:
                found.append(int(entry.name))
    return found


def test_the_demo_finds_the_one_device_that_drifts_and_cleans_up(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("clinic-")}
    assert set(lines) == {"clinic-1", "clinic-2", "clinic-3"}
    assert lines["clinic-1"].endswith("none")
    assert lines["clinic-2"].endswith("none")
    assert "drift:" in lines["clinic-3"]
    assert "bmi" in lines["clinic-3"]
    left = {path.name for path in (tmp_path / "edgekit-demo").iterdir()}
    assert left == {"fleet.db", "progression-1.0.edge", "report.html"}
    assert "clinic-3" in (tmp_path / "edgekit-demo" / "report.html").read_text()
    assert not list((tmp_path / "tmp").iterdir())
    assert not devices_of(tmp_path)
    assert not (tmp_path / "keys").exists()


def test_ctrl_c_stops_everything_and_cleans_up(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        wait_until(lambda: len(devices_of(tmp_path)) >= 3 or process.poll() is not None, "three devices", 180)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=STOP_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not devices_of(tmp_path)
    assert not list((tmp_path / "tmp").iterdir())
