"""The wheels as a user gets them: built, installed in empty environments, used. Slow: `make test-wheel`."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus" / "bundle-1.0"

pytestmark = pytest.mark.wheel


def pip(python: Path | str, *arguments: str) -> None:
    done = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(one) for one in arguments], capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ROOT / "runtime"):
        pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    return folder


@pytest.fixture(scope="module")
def device(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the device's wheel alone."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=True)
    (wheel,) = wheels.glob("edgekit_runtime-*.whl")
    pip(folder / "bin" / "python", "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    return folder / "bin"


def test_the_lean_wheel_holds_the_runtime_and_nothing_else(wheels: Path) -> None:
    (wheel,) = wheels.glob("edgekit_runtime-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packages = {name.partition("/")[0] for name in archive.namelist()}
    assert packages == {"edgekit_contracts", "edgekit_runtime", "edgekit_runtime-0.1.0.dist-info"}


def test_the_toolkit_s_wheel_holds_all_four_packages_and_the_profiles(wheels: Path) -> None:
    (wheel,) = wheels.glob("edgekit_toolkit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packages = {name.partition("/")[0] for name in names if not name.startswith("edgekit_toolkit-")}
    assert packages == {"edgekit", "edgekit_contracts", "edgekit_converters", "edgekit_runtime"}
    assert "edgekit/device_profiles/raspberry-pi-4.toml" in names
    assert "edgekit_runtime/py.typed" in names


def test_a_bundle_runs_where_only_the_lean_wheel_is(device: Path, tmp_path: Path) -> None:
    bundle, key = CORPUS / "progression-1.0.edge", CORPUS / "signer.pub.pem"
    done = command(device / "edgekit-runtime", "verify", bundle, "--key", key)
    assert done.returncode == 0, done.stderr
    assert "golden rows right" in done.stdout
    out = tmp_path / "out.csv"
    done = command(device / "edgekit-runtime", "predict", bundle, CORPUS / "patients.csv", "--key", key, "-o", out)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 21
    done = command(device / "python", "-c", "import edgekit_runtime.service, sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {"onnx", "sklearn", "pandas", "scipy"} & set(done.stdout.split())


def test_the_lean_wheel_brings_its_doctor_and_its_unit(device: Path, tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(
        f'bundle = "{CORPUS / "progression-1.0.edge"}"\nkeys = ["{CORPUS / "signer.pub.pem"}"]\n[serve]\nport = 0\n'
    )
    done = command(device / "edgekit-runtime", "doctor", "--config", tmp_path / "device.toml")
    assert done.returncode == 0, done.stdout
    assert "ok    libraries     edgekit-runtime 0.1.0, " in done.stdout
    assert "ok    bundle        progression 1.0, signed by key" in done.stdout
    done = command(device / "edgekit-runtime", "unit")
    assert f"ExecStart={device / 'edgekit-runtime'} run" in done.stdout


def test_parquet_names_its_extra_where_it_is_missing(device: Path, tmp_path: Path) -> None:
    bundle, key = CORPUS / "progression-1.0.edge", CORPUS / "signer.pub.pem"
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    done = command(
        device / "edgekit-runtime",
        "predict",
        bundle,
        tmp_path / "in.parquet",
        "--key",
        key,
        "-o",
        tmp_path / "o.parquet",
    )
    assert done.returncode == 2
    assert "pip install 'edgekit-runtime[parquet]'" in done.stderr


def test_the_second_wheel_in_the_same_environment_is_named_with_the_mend(device: Path, wheels: Path) -> None:
    (toolkit,) = wheels.glob("edgekit_toolkit-*.whl")
    pip(device / "python", "install", "--no-deps", str(toolkit))
    pip(device / "python", "install", "click")
    try:
        for program in ("edgekit", "edgekit-runtime"):
            done = command(
                device / program,
                "inspect" if program == "edgekit" else "verify",
                "x",
                *["--key", "y"][: 2 * (program != "edgekit")],
            )
            assert done.returncode == 2
            assert "edgekit-toolkit and edgekit-runtime are both installed here" in done.stderr
            assert "pip uninstall" in done.stderr
    finally:
        pip(device / "python", "uninstall", "--yes", "edgekit-toolkit")
        (wheel,) = wheels.glob("edgekit_runtime-*.whl")
        pip(device / "python", "install", "--no-deps", "--force-reinstall", str(wheel))


def test_the_centre_alone_needs_few_libraries(wheels: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    (wheel,) = wheels.glob("edgekit_toolkit-*.whl")
    pip(tmp_path / "bin" / "python", "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    done = command(tmp_path / "bin" / "edgekit", "profiles", "list")
    assert done.returncode == 0, done.stderr
    assert "raspberry-pi-4" in done.stdout
    done = command(tmp_path / "bin" / "edgekit", "build", "model.skops", "--data", "data.csv")
    assert done.returncode == 2
    assert "pip install 'edgekit-toolkit[build]'" in done.stderr
    assert "Traceback" not in done.stderr
