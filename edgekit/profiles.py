"""Finds device profiles: those that ship with edgekit, a file of one's own, or this machine, measured now."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError, MissingExtra, MissingFile, TooLarge, UnknownProfile, UnsupportedFormat
from edgekit_contracts.profile import DeviceProfile, decode_profile

THIS_MACHINE: Final = "this-machine"
SUFFIX: Final = ".toml"

# The wheel carries the folder inside the package; an editable install or a checkout has it beside the package.
_FOLDERS: Final = (Path(__file__).parent / "device_profiles", Path(__file__).parent.parent / "device_profiles")


def names() -> tuple[str, ...]:
    """Names of the profiles that ship with edgekit, sorted."""
    folder = _folder()
    return tuple(sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))) if folder else ()


def load(name_or_path: str) -> DeviceProfile:
    """Reads a profile.

    Args:
        name_or_path: One of `names()`; `this-machine`, to measure the machine that this runs on (about two seconds,
            needs the extra `build`); or the path of a file, which ends in `.toml` or has a slash in it.

    Raises:
        UnknownProfile: No profile of that name.
        MissingFile: No file at that path, or it cannot be read.
        FormatError, TooLarge, UnsupportedFormat: The file is no device profile that this release reads.
        MissingExtra: `this-machine` without the libraries to measure it.
        EnvironmentFault: `this-machine` is none that the runtime is made for.
    """
    if name_or_path == THIS_MACHINE:
        return _measured()
    folder = _folder()
    if folder is not None and name_or_path in names():
        return _read(folder / f"{name_or_path}{SUFFIX}")
    if name_or_path.endswith(SUFFIX) or "/" in name_or_path:
        return _read(Path(name_or_path))
    raise UnknownProfile(name_or_path, (*names(), THIS_MACHINE))


def _folder() -> Path | None:
    return next((folder for folder in _FOLDERS if folder.is_dir()), None)


def _read(path: Path) -> DeviceProfile:
    try:
        with path.open("rb") as file:
            # One byte more than the limit is enough for the decoder to refuse it.
            data = file.read(limits.PROFILE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingFile("device profile", str(path)) from error
    except OSError as error:
        raise MissingFile("device profile", str(path), error.strerror or type(error).__name__) from error
    try:
        return decode_profile(data)
    except FormatError as error:
        raise FormatError(f"device profile {path}", error.path, error.fault) from error
    except UnsupportedFormat as error:
        raise UnsupportedFormat(f"device profile {path}", error.found, "edgekit-profile/1.x") from error
    except TooLarge as error:
        raise TooLarge(f"device profile {path}", path.stat().st_size, limits.PROFILE_MAX_BYTES) from error


def _measured() -> DeviceProfile:
    try:
        # Heavy, and not there without the extra: onnx and onnxruntime.
        from edgekit_converters.calibrate import this_machine
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "onnxruntime", "edgekit-toolkit", "build") from error
    return this_machine()
