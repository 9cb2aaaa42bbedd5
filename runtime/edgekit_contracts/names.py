"""The names that appear in paths, topics and certificates, and the types that check them."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from edgekit_contracts.errors import UnknownName

# msgspec searches, and `$` also matches before a final newline: (?!\n) forbids that.
DEVICE_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}(?!\n)$"
"""No dot, slash, plus or hash: a name that breaks out of a topic cannot be written (telemetry facts, section 7)."""
MODEL_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}(?!\n)$"
VERSION_PATTERN: Final = r"^[0-9][0-9A-Za-z.+-]{0,62}(?!\n)$"

HOLDER_PATTERN: Final = rf"^(?:(?:collector|app)\.)?{DEVICE_PATTERN[1:-1]}$"
"""Whom a client's certificate may name: a device, `collector.NAME` or `app.NAME`. No device's name has a dot."""

DeviceName = Annotated[str, msgspec.Meta(pattern=DEVICE_PATTERN)]
ModelName = Annotated[str, msgspec.Meta(pattern=MODEL_PATTERN)]
Version = Annotated[str, msgspec.Meta(pattern=VERSION_PATTERN)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
BinsId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}(?!\n)$")]
Count = Annotated[int, msgspec.Meta(ge=0)]

_RULE: Final = "a lower-case letter or digit, then up to 62 of a-z 0-9 _ -"
_VERSION_RULE: Final = "a digit, then up to 62 of 0-9 A-Z a-z . + -"
RULES: Final = {DEVICE_PATTERN: _RULE, MODEL_PATTERN: _RULE, VERSION_PATTERN: _VERSION_RULE}
"""What the patterns mean to a person."""


def check_device(name: str) -> str:
    """Returns `name` if it may name a device.

    Raises:
        UnknownName: It may not.
    """
    if re.fullmatch(DEVICE_PATTERN[1:-1], name) is None:
        raise UnknownName("device's name", name, _RULE)
    return name


def check_holder(name: str) -> str:
    """Returns `name` if it may stand in a client's certificate.

    Raises:
        UnknownName: It may not.
    """
    if re.fullmatch(HOLDER_PATTERN[1:-1], name) is None:
        raise UnknownName("certificate's name", name, f"a device's name ({_RULE}), collector.NAME or app.NAME")
    return name


def check_model(name: str) -> str:
    """Returns `name` if it may name a model.

    Raises:
        UnknownName: It may not.
    """
    if re.fullmatch(MODEL_PATTERN[1:-1], name) is None:
        raise UnknownName("model's name", name, _RULE)
    return name


def check_version(version: str) -> str:
    """Returns `version` if it may be a model's version.

    Raises:
        UnknownName: It may not.
    """
    if re.fullmatch(VERSION_PATTERN[1:-1], version) is None:
        raise UnknownName("version", version, _VERSION_RULE)
    return version
