from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import edgekit
import edgekit_runtime
from edgekit_contracts.errors import BothInstalled
from edgekit_runtime.installed import installed_version, refuse_both

ROOT = Path(__file__).parents[2]
DEVICE_FORBIDDEN = ("onnx", "skl2onnx", "sklearn", "scipy", "pandas", "click", "edgekit", "edgekit_converters")


def project(path: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / path).read_text())["project"]
    return table


def test_both_distributions_have_one_version() -> None:
    versions = {project("pyproject.toml")["version"], project("runtime/pyproject.toml")["version"]}
    assert versions == {edgekit.__version__} == {edgekit_runtime.__version__}


def test_the_device_s_dependencies_are_the_runtime_extra() -> None:
    assert (
        project("pyproject.toml")["optional-dependencies"]["runtime"]
        == project("runtime/pyproject.toml")["dependencies"]
    )


def test_no_requirement_names_the_distribution_of_somebody_else() -> None:
    root = project("pyproject.toml")
    requirements = [*root["dependencies"], *chain.from_iterable(root["optional-dependencies"].values())]
    assert not [one for one in requirements if re.match(r"edgekit(?!-)", one)]


def test_the_constraints_are_exact_and_name_no_address() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?", line), line


def test_the_licence_is_one_text() -> None:
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "runtime" / "LICENSE").read_bytes()


@pytest.mark.parametrize("module", ["edgekit_runtime.service", "edgekit_runtime.__main__", "edgekit_runtime.batch"])
def test_the_device_imports_nothing_of_the_build_side(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (set(done.stdout.split()) & set(DEVICE_FORBIDDEN))


@pytest.mark.parametrize("module", ["edgekit", "edgekit.cli", "edgekit.profiles"])
def test_the_command_starts_without_the_heavy_libraries(module: str) -> None:
    heavy = {"numpy", "onnx", "onnxruntime", "sklearn", "pandas", "scipy", "paho", "httptools", "cryptography"}
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & heavy


def test_both_wheels_in_one_environment_are_refused_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "edgekit_runtime-0.1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BothInstalled, match="both hold the runtime's packages") as caught:
        refuse_both()
    assert "pip uninstall" in caught.value.next_step


def test_this_environment_holds_one_of_them() -> None:
    assert installed_version("edgekit-toolkit") == edgekit.__version__
    refuse_both()


@pytest.mark.parametrize("name", ["onnxruntime", "paho-mqtt", "scikit-learn", "PyYAML", "edgekit"])
def test_versions_are_those_of_the_standard_library_s_reader(name: str) -> None:
    try:
        expected = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        expected = None
    assert installed_version(name) == expected
