"""The written model on other releases of onnxruntime, from their real wheels.

Each release gets an environment of its own in `$EDGEKIT_RUNTIMES`, or `edgekit/runtimes` in the user's cache directory
(XDG): made once by `venv` and `pip` (about 35 MB of downloads), then kept. A model runs there in a process of its own
(`edgekit_converters.other_runtime`), on the very tensors that the Engine makes here.

A release that is known to answer wrongly is refused by name. One that nobody knows to be wrong is caught here, by its
answers, and on the device by the golden set.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.errors import BadInput, ParityBroken, RuntimeDiffers, RuntimeMissing, StorageFault
from edgekit_contracts.manifest import Manifest
from edgekit_converters import other_runtime
from edgekit_converters.comparison import Differences, compare
from edgekit_converters.target import loads
from edgekit_converters.verify import Verified
from edgekit_runtime.engine import Engine

INSTALL_S: Final = 600.0
RUN_S: Final = 3600.0
_READY: Final = "ready"


class OtherRuntime:
    """One release of onnxruntime in an environment of its own.

    Args:
        version: Such as `1.20.1`.

    Raises:
        UnsupportedRuntime: Not a version, too old, or known to answer wrongly.
        RuntimeMissing: It cannot be installed: pip's reason is in the sentence.
        StorageFault: The cache directory cannot be written.
    """

    def __init__(self, version: str) -> None:
        loads(version)
        self.version = version
        self._python = _environment(version)

    def engine(self, model: bytes, manifest: Manifest) -> Engine:
        """The model as that release answers; each call starts a process."""
        return Engine(model, manifest, session=_Session(self, model))

    def run(self, jobs: Sequence[tuple[bytes, Mapping[str, NDArray[Any]]]]) -> list[dict[str, NDArray[Any]] | str]:
        """The outputs of each model for its inputs, or why there are none; all in one process."""
        with tempfile.TemporaryDirectory(prefix="edgekit-runtime-") as name:
            folders = [Path(name) / str(number) for number in range(len(jobs))]
            for folder, (model, feed) in zip(folders, jobs, strict=True):
                folder.mkdir()
                (folder / other_runtime.MODEL).write_bytes(model)
                other_runtime.save(folder / other_runtime.ROWS, feed)
            done = subprocess.run(
                [str(self._python), "-I", str(Path(other_runtime.__file__)), *map(str, folders)],
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
                capture_output=True,
                timeout=RUN_S,
                check=False,
            )
            return [_result(folder, done) for folder in folders]


def check(version: str, model: bytes, manifest: Manifest, verified: Verified) -> Differences:
    """Asks another release of onnxruntime all the rows that were verified here.

    Args:
        version: Such as `1.20.1`.
        model: The ONNX file.
        manifest: Of its bundle.
        verified: The rows, and the original's answers.

    Raises:
        RuntimeDiffers: It answers a row otherwise than the original, does not load the model, or fails.
        UnsupportedRuntime, RuntimeMissing, StorageFault: As `OtherRuntime`.
    """
    engine = OtherRuntime(version).engine(model, manifest)
    tolerance, exact = verified.tolerance, verified.exact
    try:
        found = engine.predict(verified.columns)
        return compare(verified.columns, verified.answers, found, tolerance=tolerance, exact=exact)
    except ParityBroken as error:
        raise RuntimeDiffers(version, error.detail) from error
    except BadInput as error:
        raise RuntimeDiffers(version, error.sentence) from error


class _Session:
    """What an Engine needs of a session, in the other environment."""

    def __init__(self, runtime: OtherRuntime, model: bytes) -> None:
        self._runtime, self._model = runtime, model

    def run(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        found = self._runtime.run([(self._model, feed)])[0]
        if isinstance(found, str):
            raise RuntimeDiffers(self._runtime.version, found)
        return [found[name] for name in names]


def _result(folder: Path, done: subprocess.CompletedProcess[bytes]) -> dict[str, NDArray[Any]] | str:
    if (folder / other_runtime.ANSWERS).exists() and not done.returncode:
        return other_runtime.load(folder / other_runtime.ANSWERS)
    fault = folder / other_runtime.FAULT
    if fault.exists():
        return f"it fails with: {fault.read_text('utf-8')[:300]}"
    return f"it stops with exit code {done.returncode}: {_last_line(done.stderr)[:200]}"


def directory() -> Path:
    """Where the environments are kept."""
    if "EDGEKIT_RUNTIMES" in os.environ:
        return Path(os.environ["EDGEKIT_RUNTIMES"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "runtimes"


def _environment(version: str) -> Path:
    """The interpreter of the environment, which is made where it is not there yet."""
    home = directory() / f"onnxruntime-{version}-{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    python = home / "bin" / "python"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with (home.parent / f"{home.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once make one environment
            if not (home / _READY).exists():
                shutil.rmtree(home, ignore_errors=True)
                _install(version, home, python)
                (home / _READY).touch()
    except OSError as error:
        raise StorageFault(str(home), error.strerror or str(error)) from error
    return python


def _install(version: str, home: Path, python: Path) -> None:
    exact = [f"onnxruntime=={version}", f"numpy=={np.__version__}"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", *quiet, *exact],
    ):
        try:
            done = subprocess.run(command, capture_output=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeMissing(
                version, _here(), f"it took longer than {INSTALL_S:.0f} s", str(home.parent)
            ) from error
        if done.returncode:
            raise RuntimeMissing(version, _here(), _reason(done.stderr or done.stdout), str(home.parent))


def _here() -> str:
    return f"Python {platform.python_version()} on {platform.machine()}"


def _reason(output: bytes) -> str:
    """The reason in a few words: which releases there are for this Python, or pip's last line."""
    text = output.decode("utf-8", "replace")
    offered = re.search(r"onnxruntime==\S+ \(from versions: (?P<found>[^)]*)\)", text)
    if offered is None:
        return _last_line(output)[:200] or "pip gives no reason"
    found = [one for one in offered["found"].split(", ") if re.fullmatch(r"[0-9.]+", one)]
    return f"pip finds others for it, {found[0]} to {found[-1]}" if found else "pip finds none at all"


def _last_line(output: bytes) -> str:
    return (output.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
