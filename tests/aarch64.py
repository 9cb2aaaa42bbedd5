"""A Raspberry Pi 4 in user mode: Debian's Python and the real aarch64 wheels, run by QEMU as a Cortex-A72.

Nothing is installed on this machine: Debian's packages of the other architecture are fetched with an apt state of their
own and unpacked into a folder. What is fetched (about 160 MB) is kept in the user's cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PLATFORMS: Final = tuple(f"manylinux{one}_aarch64" for one in ("_2_28", "_2_27", "_2_17", "2014"))
PACKAGES: Final = ("python3", "libstdc++6")
CPU: Final = "cortex-a72"
_CPUINFO: Final = "".join(
    f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
    for core in range(4)
)
"""A Raspberry Pi 4's. QEMU in user mode shows the host's, which onnxruntime does not survive."""


class Board:
    """The emulated board.

    Args:
        folder: What was fetched is kept here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self._debian()
        self.qemu = self._qemu()
        self.python_release = next(self.root.glob("usr/bin/python3.*")).name.removeprefix("python")

    def site(self, name: str, requirements: Sequence[str]) -> Path:
        """A folder with packages for the board: from their wheels, with what those need."""
        target = self.folder / f"site-{name}"
        shutil.rmtree(target, ignore_errors=True)
        wheels = self.folder / f"wheels-{name}"
        shutil.rmtree(wheels, ignore_errors=True)
        run(
            *[sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", wheels],
            *[part for platform in PLATFORMS for part in ("--platform", platform)],
            *["--python-version", self.python_release, "--implementation", "cp", "--only-binary", ":all:"],
            *requirements,
        )
        for wheel in wheels.glob("*.whl"):
            shutil.unpack_archive(wheel, target, "zip")
        return target

    def python(self, name: str, *sites: Path) -> Path:
        """An interpreter of the board: a program of this machine, so that its children can start it too."""
        path = self.folder / f"python-{name}"
        # `-0`: Python takes argv[0] for itself, and starts children by it.
        path.write_text(
            f'#!/bin/sh\nexport PYTHONHOME="{self.root}/usr" PYTHONPATH="{":".join(map(str, sites))}"\n'
            f'exec "{self.qemu}" -cpu {CPU} -L "{self.root}" -0 "{path}" '
            f'"{self.root}/usr/bin/python{self.python_release}" "$@"\n'
        )
        path.chmod(0o755)
        return path

    def _debian(self) -> None:
        done = self.root / "proc" / "cpuinfo"
        if done.exists():
            return
        state, packages = self.folder / "apt", self.folder / "packages"
        for part in (state / "lists" / "partial", state / "archives" / "partial", packages):
            part.mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        (state / "apt.conf").write_text(
            'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\n'
            f'Dir::State "{state}";\nDir::State::status "{state}/status";\nDir::Cache "{state}";\n'
        )
        arm = os.environ | {"APT_CONFIG": str(state / "apt.conf")}
        run("apt-get", "-qq", "update", env=arm)
        no = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        listed = run("apt-cache", "depends", "--recurse", *(f"--no-{one}" for one in no), *PACKAGES, env=arm)
        names = sorted({line for line in listed.splitlines() if line[:1].isalnum()})
        run("apt-get", "-qq", "download", *names, env=arm, cwd=packages)
        for package in packages.glob("*.deb"):
            run("dpkg-deb", "-x", package, self.root)
        done.parent.mkdir(exist_ok=True)
        done.write_text(_CPUINFO)

    def _qemu(self) -> Path:
        if installed := shutil.which("qemu-aarch64-static"):
            return Path(installed)
        unpacked = self.folder / "qemu"
        if not unpacked.exists():
            packages = self.folder / "emulator"
            packages.mkdir(exist_ok=True)
            run("apt-get", "-qq", "download", "qemu-user-static", cwd=packages)
            for package in packages.glob("*.deb"):
                run("dpkg-deb", "-x", package, unpacked)
        return unpacked / "usr" / "bin" / "qemu-aarch64-static"


def board() -> Board:
    """The board, or a skip that says what is missing here."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: the board is made of Debian's packages")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit" / "aarch64"
    return Board(cache)


def run(*command: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs a program that must succeed, and gives what it says."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=600
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
    return done.stdout
