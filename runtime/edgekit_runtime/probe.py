"""Does this machine's onnxruntime run here at all? Asked of another process, which may die of it.

Some releases stop with an illegal instruction while they are imported (1.21.0 on a Raspberry Pi 4,
microsoft/onnxruntime#23957): then no sentence of ours is ever read. So the import is tried in a child first. The
answer is kept, a service's in its state directory and a command's in the user's cache, and asked again only where the
release, the processor's features, the kernel or Python is another: a normal start does not import twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgekit_contracts.errors import RuntimeUnfit
from edgekit_contracts.limits import WRONG_RUNTIMES
from edgekit_runtime.installed import installed_version

if TYPE_CHECKING:
    import subprocess

MARKER: Final = "onnxruntime-runs-here"
"""The file that the answer is kept in."""
TIMEOUT_S: Final = 120.0

_FEATURES: Final = ("flags", "Features")  # x86-64, aarch64
_DISTRIBUTIONS: Final = ("onnxruntime", "onnxruntime-gpu")


def installed_release() -> str:
    """The installed release of onnxruntime, from the name of its metadata: nothing is imported.

    Raises:
        RuntimeUnfit: None is installed.
    """
    for name in _DISTRIBUTIONS:
        if version := installed_version(name):
            return version
    raise RuntimeUnfit("", "is not installed", "pip install onnxruntime")


def cpu_features(root: Path = Path("/")) -> frozenset[str]:
    """What the first processor can do, as the kernel names it: `avx2`, `asimddp`; empty where it is not said."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in _FEATURES:
            return frozenset(value.split())
    return frozenset()


def refuse_wrong_release(release: str) -> None:
    """Refuses releases that are known to answer wrongly.

    Raises:
        RuntimeUnfit: `release` is one of them.
    """
    if release in WRONG_RUNTIMES:
        why = "answers wrongly for tree ensembles (microsoft/onnxruntime#28557)"
        raise RuntimeUnfit(release, why, _another(release))


def try_in_child(arguments: Sequence[str], release: str, doing: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with `arguments`; what the child's end means is said here.

    Args:
        arguments: Of the interpreter.
        release: Of onnxruntime.
        doing: What the child does, for the sentence: "importing it".

    Returns:
        How it ended, where no signal ended it.

    Raises:
        RuntimeUnfit: A signal ended it, or it did not end.
    """
    import subprocess  # a start that knows its answer does without

    try:
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeUnfit(
            release, f"does not run here: {doing} takes more than {TIMEOUT_S:g} s", _another(release)
        ) from error
    if done.returncode < 0:
        raise RuntimeUnfit(
            release, f"does not run here: {doing} ends with {_signal(-done.returncode)}", _another(release)
        )
    return done


def try_import(release: str) -> None:
    """Imports onnxruntime in a child.

    Raises:
        RuntimeUnfit: It does not come through.
    """
    done = try_in_child(["-c", "import onnxruntime"], release, "importing it")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeUnfit(release, f"cannot be imported: {last[:300]}", _another(release))


def ensure_runs_here(directory: Path | None = None) -> None:
    """The check before anything else: known-bad releases by name, then the import, unless it is known to succeed.

    Args:
        directory: Where the answer is kept, by default the user's cache. Where it cannot be, the child is asked each
            time.

    Raises:
        RuntimeUnfit: This release is not for this machine.
    """
    release = installed_release()
    refuse_wrong_release(release)
    directory = directory or _cache()
    here = _fingerprint(release)
    if directory is not None and _kept(directory) == here:
        return
    try_import(release)
    if directory is not None:
        _keep(directory, here)


def _kept(directory: Path) -> str:
    with contextlib.suppress(OSError):
        return (directory / MARKER).read_text(encoding="utf-8").strip()
    return ""


def _keep(directory: Path, here: str) -> None:
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        beside = directory / f"{MARKER}.new"
        beside.write_text(here + "\n", encoding="utf-8")
        beside.replace(directory / MARKER)


def _cache() -> Path | None:
    """The user's cache (XDG Base Directory Specification); None of a user without a home."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "edgekit"
    with contextlib.suppress(RuntimeError):
        return Path.home() / ".cache" / "edgekit"
    return None


def _fingerprint(release: str) -> str:
    import hashlib  # `lean` says which, once the settings are known

    features = " ".join(sorted(cpu_features()))
    facts = [release, os.uname().machine, features, os.uname().release, sys.version, sys.executable]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _another(release: str) -> str:
    return f"install another release of it: pip install 'onnxruntime!={release}', or an older one"


def _signal(number: int) -> str:
    meaning = {
        signal.SIGILL: "an illegal instruction: it was built for another processor (as microsoft/onnxruntime#23957)",
        signal.SIGKILL: "SIGKILL, perhaps for lack of memory",
    }
    with contextlib.suppress(ValueError):
        name = signal.Signals(number)
        return meaning.get(name, name.name)
    return f"signal {number}"
