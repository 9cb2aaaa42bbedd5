"""A real systemd as the first process of namespaces of its own, with the device's wheel and nothing else to run.

It sees this machine's programs, and its network; what it writes goes to memory: /etc, /var, /run, /opt and /tmp are its
own (it empties the last at a start). No unit that would touch the kernel or devices is started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.brokers import wait_until

ROOT: Final = Path(__file__).parents[1]
SYSTEMD: Final = "/lib/systemd/systemd"
SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""Dynamic users do not see homes, where other Pythons often are."""
START_S: Final = 300
"""The wheel and what it needs are installed first."""
BOOT: Final = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /opt
cp -r "$1" /opt/given
"$2" -m venv /opt/edgekit
/opt/edgekit/bin/python -m pip install --quiet --constraint /opt/given/constraints.txt /opt/given/*.whl
mount -t tmpfs tmpfs /tmp
for folder in etc var; do
    mkdir -p /tmp/layers/$folder /tmp/layers/$folder.work
    mount -t overlay -o lowerdir=/$folder,upperdir=/tmp/layers/$folder,workdir=/tmp/layers/$folder.work overlay /$folder
done
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
umount -R /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/lock /etc/edgekit /etc/systemd/system/edgekit-runtime.service.d
cd /etc/systemd/system
cp /opt/given/device.toml /opt/given/*.edge /opt/given/*.pem /etc/edgekit/
/opt/edgekit/bin/edgekit-runtime unit > edgekit-runtime.service
printf '[Unit]\\nDefaultDependencies=no\\n' > edgekit-runtime.service.d/alone.conf
printf '[Unit]\\nDefaultDependencies=no\\nWants=systemd-journald.service dbus.service\\n' > alone.target
for unit in systemd-tmpfiles-setup.service systemd-sysctl.service systemd-udevd.service systemd-modules-load.service; do
    ln -s /dev/null $unit
done
export container=unshare
exec /lib/systemd/systemd --system --unit=alone.target --log-target=console
"""


class Machine:
    """What systemd runs, and what one types there."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def first(self) -> int:
        """The process that is number 1 in there; 0 while there is none."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def type(self, *command: str, fails: bool = False) -> str:
        """Runs a command in there, and gives what it prints."""
        enter = ["nsenter", "-t", str(self.first), "-m", "-p", "-u", "-i", "-C"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=60)
        assert fails or done.returncode == 0, f"{command}: {done.stderr}\n{self._log.read_text()[-4000:]}"
        return done.stdout.strip()

    def shown(self, name: str) -> str:
        """A property of the service, as systemd knows it."""
        return self.type("systemctl", "show", "--property", name, "--value", "edgekit-runtime")

    @property
    def journal(self) -> str:
        """What the service, and systemd of it, said."""
        return self.type("journalctl", "--unit", "edgekit-runtime", "--output", "cat", "--no-pager")

    def started(self) -> bool:
        """Whether systemd takes commands."""
        if self._process.poll() is not None:
            raise AssertionError(self._log.read_text())
        return bool(self.first) and b"systemd" in Path(f"/proc/{self.first}/comm").read_bytes() and self._obeys()

    def _obeys(self) -> bool:
        return self.type("systemctl", "is-active", "alone.target", fails=True) == "active"


@contextmanager
def machine(folder: Path, settings: str, *files: Path) -> Iterator[Machine]:
    """A machine with the device's wheel; `edgekit-runtime.service` is there and not started.

    Args:
        folder: An empty one.
        settings: What /etc/edgekit/device.toml says.
        files: Copied beside it.
    """
    for program in ("unshare", "nsenter", SYSTEMD, SYSTEM_PYTHON):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root may start a systemd")
    given, log = folder / "given", folder / "log"
    given.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(given)]
    subprocess.run([*pip, str(ROOT / "runtime")], check=True)
    for file in (*files, ROOT / "constraints.txt"):
        shutil.copy(file, given)
    (given / "device.toml").write_text(settings)
    names = ["--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--kill-child"]
    with log.open("wb") as told:
        process = subprocess.Popen(
            ["unshare", *names, "sh", "-c", BOOT, "sh", str(given), SYSTEM_PYTHON],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    found = Machine(process, log)
    try:
        wait_until(found.started, "systemd", START_S)
        yield found
    finally:
        if process.poll() is None:
            os.kill(found.first or process.pid, signal.SIGKILL)  # all of the namespace dies with its first process
        process.wait(20)
