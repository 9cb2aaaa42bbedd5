"""Where signing keys live: `$EDGEKIT_KEYS`, or `edgekit/keys` in the user's configuration directory (XDG)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_contracts.errors import UsageError

if TYPE_CHECKING:
    from edgekit_converters.signing import SigningKey
    from edgekit_runtime.signature import PublicKey


def directory() -> Path:
    """The directory of this user's key pair."""
    if "EDGEKIT_KEYS" in os.environ:
        return Path(os.environ["EDGEKIT_KEYS"])
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit" / "keys"


def signing_key(path: Path | None) -> tuple[SigningKey, bool]:
    """The key to sign with: the file that is named, else the user's own, which is made when it is first needed.

    Returns:
        The key, and whether it was made now.

    Raises:
        MissingFile, UsageError: The file holds no key.
        StorageFault: A new key cannot be written.
    """
    from edgekit_converters.signing import PRIVATE_NAME, SigningKey

    private = path or directory() / PRIVATE_NAME
    if path is None and not private.exists():
        return SigningKey.create(directory()), True
    return SigningKey.load(private), False


def trusted_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """The keys to check against: the files that are named, else the user's own.

    Raises:
        MissingFile, UsageError: A file holds no key, or there is none.
    """
    from edgekit_converters.signing import PUBLIC_NAME
    from edgekit_runtime.signature import load_public_keys

    own = directory() / PUBLIC_NAME
    if not paths and not own.exists():
        raise UsageError("no key to check the signature with", "name the signer's public key with --key PUB.PEM")
    return load_public_keys(paths or [own])
