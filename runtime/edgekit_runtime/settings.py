"""From `device.toml`, the environment and the command line to one `DeviceConfig`, and where each setting came from.

A setting of the environment is named after its place in the file: `EDGEKIT_DEVICE`, `EDGEKIT_SERVE_PORT`,
`EDGEKIT_TELEMETRY_BROKER`. The command line wins over the environment, which wins over the file, which wins over the
defaults. Paths in the file are relative to the file; those of the environment and the command line to the working
directory.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import convert, decode_tree
from edgekit_contracts.errors import FormatError, MissingFile, UsageError
from edgekit_runtime.config import DeviceConfig

PREFIX: Final = "EDGEKIT_"
PLACES: Final = ("device.toml", "/etc/edgekit/device.toml")
"""Where a file is looked for that nobody named; `EDGEKIT_CONFIG` names one."""

_PATHS: Final = {
    "bundle",
    "models.bundle",
    "models.candidate.bundle",
    "keys",
    "state_dir",
    "serve.socket",
    "telemetry.password_file",
    "telemetry.ca",
    "telemetry.cert",
    "telemetry.key",
}
_SECRET: Final = re.compile(r"(?<=://)[^/]*(?=@)")

Tree = dict[str, Any]


class Setting(msgspec.Struct, frozen=True):
    """One setting that is in force."""

    name: str
    """Its place in the file, such as `serve.port`."""
    value: object
    origin: str
    """`default`, the file, a variable, or an option of the command line."""


class Settings(msgspec.Struct, frozen=True):
    """What is in force."""

    config: DeviceConfig
    path: Path | None
    """The file that was read."""
    origins: Mapping[str, str]

    def listed(self) -> Iterator[Setting]:
        """Every setting; a password inside a broker's address is left out."""
        for name, value in leaves(msgspec.to_builtins(self.config)):
            shown = hide_password(value) if isinstance(value, str) else value
            yield Setting(name, shown, self.origins.get(name, "default"))


def hide_password(text: str) -> str:
    """The text without user and password of an address in it."""
    return _SECRET.sub("...", text)


