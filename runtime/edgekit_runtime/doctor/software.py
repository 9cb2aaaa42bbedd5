"""Python, the C library and our libraries; onnxruntime in a child; the bundle through all of it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import requires
from typing import Final

from edgekit_contracts.errors import BothInstalled, EdgekitError
from edgekit_contracts.manifest import Manifest
from edgekit_runtime import probe
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.installed import installed_version, refuse_both

GLIBC_MIN: Final = (2, 28)
"""That of the wheels (manylinux_2_28)."""
_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(; extra == ['\"]runtime['\"])?")
"""One that is always there, or that the toolkit's extra `runtime` brings."""


def python() -> Iterator[Finding]:
    """The interpreter and the C library under it."""
    name, release = platform.libc_ver()
    detail = f"Python {platform.python_version()}, {name or 'an unknown C library'} {release}".rstrip()
    if name != "glibc" or _numbers(release) < GLIBC_MIN:
        yield Finding(
            "python",
            "FAIL",
            f"{detail}: onnxruntime's wheels need glibc 2.28",
            "install a distribution with glibc 2.28 or newer",
        )
    else:
        yield Finding("python", "ok", detail)


def libraries() -> Iterator[Finding]:
    """Ours and those that we stand on."""
    try:
        refuse_both()
    except BothInstalled as error:
        yield Finding.of("libraries", error)
        return
    ours = "edgekit-toolkit" if installed_version("edgekit-toolkit") else "edgekit-runtime"
    if not installed_version(ours):
        yield Finding("libraries", "warn", "edgekit-runtime runs from its sources", "install its wheel")
        return
    needed = {match["name"]: None for one in requires(ours) or () if (match := _REQUIREMENT.fullmatch(one))}
    needed.pop("onnxruntime", None)  # looked at by itself, and of several names
    found = {name: installed_version(name) for name in (ours, *needed)}
    lacking = [name for name, version in found.items() if version is None]
    if lacking:
        yield Finding(
            "libraries", "FAIL", f"not installed: {', '.join(lacking)}", "install edgekit-runtime's wheel again"
        )
    else:
        yield Finding("libraries", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def onnxruntime() -> Iterator[Finding]:
    """Its release, and whether it can be imported on this processor: asked of a child."""
    try:
        release = probe.installed_release()
        probe.refuse_wrong_release(release)
        probe.try_import(release)
    except EdgekitError as error:
        yield Finding.of("onnxruntime", error)
    else:
        yield Finding("onnxruntime", "ok", f"{release} runs on this processor")


def proof(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    """Whether each bundle was made for the installed onnxruntime."""
    try:
        release = probe.installed_release()
    except EdgekitError:
        return  # `onnxruntime` says so
    for manifest in manifests:
        oldest = manifest.variant.runtime
        proved = f"{manifest.title} is for onnxruntime {oldest} or newer, and {release} is installed"
        if _numbers(release) < _numbers(oldest) and release not in manifest.parity.runtimes:
            yield Finding("release", "warn", f"{proved}: only its golden rows were compared", f"install {oldest}")
        else:
            yield Finding("release", "ok", proved)


def bundles(config: DeviceConfig) -> Iterator[Finding]:
    """Signature, files and golden set of each, in a child: what ends it does not end the doctor."""
    keys = [part for key in config.keys for part in ("--key", key)]
    for model in config.served:
        yield from _bundle(model.bundle, keys)


def _bundle(path: str, keys: list[str]) -> Iterator[Finding]:
    try:
        done = probe.try_in_child(
            ["-m", "edgekit_runtime", "verify", path, *keys, "--json"],
            probe.installed_release(),
            "answering the golden set",
        )
    except EdgekitError as error:
        yield Finding.of("bundle", error)
        return
    if done.returncode:
        said = dict(line.split(":", 1) for line in done.stderr.splitlines() if line.startswith(("Error:", "Try:")))
        sentence = said.get("Error", "it cannot be verified").strip()
        yield Finding("bundle", "FAIL", sentence, said.get("Try", "").strip(), 1 if done.returncode == 1 else 3)
        return
    facts = json.loads(done.stdout)
    yield Finding(
        "bundle",
        "ok",
        f"{facts['model']}, signed by key {facts['key'][:12]}; {facts['golden_rows']} golden rows right here",
    )


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release)[:3])
