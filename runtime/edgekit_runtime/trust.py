"""Whose bundles are trusted where nobody says it: those of this device's settings, else the user's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edgekit_contracts.errors import UsageError

PUBLIC_NAME: Final = "edgekit.pub.pem"
"""The file of a public key beside its private one."""


def own_directory() -> Path:
    """Where the user's own keys lie: `$EDGEKIT_KEYS`, or `edgekit/keys` in the configuration directory (XDG)."""
    if "EDGEKIT_KEYS" in os.environ:
        return Path(os.environ["EDGEKIT_KEYS"])
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit" / "keys"


def own_key() -> Path:
    """The user's own public key, if there is one."""
    return own_directory() / PUBLIC_NAME


def keys_here() -> list[Path]:
    """The public keys that are trusted here.

    Raises:
        MissingFile, FormatError: The settings cannot be read, or are wrong.
        UsageError: There are no settings, and the user has no key of his own.
    """
    from edgekit_runtime.settings import find_file, load_settings

    file = find_file(None)
    if file is not None:
        return [Path(key) for key in load_settings(file).config.keys]
    own = own_key()
    if not own.exists():
        raise UsageError(
            "no key to check the signature with: there is no device.toml here, and you have no key of your own",
            "name the signer's public key (--key PUB.PEM, or keys= in Python)",
        )
    return [own]
