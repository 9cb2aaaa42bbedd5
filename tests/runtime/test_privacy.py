from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bundles


@pytest.mark.parametrize(
    "module", ["edgekit_runtime.engine", "edgekit_converters.verify", "edgekit_converters.sklearn", "edgekit.building"]
)
def test_onnxruntime_reports_to_nobody_and_leaves_no_identifier(module: str, tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    # onnxruntime keeps quiet by itself where it sees a CI; what is asked here is what a device does.
    quiet = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    code = f"import {module}, edgekit_runtime; edgekit_runtime.load({str(made.path)!r}, keys=[{str(made.public)!r}])"
    subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": str(home), "TMPDIR": str(temporary)},
        check=True,
    )
    assert not [path for path in (*home.rglob("*"), *temporary.rglob("*")) if path.is_file()]