def find_file(named: Path | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file to read: the one that is named, in the environment too, else the first of `PLACES` that exists."""
    if named is not None:
        return named
    if PREFIX + "CONFIG" in environ:
        return Path(environ[PREFIX + "CONFIG"])
    return next((path for path in map(Path, PLACES) if path.exists()), None)


def load_settings(
    path: Path | None, *, environ: Mapping[str, str] = os.environ, given: Mapping[str, tuple[object, str]] | None = None
) -> Settings:
    """Puts the settings together.

    Args:
        path: The file; None for none.
        environ: The environment.
        given: What the command line says: a setting's name -> its value, and the option that gave it.

    Raises:
        MissingFile: The file cannot be read.
        UsageError: There is neither a file nor a bundle and a key on the command line.
        FormatError: A setting is missing, unknown or wrong; the error names its path in the file, or its variable.
    """
    tree, origins = _from_file(path) if path is not None else ({}, {})
    for name, value, variable in _from_environment(environ):
        _put(tree, name, value)
        origins[name] = variable
    for name, (value, option) in (given or {}).items():
        _put(tree, name, _absolute(value, Path.cwd()) if name in _PATHS else value)
        origins[name] = option
    if path is None and "bundle" not in tree:
        raise UsageError(
            "there is no configuration: neither ./device.toml nor /etc/edgekit/device.toml exists",
            "name one with --config, or give a bundle and --key",
        )
    if path is None and "keys" not in tree:
        raise UsageError("no public key is named that the bundle must be signed with", "add --key PUB.PEM")
    _fill_in(tree, origins, path, environ)
    what = f"configuration {path}" if path is not None else "configuration"
    return Settings(convert(tree, DeviceConfig, what=what), path, origins)


def variables() -> dict[str, str]:
    """Every variable that is read, and the setting it stands for."""
    return {PREFIX + name.replace(".", "_").upper(): name for name, _ in _scalars(DeviceConfig)}


def _from_file(path: Path) -> tuple[Tree, dict[str, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingFile("configuration", str(path), error.strerror or str(error)) from error
    what = f"configuration {path}"
    tree = _anchored(decode_tree(data, what=what, limit=limits.CONFIG_MAX_BYTES), path.resolve().parent)
    return tree, {name: str(path) for name, _ in leaves(tree)}


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    ours = sorted(name for name in environ if name.startswith(PREFIX))
    if not ours:  # to list all settings takes longer than to read the file
        return
    kinds = dict(_scalars(DeviceConfig))
    known = variables()
    sections = tuple({PREFIX + name.partition(".")[0].upper() + "_" for name in kinds if "." in name})
    for variable in ours:
        if variable in known:
            name = known[variable]
            value = convert(environ[variable], kinds[name], what="configuration", path=variable, strict=False)
            yield name, _absolute(value, Path.cwd()) if name in _PATHS else value, variable
        elif variable.startswith(sections):
            # Other programs of ours have variables too (EDGEKIT_KEYS), but none that begins like a section of the file.
            import difflib  # takes 8 ms, which a start that goes well need not pay

            near = difflib.get_close_matches(variable, known, n=3) or sorted(known)
            raise FormatError("configuration", variable, f"there is no such setting; there is {', '.join(near)}")


def _fill_in(tree: Tree, origins: dict[str, str], path: Path | None, environ: Mapping[str, str]) -> None:
    """The defaults that depend on where we are."""
    if "device" not in tree and "telemetry" not in tree:
        # Records of two devices of one name would be taken for one device's: with telemetry, a name is given.
        tree["device"] = re.sub("[^a-z0-9_-]+", "-", os.uname().nodename.lower()).strip("-_")[:63] or "device"
        origins["device"] = "the host's name"
    if "state_dir" not in tree:
        if "STATE_DIRECTORY" in environ:  # systemd.exec(5), StateDirectory=
            tree["state_dir"], origins["state_dir"] = environ["STATE_DIRECTORY"].partition(":")[0], "STATE_DIRECTORY"
        elif path is not None:
            here = path.resolve().parent
            # As the systemd unit has it (StateDirectory=edgekit): what asks the service finds it there.
            tree["state_dir"] = "/var/lib/edgekit" if here == Path("/etc/edgekit") else str(here / "state")
        else:  # XDG Base Directory Specification
            home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
            tree["state_dir"] = str(Path(home) / "edgekit")


def _scalars(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and type of every setting that is one value."""
    for field in msgspec.structs.fields(kind):
        members = list(_members(field.type))
        section = next((one for one in members if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)
        if section is not None:
            yield from _scalars(section, f"{prefix}{field.name}.")
        elif not any(typing.get_origin(one) in {tuple, list, dict} for one in members):
            yield prefix + field.name, field.type


def _members(kind: Any) -> Iterator[Any]:
    """The types of a union, without what is annotated of them."""
    if typing.get_origin(kind) is Annotated:
        yield from _members(typing.get_args(kind)[0])
    elif typing.get_origin(kind) in {typing.Union, types.UnionType}:
        for one in typing.get_args(kind):
            yield from _members(one)
    else:
        yield kind


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested tables, named by the way to it: `serve.port`, `models[0].bundle`."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) for one in value):
            for index, one in enumerate(value):
                yield from leaves(one, f"{prefix}{name}[{index}].")
        else:
            yield prefix + name, value


def _put(tree: Tree, name: str, value: object) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            raise FormatError("configuration", f"$.{section}", "is a table")
        tree = inner
    tree[last] = value


def _anchored(tree: Any, base: Path, name: str = "") -> Any:
    """A tree whose paths are absolute."""
    if isinstance(tree, dict):
        return {key: _anchored(value, base, f"{name}.{key}".lstrip(".")) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_anchored(one, base, name) for one in tree]
    return _absolute(tree, base) if name in _PATHS else tree


def _absolute(value: object, base: Path) -> object:
    if isinstance(value, str):
        return str(base / value)
    return [_absolute(one, base) for one in value] if isinstance(value, (list, tuple)) else value
