"""Programs of npm for tests: a package is installed once into the user's cache, and asked line by line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 300


def npm_package(name: str, version: str) -> Path:
    """The `node_modules` that holds a package, with what it needs."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        reason = "npm is not installed (apt install npm)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "npm" / f"{name}-{version}"
    if not (cache / "node_modules" / name / "package.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run([*command, f"{name}@{version}"], capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            pytest.fail(f"npm install {name}@{version}: {done.stderr}")
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
        ["node", "-e", f"{source}\n{loop}"],
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
