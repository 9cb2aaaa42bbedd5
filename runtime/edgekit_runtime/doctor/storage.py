"""The disk, and who may write where."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.doctor.machine import Machine
from edgekit_runtime.doctor.memory import mount_of
from edgekit_runtime.lock import holder

SPARE_MB: Final = 50.0
"""Beside the outbox: its journal, and what everybody else writes."""
INODES_MIN: Final = 100

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})


def disk(machine: Machine, config: DeviceConfig) -> Iterator[Finding]:
    """Whether the state directory has a file system that holds what is put there."""
    place = _existing(Path(config.state_dir))
    try:
        found = machine.statvfs(place)
    except OSError as error:
        yield Finding("disk", "FAIL", f"{place}: {error.strerror}", "mount it, or choose another state_dir")
        return
    free_mb = found.f_bavail * found.f_frsize / 1e6
    needed_mb = SPARE_MB + (config.telemetry.outbox_mb if config.telemetry else 0.0)
    kind = mount_of(machine, str(place))[1]
    detail = f"{free_mb:,.0f} MB free at {place}"
    if found.f_flag & os.ST_RDONLY:
        yield Finding("disk", "FAIL", f"{place} is mounted read-only", "remount it, or choose another state_dir")
    elif free_mb < SPARE_MB or (found.f_files and found.f_favail < INODES_MIN):
        inodes = f", {found.f_favail} files can still be made" if found.f_files else ""
        yield Finding("disk", "FAIL", detail + inodes, "free some space, or choose another state_dir")
    elif kind in _REMOTE:
        yield Finding(
            "disk",
            "FAIL",
            f"{place} is on {kind}, where SQLite's locks do not hold",
            "choose a state_dir on a local disk",
        )
    elif kind in _IN_MEMORY and config.telemetry:
        yield Finding(
            "disk",
            "warn",
            f"{place} is in memory ({kind}): the outbox is lost with the power",
            "choose another state_dir",
        )
    elif free_mb < needed_mb:
        yield Finding(
            "disk",
            "warn",
            f"{detail}, and the outbox may take {needed_mb - SPARE_MB:,.0f}",
            "free some space, or set outbox_mb",
        )
    elif config.telemetry and _is_ballast_gone(Path(config.state_dir)):
        yield Finding(
            "disk",
            "warn",
            f"{detail}, and none is kept for deleting from a full outbox: the disk was full, or this is an old outbox",
            "free some space, and start the service",
        )
    else:
        yield Finding("disk", "ok", detail)


def _is_ballast_gone(state_dir: Path) -> bool:
    outbox = state_dir / "outbox.db"
    return outbox.exists() and not outbox.with_name(outbox.name + ".ballast").exists()


def permissions(config: DeviceConfig) -> Iterator[Finding]:
    """Whether the service can write where it must, and nobody else where it matters."""
    shut, opened = [], []
    places = {"state_dir": Path(config.state_dir)}
    if config.serve.socket is not None:
        places["the socket's directory"] = Path(config.serve.socket).parent
    for what, place in places.items():
        existing = _existing(place)
        if not os.access(existing, os.W_OK | os.X_OK):
            shut.append(f"{what} {existing} cannot be written by this user")
        elif _open_to_all(place):
            opened.append(f"anybody can write into {what} {place}")
    opened += [
        f"anybody can write {path}"
        for path in (*(model.bundle for model in config.served), *config.keys)
        if _open_to_all(Path(path)) or _open_to_all(Path(path).parent)
    ]
    if shut or opened:
        steps = [*(["give it to this user (chown)"] if shut else []), *(["chmod o-w it"] if opened else [])]
        yield Finding("permissions", "FAIL", "; ".join([*shut, *opened]), ", ".join(steps))
    else:
        yield Finding("permissions", "ok", "state and socket can be written, bundle and keys by their owner alone")


def lock(config: DeviceConfig) -> Iterator[Finding]:
    """Whether a service runs on this state directory."""
    running = holder(Path(config.state_dir))
    if running is None:
        yield Finding("lock", "ok", f"nobody holds {config.state_dir}: no service runs on it")
        return
    where = f" and answers at {', '.join(running.addresses)}" if running.addresses else ""
    yield Finding("lock", "ok", f"process {running.pid or 'unknown'} holds {config.state_dir}{where}")


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _open_to_all(path: Path) -> bool:
    """Whether anybody may change it; in a sticky directory, such as /tmp, only its owner can."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)
