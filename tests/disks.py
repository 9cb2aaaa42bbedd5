"""A file system of its own for a script: a small one in memory, in a namespace where it may be mounted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def on_a_small_disk(folder: Path, script: str, *arguments: str) -> str:
    """Runs a script whose first argument is a folder on a file system of 16 MiB; gives what it prints."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed (apt install util-linux)")
    inside = 'mount -t tmpfs -o size=16m tmpfs "$1" && exec "$2" -c "$3" "$1" "${@:4}"'
    command = ["bash", "-c", inside, "bash", str(folder), sys.executable, script, *arguments]
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", "--mount", *command], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
